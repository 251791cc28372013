// JSON text to a Value: the variables a template is rendered over. Called by ChatTemplate::render.
#pragma once

#include <cstddef>
#include <string_view>

#include "runtime/token/jinja/heap.h"

namespace spillway::jinja {

// Levels of nesting: what is deeper is refused while reading.
inline constexpr size_t kJsonNesting = 100;

// Reads RFC 8259 JSON, keys in their order, the last of equal keys winning. Integers beyond int64
// become doubles. Nested at most kJsonNesting levels. what: named in the Error for text that is not
// JSON.
Value read_json(Heap& heap, std::string_view what, std::string_view json);

}  // namespace spillway::jinja
