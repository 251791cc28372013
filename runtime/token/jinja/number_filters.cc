// Filters that count and compare: abs, float, round, sum, min, max, and those that deal a sequence
// out: batch, slice, groupby, reverse.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "runtime/token/jinja/filters.h"
#include "runtime/token/jinja/operators.h"
#include "runtime/token/jinja/text.h"

namespace spillway::jinja {
namespace {

Value filter_abs(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "abs", arguments).finish();
  if (input.is(Kind::kFloat)) return std::abs(input.real());
  return expect_int(heap, "abs: the value", input) < 0 ? negate(heap, input) : input.integer();
}

Value filter_float(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "float", arguments);
  const Value otherwise = reader.optional("default", 0.0);
  reader.finish();
  if (input.is(Kind::kUndefined)) fail_undefined(heap, input);
  if (input.is_number()) return input.real();
  if (!input.is(Kind::kText)) return otherwise;
  std::string_view text = strip(input.text(), std::nullopt, true, true);
  if (text.size() > 1 && text.front() == '+' && text[1] != '-') text.remove_prefix(1);
  double number = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = !text.empty() && end == text.data() + text.size() && fault == std::errc();
  return whole ? Value(number) : otherwise;
}

// Python's round(): halves go to the even neighbour of the exact binary value, as printf does.
double round_to(double number, int64_t digits) {
  if (!std::isfinite(number) || digits > 300) return number;
  if (digits < 0) {
    const double unit = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(number / unit) * unit;
  }
  char buffer[700];
  std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(digits), number);
  double out = 0;
  std::from_chars(buffer, buffer + std::char_traits<char>::length(buffer), out);
  return out;
}

Value filter_round(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "round", arguments);
  const int64_t digits =
      expect_int(heap, "round: the precision", reader.optional("precision", int64_t{0}));
  const Value method = reader.optional("method", Value(literal_text("common")));
  reader.finish();
  const std::string name = method.is(Kind::kText) ? method.text() : "";
  if (input.is(Kind::kUndefined)) fail_undefined(heap, input);
  if (!input.is_number()) heap.fail("round needs a number, not " + std::string(type_name(input)));
  if (name == "common") {
    if (input.is_integral() && digits >= 0) return input.integer();
    const double rounded = round_to(input.real(), digits);
    return input.is_integral() ? Value(static_cast<int64_t>(rounded)) : Value(rounded);
  }
  if (name != "ceil" && name != "floor") heap.fail("round: the method is common, ceil or floor");
  const double unit = std::pow(10.0, static_cast<double>(digits));
  const double scaled = input.real() * unit;
  return (name == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit;
}

Value filter_sum(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "sum", arguments);
  const Value path = reader.optional("attribute", None{});
  Value total = reader.optional("start", int64_t{0});
  reader.finish();
  if (total.is(Kind::kText)) heap.fail("sum cannot join texts, use join");
  for (const Value& item : iterate(heap, input).items) {
    heap.step();
    const Value one = path.is(Kind::kNone) ? item : attribute_path(heap, item, path);
    total = arithmetic(heap, Arithmetic::kAdd, total, one);
  }
  return total;
}

Value lowered(Heap& heap, const Value& value) {
  return value.is(Kind::kText) ? heap.text(lower(value.text())) : value;
}

template <bool kGreatest>
Value filter_extreme(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, kGreatest ? "max" : "min", arguments);
  const bool case_sensitive = truth(reader.optional("case_sensitive", false));
  const Value path = reader.optional("attribute", None{});
  reader.finish();
  const List& list = iterate(heap, input);
  if (list.items.empty()) return Undefined{literal_text("the greatest or least of nothing")};
  Value best;
  Value best_key;
  for (const Value& item : list.items) {
    heap.step();
    Value key = path.is(Kind::kNone) ? item : attribute_path(heap, item, path);
    if (!case_sensitive) key = lowered(heap, key);
    const bool first = &item == &list.items.front();
    if (first || (kGreatest ? less(heap, best_key, key) : less(heap, key, best_key))) {
      best = item;
      best_key = key;
    }
  }
  return best;
}

