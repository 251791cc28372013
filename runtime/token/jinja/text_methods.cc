// Methods of str that look for, classify, pad and cut text. The others are in methods.cc.
#include <algorithm>

#include "runtime/token/jinja/methods.h"
#include "runtime/token/jinja/operators.h"
#include "runtime/token/jinja/text.h"
#include "runtime/token/jinja/text_format.h"

namespace spillway::jinja {
namespace {

std::string text_argument(Heap& heap, std::string_view who, const Value& value) {
  if (value.is(Kind::kUndefined)) fail_undefined(heap, value);
  if (!value.is(Kind::kText)) {
    heap.fail(std::string(who).append(" needs a str, not ").append(type_name(value)));
  }
  heap.work_bytes(value.text().size());  // every caller copies it and most search for it
  return value.text();
}

// find, rfind, index, rindex and count take a text and the bounds of a slice.
struct Search {
  std::string within;
  std::string wanted;
  int64_t begin = 0;  // code points before `within`
};

Search read_search(Heap& heap, const Value& self, const Arguments& arguments,
                   std::string_view who) {
  ArgumentReader reader(heap, who, arguments);
  Search out;
  out.wanted = text_argument(heap, who, reader.required("sub"));
  const Value start = reader.optional("start", None{});
  const Value stop = reader.optional("end", None{});
  reader.finish();
  heap.work_bytes(4 * self.text().size());  // cut, counted, turned round, searched
  out.within = slice(heap, self, start, stop, None{}).text();
  if (!start.is(Kind::kNone)) {
    const int64_t size = count_code_points(self.text());
    out.begin = expect_int(heap, who, start);
    if (out.begin < 0) out.begin = std::max<int64_t>(0, out.begin + size);
    if (out.begin > size) out.wanted += '\n' + out.within + self.text();  // found nowhere
  }
  return out;
}

int64_t find_in(Heap& heap, const Value& self, const Arguments& arguments, std::string_view who,
                bool last) {
  const Search search = read_search(heap, self, arguments, who);
  const size_t at = last ? find_last_text(search.within, search.wanted)
                         : find_text(search.within, search.wanted, 0);
  if (at == std::string::npos) return -1;
  return search.begin + count_code_points(std::string_view(search.within).substr(0, at));
}

Value str_find(Heap& heap, const Value& self, const Arguments& arguments) {
  return find_in(heap, self, arguments, "find", false);
}
Value str_rfind(Heap& heap, const Value& self, const Arguments& arguments) {
  return find_in(heap, self, arguments, "rfind", true);
}
Value str_index(Heap& heap, const Value& self, const Arguments& arguments) {
  const int64_t at = find_in(heap, self, arguments, "index", false);
  if (at < 0) heap.fail("index: the text is not there");
  return at;
}
Value str_rindex(Heap& heap, const Value& self, const Arguments& arguments) {
  const int64_t at = find_in(heap, self, arguments, "rindex", true);
  if (at < 0) heap.fail("rindex: the text is not there");
  return at;
}

Value str_count(Heap& heap, const Value& self, const Arguments& arguments) {
  const Search search = read_search(heap, self, arguments, "count");
  if (search.wanted.empty()) return count_code_points(search.within) + 1;
  int64_t count = 0;
  for (size_t at = find_text(search.within, search.wanted, 0); at != std::string::npos;
       at = find_text(search.within, search.wanted, at + search.wanted.size())) {
    heap.step();
    ++count;
  }
  return count;
}

// Every character is of the class, and there is one.
template <bool (*kClass)(char32_t)>
Value str_is(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "a test of characters", arguments).finish();
  const std::string& s = self.text();
  heap.work_bytes(s.size());
  for (size_t at = 0; at < s.size();) {
    if (!kClass(next_code_point(s, at))) return false;
  }
  return !s.empty();
}

Value str_isascii(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "isascii", arguments).finish();
  heap.work_bytes(self.text().size());
  return std::all_of(self.text().begin(), self.text().end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

template <bool kUpper>
Value str_case(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, kUpper ? "isupper" : "islower", arguments).finish();
  heap.work_bytes(2 * self.text().size());
  return is_of_case(self.text(), kUpper);
}

Value str_title(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "title", arguments).finish();
  const std::string& s = self.text();
  heap.work_bytes(s.size());
  std::string out;
  bool inside = false;
  for (size_t at = 0; at < s.size();) {
    const size_t begin = at;
    next_code_point(s, at);
    const std::string one = s.substr(begin, at - begin);
    const bool cased = upper(one) != lower(one);
    out += inside ? lower(one) : capitalize(one);
    inside = cased;
  }
  return heap.text(std::move(out));
}

