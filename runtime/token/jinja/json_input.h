// JSON text to a Value: the variables a template is rendered over. Called by ChatTemplate::render.
#pragma once

#include <string_view>

#include "runtime/token/jinja/heap.h"

namespace spillway::jinja {

// Reads RFC 8259 JSON, keys in their order, the last of equal keys winning. Integers beyond int64
// become doubles. Nested at most 100 levels. what: named in the Error for text that is not JSON.
Value read_json(Heap& heap, std::string_view what, std::string_view json);

}  // namespace spillway::jinja