Value filter_batch(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "batch", arguments);
  const int64_t each = expect_int(heap, "batch: the size", reader.required("linecount"));
  const Value fill = reader.optional("fill_with", None{});
  reader.finish();
  List* out = heap.list(ListKind::kGenerator);
  List* row = nullptr;
  for (const Value& item : iterate(heap, input).items) {
    heap.step();
    if (row == nullptr || static_cast<int64_t>(row->items.size()) == each) {
      row = heap.list();
      heap.append(*out, row);
    }
    heap.append(*row, item);
  }
  while (row != nullptr && !fill.is(Kind::kNone) &&
         static_cast<int64_t>(row->items.size()) < each) {
    heap.step();
    heap.append(*row, fill);
  }
  return out;
}

Value filter_slice(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "slice", arguments);
  const int64_t slices = expect_int(heap, "slice: the number", reader.required("slices"));
  const Value fill = reader.optional("fill_with", None{});
  reader.finish();
  if (slices < 1) heap.fail("slice: the number of slices must be 1 or more");
  const auto& items = iterate(heap, input).items;
  const auto each = static_cast<int64_t>(items.size()) / slices;
  const int64_t longer = static_cast<int64_t>(items.size()) % slices;
  List* out = heap.list(ListKind::kGenerator);
  size_t at = 0;
  for (int64_t i = 0; i < slices; ++i) {
    heap.step();
    List* row = heap.list();
    for (int64_t k = 0; k < each + (i < longer ? 1 : 0); ++k) heap.append(*row, items[at++]);
    if (!fill.is(Kind::kNone) && i >= longer) heap.append(*row, fill);
    heap.append(*out, row);
  }
  return out;
}

Value filter_groupby(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "groupby", arguments);
  const Value path = reader.required("attribute");
  const Value otherwise = reader.optional("default", None{});
  const bool case_sensitive = truth(reader.optional("case_sensitive", false));
  reader.finish();
  struct Keyed {
    Value shown;
    Value key;
    Value item;
  };
  std::vector<Keyed> keyed;
  for (const Value& item : iterate(heap, input).items) {
    heap.step();
    Value shown = attribute_path(heap, item, path);
    if (shown.is(Kind::kUndefined) && !otherwise.is(Kind::kNone)) shown = otherwise;
    keyed.push_back({shown, case_sensitive ? shown : lowered(heap, shown), item});
  }
  std::stable_sort(keyed.begin(), keyed.end(),
                   [&](const Keyed& a, const Keyed& b) { return less(heap, a.key, b.key); });
  List* out = heap.list();
  List* members = nullptr;
  for (size_t i = 0; i < keyed.size(); ++i) {
    if (i == 0 || !equals(heap, keyed[i].key, keyed[i - 1].key)) {
      List* group = heap.list(ListKind::kGroup);
      members = heap.list();
      heap.append(*group, keyed[i].shown);
      heap.append(*group, members);
      heap.append(*out, group);
    }
    heap.append(*members, keyed[i].item);
  }
  return out;
}

Value filter_reverse(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "reverse", arguments).finish();
  if (input.is(Kind::kText)) return slice(heap, input, None{}, None{}, int64_t{-1});
  const auto& items = iterate(heap, input).items;
  List* out = heap.list(ListKind::kGenerator);
  for (size_t i = items.size(); i > 0; --i) {
    heap.step();
    heap.append(*out, items[i - 1]);
  }
  return out;
}

struct Entry {
  std::string_view name;
  Filter filter;
};
constexpr Entry kFilters[] = {
    {"abs", filter_abs},         {"float", filter_float},        {"round", filter_round},
    {"sum", filter_sum},         {"min", filter_extreme<false>}, {"max", filter_extreme<true>},
    {"batch", filter_batch},     {"slice", filter_slice},        {"groupby", filter_groupby},
    {"reverse", filter_reverse},
};

}  // namespace

Filter find_number_filter(std::string_view name) {
  for (const Entry& entry : kFilters) {
    if (entry.name == name) return entry.filter;
  }
  return nullptr;
}

}  // namespace spillway::jinja
