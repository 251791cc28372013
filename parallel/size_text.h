// Numbers and lines as a person reads them in tables, errors and help.
#pragma once

#include <cstdint>
#include <string>

namespace spillway {

// Two decimals and a binary unit: "0.00 MiB", "512.34 MiB"; GiB from 1 GiB on.
std::string size_text(int64_t bytes);
// `value` with this many decimals, a point for the decimal mark whatever the locale.
std::string fixed_text(double value, int decimals);
// Tokens a second: one decimal, below 1 two digits that count ("0.031").
std::string rate_text(double tok_per_s);
// "1 rank", "2 ranks", "0 ranks".
std::string count_text(int64_t n, const std::string& one);
// The shortest text that reads back as the same number: "2", "0.5".
std::string shortest_text(double value);
// The text in lines of at most `width` characters where its blanks allow that; from the second on
// they begin with `indent` blanks, which count.
std::string wrapped_text(const std::string& text, size_t width, size_t indent);
// item behind the text, with the separator between them unless the text is empty.
void append_item(std::string& text, const char* separator, const std::string& item);

}  // namespace spillway
