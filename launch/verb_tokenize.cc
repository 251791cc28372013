// spillway tokenize: text on standard input to token ids on one line, or with --decode back. What
// one direction writes the other reads: with the same flags the bytes that come back are the bytes
// that went in, but for what a vocabulary cannot say (a byte without a token, "▁" itself in a
// SentencePiece text).
#include <charconv>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/error.h"
#include "launch/standard_streams.h"
#include "launch/verbs.h"
#include "runtime/io/gguf.h"
#include "runtime/token/tokenizer.h"

namespace spillway {
namespace {

constexpr std::string_view kWhiteSpace = " \t\n\v\f\r";

std::string id_line(std::span<const int32_t> ids) {
  std::string line;
  line.reserve(ids.size() * 6);
  char digits[16];
  for (const int32_t id : ids) {
    if (!line.empty()) line += ' ';
    line.append(digits, std::to_chars(digits, digits + sizeof(digits), id).ptr);
  }
  return line += '\n';
}

int32_t parse_id(std::string_view word, size_t offset, size_t count, int32_t vocab_size) {
  const std::string where =
      "standard input, byte " + std::to_string(offset) + ", word " + std::to_string(count);
  int64_t id = 0;
  const char* end = word.data() + word.size();
  const auto result = std::from_chars(word.data(), end, id);
  if (result.ec == std::errc::invalid_argument || result.ptr != end) {
    throw Error("\"" + std::string(word.substr(0, 40)) + "\" is not a token id", where,
                "give decimal numbers parted by blanks, as tokenize prints them");
  }
  if (result.ec != std::errc() || id < 0 || id >= vocab_size) {
    throw Error("token " + std::string(word.substr(0, 40)) + " is out of range, the vocabulary " +
                    "has 0 to " + std::to_string(vocab_size - 1),
                where, "use the model that made the ids");
  }
  return static_cast<int32_t>(id);
}

std::vector<int32_t> parse_ids(std::string_view text, int32_t vocab_size) {
  std::vector<int32_t> ids;
  size_t at = text.find_first_not_of(kWhiteSpace);
  while (at != std::string_view::npos) {
    const size_t end = std::min(text.find_first_of(kWhiteSpace, at), text.size());
    ids.push_back(parse_id(text.substr(at, end - at), at, ids.size() + 1, vocab_size));
    at = text.find_first_not_of(kWhiteSpace, end);
  }
  return ids;
}

// Without the BOS and EOS that encoding puts around every text.
std::span<const int32_t> own_ids(std::span<const int32_t> ids, const Tokenizer& tokenizer) {
  if (tokenizer.adds_bos() && !ids.empty() && ids.front() == tokenizer.bos()) ids = ids.subspan(1);
  if (tokenizer.adds_eos() && !ids.empty() && ids.back() == tokenizer.eos()) {
    ids = ids.first(ids.size() - 1);
  }
  return ids;
}

}  // namespace

int verb_tokenize(const Options& options) {
  const Gguf gguf = Gguf::open(options.model);
  const Tokenizer tokenizer = Tokenizer::make(gguf);
  const std::string input = read_standard_input(options.text.decode ? "a list of ids" : "the text");
  if (options.text.decode) {
    const std::vector<int32_t> ids = parse_ids(input, tokenizer.vocab_size());
    const auto text_ids = options.text.no_bos ? std::span(ids) : own_ids(ids, tokenizer);
    write_standard_output(tokenizer.decode(text_ids, true));
  } else {
    const EncodeOptions encode{.add_special = !options.text.no_bos,
                               .parse_special = !options.text.no_parse_special};
    write_standard_output(id_line(tokenizer.encode(input, encode)));
  }
  return 0;
}

}  // namespace spillway
