// Counting and owning the objects of a rendering, and reading arguments of calls.
// Called by everything that evaluates; knows nothing of syntax.
#include "runtime/token/jinja/heap.h"

#include "kernels/core/error.h"

namespace spillway::jinja {

void Scope::set(int id, Value value) {
  for (auto& [known, old] : names) {
    if (known == id) {
      old = std::move(value);
      return;
    }
  }
  names.emplace_back(id, std::move(value));
}

void Heap::fail(std::string_view what) const {
  std::string message;
  if (line_ > 0) message = "line " + std::to_string(line_) + ": ";
  throw Error(message.append(what), "chat template");
}

void Heap::step(int64_t steps) {
  steps_ += steps;
  if (steps_ > limits_.steps) {
    fail("the template does not end: more than " + std::to_string(limits_.steps) + " steps");
  }
}

void Heap::charge(int64_t bytes) {
  live_bytes_ += bytes;
  if (live_bytes_ > limits_.live_bytes) {
    live_bytes_ -= bytes;
    fail("the template uses more than " + std::to_string(limits_.live_bytes) + " bytes");
  }
}

Value Heap::text(std::string s, bool safe) {
  work_bytes(s.size());
  charge(static_cast<int64_t>(s.size()));
  return Value(Text(std::make_shared<TextBody>(std::move(s), this, safe)));
}

List* Heap::list(ListKind kind) {
  charge(sizeof(List));
  lists_.emplace_back().kind = kind;
  return &lists_.back();
}

void Heap::append(List& list, Value value) {
  // A growing vector holds up to twice its items.
  charge(2 * sizeof(Value));
  list.items.push_back(std::move(value));
}

Dict* Heap::dict() {
  charge(sizeof(Dict));
  return &dicts_.emplace_back();
}

void Heap::set(Dict& dict, Value key, Value value) {
  if (!hashable(*this, key)) fail(std::string("a dict key cannot be a ").append(type_name(key)));
  charge(2 * sizeof(Dict::Entry) + 8 * sizeof(int32_t));
  dict.set(*this, std::move(key), std::move(value));
}

const Value* Heap::find(const Dict& dict, const Value& key) {
  if (!hashable(*this, key)) fail(std::string("a dict key cannot be a ").append(type_name(key)));
  return dict.find(*this, key);
}

Namespace* Heap::space() {
  charge(sizeof(Namespace));
  return &spaces_.emplace_back();
}

Loop* Heap::loop() {
  charge(sizeof(Loop));
  return &loops_.emplace_back();
}

const Callable* Heap::callable(Callable c) {
  charge(sizeof(Callable));
  return &callables_.emplace_back(std::move(c));
}

Scope* Heap::scope(Scope* parent) {
  charge(sizeof(Scope) + 4 * sizeof(std::pair<int, Value>));
  Scope& scope = scopes_.emplace_back();
  scope.parent = parent;
  return &scope;
}

const Value* ArgumentReader::take(std::string_view name) {
  const Value* named = nullptr;
  for (const auto& [key, value] : arguments_.named) {
    if (key->chars == name) named = &value;
  }
  const bool positional = next_ < arguments_.positional.size();
  if (positional && named != nullptr) {
    heap_.fail(std::string(callee_) + "() got '" + std::string(name) + "' twice");
  }
  if (positional) return &arguments_.positional[next_++];
  if (named != nullptr) ++named_taken_;
  return named;
}

Value ArgumentReader::required(std::string_view name) {
  const Value* value = take(name);
  if (value == nullptr) {
    heap_.fail(std::string(callee_) + "() needs its argument '" + std::string(name) + "'");
  }
  return *value;
}

Value ArgumentReader::optional(std::string_view name, const Value& otherwise) {
  const Value* value = take(name);
  return value == nullptr ? otherwise : *value;
}

std::vector<Value> ArgumentReader::rest() {
  std::vector<Value> values(arguments_.positional.begin() + static_cast<int64_t>(next_),
                            arguments_.positional.end());
  next_ = arguments_.positional.size();
  return values;
}

void ArgumentReader::finish() const {
  if (next_ < arguments_.positional.size()) {
    heap_.fail(std::string(callee_) + "() takes at most " + std::to_string(next_) +
               " arguments, got " + std::to_string(arguments_.positional.size()));
  }
  if (named_taken_ < arguments_.named.size()) {
    std::string names;
    for (const auto& [key, value] : arguments_.named) names += " '" + key->chars + "'";
    heap_.fail(std::string(callee_) + "() does not know an argument among" + names);
  }
}

}  // namespace spillway::jinja
