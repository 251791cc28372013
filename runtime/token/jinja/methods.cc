// The methods themselves, one function each, named by type and method, and the tables of names.
#include "runtime/token/jinja/methods.h"

#include <algorithm>
#include <span>

#include "runtime/token/jinja/operators.h"
#include "runtime/token/jinja/text.h"

namespace spillway::jinja {
namespace {

const std::string& expect_text(Heap& heap, std::string_view what, const Value& value) {
  if (value.is(Kind::kUndefined)) fail_undefined(heap, value);
  if (!value.is(Kind::kText)) {
    heap.fail(std::string(what).append(" must be a str, not ").append(type_name(value)));
  }
  return value.text();
}

Value strip_sides(Heap& heap, const Value& self, const Arguments& arguments, std::string_view name,
                  bool left, bool right) {
  ArgumentReader reader(heap, name, arguments);
  const Value chars = reader.optional("chars", None{});
  reader.finish();
  heap.work_bytes(self.text().size());
  std::optional<std::string_view> set;
  if (!chars.is(Kind::kNone)) {
    set = expect_text(heap, "the characters to strip", chars);
    heap.work_bytes(self.text().size() * std::min<size_t>(set->size(), 1 << 20));
  }
  return heap.text(std::string(strip(self.text(), set, left, right)));
}

Value str_strip(Heap& heap, const Value& self, const Arguments& a) {
  return strip_sides(heap, self, a, "strip", true, true);
}
Value str_lstrip(Heap& heap, const Value& self, const Arguments& a) {
  return strip_sides(heap, self, a, "lstrip", true, false);
}
Value str_rstrip(Heap& heap, const Value& self, const Arguments& a) {
  return strip_sides(heap, self, a, "rstrip", false, true);
}

Value texts(Heap& heap, const std::vector<std::string_view>& parts) {
  List* out = heap.list();
  for (std::string_view part : parts) {
    heap.step();
    heap.append(*out, heap.text(std::string(part)));
  }
  return out;
}

Value str_split(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "split", arguments);
  const Value separator = reader.optional("sep", None{});
  const int64_t most = expect_int(heap, "maxsplit", reader.optional("maxsplit", int64_t{-1}));
  reader.finish();
  heap.work_bytes(self.text().size());
  if (separator.is(Kind::kNone)) return texts(heap, split_space(self.text(), most));
  const std::string& s = expect_text(heap, "the separator of split", separator);
  if (s.empty()) heap.fail("split needs a separator that is not empty");
  return texts(heap, split(self.text(), s, most));
}

Value str_splitlines(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "splitlines", arguments).finish();
  return texts(heap, split_lines(self.text()));
}

// str.startswith and str.endswith take a text or a tuple of texts.
template <typename Matches>
Value match_any(Heap& heap, std::string_view name, const Arguments& arguments, Matches matches) {
  ArgumentReader reader(heap, name, arguments);
  const Value wanted = reader.required("prefix or suffix");
  reader.finish();
  if (!wanted.is(Kind::kList) || wanted.list().kind != ListKind::kTuple) {
    return bool(matches(expect_text(heap, name, wanted)));
  }
  for (const Value& one : wanted.list().items) {
    heap.step();
    if (matches(expect_text(heap, name, one))) return true;
  }
  return false;
}

Value str_startswith(Heap& heap, const Value& self, const Arguments& a) {
  return match_any(heap, "startswith", a, [&](const std::string& s) {
    heap.work_bytes(std::min(s.size(), self.text().size()));
    return self.text().starts_with(s);
  });
}
Value str_endswith(Heap& heap, const Value& self, const Arguments& a) {
  return match_any(heap, "endswith", a, [&](const std::string& s) {
    heap.work_bytes(std::min(s.size(), self.text().size()));
    return self.text().ends_with(s);
  });
}

Value str_replace(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "replace", arguments);
  const Value from = reader.required("old");
  const Value to = reader.required("new");
  const int64_t most = expect_int(heap, "count", reader.optional("count", int64_t{-1}));
  reader.finish();
  heap.work_bytes(self.text().size());
  return heap.text(replace_all(self.text(), expect_text(heap, "replace", from),
                               expect_text(heap, "replace", to), most, heap.limits().live_bytes));
}

template <std::string (*kMap)(std::string_view)>
Value str_map(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "a case method", arguments).finish();
  return heap.text(kMap(self.text()));
}

Value str_join(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "join", arguments);
  const Value parts = reader.required("iterable");
  reader.finish();
  std::string out;
  bool first = true;
  for (const Value& part : iterate(heap, parts).items) {
    heap.step();
    if (!first) out += self.text();
    first = false;
    out += expect_text(heap, "an item of join", part);
    if (static_cast<int64_t>(out.size()) > heap.limits().live_bytes) break;  // text() refuses it
  }
  return heap.text(std::move(out));
}

