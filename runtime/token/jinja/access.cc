// Attributes, subscripts, slices, iteration and length: the half of operators.h that looks into
// values. Method objects come from methods.h.
#include <algorithm>

#include "runtime/token/jinja/methods.h"
#include "runtime/token/jinja/operators.h"
#include "runtime/token/jinja/text.h"

namespace spillway::jinja {
namespace {

Undefined missing(const Text& name) { return Undefined{name}; }

Value loop_attribute(const Loop& loop, const Text& name) {
  const auto size = static_cast<int64_t>(loop.items->items.size());
  const auto index0 = static_cast<int64_t>(loop.index0);
  const std::string& n = name->chars;
  if (n == "index0") return index0;
  if (n == "index") return index0 + 1;
  if (n == "first") return index0 == 0;
  if (n == "last") return index0 + 1 >= size;
  if (n == "length") return size;
  if (n == "revindex") return size - index0;
  if (n == "revindex0") return size - index0 - 1;
  if (n == "depth") return loop.depth0 + 1;
  if (n == "depth0") return loop.depth0;
  if (n == "previtem" && index0 > 0) return loop.previous;
  if (n == "nextitem" && index0 + 1 < size) return loop.items->items[loop.index0 + 1];
  return missing(name);
}

// What Python's getattr finds. Nothing when there is no such attribute.
std::optional<Value> python_attribute(Heap& heap, const Value& object, const Text& name) {
  switch (object.kind()) {
    case Kind::kUndefined:
      fail_undefined(heap, object);
    case Kind::kNamespace: {
      const Value* field = object.space().fields.find(name->chars);
      if (field != nullptr) return *field;
      return std::nullopt;
    }
    case Kind::kLoop:
      if (auto method = bound_method(heap, object, name)) return method;
      return loop_attribute(object.loop(), name);
    default:
      if (object.is(Kind::kList) && object.list().kind == ListKind::kGroup) {
        if (name->chars == "grouper") return object.list().items[0];
        if (name->chars == "list") return object.list().items[1];
      }
      return bound_method(heap, object, name);
  }
}

// What Python's object[key] finds; nothing for a key that is not there or a type without
// subscripts.
std::optional<Value> python_item(Heap& heap, const Value& object, const Value& key) {
  if (object.is(Kind::kDict)) {
    if (!hashable(heap, key)) return std::nullopt;
    const Value* value = heap.find(object.dict(), key);
    if (value != nullptr) return *value;
    return std::nullopt;
  }
  if (!key.is_integral()) return std::nullopt;
  int64_t index = key.integer();
  if (object.is(Kind::kList) && object.list().has_index()) {
    const auto& items = object.list().items;
    if (index < 0) index += static_cast<int64_t>(items.size());
    if (index < 0 || index >= static_cast<int64_t>(items.size())) return std::nullopt;
    return items[static_cast<size_t>(index)];
  }
  if (object.is(Kind::kText)) {
    const std::string& s = object.text();
    heap.work_bytes(s.size());
    if (index < 0) index += count_code_points(s);
    if (index < 0 || index >= static_cast<int64_t>(s.size())) return std::nullopt;
    size_t at = 0;
    for (; index > 0 && at < s.size(); --index) next_code_point(s, at);
    if (at >= s.size()) return std::nullopt;
    const size_t begin = at;
    next_code_point(s, at);
    return heap.text(s.substr(begin, at - begin));
  }
  return std::nullopt;
}

// Python's slice.indices: clamped start and stop, and the step.
struct SliceRange {
  int64_t start;
  int64_t stop;
  int64_t step;
};

SliceRange slice_range(Heap& heap, int64_t size, const Value& start, const Value& stop,
                       const Value& step) {
  SliceRange range{};
  range.step = step.is(Kind::kNone) ? 1 : expect_int(heap, "a slice's step", step);
  if (range.step == 0) heap.fail("a slice's step cannot be zero");
  const int64_t lowest = range.step < 0 ? -1 : 0;
  const int64_t highest = range.step < 0 ? size - 1 : size;
  const auto clamp = [&](const Value& bound, int64_t otherwise) {
    if (bound.is(Kind::kNone)) return otherwise;
    int64_t at = expect_int(heap, "a slice's bound", bound);
    if (at < 0) at = at < -size ? lowest : at + size;
    return std::clamp(at, lowest, std::max(lowest, highest));
  };
  range.start = clamp(start, range.step < 0 ? highest : lowest);
  range.stop = clamp(stop, range.step < 0 ? lowest : highest);
  return range;
}

template <typename Take>
void walk(const SliceRange& range, Take take) {
  int64_t at = range.start;
  while (range.step > 0 ? at < range.stop : at > range.stop) {
    take(static_cast<size_t>(at));
    if (__builtin_add_overflow(at, range.step, &at)) return;
  }
}

}  // namespace

Value attribute(Heap& heap, const Value& object, const Text& name) {
  if (auto found = python_attribute(heap, object, name)) return *found;
  if (object.is(Kind::kDict)) {
    const Value* value = object.dict().find(name->chars);
    if (value != nullptr) return *value;
  }
  return missing(name);
}

Value subscript(Heap& heap, const Value& object, const Value& key) {
  if (object.is(Kind::kUndefined)) fail_undefined(heap, object);
  if (auto found = python_item(heap, object, key)) return *found;
  if (key.is(Kind::kText)) {
    if (auto found = python_attribute(heap, object, key.shared_text())) return *found;
    return missing(key.shared_text());
  }
  return missing(nullptr);
}

Value slice(Heap& heap, const Value& object, const Value& start, const Value& stop,
            const Value& step) {
  if (object.is(Kind::kUndefined)) fail_undefined(heap, object);
  if (object.is(Kind::kText)) {
    const std::string& s = object.text();
    heap.work_bytes(2 * s.size());
    const auto offsets = code_point_offsets(s);
    const auto range =
        slice_range(heap, static_cast<int64_t>(offsets.size()) - 1, start, stop, step);
    std::string out;
    if (range.step == 1 && range.start < range.stop) {
      const size_t begin = offsets[static_cast<size_t>(range.start)];
      out = s.substr(begin, offsets[static_cast<size_t>(range.stop)] - begin);
    } else {
      walk(range, [&](size_t i) { out.append(s, offsets[i], offsets[i + 1] - offsets[i]); });
    }
    return heap.text(std::move(out));
  }
  if (!object.is(Kind::kList) || !object.list().has_index()) {
    heap.fail(std::string("a value of type ").append(type_name(object)) + " cannot be sliced");
  }
  const auto& items = object.list().items;
  const auto range = slice_range(heap, static_cast<int64_t>(items.size()), start, stop, step);
  // A part of a group is a plain tuple: it need not have the two items that name it.
  const ListKind kind = object.list().kind;
  List* out = heap.list(kind == ListKind::kGroup ? ListKind::kTuple : kind);
  walk(range, [&](size_t i) {
    heap.step();
    heap.append(*out, items[i]);
  });
  return out;
}

Value attribute_path(Heap& heap, Value object, const Value& path) {
  if (!path.is(Kind::kText)) return subscript(heap, object, path);
  for (std::string_view part : split(path.text(), ".", -1)) {
    const bool digits =
        !part.empty() && part.size() < 10 &&
        std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    const Value key =
        digits ? Value(int64_t{std::stoi(std::string(part))}) : heap.text(std::string(part));
    object = subscript(heap, object, key);
  }
  return object;
}

bool iterable(const Value& value) {
  return value.is(Kind::kUndefined) || value.is(Kind::kText) || value.is(Kind::kList) ||
         value.is(Kind::kDict) || value.is(Kind::kLoop);
}

const List& iterate(Heap& heap, const Value& value) {
  switch (value.kind()) {
    case Kind::kList: {
      List& list = value.list();
      if (list.kind != ListKind::kGenerator) return list;
      List* taken = heap.list();
      std::swap(taken->items, list.items);
      return *taken;
    }
    case Kind::kUndefined:
      return *heap.list();
    case Kind::kText: {
      List* out = heap.list();
      const std::string& s = value.text();
      for (size_t at = 0; at < s.size();) {
        const size_t begin = at;
        next_code_point(s, at);
        heap.step();
        heap.append(*out, heap.text(s.substr(begin, at - begin)));
      }
      return *out;
    }
    case Kind::kDict: {
      List* out = heap.list();
      for (const auto& entry : value.dict().entries()) {
        heap.step();
        heap.append(*out, entry.first);
      }
      return *out;
    }
    default:
      heap.fail(std::string("a value of type ").append(type_name(value)) + " cannot be iterated");
  }
}

int64_t length(Heap& heap, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kText:
      heap.work_bytes(value.text().size());
      return count_code_points(value.text());
    case Kind::kList:
      if (value.list().has_length()) return static_cast<int64_t>(value.list().items.size());
      break;
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().entries().size());
    default:
      break;
  }
  heap.fail(std::string("a value of type ").append(type_name(value)) + " has no length");
}

}  // namespace spillway::jinja
