// Interpreter: walks a parsed template over its variables and returns the text.
// Called by ChatTemplate::render. Thread: one rendering, one thread; the template may be shared.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/token/jinja/ast.h"
#include "runtime/token/jinja/heap.h"

namespace spillway::jinja {

using Variables = std::vector<std::pair<std::string_view, Value>>;

// Throws Error ("line N: …"): the template's own raise_exception, a type error, or a limit.
// variables hide the global functions of the same name.
std::string interpret(Heap& heap, const Template& program, const Variables& variables);

}  // namespace spillway::jinja