Value list_append(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "append", arguments);
  const Value item = reader.required("object");
  reader.finish();
  heap.append(self.list(), item);
  return None{};
}

Value list_pop(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "pop", arguments);
  int64_t at = expect_int(heap, "the index of pop", reader.optional("index", int64_t{-1}));
  reader.finish();
  auto& items = self.list().items;
  const auto size = static_cast<int64_t>(items.size());
  if (at < 0) at += size;
  if (at < 0 || at >= size) heap.fail("pop: no such index in a list of " + std::to_string(size));
  Value item = items[static_cast<size_t>(at)];
  heap.step((size - at) / 16);
  items.erase(items.begin() + at);
  return item;
}

Value dict_view(Heap& heap, const Value& self, const Arguments& arguments, ListKind kind) {
  ArgumentReader(heap, "a view of a dict", arguments).finish();
  List* out = heap.list(kind);
  for (const auto& [key, value] : self.dict().entries()) {
    heap.step();
    if (kind == ListKind::kItemsView) {
      List* pair = heap.list(ListKind::kTuple);
      heap.append(*pair, key);
      heap.append(*pair, value);
      heap.append(*out, pair);
    } else {
      heap.append(*out, kind == ListKind::kKeysView ? key : value);
    }
  }
  return out;
}

Value dict_items(Heap& heap, const Value& self, const Arguments& a) {
  return dict_view(heap, self, a, ListKind::kItemsView);
}
Value dict_keys(Heap& heap, const Value& self, const Arguments& a) {
  return dict_view(heap, self, a, ListKind::kKeysView);
}
Value dict_values(Heap& heap, const Value& self, const Arguments& a) {
  return dict_view(heap, self, a, ListKind::kValuesView);
}

Value dict_get(Heap& heap, const Value& self, const Arguments& arguments) {
  if (!arguments.named.empty()) heap.fail("get takes no keyword arguments");
  ArgumentReader reader(heap, "get", arguments);
  const Value key = reader.required("key");
  const Value otherwise = reader.optional("default", None{});
  reader.finish();
  const Value* found = heap.find(self.dict(), key);
  return found == nullptr ? otherwise : *found;
}

Value dict_pop(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "pop", arguments);
  const Value key = reader.required("key");
  const bool has_default = arguments.positional.size() > 1;
  const Value otherwise = reader.optional("default", None{});
  reader.finish();
  const Value* found = heap.find(self.dict(), key);
  if (found == nullptr) {
    if (!has_default) heap.fail("pop: the dict has no such key");
    return otherwise;
  }
  Value value = *found;
  heap.step(static_cast<int64_t>(self.dict().entries().size()) / 16);
  self.dict().erase(heap, key);
  return value;
}

constexpr Method kTextMethods[] = {
    {"strip", str_strip},
    {"lstrip", str_lstrip},
    {"rstrip", str_rstrip},
    {"split", str_split},
    {"splitlines", str_splitlines},
    {"startswith", str_startswith},
    {"endswith", str_endswith},
    {"replace", str_replace},
    {"upper", str_map<upper>},
    {"lower", str_map<lower>},
    {"capitalize", str_map<capitalize>},
    {"join", str_join},
    {"encode", nullptr},
    {"expandtabs", nullptr},
    {"format_map", nullptr},
    {"isidentifier", nullptr},
    {"istitle", nullptr},
    {"maketrans", nullptr},
    {"translate", nullptr},
};
constexpr Method kListMethods[] = {
    {"append", list_append},
    {"pop", list_pop},
    {"sort", nullptr},
};
constexpr Method kDictMethods[] = {
    {"items", dict_items}, {"keys", dict_keys},   {"values", dict_values}, {"get", dict_get},
    {"pop", dict_pop},     {"fromkeys", nullptr}, {"popitem", nullptr},
};

// Both halves of the table for a type.
std::pair<std::span<const Method>, std::span<const Method>> methods_of(const Value& object) {
  if (object.is(Kind::kText)) return {kTextMethods, further_text_methods()};
  if (object.is(Kind::kDict)) return {kDictMethods, further_dict_methods()};
  if (object.is(Kind::kLoop)) return {loop_methods(), {}};
  if (object.is(Kind::kList) && object.list().kind == ListKind::kList) {
    return {kListMethods, further_list_methods()};
  }
  return {};
}

}  // namespace

const Method* find_method(const Value& object, std::string_view name) {
  const auto [first, second] = methods_of(object);
  for (const std::span<const Method> half : {first, second}) {
    for (const Method& method : half) {
      if (method.name == name) return &method;
    }
  }
  return nullptr;
}

std::optional<Value> bound_method(Heap& heap, const Value& object, const Text& name) {
  const Method* method = find_method(object, name->chars);
  if (method == nullptr) return std::nullopt;
  Callable callable;
  callable.name = name;
  callable.function = method->function;
  callable.receiver = object;
  return Value(heap.callable(std::move(callable)));
}

}  // namespace spillway::jinja
