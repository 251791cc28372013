// Reading numbers and escapes. Grammar: Python's lexical analysis, "String and Bytes literals" and
// "Numeric literals"; a backslash before any other character stays, as in Python.
#include "runtime/token/jinja/literals.h"

#include <charconv>
#include <cmath>

#include "runtime/token/jinja/text.h"

namespace spillway::jinja {
namespace {

int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

// The end of digits of a base from `at` on, single underscores between them; `at` if there is none.
size_t digits_end(std::string_view s, size_t at, int base, bool leading_underscore = false) {
  size_t end = at;
  if (leading_underscore && end + 1 < s.size() && s[end] == '_' && digit_value(s[end + 1]) < base) {
    ++end;
  }
  while (end < s.size() && digit_value(s[end]) < base) {
    ++end;
    if (end + 1 < s.size() && s[end] == '_' && digit_value(s[end + 1]) < base) ++end;
  }
  return end;
}

std::string without_underscores(std::string_view s) {
  std::string out;
  for (char c : s) {
    if (c != '_') out += c;
  }
  return out;
}

bool parse_integer(std::string_view digits, int base, NumberLiteral& out) {
  const std::string plain = without_underscores(digits);
  const auto result = std::from_chars(plain.data(), plain.data() + plain.size(), out.integer, base);
  return result.ec == std::errc();
}

// The end of the fraction and exponent behind whole digits, or `whole` when it is no float.
size_t float_end(std::string_view s, size_t whole) {
  size_t end = whole;
  if (end + 1 < s.size() && s[end] == '.' && digits_end(s, end + 1, 10) > end + 1) {
    end = digits_end(s, end + 1, 10);
  }
  if (end < s.size() && (s[end] == 'e' || s[end] == 'E')) {
    size_t begin = end + 1;
    if (begin < s.size() && (s[begin] == '+' || s[begin] == '-')) ++begin;
    if (digits_end(s, begin, 10) > begin) end = digits_end(s, begin, 10);
  }
  return end;
}

}  // namespace

NumberLiteral read_number(std::string_view s, bool may_be_float) {
  NumberLiteral out;
  const size_t whole = digits_end(s, 0, 10);
  const size_t end = may_be_float ? float_end(s, whole) : whole;
  if (end > whole) {
    const std::string plain = without_underscores(s.substr(0, end));
    const auto result = std::from_chars(plain.data(), plain.data() + plain.size(), out.real);
    if (result.ec == std::errc::result_out_of_range) {
      // Python reads 1e999 as infinity and 1e-999 as zero.
      out.real = plain.find("e-") == std::string::npos && plain.find("E-") == std::string::npos
                     ? HUGE_VAL
                     : 0.0;
    }
    out.is_float = true;
    out.bytes = end;
    return out;
  }
  if (s[0] == '0' && s.size() > 2) {
    const char mark = static_cast<char>(s[1] | 0x20);
    const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    const size_t prefixed = base == 0 ? 2 : digits_end(s, 2, base, /*leading_underscore=*/true);
    if (prefixed > 2) {
      out.bytes = parse_integer(s.substr(2, prefixed - 2), base, out) ? prefixed : 0;
      return out;
    }
  }
  // Like Jinja, "007" is read as 0, 0 and 7, which the parser then refuses.
  const size_t integer_end = s[0] == '0' ? [&] {
    size_t zeros = 1;
    while (zeros < whole && (s[zeros] == '0' || s[zeros] == '_')) ++zeros;
    while (s[zeros - 1] == '_') --zeros;
    return zeros;
  }() : whole;
  out.bytes = parse_integer(s.substr(0, integer_end), 10, out) ? integer_end : 0;
  return out;
}

std::string unescape(std::string_view s, std::string& fault) {
  std::string out;
  out.reserve(s.size());
  const auto hex = [&](size_t at, size_t count, size_t& next) -> char32_t {
    char32_t value = 0;
    for (size_t i = at; i < at + count; ++i) {
      if (i >= s.size() || digit_value(s[i]) >= 16) {
        fault = "an escape in the string needs " + std::to_string(count) + " hexadecimal digits";
        return 0;
      }
      value = value * 16 + static_cast<char32_t>(digit_value(s[i]));
    }
    next = at + count;
    return value;
  };
  for (size_t i = 0; i < s.size() && fault.empty();) {
    if (s[i] != '\\' || i + 1 == s.size()) {
      out += s[i++];
      continue;
    }
    const char c = s[i + 1];
    i += 2;
    static constexpr std::string_view kFrom = "\\'\"abfnrtv";
    static constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    char32_t code_point = 0;
    if (const size_t simple = kFrom.find(c); simple != std::string_view::npos) {
      out += kTo[simple];
      continue;
    }
    if (c == '\n') continue;  // a line continued
    if (c >= '0' && c <= '7') {
      code_point = static_cast<char32_t>(c - '0');
      for (int n = 0; n < 2 && i < s.size() && s[i] >= '0' && s[i] <= '7'; ++n, ++i) {
        code_point = code_point * 8 + static_cast<char32_t>(s[i] - '0');
      }
    } else if (c == 'x' || c == 'u' || c == 'U') {
      code_point = hex(i, c == 'x' ? 2 : c == 'u' ? 4 : 8, i);
    } else if (c == 'N') {
      fault = "character names (\\N{…}) are not part of this Jinja";
    } else {
      out += '\\';
      out += c;
      continue;
    }
    if (code_point > 0x10ffff || (code_point >= 0xd800 && code_point < 0xe000)) {
      fault = "an escape in the string is not a Unicode character";
    }
    if (fault.empty()) append_utf8(out, code_point);
  }
  return out;
}

}  // namespace spillway::jinja
