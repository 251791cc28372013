// Equality, hashing and the ordered dict. Used by every other file of the folder; prints nothing
// (format.cc) and computes nothing (operators.cc).
#include "runtime/token/jinja/value.h"

#include <cmath>
#include <functional>

#include "kernels/core/check.h"
#include "runtime/token/jinja/heap.h"

namespace spillway::jinja {
namespace {

constexpr int kNesting = 200;

bool lists_equal(Heap& heap, const List& a, const List& b, int depth) {
  if (&a == &b) return true;
  if (a.kind != b.kind || a.items.size() != b.items.size()) return false;
  if (a.kind == ListKind::kGenerator || a.kind == ListKind::kValuesView) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!equals(heap, a.items[i], b.items[i], depth + 1)) return false;
  }
  return true;
}

bool dicts_equal(Heap& heap, const Dict& a, const Dict& b, int depth) {
  if (&a == &b) return true;
  if (a.entries().size() != b.entries().size()) return false;
  for (const auto& [key, value] : a.entries()) {
    const Value* other = b.find(heap, key);
    if (other == nullptr || !equals(heap, value, *other, depth + 1)) return false;
  }
  return true;
}

// int64 against double without rounding the integer first: 2**53 + 1 is not 2.0**53.
bool int_equals_double(int64_t i, double d) {
  if (!(d >= -9223372036854775808.0 && d < 9223372036854775808.0)) return false;
  return d == std::floor(d) && static_cast<int64_t>(d) == i;
}

bool numbers_equal(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  if (a.is_integral()) return int_equals_double(a.integer(), b.real());
  if (b.is_integral()) return int_equals_double(b.integer(), a.real());
  return a.real() == b.real();
}

}  // namespace

TextBody::~TextBody() {
  if (heap != nullptr) heap->release(static_cast<int64_t>(chars.size()));
}

bool Value::same_object(const Value& other) const {
  if (kind() != other.kind()) return false;
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return numbers_equal(*this, other);
    case Kind::kText:
      return text() == other.text();
    case Kind::kList:
      return &list() == &other.list();
    case Kind::kDict:
      return &dict() == &other.dict();
    case Kind::kCallable:
      return &callable() == &other.callable();
    case Kind::kNamespace:
      return &space() == &other.space();
    case Kind::kLoop:
      return &loop() == &other.loop();
  }
  return false;
}

bool equals(Heap& heap, const Value& a, const Value& b, int depth) {
  heap.step();
  if (depth > kNesting) heap.fail("values nested too deeply to compare");
  if (a.is_number() && b.is_number()) return numbers_equal(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kText:
      if (a.text().size() == b.text().size()) heap.work_bytes(a.text().size());
      return a.text() == b.text();
    case Kind::kList:
      return lists_equal(heap, a.list(), b.list(), depth);
    case Kind::kDict:
      return dicts_equal(heap, a.dict(), b.dict(), depth);
    default:
      return a.same_object(b);
  }
}

bool hashable(Heap& heap, const Value& v, int depth) {
  if (v.is(Kind::kDict)) return false;
  if (!v.is(Kind::kList)) return true;
  heap.step();
  if (depth > kNesting) heap.fail("values nested too deeply for a dict key");
  const List& list = v.list();
  if (list.kind != ListKind::kTuple) return list.kind == ListKind::kRange;
  for (const Value& item : list.items) {
    if (!hashable(heap, item, depth + 1)) return false;
  }
  return true;
}

size_t hash(Heap& heap, const Value& v) {
  switch (v.kind()) {
    case Kind::kText:
      heap.work_bytes(v.text().size());
      return std::hash<std::string_view>()(v.text());
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return std::hash<double>()(v.real());
    case Kind::kList: {
      heap.step(static_cast<int64_t>(v.list().items.size()));
      size_t h = 0x9e3779b97f4a7c15u;
      for (const Value& item : v.list().items) h = h * 1000003 + hash(heap, item);
      return h;
    }
    default:
      return static_cast<size_t>(v.kind());
  }
}

