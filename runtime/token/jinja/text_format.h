// Python's two ways to format: "%05.1f" % value and "{:>8}".format(value).
// Called by operators (%), by the method format and by the filter of that name. Throws Error for a
// directive that this Jinja has not, for too few or too many values, and at a limit.
#pragma once

#include "runtime/token/jinja/heap.h"

namespace spillway::jinja {

// text % value: a tuple gives one value a directive, a dict the values of "%(name)s".
Value percent_format(Heap& heap, const std::string& text, const Value& value);
// text.format(…): {}, {0}, {name}, {name.attribute}, {name[key]}, each with !r, !s and a format.
Value brace_format(Heap& heap, const std::string& text, const Arguments& arguments);

}  // namespace spillway::jinja
