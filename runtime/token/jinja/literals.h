// Literals of Jinja, which are Python's: numbers with underscores and prefixes, escapes in strings.
// Called by the lexer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace spillway::jinja {

struct NumberLiteral {
  size_t bytes = 0;  // of the literal; 0 when the number does not fit
  bool is_float = false;
  int64_t integer = 0;
  double real = 0;
};

// The longest number s begins with; s begins with a digit. Behind a dot ("a.0.1") no floats.
NumberLiteral read_number(std::string_view s, bool may_be_float);

// The inside of a quoted string without its escapes. A bad escape leaves a message in fault.
std::string unescape(std::string_view s, std::string& fault);

}  // namespace spillway::jinja
