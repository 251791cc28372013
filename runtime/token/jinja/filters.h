// Filters: `value | name(arguments)`. Found by name when a template is parsed, called by the
// interpreter and by other filters (map). Semantics: Jinja 3.1's filters of the same names.
#pragma once

#include <string_view>

#include "runtime/token/jinja/heap.h"

namespace spillway::jinja {

using Filter = Value (*)(Heap&, const Value& input, const Arguments&);

// Null when there is no filter of that name.
Filter find_filter(std::string_view name);

// The parts of the table: on one value, on text, on numbers and rows, and on sequences.
Filter find_value_filter(std::string_view name);
Filter find_text_filter(std::string_view name);
Filter find_number_filter(std::string_view name);
Filter find_sequence_filter(std::string_view name);

}  // namespace spillway::jinja
