// Heap: the objects of one rendering and what it may cost. A template comes out of a file that
// nobody vouches for, so every step, byte and level of nesting is counted and bounded.
// Owned by ChatTemplate::render, passed by reference to whatever makes values or does work.
// Thread: one rendering, one thread. Owns: every List, Dict, Namespace, Loop, Callable and Scope,
// until it ends (so reference cycles cannot leak). Throws Error, with the line in it.
#pragma once

#include <deque>

#include "runtime/token/jinja/value.h"

namespace spillway::jinja {

struct Macro;

struct Limits {
  int64_t steps = 20'000'000;                // nodes evaluated, plus bytes handled / kBytesPerStep
  int64_t live_bytes = int64_t{256} << 20;   // text in use, containers, output
  int64_t output_bytes = int64_t{64} << 20;  // the result
  int depth = 600;                           // nested expressions, blocks and macro calls
};

// The names of one block. Ids are indices into Template::names.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<int, Value>> names;

  void set(int id, Value value);
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<Text, Value>> named;
};

// A macro with the scope it was written in, a global function, or a method bound to its object.
struct Callable {
  using Function = Value (*)(Heap&, const Value& receiver, const Arguments&);

  Text name;
  Function function = nullptr;  // null for a macro
  Value receiver;
  const Macro* macro = nullptr;
  Scope* closure = nullptr;
};

class Heap {
 public:
  static constexpr int64_t kBytesPerStep = 64;

  explicit Heap(const Limits& limits) : limits_(limits) {}
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  const Limits& limits() const { return limits_; }

  // The line that errors name; 0 before the template runs.
  void at_line(int line) { line_ = line; }
  int line() const { return line_; }
  [[noreturn]] void fail(std::string_view what) const;

  void step(int64_t steps = 1);
  void work_bytes(size_t bytes) { step(static_cast<int64_t>(bytes) / kBytesPerStep); }
  void charge(int64_t bytes);
  void release(int64_t bytes) { live_bytes_ -= bytes; }
  int64_t live_bytes() const { return live_bytes_; }

  Value text(std::string s, bool safe = false);
  List* list(ListKind kind = ListKind::kList);
  void append(List& list, Value value);
  Dict* dict();
  // Throws Error when the key cannot be one.
  void set(Dict& dict, Value key, Value value);
  const Value* find(const Dict& dict, const Value& key);
  Namespace* space();
  Loop* loop();
  const Callable* callable(Callable c);
  Scope* scope(Scope* parent);

 private:
  Limits limits_;
  int line_ = 0;
  int64_t steps_ = 0;
  int64_t live_bytes_ = 0;
  // The counters above outlive the objects below, whose texts give their bytes back.
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Namespace> spaces_;
  std::deque<Loop> loops_;
  std::deque<Callable> callables_;
  std::deque<Scope> scopes_;
};

// Reads a call's arguments by position or name, in the order of the Python signature.
class ArgumentReader {
 public:
  ArgumentReader(Heap& heap, std::string_view callee, const Arguments& arguments)
      : heap_(heap), callee_(callee), arguments_(arguments) {}

  Value required(std::string_view name);
  Value optional(std::string_view name, const Value& otherwise);
  // Every positional argument not yet taken.
  std::vector<Value> rest();
  // Throws Error when an argument was not taken.
  void finish() const;

 private:
  const Value* take(std::string_view name);

  Heap& heap_;
  std::string_view callee_;
  const Arguments& arguments_;
  size_t next_ = 0;
  size_t named_taken_ = 0;
};

}  // namespace spillway::jinja
