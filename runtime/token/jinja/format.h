// A value as text: Python's str(), repr() and json.dumps().
// Called by the interpreter's output, by filters and by methods. Bounded by the heap's limits.
#pragma once

#include <optional>
#include <string>

#include "runtime/token/jinja/heap.h"

namespace spillway::jinja {

// str(value): text as it is, undefined as nothing, the rest like Python prints it.
std::string to_text(Heap& heap, const Value& value);
// The same, sharing the text when the value is text already.
Value to_text_value(Heap& heap, const Value& value);

// repr(value)
std::string to_repr(Heap& heap, const Value& value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // one level's white space; nothing: all on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

// json.dumps(value): keys in their order, no HTML escapes. Throws Error for what JSON cannot hold
// (undefined, functions, generators, keys that are tuples).
std::string to_json(Heap& heap, const Value& value, const JsonStyle& style);

}  // namespace spillway::jinja
