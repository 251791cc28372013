// Vocabulary: the tokens of a GGUF file, their kinds, scores and special roles. Called by
// Tokenizer, Bpe and Spm; knows no algorithm of splitting text.
// Thread: immutable after load(). Owns a handle of the Gguf, into which the token texts point.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/io/gguf.h"
#include "runtime/token/tokenizer.h"
#include "runtime/token/tokenizer_index.h"

namespace spillway {

class Vocabulary {
 public:
  // Throws Error as Tokenizer::make says. SentencePiece (spm) files need scores.
  Vocabulary(const Gguf& gguf, bool spm);
  Vocabulary(const Vocabulary&) = delete;  // index_ refers to texts_
  Vocabulary& operator=(const Vocabulary&) = delete;

  int32_t size() const { return static_cast<int32_t>(texts_.size()); }
  std::string_view text(int32_t id) const { return texts_[id]; }
  TokenKind kind(int32_t id) const { return kinds_[id]; }
  float score(int32_t id) const { return scores_[id]; }  // spm only
  int32_t find(std::string_view text) const { return index_.find(text); }
  // The token "<0xNN>" of a byte, or -1.
  int32_t find_byte(uint8_t byte) const;
  // The byte of a token "<0xNN>".
  static std::optional<uint8_t> byte_value(std::string_view text);

  int32_t bos() const { return bos_; }  // -1 when there is none, as the next two
  int32_t eos() const { return eos_; }
  int32_t unknown() const { return unknown_; }
  bool is_end(int32_t id) const;

  const Gguf& gguf() const { return gguf_; }
  // Of an Error about a metadata key.
  const std::string& path() const { return gguf_.paths().front(); }

 private:
  void read_texts();
  void read_kinds();
  void read_scores();
  int32_t read_id(const char* key, int32_t fallback) const;
  void find_ends();
  void mark_control(std::string_view text);

  Gguf gguf_;
  std::vector<std::string_view> texts_;
  std::deque<std::string> made_up_;  // texts of tokens that have none in the file
  std::vector<TokenKind> kinds_;
  std::vector<float> scores_;
  TextIndex index_;
  std::vector<int32_t> ends_;  // sorted
  int32_t bos_ = -1;
  int32_t eos_ = -1;
  int32_t unknown_ = -1;
};

}  // namespace spillway