Value str_swapcase(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "swapcase", arguments).finish();
  const std::string& s = self.text();
  heap.work_bytes(s.size());
  std::string out;
  for (size_t at = 0; at < s.size();) {
    const size_t begin = at;
    next_code_point(s, at);
    const std::string one = s.substr(begin, at - begin);
    out += upper(one) == one ? lower(one) : upper(one);
  }
  return heap.text(std::move(out));
}

// What is missing of a width, charged before it is made.
std::string padding(Heap& heap, int64_t count, const std::string& fill) {
  if (count <= 0) return "";
  if (count > heap.limits().live_bytes / 4) heap.fail("a text is padded beyond the memory limit");
  heap.work_bytes(static_cast<size_t>(count) * fill.size());
  std::string out;
  for (int64_t i = 0; i < count; ++i) out += fill;
  return out;
}

struct Pad {
  int64_t missing = 0;
  int64_t width = 0;
  std::string fill;
};

Pad read_pad(Heap& heap, const Value& self, const Arguments& arguments, std::string_view who) {
  ArgumentReader reader(heap, who, arguments);
  Pad out;
  out.width = expect_width(heap, who, reader.required("width"));
  out.fill = text_argument(heap, who, reader.optional("fillchar", Value(literal_text(" "))));
  reader.finish();
  if (count_code_points(out.fill) != 1) heap.fail(std::string(who) + " fills with one character");
  out.missing = out.width - count_code_points(self.text());
  return out;
}

Value str_ljust(Heap& heap, const Value& self, const Arguments& arguments) {
  const Pad pad = read_pad(heap, self, arguments, "ljust");
  return heap.text(self.text() + padding(heap, pad.missing, pad.fill));
}
Value str_rjust(Heap& heap, const Value& self, const Arguments& arguments) {
  const Pad pad = read_pad(heap, self, arguments, "rjust");
  return heap.text(padding(heap, pad.missing, pad.fill) + self.text());
}
Value str_center(Heap& heap, const Value& self, const Arguments& arguments) {
  const Pad pad = read_pad(heap, self, arguments, "center");
  return centered(heap, self.text(), pad.width, pad.fill);
}
Value str_zfill(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "zfill", arguments);
  const int64_t width = expect_width(heap, "zfill", reader.required("width"));
  reader.finish();
  const std::string& s = self.text();
  const size_t sign = !s.empty() && (s[0] == '-' || s[0] == '+') ? 1 : 0;
  return heap.text(s.substr(0, sign) + padding(heap, width - count_code_points(s), "0") +
                   s.substr(sign));
}

Value str_removeprefix(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "removeprefix", arguments);
  const std::string prefix = text_argument(heap, "removeprefix", reader.required("prefix"));
  reader.finish();
  const std::string& s = self.text();
  return s.starts_with(prefix) ? heap.text(s.substr(prefix.size())) : self;
}
Value str_removesuffix(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "removesuffix", arguments);
  const std::string suffix = text_argument(heap, "removesuffix", reader.required("suffix"));
  reader.finish();
  const std::string& s = self.text();
  return s.ends_with(suffix) ? heap.text(s.substr(0, s.size() - suffix.size())) : self;
}

