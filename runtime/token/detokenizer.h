// Detokenizer: the text of a growing sequence, handed out in whole UTF-8 characters only. One per
// sequence, used by one thread; holds at most a few bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/token/tokenizer.h"

namespace spillway {

class Detokenizer {
 public:
  // first_at_start: the first token begins the text (its SentencePiece space is dropped).
  explicit Detokenizer(const Tokenizer& tokenizer, bool first_at_start = false);

  // The text that this token completes; may be empty while a character is open.
  std::string push(int32_t token);
  // What is left at the end: an unfinished character becomes U+FFFD.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  std::string open_;
  bool at_start_;
};

}  // namespace spillway
