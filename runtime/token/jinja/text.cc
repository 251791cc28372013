// Code points, white space, case, splitting and Python's spelling of strings and floats.
#include "runtime/token/jinja/text.h"

#include <utf8proc.h>

#include <charconv>
#include <cmath>
#include <cstring>

namespace spillway::jinja {
namespace {

void append_hex(std::string& out, const char* prefix, uint32_t value, int digits) {
  static constexpr char kDigits[] = "0123456789abcdef";
  out += prefix;
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) out += kDigits[(value >> shift) & 15];
}

bool is_line_break(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

template <typename Map>
std::string map_code_points(std::string_view s, Map map) {
  std::string out;
  out.reserve(s.size());
  for (size_t at = 0; at < s.size();) append_utf8(out, map(next_code_point(s, at)));
  return out;
}

void append_upper(std::string& out, char32_t c) {
  if (c == 0xdf) {
    out += "SS";
  } else {
    append_utf8(out, static_cast<char32_t>(utf8proc_toupper(static_cast<int32_t>(c))));
  }
}

char32_t to_lower(char32_t c) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<int32_t>(c)));
}

}  // namespace

std::optional<size_t> invalid_utf8(std::string_view s) {
  size_t at = 0;
  while (at < s.size()) {
    utf8proc_int32_t c = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(s.data() + at),
                                         static_cast<utf8proc_ssize_t>(s.size() - at), &c);
    if (length <= 0) return at;
    at += static_cast<size_t>(length);
  }
  return std::nullopt;
}

char32_t next_code_point(std::string_view s, size_t& at) {
  const auto lead = static_cast<unsigned char>(s[at]);
  if (lead < 0x80) {
    ++at;
    return lead;
  }
  utf8proc_int32_t c = 0;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(s.data() + at),
                                       static_cast<utf8proc_ssize_t>(s.size() - at), &c);
  if (length <= 0) {
    ++at;
    return lead;
  }
  at += static_cast<size_t>(length);
  return static_cast<char32_t>(c);
}

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
    return;
  }
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

int64_t count_code_points(std::string_view s) {
  int64_t count = 0;
  for (char c : s) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

std::vector<size_t> code_point_offsets(std::string_view s) {
  std::vector<size_t> offsets;
  offsets.reserve(s.size() + 1);
  for (size_t at = 0; at < s.size();) {
    offsets.push_back(at);
    next_code_point(s, at);
  }
  offsets.push_back(s.size());
  return offsets;
}

bool is_space(char32_t c) {
  if (c <= 0x20) return c == 0x20 || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_letter(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_ND;
}

bool is_numeric(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool is_digit(char32_t c) {
  const bool circled = (c >= 0x2460 && c <= 0x2468) || (c >= 0x2474 && c <= 0x247c) ||
                       (c >= 0x2488 && c <= 0x2490) || c == 0x24ea;
  const bool raised = c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070 ||
                      (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089);
  return is_decimal(c) || circled || raised;
}

bool is_alphanumeric(char32_t c) { return is_letter(c) || is_numeric(c); }

bool is_printable(char32_t c) {
  if (c < 0x7f) return c >= 0x20;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::string_view strip(std::string_view s, std::optional<std::string_view> chars, bool left,
                       bool right) {
  const auto matches = [&](std::string_view one) {
    if (chars) return chars->find(one) != std::string_view::npos;
    size_t at = 0;
    return is_space(next_code_point(one, at));
  };
  while (left && !s.empty()) {
    size_t end = 0;
    next_code_point(s, end);
    if (!matches(s.substr(0, end))) break;
    s.remove_prefix(end);
  }
  while (right && !s.empty()) {
    size_t begin = s.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(s[begin]) & 0xc0) == 0x80) --begin;
    if (!matches(s.substr(begin))) break;
    s.remove_suffix(s.size() - begin);
  }
  return s;
}

std::vector<std::string_view> split_space(std::string_view s, int64_t most) {
  std::vector<std::string_view> parts;
  s = strip(s, std::nullopt, true, false);
  while (!s.empty()) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) == most) {
      parts.push_back(s);
      break;
    }
    size_t at = 0;
    size_t end = 0;
    while (at < s.size()) {
      end = at;
      if (is_space(next_code_point(s, at))) break;
      end = at;
    }
    parts.push_back(s.substr(0, end));
    s = strip(s.substr(end), std::nullopt, true, false);
  }
  return parts;
}

