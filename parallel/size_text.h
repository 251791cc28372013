// Numbers as a person reads them in tables and errors. Used by plan_table.cc and planner.cc.
#pragma once

#include <cstdint>
#include <string>

namespace spillway {

// Two decimals and a binary unit: "0.00 MiB", "512.34 MiB"; GiB from 1 GiB on.
std::string size_text(int64_t bytes);
// `value` with this many decimals, a point for the decimal mark whatever the locale.
std::string fixed_text(double value, int decimals);
// The shortest text that reads back as the same number: "2", "0.5".
std::string shortest_text(double value);
// item behind the text, with the separator between them unless the text is empty.
void append_item(std::string& text, const char* separator, const std::string& item);

}  // namespace spillway
