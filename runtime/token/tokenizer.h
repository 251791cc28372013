// Tokenizer: text <-> token ids, from the metadata of a GGUF file alone. Byte-level BPE ("gpt2"),
// BPE of characters ("gemma4") and SentencePiece ("llama") vocabularies. Same ids as llama.cpp for
// the same file and text. Thread: immutable after make(); encode and decode may be called from any
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/io/gguf.h"

namespace spillway {

enum class TokenKind : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct EncodeOptions {
  bool add_special = true;    // BOS / EOS as the model's metadata asks
  bool parse_special = true;  // "<|im_start|>" in the text is the token, not its letters
};

class Tokenizer {
 public:
  // Throws Error naming key and reason when the vocabulary is missing, inconsistent (lengths of
  // tokens, scores, types; ids out of range; bad merges) or of an unsupported kind.
  static Tokenizer make(const Gguf& gguf);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Ids of a text. Any bytes are accepted: what is not UTF-8 is encoded bytewise. A character that
  // the vocabulary cannot spell is the unknown token (llama) or left out (gpt2, as llama.cpp does).
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;

  // The bytes of one token as they appear in the text. Control tokens give "" unless with_special.
  std::string piece(int32_t token, bool with_special = false) const;
  // All of them, joined, without the blanks that encode() puts before a SentencePiece text and
  // behind its special tokens; so that decode(encode(text)) is the text, with and without BOS, and
  // with_special also where special tokens are spelled out in it.
  std::string decode(std::span<const int32_t> tokens, bool with_special = false) const;

  int32_t vocab_size() const;
  TokenKind kind(int32_t token) const;
  std::string_view token_text(int32_t token) const;  // as in the file
  std::optional<int32_t> find(std::string_view token_text) const;

  std::optional<int32_t> bos() const;
  std::optional<int32_t> eos() const;
  // Ends a turn or the text: EOS, EOT, and the known end markers ("<|im_end|>", "<|eot_id|>", …).
  bool is_end(int32_t token) const;
  bool adds_bos() const;
  bool adds_eos() const;
  // Model kind and pre-tokeniser, for tables: "gpt2 (smollm)".
  std::string description() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace spillway
