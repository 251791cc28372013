// Value: what a Jinja expression evaluates to, with Python's types and rules for equality and keys.
// Made by the interpreter and by json_input; containers belong to a Heap (heap.h), never to a
// Value. Thread: a rendering's values stay on its thread; text literals of a parsed template are
// shared.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace spillway::jinja {

class Heap;
class Dict;
struct List;
struct Callable;
struct Namespace;
struct Loop;

// Immutable UTF-8. Bytes made during a rendering are counted by its heap until the last reference
// goes; heap is null for literals, which belong to the template.
struct TextBody {
  explicit TextBody(std::string s, Heap* owner = nullptr, bool marked = false)
      : chars(std::move(s)), heap(owner), safe(marked) {}
  TextBody(const TextBody&) = delete;
  TextBody& operator=(const TextBody&) = delete;
  ~TextBody();

  const std::string chars;
  Heap* const heap;
  // Made by the filters safe and escape. As in Jinja such a text escapes one that + joins it with,
  // though nothing else is escaped in a prompt.
  const bool safe;
};
using Text = std::shared_ptr<const TextBody>;

inline Text literal_text(std::string_view s) { return std::make_shared<TextBody>(std::string(s)); }

// A missing variable or attribute; its name is kept for the error that using it raises.
struct Undefined {
  Text name;
};
struct None {};

enum class Kind {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kList,
  kDict,
  kCallable,
  kNamespace,
  kLoop,
};

class Value {
 public:
  Value() = default;  // undefined, without a name
  Value(None none) : v_(none) {}
  Value(Undefined undefined) : v_(std::move(undefined)) {}
  Value(bool b) : v_(b) {}
  Value(int64_t i) : v_(i) {}
  Value(double d) : v_(d) {}
  Value(Text text) : v_(std::move(text)) {}
  Value(List* list) : v_(list) {}
  Value(Dict* dict) : v_(dict) {}
  Value(const Callable* callable) : v_(callable) {}
  Value(Namespace* space) : v_(space) {}
  Value(Loop* loop) : v_(loop) {}
  Value(const char*) = delete;  // would become a bool

  Kind kind() const { return static_cast<Kind>(v_.index()); }
  bool is(Kind k) const { return kind() == k; }
  // Bools count as ints, as in Python.
  bool is_integral() const { return is(Kind::kInt) || is(Kind::kBool); }
  bool is_number() const { return is_integral() || is(Kind::kFloat); }

  // Each requires the matching kind (a mismatch is a bug and throws std::bad_variant_access).
  bool boolean() const { return std::get<bool>(v_); }
  int64_t integer() const { return is(Kind::kBool) ? boolean() : std::get<int64_t>(v_); }
  double real() const { return is(Kind::kFloat) ? std::get<double>(v_) : double(integer()); }
  const std::string& text() const { return std::get<Text>(v_)->chars; }
  const Text& shared_text() const { return std::get<Text>(v_); }
  bool is_safe_text() const { return is(Kind::kText) && std::get<Text>(v_)->safe; }
  const Undefined& undefined() const { return std::get<Undefined>(v_); }
  List& list() const { return *std::get<List*>(v_); }
  Dict& dict() const { return *std::get<Dict*>(v_); }
  const Callable& callable() const { return *std::get<const Callable*>(v_); }
  Namespace& space() const { return *std::get<Namespace*>(v_); }
  Loop& loop() const { return *std::get<Loop*>(v_); }
  // Same object (Python's `is`) for containers, same value for the rest.
  bool same_object(const Value& other) const;

 private:
  std::variant<Undefined, None, bool, int64_t, double, Text, List*, Dict*, const Callable*,
               Namespace*, Loop*>
      v_;
};

// Python's many sequences are one List with a tag: the tag decides what may be done with it and how
// it prints. A generator is emptied by the first one to walk through it. A group is groupby's named
// tuple.
enum class ListKind {
  kList,
  kTuple,
  kRange,
  kItemsView,
  kKeysView,
  kValuesView,
  kGenerator,
  kGroup
};

struct List {
  ListKind kind = ListKind::kList;
  std::vector<Value> items;

  bool has_length() const { return kind != ListKind::kGenerator; }
  bool has_index() const {
    return kind == ListKind::kList || kind == ListKind::kTuple || kind == ListKind::kRange ||
           kind == ListKind::kGroup;
  }
};

// Insertion-ordered dict. Lookups are linear up to kIndexFrom entries, hashed beyond.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;
  static constexpr size_t kIndexFrom = 12;

  const std::vector<Entry>& entries() const { return entries_; }
  // Keys must be hashable: go through Heap::find and Heap::set for keys that a template made.
  const Value* find(Heap& heap, const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(Heap& heap, Value key, Value value);
  bool erase(Heap& heap, const Value& key);

 private:
  int64_t position(Heap& heap, const Value& key, size_t key_hash) const;
  void rebuild_index(Heap& heap);

  std::vector<Entry> entries_;
  std::vector<int32_t> slots_;  // open addressing over entries_, -1 is free; empty while small
};

struct Namespace {
  Dict fields;
};

// State of one for loop, seen by the template as `loop`.
struct Statement;
struct Scope;
struct Loop {
  const List* items = nullptr;
  size_t index0 = 0;
  // The items of this turn and of the one before, as they were: the body may shrink the list.
  Value item;
  Value previous;
  int64_t depth0 = 0;
  std::vector<Value> changed;  // what loop.changed() was last asked about
  bool asked = false;
  // The statement and the scope it stands in, while a recursive loop runs; else null.
  const Statement* recursive = nullptr;
  Scope* outer = nullptr;
};

// Python's ==, and what Python's dict needs. They count their steps on the heap: a list that holds
// itself, or one list twice at every level, would otherwise take for ever. Throw Error at a limit.
bool equals(Heap& heap, const Value& a, const Value& b, int depth = 0);
// None, numbers, text and tuples of those can be dict keys.
bool hashable(Heap& heap, const Value& v, int depth = 0);
// Equal values hash equally, also 1, 1.0 and true. Requires hashable(v).
size_t hash(Heap& heap, const Value& v);

// The name of a value's Python type, for messages ("dict", "str", …).
std::string_view type_name(const Value& v);

}  // namespace spillway::jinja
