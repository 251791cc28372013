// See size_text.h.
#include "parallel/size_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "kernels/core/check.h"

namespace spillway {

std::string fixed_text(double value, int decimals) {
  char text[400];  // 309 digits before the point at most
  const auto result =
      std::to_chars(text, text + sizeof(text), value, std::chars_format::fixed, decimals);
  CHECK(result.ec == std::errc());
  return std::string(text, result.ptr);
}

std::string rate_text(double tok_per_s) {
  if (!(tok_per_s > 0) || tok_per_s >= 1) return fixed_text(tok_per_s, 1);
  const auto zeros = static_cast<int>(-std::floor(std::log10(tok_per_s)));
  return fixed_text(tok_per_s, std::min(zeros, 8) + 1);
}

std::string shortest_text(double value) {
  char text[400];
  const auto result = std::to_chars(text, text + sizeof(text), value, std::chars_format::fixed);
  CHECK(result.ec == std::errc());
  return std::string(text, result.ptr);
}

std::string size_text(int64_t bytes) {
  constexpr double kMiB = 1024.0 * 1024.0;
  constexpr double kGiB = 1024.0 * kMiB;
  const double value = static_cast<double>(bytes);
  if (bytes >= int64_t{1} << 30) return fixed_text(value / kGiB, 2) + " GiB";
  return fixed_text(value / kMiB, 2) + " MiB";
}

std::string count_text(int64_t n, const std::string& one) {
  return std::to_string(n) + " " + one + (n == 1 ? "" : "s");
}

std::string wrapped_text(const std::string& text, size_t width, size_t indent) {
  const std::string margin = "\n" + std::string(indent, ' ');
  std::string out;
  size_t column = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t word = std::min(text.find_first_not_of(' ', at), text.size());
    const size_t end = std::min(text.find_first_of(" \n", word), text.size());
    const bool line_ends = word < text.size() && text[word] == '\n';
    if (line_ends || (column > indent && column + end - at > width)) {
      out += margin;
      column = indent;
      at = line_ends ? word + 1 : word;
      continue;
    }
    out.append(text, at, end - at);
    column += end - at;
    at = end;
  }
  return out;
}

void append_item(std::string& text, const char* separator, const std::string& item) {
  if (!text.empty()) text += separator;
  text += item;
}

}  // namespace spillway
