// Filters on one value: text, numbers, JSON, default. Filters on sequences: sequence_filters.cc.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "runtime/token/jinja/filters.h"
#include "runtime/token/jinja/format.h"
#include "runtime/token/jinja/operators.h"
#include "runtime/token/jinja/text.h"

namespace spillway::jinja {
namespace {

Value filter_length(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "length", arguments).finish();
  return length(heap, input);
}

Value filter_string(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "string", arguments).finish();
  return to_text_value(heap, input);
}

Value filter_trim(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "trim", arguments);
  const Value chars = reader.optional("chars", None{});
  reader.finish();
  const Value text = to_text_value(heap, input);
  heap.work_bytes(text.text().size());
  if (chars.is(Kind::kNone)) {
    return heap.text(std::string(strip(text.text(), std::nullopt, true, true)));
  }
  if (!chars.is(Kind::kText)) heap.fail("trim: the characters must be a str");
  // Each character is looked for among these.
  heap.work_bytes(text.text().size() * std::min<size_t>(chars.text().size(), 1 << 20));
  return heap.text(std::string(strip(text.text(), chars.text(), true, true)));
}

template <std::string (*kMap)(std::string_view)>
Value filter_case(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "a case filter", arguments).finish();
  return heap.text(kMap(to_text_value(heap, input).text()));
}

Value filter_replace(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "replace", arguments);
  const Value from = to_text_value(heap, reader.required("old"));
  const Value to = to_text_value(heap, reader.required("new"));
  const Value count = reader.optional("count", None{});
  reader.finish();
  const int64_t most = count.is(Kind::kNone) ? -1 : expect_int(heap, "replace: the count", count);
  const Value text = to_text_value(heap, input);
  heap.work_bytes(text.text().size());
  return heap.text(
      replace_all(text.text(), from.text(), to.text(), most, heap.limits().live_bytes));
}

// White space for one level: as many spaces as an int says, or the text itself.
std::string margin(Heap& heap, std::string_view who, const Value& width) {
  if (width.is(Kind::kText)) return width.text();
  const int64_t spaces = expect_int(heap, who, width);
  if (spaces > 4096) heap.fail(std::string(who) + " is limited to 4096 spaces");
  return std::string(static_cast<size_t>(spaces < 0 ? 0 : spaces), ' ');
}

Value filter_indent(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "indent", arguments);
  const std::string space = margin(heap, "indent", reader.optional("width", int64_t{4}));
  const bool first = truth(reader.optional("first", false));
  const bool blank = truth(reader.optional("blank", false));
  reader.finish();
  if (!input.is(Kind::kText)) {
    heap.fail(std::string("indent needs a str, not ").append(type_name(input)));
  }
  // Jinja adds a line break before it splits, so that "" is one empty line and "a\n" two lines.
  const std::string source = input.text() + "\n";
  std::string out = first ? space : "";
  bool at_start = true;
  for (std::string_view line : split_lines(source)) {
    if (!at_start) {
      out += '\n';
      if (blank || !line.empty()) out += space;
    }
    at_start = false;
    out += line;
    heap.step();
    heap.work_bytes(line.size() + space.size());
    if (static_cast<int64_t>(out.size()) > heap.limits().live_bytes) break;  // text() refuses it
  }
  return heap.text(std::move(out));
}

Value filter_default(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "default", arguments);
  Value otherwise = reader.optional("default_value", Value(literal_text("")));
  const bool when_false = truth(reader.optional("boolean", false));
  reader.finish();
  const bool use = input.is(Kind::kUndefined) || (when_false && !truth(input));
  return use ? otherwise : input;
}

Value filter_safe(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "safe", arguments).finish();
  return heap.text(to_text(heap, input), true);
}

