// Methods of list, dict and the loop object beside those of methods.cc.
#include <algorithm>

#include "runtime/token/jinja/methods.h"
#include "runtime/token/jinja/operators.h"

namespace spillway::jinja {
namespace {

Value list_extend(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "extend", arguments);
  const Value more = reader.required("iterable");
  reader.finish();
  const std::vector<Value> items = iterate(heap, more).items;  // a copy: it may be this list
  for (const Value& item : items) {
    heap.step();
    heap.append(self.list(), item);
  }
  return None{};
}

Value list_insert(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "insert", arguments);
  int64_t at = expect_int(heap, "the index of insert", reader.required("index"));
  const Value item = reader.required("object");
  reader.finish();
  const auto size = static_cast<int64_t>(self.list().items.size());
  if (at < 0) at += size;
  at = std::clamp<int64_t>(at, 0, size);
  heap.step((size - at) / 16);
  heap.append(self.list(), item);
  auto& items = self.list().items;
  std::rotate(items.begin() + at, items.end() - 1, items.end());
  return None{};
}

int64_t position_of(Heap& heap, const Value& self, const Value& wanted) {
  const auto& items = self.list().items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (equals(heap, items[i], wanted)) return static_cast<int64_t>(i);
  }
  return -1;
}

Value list_index(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "index", arguments);
  const int64_t at = position_of(heap, self, reader.required("value"));
  reader.finish();
  if (at < 0) heap.fail("index: the list has no such item");
  return at;
}

Value list_remove(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "remove", arguments);
  const int64_t at = position_of(heap, self, reader.required("value"));
  reader.finish();
  if (at < 0) heap.fail("remove: the list has no such item");
  auto& items = self.list().items;
  heap.step((static_cast<int64_t>(items.size()) - at) / 16);
  items.erase(items.begin() + at);
  return None{};
}

Value list_count(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "count", arguments);
  const Value wanted = reader.required("value");
  reader.finish();
  int64_t count = 0;
  for (const Value& item : self.list().items) count += equals(heap, item, wanted);
  return count;
}

Value list_reverse(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "reverse", arguments).finish();
  heap.step(static_cast<int64_t>(self.list().items.size()));
  std::reverse(self.list().items.begin(), self.list().items.end());
  return None{};
}

Value list_clear(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "clear", arguments).finish();
  self.list().items.clear();
  return None{};
}

Value list_copy(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "copy", arguments).finish();
  return slice(heap, self, None{}, None{}, None{});
}

Value dict_update(Heap& heap, const Value& self, const Arguments& arguments) {
  if (arguments.positional.size() > 1) heap.fail("update takes one dict at most");
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional.front();
    if (!from.is(Kind::kDict)) {
      heap.fail(std::string("update needs a dict, not ").append(type_name(from)));
    }
    const std::vector<Dict::Entry> entries = from.dict().entries();  // it may be this dict
    for (const auto& [key, value] : entries) {
      heap.step();
      heap.set(self.dict(), key, value);
    }
  }
  for (const auto& [key, value] : arguments.named) heap.set(self.dict(), Value(key), value);
  return None{};
}

Value dict_setdefault(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "setdefault", arguments);
  const Value key = reader.required("key");
  const Value otherwise = reader.optional("default", None{});
  reader.finish();
  const Value* found = heap.find(self.dict(), key);
  if (found != nullptr) return *found;
  heap.set(self.dict(), key, otherwise);
  return otherwise;
}

Value dict_copy(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "copy", arguments).finish();
  Dict* out = heap.dict();
  for (const auto& [key, value] : self.dict().entries()) {
    heap.step();
    heap.set(*out, key, value);
  }
  return out;
}

Value dict_clear(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "clear", arguments).finish();
  self.dict() = Dict();
  return None{};
}

// loop.cycle(a, b, …): the one whose turn it is.
Value loop_cycle(Heap& heap, const Value& self, const Arguments& arguments) {
  const std::vector<Value> choices = ArgumentReader(heap, "cycle", arguments).rest();
  if (choices.empty()) heap.fail("cycle needs something to go through");
  return choices[self.loop().index0 % choices.size()];
}

// loop.changed(values): whether they differ from those of the call before.
Value loop_changed(Heap& heap, const Value& self, const Arguments& arguments) {
  Loop& loop = self.loop();
  const std::vector<Value> now = ArgumentReader(heap, "changed", arguments).rest();
  bool same = loop.asked && now.size() == loop.changed.size();
  for (size_t i = 0; same && i < now.size(); ++i) same = equals(heap, now[i], loop.changed[i]);
  loop.asked = true;
  loop.changed = now;
  return !same;
}

constexpr Method kListMethods[] = {
    {"extend", list_extend}, {"insert", list_insert}, {"index", list_index},
    {"remove", list_remove}, {"count", list_count},   {"reverse", list_reverse},
    {"clear", list_clear},   {"copy", list_copy},
};
constexpr Method kDictMethods[] = {
    {"update", dict_update},
    {"setdefault", dict_setdefault},
    {"copy", dict_copy},
    {"clear", dict_clear},
};
constexpr Method kLoopMethods[] = {{"cycle", loop_cycle}, {"changed", loop_changed}};

}  // namespace

std::span<const Method> further_list_methods() { return kListMethods; }
std::span<const Method> further_dict_methods() { return kDictMethods; }
std::span<const Method> loop_methods() { return kLoopMethods; }

}  // namespace spillway::jinja
