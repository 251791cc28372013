// See size_text.h.
#include "parallel/size_text.h"

#include <charconv>

#include "kernels/core/check.h"

namespace spillway {

std::string fixed_text(double value, int decimals) {
  char text[400];  // 309 digits before the point at most
  const auto result =
      std::to_chars(text, text + sizeof(text), value, std::chars_format::fixed, decimals);
  CHECK(result.ec == std::errc());
  return std::string(text, result.ptr);
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

void append_item(std::string& text, const char* separator, const std::string& item) {
  if (!text.empty()) text += separator;
  text += item;
}

}  // namespace spillway
