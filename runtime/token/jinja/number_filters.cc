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
  heap.work_bytes(input.text().size());
  std::string_view text = strip(input.text(), std::nullopt, true, true);
  if (text.size() > 1 && text.front() == '+' && text[1] != '-') text.remove_prefix(1);
  double number = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = !text.empty() && end == text.data() + text.size() && fault == std::errc();
  return whole ? Value(number) : otherwise;
}

// The digits that round(number, -places) leaves of a finite number >= 0.
std::string digits_left(double number, size_t places) {
  char buffer[400];
  const double whole = std::trunc(number);
  std::snprintf(buffer, sizeof(buffer), "%.0f", whole);
  const std::string digits = buffer;
  if (digits.size() > places) {
    const auto shown = static_cast<int>(digits.size() - places - 1);
    std::snprintf(buffer, sizeof(buffer), "%.*e", shown, number);
    return buffer;
  }
  // Less than one unit: the exact half goes to 0, which is even.
  const std::string half = "5" + std::string(places - 1, '0');
  const bool up = digits.size() == places && (digits > half || (digits == half && number > whole));
  return up ? "1e" + std::to_string(places) : "0";
}

// Python's round(): halves go to the even neighbour of the exact binary value, as printf does.
double round_to(Heap& heap, double number, int64_t digits) {
  // Beyond these the number itself remains, or 0: a double is 5e-324 to 1.8e308.
  if (!std::isfinite(number) || digits > 323) return number;
  if (digits < -308) return std::copysign(0.0, number);
  const double size = std::abs(number);
  std::string text;
  if (digits < 0) {
    text = digits_left(size, static_cast<size_t>(-digits));
  } else {
    char buffer[700];
    std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(digits), size);
    text = buffer;
  }
  double out = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), out);
  // Text that is less than the least double also comes here: 0 is right for that.
  if (read.ec == std::errc::result_out_of_range && size >= 1) {
    heap.fail("round gives a number beyond a float");
  }
  return std::copysign(out, number);
}

// The same of an int, exact where a double is not.
int64_t round_to(Heap& heap, int64_t number, int64_t digits) {
  if (digits >= 0) return number;
  if (digits < -19) return 0;  // half of 10^20 is beyond 64 bits
  uint64_t unit = 1;
  for (int64_t i = digits; i < 0; ++i) unit *= 10;
  const uint64_t size =
      number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
  const uint64_t rest = size % unit;
  const bool odd = size / unit % 2 == 1;
  const bool up = rest > unit - rest || (rest == unit - rest && odd);
  const uint64_t rounded = size - rest + (up ? unit : 0);
  if (rounded > static_cast<uint64_t>(INT64_MAX)) {
    heap.fail("round gives an integer beyond 64 bits");
  }
  return number < 0 ? -static_cast<int64_t>(rounded) : static_cast<int64_t>(rounded);
}

// ceil and floor of number * 10^digits, as Jinja computes it.
double round_towards(Heap& heap, const Value& number, int64_t digits, bool up) {
  // Python's ints have no end: all the digits of an int remain.
  if (number.is_integral() && digits >= 0) return number.real();
  const double unit = std::pow(10.0, static_cast<double>(digits));
  const double scaled = number.real() * unit;
  if (unit == 0 || !std::isfinite(unit) || !std::isfinite(scaled)) {
    heap.fail("round gives a number beyond a float");
  }
  return (up ? std::ceil(scaled) : std::floor(scaled)) / unit;
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
    if (input.is_integral()) return round_to(heap, input.integer(), digits);
    return round_to(heap, input.real(), digits);
  }
  if (name != "ceil" && name != "floor") heap.fail("round: the method is common, ceil or floor");
  return round_towards(heap, input, digits, name == "ceil");
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
