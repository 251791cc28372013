// Filters on sequences: join, map, select and reject, sort, unique, first, last, items, list.
// Python makes generators of map, select, unique and items; here they are computed at once into a
// list tagged as a generator, which still cannot be measured, indexed or walked twice.
#include <algorithm>

#include "runtime/token/jinja/filters.h"
#include "runtime/token/jinja/format.h"
#include "runtime/token/jinja/operators.h"
#include "runtime/token/jinja/predicates.h"
#include "runtime/token/jinja/text.h"

namespace spillway::jinja {
namespace {

Value lowered(Heap& heap, const Value& value) {
  return value.is(Kind::kText) ? heap.text(lower(value.text())) : value;
}

Value filter_join(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "join", arguments);
  const Value between = to_text_value(heap, reader.optional("d", Value(literal_text(""))));
  const Value path = reader.optional("attribute", None{});
  reader.finish();
  std::string out;
  bool first = true;
  for (const Value& item : iterate(heap, input).items) {
    heap.step();
    if (!first) out += between.text();
    first = false;
    const Value part = path.is(Kind::kNone) ? item : attribute_path(heap, item, path);
    out += to_text_value(heap, part).text();
    if (static_cast<int64_t>(out.size()) > heap.limits().live_bytes) break;  // text() refuses it
  }
  return heap.text(std::move(out));
}

Value filter_list(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "list", arguments).finish();
  List* out = heap.list();
  for (const Value& item : iterate(heap, input).items) {
    heap.step();
    heap.append(*out, item);
  }
  return out;
}

Value end_item(Heap& heap, const Value& input, bool last) {
  if (last && input.is(Kind::kList) && !input.list().has_length()) {
    heap.fail("last: a generator has no end to begin from");
  }
  const List& list = iterate(heap, input);
  if (list.items.empty()) return Undefined{literal_text(last ? "last item" : "first item")};
  return last ? list.items.back() : list.items.front();
}

Value filter_first(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "first", arguments).finish();
  return end_item(heap, input, false);
}

Value filter_last(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "last", arguments).finish();
  return end_item(heap, input, true);
}

Value pair_of(Heap& heap, const Value& a, const Value& b) {
  List* pair = heap.list(ListKind::kTuple);
  heap.append(*pair, a);
  heap.append(*pair, b);
  return pair;
}

Value filter_items(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "items", arguments).finish();
  List* out = heap.list(ListKind::kGenerator);
  if (input.is(Kind::kUndefined)) return out;
  if (!input.is(Kind::kDict)) {
    heap.fail(std::string("items needs a dict, not ").append(type_name(input)));
  }
  for (const auto& [key, value] : input.dict().entries()) {
    heap.step();
    heap.append(*out, pair_of(heap, key, value));
  }
  return out;
}

// Sorts items by their keys; equal keys keep their order, also when reversed, as in Python.
void sort_by_keys(Heap& heap, std::vector<std::pair<Value, Value>>& keyed, bool reverse) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? less(heap, b.first, a.first) : less(heap, a.first, b.first);
  });
}

Value filter_dictsort(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "dictsort", arguments);
  const bool case_sensitive = truth(reader.optional("case_sensitive", false));
  const Value by = reader.optional("by", Value(literal_text("key")));
  const bool reverse = truth(reader.optional("reverse", false));
  reader.finish();
  const bool by_value = by.is(Kind::kText) && by.text() == "value";
  if (!by_value && !(by.is(Kind::kText) && by.text() == "key")) {
    heap.fail("dictsort: by must be 'key' or 'value'");
  }
  if (input.is(Kind::kUndefined)) fail_undefined(heap, input);
  if (!input.is(Kind::kDict)) {
    heap.fail(std::string("dictsort needs a dict, not ").append(type_name(input)));
  }
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, value] : input.dict().entries()) {
    const Value& sort_key = by_value ? value : key;
    keyed.emplace_back(case_sensitive ? sort_key : lowered(heap, sort_key),
                       pair_of(heap, key, value));
  }
  sort_by_keys(heap, keyed, reverse);
  List* out = heap.list();
  for (auto& entry : keyed) heap.append(*out, std::move(entry.second));
  return out;
}

// The key an item is sorted or compared by: the item, or its attributes ("a" or "a,b").
Value item_key(Heap& heap, const Value& item, const Value& path, bool case_sensitive) {
  if (path.is(Kind::kNone)) return case_sensitive ? item : lowered(heap, item);
  if (!path.is(Kind::kText) || path.text().find(',') == std::string::npos) {
    const Value key = attribute_path(heap, item, path);
    return case_sensitive ? key : lowered(heap, key);
  }
  List* keys = heap.list();
  for (std::string_view part : split(path.text(), ",", -1)) {
    const Value key = attribute_path(heap, item, heap.text(std::string(part)));
    heap.append(*keys, case_sensitive ? key : lowered(heap, key));
  }
  return keys;
}

