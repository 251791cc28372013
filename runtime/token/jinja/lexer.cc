// The lexer's two modes: text between tags, where white space is trimmed, and the inside of a tag,
// where brackets are balanced so that "}}" closing two dicts does not end the tag.
//
// White space, as Jinja has it with trim_blocks and lstrip_blocks:
//   {%-  {{-  {#-   strip all white space before the tag;      -%}  -}}  -#}  all behind it
//   {%   {#         strip blanks before the tag when only blanks stand before it on its line
//   {%+  {{+  {#+   strip nothing before
//   %}   #}         take one line break behind the tag;         +%}  +#}  take nothing
#include "runtime/token/jinja/lexer.h"

#include <charconv>

#include "kernels/core/error.h"
#include "runtime/token/jinja/literals.h"
#include "runtime/token/jinja/text.h"

namespace spillway::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

// "\r\n" and "\r" become "\n"; one line break at the very end is dropped.
std::string normalize_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_lines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text_until_tag();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) {
    throw Error("line " + std::to_string(line_at(at_)) + ": " + what, "chat template");
  }

  int line_at(size_t offset) {
    for (; counted_ < offset; ++counted_) line_ += source_[counted_] == '\n';
    return line_;
  }

  bool looking_at(std::string_view s) const {
    return std::string_view(source_).substr(at_).starts_with(s);
  }

  Token& add(TokenKind kind, std::string text) {
    Token& token = tokens_.emplace_back();
    token.kind = kind;
    token.line = line_at(at_);
    token.text = std::move(text);
    return token;
  }

  void text_until_tag() {
    size_t open = at_;
    while (true) {
      open = source_.find('{', open);
      if (open == std::string::npos || open + 1 >= source_.size()) {
        add_data(at_, source_.size());
        at_ = source_.size();
        return;
      }
      const char next = source_[open + 1];
      if (next == '%' || next == '{' || next == '#') break;
      ++open;
    }
    const char type = source_[open + 1];
    const size_t inside = open + 2;
    const char sign = inside < source_.size() ? source_[inside] : '\0';
    add_data(at_, trimmed_end(at_, open, sign, type != '{'));
    at_ = inside + (sign == '-' || sign == '+' ? 1 : 0);
    if (type == '#') {
      comment(open);
    } else if (type == '{') {
      add(TokenKind::kVariableBegin, "");
      tag(TokenKind::kVariableEnd);
    } else if (!raw_block()) {
      add(TokenKind::kBlockBegin, "");
      tag(TokenKind::kBlockEnd);
    }
    line_starts_ = at_ > 0 && source_[at_ - 1] == '\n';
  }

  // Where the text [begin, end) before a tag ends once its white space is trimmed.
  size_t trimmed_end(size_t begin, size_t end, char sign, bool strips_blanks) const {
    const auto text = std::string_view(source_).substr(begin, end - begin);
    if (sign == '-') return begin + strip(text, std::nullopt, false, true).size();
    if (sign == '+' || !strips_blanks) return end;
    const size_t line_break = text.rfind('\n');
    const size_t line_begin = line_break == std::string_view::npos ? 0 : line_break + 1;
    if (line_begin == 0 && !line_starts_) return end;
    const bool blank = strip(text.substr(line_begin), std::nullopt, true, false).empty();
    return blank ? begin + line_begin : end;
  }

  void add_data(size_t begin, size_t end) {
    if (begin < end) add(TokenKind::kData, source_.substr(begin, end - begin));
  }

  // Behind a tag that ended with `sign`: all white space for '-', one line break if `takes_break`.
  void trim_behind(char sign, bool takes_break) {
    if (sign == '-') {
      const auto rest = std::string_view(source_).substr(at_);
      at_ = source_.size() - strip(rest, std::nullopt, true, false).size();
    } else if (sign != '+' && takes_break && looking_at("\n")) {
      ++at_;
    }
  }

  void comment(size_t open) {
    const size_t close = source_.find("#}", at_);
    if (close == std::string::npos) {
      at_ = open;
      fail("the comment is not closed with #}");
    }
    const char sign = close > at_ ? source_[close - 1] : '\0';
    at_ = close + 2;
    trim_behind(sign, true);
  }

  void skip_space() {
    while (at_ < source_.size()) {
      size_t next = at_;
      if (!is_space(next_code_point(source_, next))) return;
      at_ = next;
    }
  }

  // Reads "name" and the end of the tag; at_ moves only when it is there. Returns the sign.
  bool bare_tag(std::string_view name, char& sign) {
    const size_t begin = at_;
    skip_space();
    if (looking_at(name)) {
      at_ += name.size();
      skip_space();
      for (std::string_view end : {"%}", "-%}", "+%}"}) {
        if (!looking_at(end)) continue;
        sign = end.front();
        at_ += end.size();
        return true;
      }
    }
    at_ = begin;
    return false;
  }

  // {% raw %} … {% endraw %}: everything between is text. False: this tag is another one.
  bool raw_block() {
    char sign = '\0';
    if (!bare_tag("raw", sign)) return false;
    trim_behind(sign, false);
    const size_t begin = at_;
    line_starts_ = begin > 0 && source_[begin - 1] == '\n';
    for (size_t open = source_.find("{%", begin); open != std::string::npos;
         open = source_.find("{%", open + 1)) {
      at_ = open + 2;
      const char before = at_ < source_.size() ? source_[at_] : '\0';
      if (before == '-' || before == '+') ++at_;
      if (!bare_tag("endraw", sign)) continue;
      const size_t behind = at_;
      at_ = begin;
      add_data(begin, trimmed_end(begin, open, before, true));
      at_ = behind;
      trim_behind(sign, true);
      return true;
    }
    at_ = begin;
    fail("{% raw %} is not closed with {% endraw %}");
  }

  void tag(TokenKind end_kind) {
    const bool block = end_kind == TokenKind::kBlockEnd;
    const std::string_view end = block ? "%}" : "}}";
    std::string brackets;
    while (true) {
      skip_space();
      if (at_ >= source_.size()) fail("the template ends inside of a tag");
      const char sign = source_[at_];
      const bool signed_end = (sign == '-' || (sign == '+' && block)) &&
                              std::string_view(source_).substr(at_ + 1).starts_with(end);
      if (brackets.empty() && (signed_end || looking_at(end))) {
        add(end_kind, "");
        at_ += end.size() + (signed_end ? 1 : 0);
        trim_behind(signed_end ? sign : '\0', block);
        return;
      }
      token(brackets);
    }
  }

  void token(std::string& brackets) {
    const char c = source_[at_];
    if (is_digit(c)) return number();
    if (name_start(c)) return name();
    if (c == '"' || c == '\'') return quoted_string(c);
    static constexpr std::string_view kOperators[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (std::string_view op : kOperators) {
      if (!looking_at(op)) continue;
      balance(brackets, op.front());
      add(TokenKind::kOperator, std::string(op));
      at_ += op.size();
      return;
    }
    size_t next = at_;
    next_code_point(source_, next);
    fail("unexpected character '" + source_.substr(at_, next - at_) + "'");
  }

  void balance(std::string& brackets, char c) {
    if (c == '(') brackets += ')';
    if (c == '[') brackets += ']';
    if (c == '{') brackets += '}';
    if (c != ')' && c != ']' && c != '}') return;
    if (brackets.empty() || brackets.back() != c) {
      fail(std::string("unexpected '") + c + "'" +
           (brackets.empty() ? "" : std::string(", '") + brackets.back() + "' is still open"));
    }
    brackets.pop_back();
  }

  void name() {
    size_t end = at_;
    while (end < source_.size() && (name_start(source_[end]) || is_digit(source_[end]))) ++end;
    add(TokenKind::kName, source_.substr(at_, end - at_));
    at_ = end;
  }

  void number() {
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    const NumberLiteral literal =
        read_number(std::string_view(source_).substr(at_), /*may_be_float=*/!after_dot);
    if (literal.bytes == 0) fail("this number does not fit 64 bits");
    Token& token = add(literal.is_float ? TokenKind::kFloat : TokenKind::kInteger,
                       source_.substr(at_, literal.bytes));
    token.integer = literal.integer;
    token.real = literal.real;
    at_ += literal.bytes;
  }

  void quoted_string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail("the string is not closed");
    std::string fault;
    std::string value = unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1), fault);
    if (!fault.empty()) fail(fault);
    add(TokenKind::kString, std::move(value));
    at_ = end + 1;
  }

  const std::string source_;
  size_t at_ = 0;
  bool line_starts_ = true;
  size_t counted_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  if (const auto bad = invalid_utf8(source)) {
    throw Error("byte " + std::to_string(*bad) + " is not UTF-8", "chat template");
  }
  return Lexer(source).run();
}

}  // namespace spillway::jinja
