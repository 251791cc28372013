// See pretokenize.h. PCRE2 (JIT where the system allows it) does the matching; manual: pcre2api(3).
#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/token/pretokenize.h"

#include <pcre2.h>

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "runtime/token/tokenizer_utf8.h"

namespace spillway {
namespace {

// Unicode's White_Space (PropList.txt, 15.0), for the inside of a character class.
constexpr std::string_view kWhiteSpace =
    "\\x09-\\x0D\\x20\\x85\\xA0\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}"
    "\\x{3000}";

std::string pcre_text(int code) {
  PCRE2_UCHAR buffer[160] = {};
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

bool has_name(const PretokenizerKind& kind, std::string_view name) {
  std::string_view names = kind.names;
  while (!names.empty()) {
    size_t end = std::min(names.find(' '), names.size());
    if (names.substr(0, end) == name) return true;
    names.remove_prefix(std::min(end + 1, names.size()));
  }
  return false;
}

// Cuts [begin, end), a run of numbers, into threes from its right; [done, begin) stays with the
// first. Returns what is done then: end.
size_t cut_threes(std::string_view piece, size_t done, size_t begin, size_t end,
                  bool parts_whole_threes, std::vector<std::string_view>& pieces) {
  const auto starts_number = [&](size_t at) {
    return (static_cast<uint8_t>(piece[at]) & 0xC0) != 0x80;
  };
  size_t left = 0;  // numbers that are not cut yet
  for (size_t at = begin; at < end; ++at) left += starts_number(at);
  for (size_t at = begin; at < end; ++at) {
    if (!starts_number(at)) continue;
    const bool cuts = left % 3 == 0 && (at > begin || parts_whole_threes);
    if (cuts && at > done) {
      pieces.push_back(piece.substr(done, at - done));
      done = at;
    }
    --left;
  }
  pieces.push_back(piece.substr(done, end - done));
  return end;
}

}  // namespace

struct Pretokenizer::Pattern {
  pcre2_code* code = nullptr;
  bool threes = false;              // matches are runs of numbers, cut from the right
  bool parts_whole_threes = false;  // kAsciiThreesFromRight
  ~Pattern() { pcre2_code_free(code); }
};

Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;

std::string spell_out_white_space(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '[' && !in_class) in_class = true;
    if (pattern[i] == ']') in_class = false;
    if (pattern[i] != '\\' || i + 1 == pattern.size()) {
      out += pattern[i];
      continue;
    }
    char escaped = pattern[++i];
    if (escaped == 's') {
      out += in_class ? std::string(kWhiteSpace) : "[" + std::string(kWhiteSpace) + "]";
    } else if (escaped == 'S') {
      CHECK(!in_class);  // cannot be said in a class
      out += "[^" + std::string(kWhiteSpace) + "]";
    } else {
      out += '\\';
      out += escaped;
    }
  }
  return out;
}

Pretokenizer Pretokenizer::make(std::string_view name, const std::string& where) {
  Pretokenizer made;
  std::string known;
  for (const PretokenizerKind& kind : pretokenizer_kinds()) {
    if (has_name(kind, name.empty() ? "default" : name)) made.kind_ = &kind;
    known.append(known.empty() ? "" : " ").append(kind.names);
  }
  if (made.kind_ == nullptr) {
    throw Error("pre-tokeniser '" + std::string(name.substr(0, 80)) + "' (tokenizer.ggml.pre) is " +
                    "not known; known are: " + known,
                where, "give another model, or one of these names if the model uses its patterns");
  }
  for (std::string_view text : made.kind_->patterns) made.patterns_.push_back(compile(text));
  return made;
}

std::unique_ptr<Pretokenizer::Pattern> Pretokenizer::compile(std::string_view text) {
  auto pattern = std::make_unique<Pattern>();
  pattern->parts_whole_threes = text == kAsciiThreesFromRight;
  pattern->threes = pattern->parts_whole_threes || text == kThreesFromRight;
  if (pattern->threes) text = pattern->parts_whole_threes ? "[0-9]+" : "\\p{N}+";
  const std::string spelled = spell_out_white_space(text);
  int code = 0;
  PCRE2_SIZE offset = 0;
  pattern->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelled.data()), spelled.size(),
                                PCRE2_UTF | PCRE2_NO_UTF_CHECK, &code, &offset, nullptr);
  if (pattern->code == nullptr) {
    throw Error("PCRE2 cannot compile the pre-tokeniser's pattern: " + pcre_text(code) + " at " +
                    std::to_string(offset),
                spelled, "use PCRE2 10.39 or later, built with Unicode support");
  }
  // Refused where memory may not be executable: the interpreter then does it, 10 times slower.
  pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE);
  return pattern;
}

void Pretokenizer::cut(const Pattern& pattern, pcre2_match_data* match, std::string_view piece,
                       std::vector<std::string_view>& pieces) const {
  const PCRE2_SIZE* ovector = pcre2_get_ovector_pointer(match);
  size_t done = 0;  // [0, done) is in pieces
  size_t at = 0;
  while (at < piece.size()) {
    int result = pcre2_match(pattern.code, reinterpret_cast<PCRE2_SPTR>(piece.data()), piece.size(),
                             at, PCRE2_NO_UTF_CHECK, match, nullptr);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      throw Error("the pre-tokeniser's pattern failed: " + pcre_text(result),
                  "a text of " + std::to_string(piece.size()) + " bytes");
    }
    CHECK_LT(ovector[0], ovector[1]);  // no pattern of the table matches nothing
    at = ovector[1];
    if (pattern.threes) {
      done = cut_threes(piece, done, ovector[0], at, pattern.parts_whole_threes, pieces);
      continue;
    }
    if (ovector[0] > done) pieces.push_back(piece.substr(done, ovector[0] - done));
    pieces.push_back(piece.substr(ovector[0], at - ovector[0]));
    done = at;
  }
  if (done < piece.size()) pieces.push_back(piece.substr(done));
}

void Pretokenizer::split(std::string_view text, std::vector<std::string_view>& words) const {
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  if (match == nullptr) throw Error("no memory for a pattern match");
  std::vector<std::string_view> pieces;
  std::vector<std::string_view> cut_pieces;
  while (!text.empty()) {
    size_t valid = utf8_valid_prefix(text);
    if (valid > 0) pieces.assign(1, text.substr(0, valid));
    for (const std::unique_ptr<Pattern>& pattern : patterns_) {
      cut_pieces.clear();
      for (std::string_view piece : pieces) cut(*pattern, match.get(), piece, cut_pieces);
      pieces.swap(cut_pieces);
    }
    words.insert(words.end(), pieces.begin(), pieces.end());
    pieces.clear();
    text.remove_prefix(valid);
    if (text.empty()) break;
    int invalid = utf8_front(text).bytes;
    words.push_back(text.substr(0, invalid));
    text.remove_prefix(invalid);
  }
}

}  // namespace spillway