std::vector<std::string_view> split(std::string_view s, std::string_view separator, int64_t most) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  while (most < 0 || static_cast<int64_t>(parts.size()) < most) {
    const size_t at = find_text(s, separator, begin);
    if (at == std::string_view::npos) break;
    parts.push_back(s.substr(begin, at - begin));
    begin = at + separator.size();
  }
  parts.push_back(s.substr(begin));
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view s) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < s.size();) {
    const size_t end = at;
    const char32_t c = next_code_point(s, at);
    if (!is_line_break(c)) continue;
    if (c == '\r' && at < s.size() && s[at] == '\n') ++at;
    lines.push_back(s.substr(begin, end - begin));
    begin = at;
  }
  if (begin < s.size()) lines.push_back(s.substr(begin));
  return lines;
}

std::string replace_all(std::string_view s, std::string_view from, std::string_view to,
                        int64_t most, int64_t limit) {
  std::string out;
  size_t at = 0;
  for (int64_t done = 0; most < 0 || done < most; ++done) {
    if (static_cast<int64_t>(out.size()) > limit) return out;
    if (from.empty()) {
      // Python puts `to` before every character and at the end.
      out += to;
      if (at == s.size()) return out;
      const size_t begin = at;
      next_code_point(s, at);
      out += s.substr(begin, at - begin);
      continue;
    }
    const size_t hit = find_text(s, from, at);
    if (hit == std::string_view::npos) break;
    out.append(s, at, hit - at).append(to);
    at = hit + from.size();
  }
  return out.append(s.substr(at));
}

size_t find_text(std::string_view s, std::string_view needle, size_t from) {
  if (from > s.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  // memmem is two-way search: std::string_view::find is quadratic on hostile text.
  const void* hit = memmem(s.data() + from, s.size() - from, needle.data(), needle.size());
  if (hit == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(hit) - s.data());
}

std::string turned_round(std::string_view s) { return {s.rbegin(), s.rend()}; }

size_t find_last_text(std::string_view s, std::string_view needle) {
  if (needle.size() > s.size()) return std::string_view::npos;
  const size_t at = find_text(turned_round(s), turned_round(needle), 0);
  return at == std::string_view::npos ? at : s.size() - at - needle.size();
}

std::string upper(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t at = 0; at < s.size();) append_upper(out, next_code_point(s, at));
  return out;
}

std::string escape_html(std::string_view s) {
  std::string out;
  for (char c : s) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

bool is_of_case(std::string_view s, bool upper_case) {
  const std::string raised = upper(s);
  const std::string lowered = lower(s);
  return raised != lowered && (upper_case ? raised : lowered) == s;
}

std::string lower(std::string_view s) { return map_code_points(s, to_lower); }

std::string capitalize(std::string_view s) {
  if (s.empty()) return "";
  size_t at = 0;
  const char32_t first = next_code_point(s, at);
  std::string out;
  if (first == 0xdf) {
    out = "Ss";
  } else {
    append_utf8(out, static_cast<char32_t>(utf8proc_totitle(static_cast<int32_t>(first))));
  }
  return out + lower(s.substr(at));
}

std::string quoted(std::string_view s) {
  const bool single = s.find('\'') == std::string_view::npos;
  const char quote = single || s.find('"') != std::string_view::npos ? '\'' : '"';
  std::string out(1, quote);
  for (size_t at = 0; at < s.size();) {
    const char32_t c = next_code_point(s, at);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      append_utf8(out, c);
    } else if (c < 0x100) {
      append_hex(out, "\\x", c, 2);
    } else if (c < 0x10000) {
      append_hex(out, "\\u", c, 4);
    } else {
      append_hex(out, "\\U", c, 8);
    }
  }
  return out + quote;
}

std::string format_double(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific).ptr;
  std::string_view all(buffer, static_cast<size_t>(end - buffer));
  const size_t e = all.find('e');
  std::string_view mantissa = all.substr(0, e);
  std::string out;
  if (mantissa.front() == '-') {
    out = "-";
    mantissa.remove_prefix(1);
  }
  std::string digits;
  for (char c : mantissa) {
    if (c != '.') digits += c;
  }
  const int exponent = std::stoi(std::string(all.substr(e + 1)));
  const int count = static_cast<int>(digits.size());
  // CPython's float_repr_style: exponent form below 1e-4 and from 1e16 on.
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out.append(".").append(digits.substr(1));
    const int size = exponent < 0 ? -exponent : exponent;
    out.append(exponent < 0 ? "e-" : "e+")
        .append(size < 10 ? "0" : "")
        .append(std::to_string(size));
  } else if (exponent < 0) {
    out.append("0.").append(static_cast<size_t>(-exponent - 1), '0').append(digits);
  } else if (const int zeros = exponent + 1 - count; zeros >= 0) {
    out.append(digits).append(static_cast<size_t>(zeros), '0').append(".0");
  } else {
    const auto point = static_cast<size_t>(exponent) + 1;
    out.append(digits.substr(0, point)).append(".").append(digits.substr(point));
  }
  return out;
}

}  // namespace spillway::jinja
