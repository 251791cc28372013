// Operators: truth, arithmetic, order, membership, subscripts, slices and iteration, with Python's
// rules on Jinja's values. Called by the interpreter, filters and predicates; calls nothing back.
// All throw Error (through Heap::fail) for types that do not go together and at a limit.
#pragma once

#include <optional>

#include "runtime/token/jinja/heap.h"

namespace spillway::jinja {

enum class Arithmetic { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };

bool truth(const Value& value);
Value arithmetic(Heap& heap, Arithmetic op, const Value& a, const Value& b);
Value negate(Heap& heap, const Value& a);
// a < b for numbers, text, lists and tuples.
bool less(Heap& heap, const Value& a, const Value& b);
// a in b
bool contains(Heap& heap, const Value& container, const Value& item);

// object.name, and object[key]: as in Jinja the one falls back to the other, a miss is undefined.
Value attribute(Heap& heap, const Value& object, const Text& name);
Value subscript(Heap& heap, const Value& object, const Value& key);
Value slice(Heap& heap, const Value& object, const Value& start, const Value& stop,
            const Value& step);
// Jinja's "a.b.0" of map(attribute=…) and its kin.
Value attribute_path(Heap& heap, Value object, const Value& path);

// The items of what can be iterated: a list itself, characters of text, keys of a dict, nothing for
// undefined. A generator is emptied into a fresh list.
const List& iterate(Heap& heap, const Value& value);
bool iterable(const Value& value);
// len(value)
int64_t length(Heap& heap, const Value& value);

// The one place where a misuse of undefined is worded.
[[noreturn]] void fail_undefined(Heap& heap, const Value& value);

// An int argument of a filter or method.
int64_t expect_int(Heap& heap, std::string_view what, const Value& value);
// The same for a number of characters: beyond what any text has it is cut, so that sums stay sums.
int64_t expect_width(Heap& heap, std::string_view what, const Value& value);

}  // namespace spillway::jinja