Value filter_sort(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "sort", arguments);
  const bool reverse = truth(reader.optional("reverse", false));
  const bool case_sensitive = truth(reader.optional("case_sensitive", false));
  const Value path = reader.optional("attribute", None{});
  reader.finish();
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : iterate(heap, input).items) {
    heap.step();
    keyed.emplace_back(item_key(heap, item, path, case_sensitive), item);
  }
  sort_by_keys(heap, keyed, reverse);
  List* out = heap.list();
  for (auto& entry : keyed) heap.append(*out, std::move(entry.second));
  return out;
}

Value filter_unique(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "unique", arguments);
  const bool case_sensitive = truth(reader.optional("case_sensitive", false));
  const Value path = reader.optional("attribute", None{});
  reader.finish();
  List* out = heap.list(ListKind::kGenerator);
  Dict* seen = heap.dict();
  for (const Value& item : iterate(heap, input).items) {
    heap.step();
    const Value key = item_key(heap, item, path, case_sensitive);
    if (heap.find(*seen, key) != nullptr) continue;
    heap.set(*seen, key, true);
    heap.append(*out, item);
  }
  return out;
}

Value filter_map(Heap& heap, const Value& input, const Arguments& arguments) {
  List* out = heap.list(ListKind::kGenerator);
  if (arguments.positional.empty()) {
    ArgumentReader reader(heap, "map", arguments);
    const Value path = reader.required("attribute");
    const Value otherwise = reader.optional("default", None{});
    reader.finish();
    if (!truth(input)) return out;  // as Jinja: none is an empty sequence to map and select
    for (const Value& item : iterate(heap, input).items) {
      heap.step();
      Value value = attribute_path(heap, item, path);
      if (value.is(Kind::kUndefined) && !otherwise.is(Kind::kNone)) value = otherwise;
      heap.append(*out, std::move(value));
    }
    return out;
  }
  if (!truth(input)) return out;
  const Value& name = arguments.positional.front();
  const Filter filter = name.is(Kind::kText) ? find_filter(name.text()) : nullptr;
  if (filter == nullptr) heap.fail("map: no filter '" + to_text(heap, name) + "'");
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (const Value& item : iterate(heap, input).items) {
    heap.step();
    heap.append(*out, filter(heap, item, rest));
  }
  return out;
}

// select, reject, selectattr, rejectattr: [attribute,] [test, its arguments].
Value choose(Heap& heap, const Value& input, const Arguments& arguments, bool by_attribute,
             bool keep) {
  Arguments rest = arguments;
  const auto shift = [&] {
    Value first = rest.positional.front();
    rest.positional.erase(rest.positional.begin());
    return first;
  };
  Value path = None{};
  if (by_attribute) {
    if (rest.positional.empty()) heap.fail("selectattr and rejectattr need an attribute's name");
    path = shift();
  }
  Predicate test = nullptr;
  if (!rest.positional.empty()) {
    const Value name = shift();
    if (name.is(Kind::kText)) test = find_predicate(name.text());
    if (test == nullptr) heap.fail("no test '" + to_text(heap, name) + "'");
  }
  List* out = heap.list(ListKind::kGenerator);
  if (!truth(input)) return out;
  for (const Value& item : iterate(heap, input).items) {
    heap.step();
    const Value subject = by_attribute ? attribute_path(heap, item, path) : item;
    const bool holds = test == nullptr ? truth(subject) : test(heap, subject, rest);
    if (holds == keep) heap.append(*out, item);
  }
  return out;
}

template <bool kByAttribute, bool kKeep>
Value filter_choose(Heap& heap, const Value& input, const Arguments& arguments) {
  return choose(heap, input, arguments, kByAttribute, kKeep);
}

struct Entry {
  std::string_view name;
  Filter filter;
};
constexpr Entry kFilters[] = {
    {"join", filter_join},
    {"list", filter_list},
    {"first", filter_first},
    {"last", filter_last},
    {"items", filter_items},
    {"dictsort", filter_dictsort},
    {"sort", filter_sort},
    {"unique", filter_unique},
    {"map", filter_map},
    {"select", filter_choose<false, true>},
    {"reject", filter_choose<false, false>},
    {"selectattr", filter_choose<true, true>},
    {"rejectattr", filter_choose<true, false>},
};

}  // namespace

Filter find_sequence_filter(std::string_view name) {
  for (const Entry& entry : kFilters) {
    if (entry.name == name) return entry.filter;
  }
  return nullptr;
}

}  // namespace spillway::jinja
