// Methods of str, list and dict: found by attribute access, called by the interpreter.
#pragma once

#include <optional>
#include <span>

#include "runtime/token/jinja/heap.h"

namespace spillway::jinja {

struct Method {
  std::string_view name;
  Callable::Function function;  // null: Python has it, this Jinja has not
};

// The method of object's type, or null when Python's type has none by that name. One that Python
// has and this Jinja has not is found too, and fails when called: a dict's key of the same name
// must stay hidden behind it, as in Python.
const Method* find_method(const Value& object, std::string_view name);

// The parts of the table that methods.cc has not: of text_methods.cc and container_methods.cc.
std::span<const Method> further_text_methods();
std::span<const Method> further_list_methods();
std::span<const Method> further_dict_methods();
std::span<const Method> loop_methods();

// str.center, also the filter of that name.
Value centered(Heap& heap, const std::string& text, int64_t width, const std::string& fill);

// The same, bound to its object.
std::optional<Value> bound_method(Heap& heap, const Value& object, const Text& name);

}  // namespace spillway::jinja