const Value* Dict::find(Heap& heap, const Value& key) const {
  const int64_t at = position(heap, key, slots_.empty() ? 0 : hash(heap, key));
  return at < 0 ? nullptr : &entries_[static_cast<size_t>(at)].second;
}

const Value* Dict::find(std::string_view key) const {
  if (slots_.empty()) {
    for (const Entry& entry : entries_) {
      if (entry.first.is(Kind::kText) && entry.first.text() == key) return &entry.second;
    }
    return nullptr;
  }
  const size_t mask = slots_.size() - 1;
  for (size_t slot = std::hash<std::string_view>()(key) & mask;; slot = (slot + 1) & mask) {
    if (slots_[slot] < 0) return nullptr;
    const Entry& entry = entries_[static_cast<size_t>(slots_[slot])];
    if (entry.first.is(Kind::kText) && entry.first.text() == key) return &entry.second;
  }
}

int64_t Dict::position(Heap& heap, const Value& key, size_t key_hash) const {
  if (slots_.empty()) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (equals(heap, entries_[i].first, key)) return static_cast<int64_t>(i);
    }
    return -1;
  }
  const size_t mask = slots_.size() - 1;
  for (size_t slot = key_hash & mask;; slot = (slot + 1) & mask) {
    const int32_t at = slots_[slot];
    if (at < 0) return -1;
    if (equals(heap, entries_[static_cast<size_t>(at)].first, key)) return at;
  }
}

void Dict::set(Heap& heap, Value key, Value value) {
  const size_t key_hash = slots_.empty() ? 0 : hash(heap, key);
  const int64_t at = position(heap, key, key_hash);
  if (at >= 0) {
    entries_[static_cast<size_t>(at)].second = std::move(value);
    return;
  }
  entries_.emplace_back(std::move(key), std::move(value));
  // At most half full, so that a probe ends soon.
  if (entries_.size() >= kIndexFrom && entries_.size() * 2 > slots_.size()) {
    rebuild_index(heap);
  } else if (!slots_.empty()) {
    const size_t mask = slots_.size() - 1;
    size_t slot = key_hash & mask;
    while (slots_[slot] >= 0) slot = (slot + 1) & mask;
    slots_[slot] = static_cast<int32_t>(entries_.size() - 1);
  }
}

bool Dict::erase(Heap& heap, const Value& key) {
  const int64_t at = position(heap, key, slots_.empty() ? 0 : hash(heap, key));
  if (at < 0) return false;
  entries_.erase(entries_.begin() + at);
  if (!slots_.empty()) rebuild_index(heap);
  return true;
}

void Dict::rebuild_index(Heap& heap) {
  CHECK(entries_.size() < (1u << 30));
  heap.step(static_cast<int64_t>(entries_.size()));
  size_t size = 32;
  while (size < entries_.size() * 4) size *= 2;
  slots_.assign(size, -1);
  for (size_t i = 0; i < entries_.size(); ++i) {
    size_t slot = hash(heap, entries_[i].first) & (size - 1);
    while (slots_[slot] >= 0) slot = (slot + 1) & (size - 1);
    slots_[slot] = static_cast<int32_t>(i);
  }
}

std::string_view type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return "undefined";
    case Kind::kNone:
      return "none";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kText:
      return "str";
    case Kind::kList:
      switch (v.list().kind) {
        case ListKind::kList:
          return "list";
        case ListKind::kTuple:
        case ListKind::kGroup:
          return "tuple";
        case ListKind::kRange:
          return "range";
        case ListKind::kItemsView:
          return "dict_items";
        case ListKind::kKeysView:
          return "dict_keys";
        case ListKind::kValuesView:
          return "dict_values";
        case ListKind::kGenerator:
          return "generator";
      }
      return "list";
    case Kind::kDict:
      return "dict";
    case Kind::kCallable:
      return "function";
    case Kind::kNamespace:
      return "namespace";
    case Kind::kLoop:
      return "loop";
  }
  return "value";
}

}  // namespace spillway::jinja
