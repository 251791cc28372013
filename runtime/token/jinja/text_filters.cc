// Filters on text that Jinja has beside those of value_filters.cc: format, title, center, truncate,
// wordcount, urlencode, escape.
#include <algorithm>

#include "runtime/token/jinja/filters.h"
#include "runtime/token/jinja/format.h"
#include "runtime/token/jinja/methods.h"
#include "runtime/token/jinja/operators.h"
#include "runtime/token/jinja/text.h"
#include "runtime/token/jinja/text_format.h"

namespace spillway::jinja {
namespace {

Value filter_format(Heap& heap, const Value& input, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    heap.fail("format takes positional arguments or keyword arguments, not both");
  }
  const Value text = to_text_value(heap, input);
  if (!arguments.named.empty()) {
    Dict* values = heap.dict();
    for (const auto& [key, value] : arguments.named) heap.set(*values, Value(key), value);
    return percent_format(heap, text.text(), values);
  }
  List* values = heap.list(ListKind::kTuple);
  for (const Value& value : arguments.positional) heap.append(*values, value);
  return percent_format(heap, text.text(), values);
}

// A capital after white space and after - ( { [ <, small letters elsewhere.
Value filter_title(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "title", arguments).finish();
  const Value text = to_text_value(heap, input);
  const std::string& s = text.text();
  heap.work_bytes(s.size());
  std::string out;
  bool begins = true;
  for (size_t at = 0; at < s.size();) {
    const size_t begin = at;
    const char32_t c = next_code_point(s, at);
    const std::string one = s.substr(begin, at - begin);
    const bool parts = is_space(c) || std::u32string_view(U"-({[<").find(c) != std::u32string::npos;
    out += parts ? one : begins ? upper(one) : lower(one);
    begins = parts;
  }
  return heap.text(std::move(out));
}

Value filter_center(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "center", arguments);
  const int64_t width = expect_width(heap, "center", reader.optional("width", int64_t{80}));
  reader.finish();
  return centered(heap, to_text_value(heap, input).text(), width, " ");
}

Value filter_truncate(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "truncate", arguments);
  const int64_t most = expect_width(heap, "truncate", reader.optional("length", int64_t{255}));
  const bool cuts_words = truth(reader.optional("killwords", false));
  const Value end = to_text_value(heap, reader.optional("end", Value(literal_text("..."))));
  const Value slack = reader.optional("leeway", None{});
  reader.finish();
  const int64_t leeway = slack.is(Kind::kNone) ? 5 : expect_width(heap, "leeway", slack);
  const int64_t kept = most - count_code_points(end.text());
  if (kept < 0 || leeway < 0) heap.fail("truncate: the length is less than what is appended");
  if (!input.is(Kind::kText)) heap.fail("truncate needs a str");
  heap.work_bytes(input.text().size() + end.text().size());
  if (count_code_points(input.text()) <= most + leeway) return input;
  const Value begin = slice(heap, input, None{}, kept, None{});
  const size_t blank = cuts_words ? std::string::npos : begin.text().rfind(' ');
  return heap.text(begin.text().substr(0, blank) + end.text());
}

Value filter_wordcount(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "wordcount", arguments).finish();
  const Value text = to_text_value(heap, input);
  const std::string& s = text.text();
  heap.work_bytes(s.size());
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < s.size();) {
    const char32_t c = next_code_point(s, at);
    const bool letter = c == '_' || is_alphanumeric(c);
    words += letter && !inside;
    inside = letter;
  }
  return words;
}

std::string quoted_url(std::string_view s, std::string_view safe) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (char c : s) {
    const auto byte = static_cast<unsigned char>(c);
    const bool kept = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
                      (byte >= 'a' && byte <= 'z') || std::string_view("_.-~").find(c) < 4 ||
                      safe.find(c) != std::string_view::npos;
    if (kept) {
      out += c;
    } else {
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

// In a query a blank is +.
std::string query_text(Heap& heap, const Value& value) {
  std::string out = quoted_url(to_text(heap, value), "");
  return replace_all(out, "%20", "+", -1, heap.limits().live_bytes);
}

Value filter_urlencode(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "urlencode", arguments).finish();
  if (!input.is(Kind::kDict)) return heap.text(quoted_url(to_text(heap, input), "/"));
  std::string out;
  for (const auto& [key, value] : input.dict().entries()) {
    heap.step();
    if (!out.empty()) out += '&';
    const size_t before = out.size();
    out += query_text(heap, key) + "=" + query_text(heap, value);
    heap.work_bytes(out.size() - before);
    if (static_cast<int64_t>(out.size()) > heap.limits().live_bytes) break;  // text() refuses it
  }
  return heap.text(std::move(out));
}

Value filter_escape(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader(heap, "escape", arguments).finish();
  const Value text = to_text_value(heap, input);
  heap.work_bytes(text.text().size());
  return text.is_safe_text() ? text : heap.text(escape_html(text.text()), true);
}

// getattr alone: not the keys of a dict.
Value filter_attr(Heap& heap, const Value& input, const Arguments& arguments) {
  ArgumentReader reader(heap, "attr", arguments);
  const Value name = to_text_value(heap, reader.required("name"));
  reader.finish();
  if (!input.is(Kind::kDict)) return attribute(heap, input, name.shared_text());
  const auto method = bound_method(heap, input, name.shared_text());
  return method ? *method : Value(Undefined{name.shared_text()});
}

struct Entry {
  std::string_view name;
  Filter filter;
};
constexpr Entry kFilters[] = {
    {"format", filter_format},       {"title", filter_title},
    {"center", filter_center},       {"truncate", filter_truncate},
    {"wordcount", filter_wordcount}, {"escape", filter_escape},
    {"urlencode", filter_urlencode}, {"e", filter_escape},
    {"attr", filter_attr},
};

}  // namespace

Filter find_text_filter(std::string_view name) {
  for (const Entry& entry : kFilters) {
    if (entry.name == name) return entry.filter;
  }
  return nullptr;
}

}  // namespace spillway::jinja
