// See tokenizer.h. The steps: special tokens are found, what lies between them goes to Bpe or Spm.
#include "runtime/token/tokenizer.h"

#include <algorithm>
#include <cctype>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "runtime/token/bpe.h"
#include "runtime/token/spm.h"
#include "runtime/token/tokenizer_special.h"
#include "runtime/token/tokenizer_vocab.h"

namespace spillway {
namespace {

constexpr const char* kModelKey = "tokenizer.ggml.model";
constexpr const char* kAddBosKey = "tokenizer.ggml.add_bos_token";
constexpr const char* kAddEosKey = "tokenizer.ggml.add_eos_token";

bool is_spm(const Gguf& gguf) {
  std::string_view model = gguf.require_string(kModelKey);
  if (model != "llama" && model != "gpt2" && model != "gemma4") {
    throw Error("tokeniser '" + std::string(model.substr(0, 80)) + "' (" + kModelKey +
                    ") is not supported, supported are gpt2 (byte-level BPE), gemma4 "
                    "(BPE of characters) and llama (SentencePiece)",
                gguf.paths().front(), "give a model with one of these vocabularies");
  }
  return model == "llama";
}

// Phi-3 was trained without the white space behind its special tokens; its files do not say so.
bool strips_after_special(const Gguf& gguf) {
  std::string name(gguf.string_or("general.name", ""));
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name.find("phi-3") != std::string::npos || name.find("phi3") != std::string::npos;
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(const Gguf& gguf)
      : vocabulary(gguf, is_spm(gguf)), special(vocabulary, strips_after_special(gguf)) {
    if (is_spm(gguf)) {
      spm.emplace(vocabulary);
    } else {
      bpe.emplace(vocabulary);
    }
    add_bos = gguf.bool_or(kAddBosKey, spm || bpe->pretokenizer().adds_bos);
    // Gemma 4's first files say that it wants none.
    if (plain_text() && vocabulary.bos() >= 0) add_bos = true;
    add_eos = gguf.bool_or(kAddEosKey, false);
    add_space = gguf.bool_or("tokenizer.ggml.add_space_prefix", spm.has_value());
    require_id(kAddBosKey, add_bos, vocabulary.bos());
    require_id(kAddEosKey, add_eos, vocabulary.eos());
    if (vocabulary.bos() < 0) add_bos = false;
  }

  // A file that asks for a token must have it; a mere default gives way.
  void require_id(const char* key, bool wanted, int32_t id) const {
    if (!wanted || id >= 0 || vocabulary.gguf().find(key) == nullptr) return;
    throw Error(std::string(key) + " is true, but the file names no such token", vocabulary.path(),
                "convert the model again");
  }

  // "▁" in a token is a blank.
  bool plain_text() const { return bpe && bpe->pretokenizer().plain_text; }

  Vocabulary vocabulary;
  SpecialMatcher special;
  std::optional<Bpe> bpe;
  std::optional<Spm> spm;
  bool add_bos = false;
  bool add_eos = false;
  bool add_space = false;  // a blank before text that begins or follows a special token (spm)
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::make(const Gguf& gguf) { return Tokenizer(std::make_unique<Impl>(gguf)); }

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  if (options.add_special && impl_->add_bos) ids.push_back(impl_->vocabulary.bos());
  bool after_special = true;
  for (const TextPiece& piece : impl_->special.split(text, options.parse_special)) {
    if (piece.token >= 0) {
      ids.push_back(piece.token);
    } else if (impl_->spm) {
      impl_->spm->encode(piece.text, impl_->add_space && after_special, ids);
    } else {
      impl_->bpe->encode(piece.text, ids);
    }
    after_special = piece.token >= 0;
  }
  if (options.add_special && impl_->add_eos) ids.push_back(impl_->vocabulary.eos());
  return ids;
}

std::string Tokenizer::piece(int32_t token, bool with_special) const {
  std::string_view text = token_text(token);
  switch (kind(token)) {
    case TokenKind::kControl:
    case TokenKind::kUnknown:
      return with_special ? std::string(text) : "";
    case TokenKind::kUserDefined:
      return std::string(text);
    case TokenKind::kByte: {
      std::optional<uint8_t> byte = Vocabulary::byte_value(text);
      return byte ? std::string(1, static_cast<char>(*byte)) : std::string(text);
    }
    case TokenKind::kUnused:
      if (!with_special) return "";
      break;
    case TokenKind::kNormal:
      break;
  }
  const bool blanks = impl_->spm || impl_->plain_text();
  return blanks ? Spm::decode_text(text) : Bpe::decode_text(text);
}

std::string Tokenizer::decode(std::span<const int32_t> tokens, bool with_special) const {
  std::string text;
  bool after_special = true;
  for (int32_t token : tokens) {
    std::string next = piece(token, with_special);
    const TokenKind its_kind = kind(token);
    const bool special = its_kind == TokenKind::kControl || its_kind == TokenKind::kUserDefined ||
                         its_kind == TokenKind::kUnknown;
    const bool added_blank = impl_->add_space && after_special && !special;
    text += added_blank && next.starts_with(' ') ? std::string_view(next).substr(1) : next;
    after_special = special;
  }
  return text;
}

int32_t Tokenizer::vocab_size() const { return impl_->vocabulary.size(); }

TokenKind Tokenizer::kind(int32_t token) const {
  CHECK_GE(token, 0);
  CHECK_LT(token, vocab_size());
  return impl_->vocabulary.kind(token);
}

std::string_view Tokenizer::token_text(int32_t token) const {
  CHECK_GE(token, 0);
  CHECK_LT(token, vocab_size());
  return impl_->vocabulary.text(token);
}

std::optional<int32_t> Tokenizer::find(std::string_view token_text) const {
  int32_t id = impl_->vocabulary.find(token_text);
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

std::optional<int32_t> Tokenizer::bos() const {
  int32_t id = impl_->vocabulary.bos();
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

std::optional<int32_t> Tokenizer::eos() const {
  int32_t id = impl_->vocabulary.eos();
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

bool Tokenizer::is_end(int32_t token) const { return impl_->vocabulary.is_end(token); }
bool Tokenizer::adds_bos() const { return impl_->add_bos; }
bool Tokenizer::adds_eos() const { return impl_->add_eos; }

std::string Tokenizer::description() const {
  if (impl_->spm) return "llama (SentencePiece)";
  if (impl_->plain_text()) return "gemma4 (BPE of characters)";
  std::string_view pre = impl_->vocabulary.gguf().string_or("tokenizer.ggml.pre", "");
  return "gpt2 (" + std::string(pre.empty() ? "default" : pre) + ")";
}

}  // namespace spillway
