// See tokenizer_vocab.h. Which texts end a turn, and which tokens are control tokens whatever the
// file calls them, follows llama.cpp (src/llama-vocab.cpp): converters do not write it down.
#include "runtime/token/tokenizer_vocab.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"

namespace spillway {
namespace {

constexpr const char* kTokensKey = "tokenizer.ggml.tokens";
constexpr const char* kScoresKey = "tokenizer.ggml.scores";
constexpr const char* kTypesKey = "tokenizer.ggml.token_type";
constexpr const char* kConvertAgain = "convert the model again or download it again";

// End a turn or the text, in whichever model they occur.
constexpr std::string_view kEndTexts[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<eos>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    "<turn|>",
    "<|tool_response>",
};
// Fill-in-the-middle tokens that end a piece of code; one of each row in a model.
constexpr std::string_view kCodeEndTexts[][5] = {
    {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"},
    {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"},
    {"<|file_sep|>", "", "", "", ""},
};
constexpr const char* kCodeEndKeys[] = {
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
};
constexpr std::string_view kCodeTexts[] = {
    "<|fim_prefix|>", "<fim-prefix>",    "<fim_prefix>",    "<｜fim▁begin｜>", "<PRE>",
    "▁<PRE>",         "<|code_prefix|>", "<|prefix|>",      "<|fim_suffix|>",  "<fim-suffix>",
    "<fim_suffix>",   "<｜fim▁hole｜>",  "<SUF>",           "▁<SUF>",          "<|code_suffix|>",
    "<|suffix|>",     "<|fim_middle|>",  "<fim-middle>",    "<fim_middle>",    "<｜fim▁end｜>",
    "<MID>",          "▁<MID>",          "<|code_middle|>", "<|middle|>",
};
// The frame of gpt-oss messages must come through as text.
constexpr std::string_view kFrameTexts[] = {"<|channel|>", "<|message|>", "<|start|>",
                                            "<|constrain|>"};

}  // namespace

Vocabulary::Vocabulary(const Gguf& gguf, bool spm) : gguf_(gguf) {
  read_texts();
  read_kinds();
  if (spm) read_scores();
  // llama.cpp's defaults of a SentencePiece file that does not say.
  bos_ = read_id("tokenizer.ggml.bos_token_id", spm && size() > 1 ? 1 : -1);
  eos_ = read_id("tokenizer.ggml.eos_token_id", spm && size() > 2 ? 2 : -1);
  unknown_ = read_id("tokenizer.ggml.unknown_token_id", spm ? 0 : -1);
  find_ends();
}

void Vocabulary::read_texts() {
  const GgufValue* value = gguf_.find(kTokensKey);
  auto texts = value == nullptr ? std::nullopt : value->as_strings();
  if (!texts || texts->empty()) {
    throw Error(std::string(kTokensKey) + " is missing or not a list of strings", path(),
                "the file has no vocabulary; give a complete model file");
  }
  if (texts->size() > static_cast<size_t>(INT32_MAX)) {
    throw Error(std::string(kTokensKey) + " has more than 2^31 entries", path(), kConvertAgain);
  }
  texts_ = std::move(*texts);
  for (size_t id = 0; id < texts_.size(); ++id) {
    if (!texts_[id].empty()) continue;
    texts_[id] = made_up_.emplace_back("[EMPTY_" + std::to_string(id) + "]");
  }
  int32_t twice = index_.fill(texts_);
  if (twice >= 0) {
    throw Error("token " + std::to_string(twice) + " has the same text as token " +
                    std::to_string(index_.find(texts_[twice])) + ": '" +
                    std::string(texts_[twice].substr(0, 80)) + "'",
                path(), kConvertAgain);
  }
}

void Vocabulary::read_kinds() {
  kinds_.assign(texts_.size(), TokenKind::kNormal);
  const GgufValue* value = gguf_.find(kTypesKey);
  if (value == nullptr) return;
  auto types = value->as_ints();
  if (!types || types->size() != texts_.size()) {
    throw Error(std::string(kTypesKey) + " must hold one integer for each of the " +
                    std::to_string(texts_.size()) + " tokens, found " + value->to_text(),
                path(), kConvertAgain);
  }
  for (size_t id = 0; id < types->size(); ++id) {
    int64_t type = (*types)[id];
    if (type < 0 || type > 6) {
      throw Error(std::string(kTypesKey) + " of token " + std::to_string(id) + " is " +
                      std::to_string(type) + ", 0 to 6 are legal",
                  path(), kConvertAgain);
    }
    kinds_[id] = type == 0 ? TokenKind::kUnused : static_cast<TokenKind>(type);
  }
}

void Vocabulary::read_scores() {
  const GgufValue* value = gguf_.find(kScoresKey);
  auto scores = value == nullptr ? std::nullopt : value->as_doubles();
  if (!scores || scores->size() != texts_.size()) {
    throw Error(std::string(kScoresKey) + " must hold one number for each of the " +
                    std::to_string(texts_.size()) + " tokens, found " +
                    (value == nullptr ? "nothing" : value->to_text()),
                path(), kConvertAgain);
  }
  scores_.reserve(scores->size());
  for (size_t id = 0; id < scores->size(); ++id) {
    if (std::isnan((*scores)[id])) {
      throw Error(std::string(kScoresKey) + " of token " + std::to_string(id) + " is not a number",
                  path(), kConvertAgain);
    }
    scores_.push_back(static_cast<float>((*scores)[id]));
  }
}

int32_t Vocabulary::read_id(const char* key, int32_t fallback) const {
  if (gguf_.find(key) == nullptr) return fallback;
  uint64_t id = gguf_.require_uint(key);
  // Some converters write -1 as an unsigned number for "none".
  if (id == UINT32_MAX || id == UINT64_MAX) return -1;
  if (id >= texts_.size()) {
    throw Error(std::string(key) + " is " + std::to_string(id) + ", the vocabulary has " +
                    std::to_string(texts_.size()) + " tokens",
                path(), kConvertAgain);
  }
  return static_cast<int32_t>(id);
}

void Vocabulary::mark_control(std::string_view text) {
  int32_t id = text.empty() ? -1 : find(text);
  if (id >= 0) kinds_[id] = TokenKind::kControl;
}

void Vocabulary::find_ends() {
  for (std::string_view text : kCodeTexts) mark_control(text);
  for (std::string_view text : kEndTexts) {
    mark_control(text);
    if (find(text) >= 0) ends_.push_back(find(text));
  }
  for (size_t row = 0; row < std::size(kCodeEndTexts); ++row) {
    int32_t end = read_id(kCodeEndKeys[row], -1);
    for (std::string_view text : kCodeEndTexts[row]) {
      mark_control(text);
      if (end < 0 && !text.empty()) end = find(text);
    }
    if (end >= 0) ends_.push_back(end);
  }
  for (std::string_view text : kFrameTexts) {
    if (find(text) >= 0) kinds_[find(text)] = TokenKind::kUserDefined;
  }
  for (int32_t id : {eos_, read_id("tokenizer.ggml.eot_token_id", -1),
                     read_id("tokenizer.ggml.eom_token_id", -1)}) {
    if (id >= 0) ends_.push_back(id);
  }
  // Where other tokens end a message, "<|end|>" only closes a part of it (gpt-oss, Solar).
  bool call = find("<|call|>") >= 0 || find("<|calls|>") >= 0;
  if (call && (find("<|return|>") >= 0 || find("<|flush|>") >= 0) && find("<|end|>") >= 0) {
    std::erase(ends_, find("<|end|>"));
    kinds_[find("<|end|>")] = TokenKind::kUserDefined;
  }
  // Gemma 4 and PLaMo have "</s>" as a piece of text.
  if ((find("<|tool_response>") >= 0 || find("<|plamo:eos|>") >= 0) && find("</s>") >= 0) {
    std::erase(ends_, find("</s>"));
    kinds_[find("</s>")] = TokenKind::kNormal;
  }
  std::sort(ends_.begin(), ends_.end());
  ends_.erase(std::unique(ends_.begin(), ends_.end()), ends_.end());
}

bool Vocabulary::is_end(int32_t id) const {
  return std::binary_search(ends_.begin(), ends_.end(), id);
}

int32_t Vocabulary::find_byte(uint8_t byte) const {
  constexpr char kHex[] = "0123456789ABCDEF";
  const char text[] = {'<', '0', 'x', kHex[byte >> 4], kHex[byte & 15], '>'};
  return find({text, sizeof(text)});
}

std::optional<uint8_t> Vocabulary::byte_value(std::string_view text) {
  auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return std::nullopt;
  int high = digit(text[3]);
  int low = digit(text[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

}  // namespace spillway