// Python's int(text, base), or nothing. Underscores may stand between digits.
std::optional<int64_t> parse_int(Heap& heap, std::string_view s, int64_t base) {
  s = strip(s, std::nullopt, true, true);
  std::string digits;
  if (!s.empty() && (s.front() == '-' || s.front() == '+')) {
    if (s.front() == '-') digits = "-";
    s.remove_prefix(1);
  }
  if (s.size() > 2 && s[0] == '0') {
    const char mark = static_cast<char>(s[1] | 0x20);
    if ((base == 16 && mark == 'x') || (base == 8 && mark == 'o') || (base == 2 && mark == 'b')) {
      s.remove_prefix(2);
      if (s.front() == '_') s.remove_prefix(1);
    }
  }
  bool after_digit = false;
  for (char c : s) {
    if (c == '_') {
      if (!after_digit) return std::nullopt;
      after_digit = false;
      continue;
    }
    if (c == '-' || c == '+') return std::nullopt;
    digits += c;
    after_digit = true;
  }
  if (!after_digit) return std::nullopt;
  int64_t value = 0;
  const auto [end, fault] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, static_cast<int>(base));
  if (end != digits.data() + digits.size()) return std::nullopt;
  if (fault == std::errc::result_out_of_range) heap.fail("int: the number is beyond 64 bits");
  if (fault != std::errc()) return std::nullopt;
  return value;
}

std::optional<int64_t> truncate(Heap& heap, double d) {
  if (!std::isfinite(d)) return std::nullopt;
  if (!(std::abs(d) < 9223372036854775808.0)) heap.fail("int: the number is beyond 64 bits");
  return static_cast<int64_t>(d);
}

std::optional<int64_t> parse_float_as_int(Heap& heap, std::string_view s) {
  s = strip(s, std::nullopt, true, true);
  if (!s.empty() && s.front() == '+') s.remove_prefix(1);
  double d = 0;
  const auto [end, fault] = std::from_chars(s.data(), s.data() + s.size(), d);
  if (s.empty() || end != s.data() + s.size() || fault != std::errc()) return std::nullopt;
  return truncate(heap, d);
}

Value filter_int(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "int", arguments);
  const Value otherwise = reader.optional("default", int64_t{0});
  const int64_t base = expect_int(heap, "int: the base", reader.optional("base", int64_t{10}));
  reader.finish();
  if (base < 2 || base > 36) heap.fail("int: the base must be 2 to 36");
  if (input.is(Kind::kUndefined)) fail_undefined(heap, input);
  if (input.is_integral()) return input.integer();
  std::optional<int64_t> value;
  if (input.is(Kind::kFloat)) value = truncate(heap, input.real());
  if (input.is(Kind::kText)) {
    heap.work_bytes(input.text().size());
    value = parse_int(heap, input.text(), base);
    if (!value) value = parse_float_as_int(heap, input.text());
  }
  return value ? Value(*value) : otherwise;
}

Value filter_tojson(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "tojson", arguments);
  JsonStyle style;
  style.ensure_ascii = truth(reader.optional("ensure_ascii", false));
  const Value indent = reader.optional("indent", None{});
  const Value separators = reader.optional("separators", None{});
  style.sort_keys = truth(reader.optional("sort_keys", false));
  reader.finish();
  if (!indent.is(Kind::kNone)) {
    style.indent = margin(heap, "tojson: the indent", indent);
    style.item_separator = ",";
  }
  if (!separators.is(Kind::kNone)) {
    const bool pair = separators.is(Kind::kList) && separators.list().items.size() == 2 &&
                      separators.list().items[0].is(Kind::kText) &&
                      separators.list().items[1].is(Kind::kText);
    if (!pair) heap.fail("tojson: separators must be a pair of texts");
    style.item_separator = separators.list().items[0].text();
    style.key_separator = separators.list().items[1].text();
  }
  return heap.text(to_json(heap, input, style));
}

struct Entry {
  std::string_view name;
  Filter filter;
};
constexpr Entry kFilters[] = {
    {"length", filter_length},
    {"count", filter_length},
    {"string", filter_string},
    {"trim", filter_trim},
    {"upper", filter_case<upper>},
    {"lower", filter_case<lower>},
    {"capitalize", filter_case<capitalize>},
    {"replace", filter_replace},
    {"indent", filter_indent},
    {"default", filter_default},
    {"d", filter_default},
    {"safe", filter_safe},
    {"int", filter_int},
    {"tojson", filter_tojson},
};

}  // namespace

Filter find_value_filter(std::string_view name) {
  for (const Entry& entry : kFilters) {
    if (entry.name == name) return entry.filter;
  }
  return nullptr;
}

Filter find_filter(std::string_view name) {
  for (const auto find : {find_value_filter, find_sequence_filter, find_text_filter}) {
    if (const Filter filter = find(name)) return filter;
  }
  return find_number_filter(name);
}

}  // namespace spillway::jinja