template <bool kLast>
Value str_partition(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "partition", arguments);
  const std::string mark = text_argument(heap, "partition", reader.required("sep"));
  reader.finish();
  if (mark.empty()) heap.fail("partition needs a separator that is not empty");
  const std::string& s = self.text();
  heap.work_bytes(2 * s.size());
  const size_t at = kLast ? find_last_text(s, mark) : find_text(s, mark, 0);
  List* out = heap.list(ListKind::kTuple);
  const bool found = at != std::string::npos;
  heap.append(*out, heap.text(found ? s.substr(0, at) : kLast ? "" : s));
  heap.append(*out, heap.text(found ? mark : ""));
  heap.append(*out, heap.text(found ? s.substr(at + mark.size()) : kLast ? s : ""));
  return out;
}

// From the right: the last `most` cuts of split().
Value str_rsplit(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(heap, "rsplit", arguments);
  const Value separator = reader.optional("sep", None{});
  const int64_t most = expect_int(heap, "maxsplit", reader.optional("maxsplit", int64_t{-1}));
  reader.finish();
  if (separator.is(Kind::kNone) && most >= 0) {
    heap.fail("rsplit at white space with a maxsplit is not part of this Jinja");
  }
  const std::string& s = self.text();
  heap.work_bytes(2 * s.size());
  List* out = heap.list();
  if (separator.is(Kind::kNone)) {
    for (std::string_view part : split_space(s, -1))
      heap.append(*out, heap.text(std::string(part)));
    return out;
  }
  const std::string mark = text_argument(heap, "rsplit", separator);
  if (mark.empty()) heap.fail("rsplit needs a separator that is not empty");
  // split() of the text turned round, each part turned back.
  const std::string back = turned_round(s);
  for (std::string_view part : split(back, turned_round(mark), most)) {
    heap.step();
    heap.append(*out, heap.text(turned_round(part)));
  }
  std::reverse(out->items.begin(), out->items.end());
  return out;
}

Value str_format(Heap& heap, const Value& self, const Arguments& arguments) {
  return brace_format(heap, self.text(), arguments);
}

Value str_casefold(Heap& heap, const Value& self, const Arguments& arguments) {
  ArgumentReader(heap, "casefold", arguments).finish();
  return heap.text(replace_all(lower(self.text()), "ß", "ss", -1, heap.limits().live_bytes));
}

constexpr Method kMethods[] = {
    {"find", str_find},
    {"rfind", str_rfind},
    {"index", str_index},
    {"rindex", str_rindex},
    {"count", str_count},
    {"isspace", str_is<is_space>},
    {"isprintable", str_is<is_printable>},
    {"isalpha", str_is<is_letter>},
    {"isalnum", str_is<is_alphanumeric>},
    {"isdigit", str_is<is_digit>},
    {"isdecimal", str_is<is_decimal>},
    {"isnumeric", str_is<is_numeric>},
    {"isascii", str_isascii},
    {"isupper", str_case<true>},
    {"islower", str_case<false>},
    {"title", str_title},
    {"swapcase", str_swapcase},
    {"casefold", str_casefold},
    {"ljust", str_ljust},
    {"rjust", str_rjust},
    {"center", str_center},
    {"zfill", str_zfill},
    {"removeprefix", str_removeprefix},
    {"removesuffix", str_removesuffix},
    {"partition", str_partition<false>},
    {"rpartition", str_partition<true>},
    {"rsplit", str_rsplit},
    {"format", str_format},
};

}  // namespace

Value centered(Heap& heap, const std::string& text, int64_t width, const std::string& fill) {
  heap.work_bytes(text.size());
  const int64_t missing = width - count_code_points(text);
  if (missing <= 0) return heap.text(text);
  const int64_t left = missing / 2 + (missing & width & 1);
  return heap.text(padding(heap, left, fill) + text + padding(heap, missing - left, fill));
}

std::span<const Method> further_text_methods() { return kMethods; }

}  // namespace spillway::jinja
