// Predicates: what stands behind `is`, Jinja's tests. (They are not named tests, so that no file
// here looks like a test of this program.) Called by the interpreter and by select and reject.
#pragma once

#include <string_view>

#include "runtime/token/jinja/heap.h"

namespace spillway::jinja {

using Predicate = bool (*)(Heap&, const Value& subject, const Arguments&);

// Null when there is no test of that name.
Predicate find_predicate(std::string_view name);

}  // namespace spillway::jinja
