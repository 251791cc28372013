// Names that people type: Q4_K and q4_k are the same. Called where types and mixes are looked up.
// ASCII only.
#pragma once

#include <algorithm>
#include <cctype>
#include <string_view>

namespace spillway {

inline bool same_in_any_case(std::string_view a, std::string_view b) {
  const auto upper = [](char c) { return std::toupper(static_cast<unsigned char>(c)); };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return upper(x) == upper(y); });
}

}  // namespace spillway
