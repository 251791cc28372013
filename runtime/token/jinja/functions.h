// The global functions of a template: range, dict, namespace, raise_exception, strftime_now.
// Called by the interpreter, as the outermost scope.
#pragma once

#include <span>

#include "runtime/token/jinja/heap.h"

namespace spillway::jinja {

struct GlobalFunction {
  std::string_view name;
  Callable::Function function;
};

std::span<const GlobalFunction> global_functions();

}  // namespace spillway::jinja
