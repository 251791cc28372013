// See detokenizer.h.
#include "runtime/token/detokenizer.h"

#include "runtime/token/tokenizer_utf8.h"

namespace spillway {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool first_at_start)
    : tokenizer_(&tokenizer), at_start_(first_at_start) {}

std::string Detokenizer::push(int32_t token) {
  if (at_start_) {
    // decode() drops the blank that encode() put before the text.
    open_ += tokenizer_->decode({&token, 1});
    at_start_ = token == tokenizer_->bos();
  } else {
    open_ += tokenizer_->piece(token);
  }
  std::string whole;
  std::string_view rest = open_;
  while (!rest.empty()) {
    Utf8Front front = utf8_front(rest);
    if (front.kind == Utf8Front::kUnfinished) break;
    whole += front.kind == Utf8Front::kWhole ? rest.substr(0, front.bytes) : kReplacement;
    rest.remove_prefix(front.bytes);
  }
  open_ = std::string(rest);
  return whole;
}

std::string Detokenizer::finish() {
  std::string rest(open_.empty() ? "" : kReplacement);
  open_.clear();
  return rest;
}

}  // namespace spillway
