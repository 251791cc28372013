// Python's str(), repr() and json.dumps(). Writers append to one string and count what they write,
// so that a value that holds itself, or one list many times over, ends at a limit.
#include "runtime/token/jinja/format.h"

#include <algorithm>
#include <cmath>

#include "runtime/token/jinja/text.h"

namespace spillway::jinja {
namespace {

constexpr int kNesting = 200;

// The string under construction; counts steps by bytes and refuses more than a result may have.
class Output {
 public:
  explicit Output(Heap& heap) : heap_(heap) {}

  void add(std::string_view s) {
    heap_.step();
    heap_.work_bytes(s.size());
    if (static_cast<int64_t>(out_.size() + s.size()) > heap_.limits().output_bytes) {
      heap_.fail("a value is too long to print");
    }
    out_ += s;
  }
  std::string take() { return std::move(out_); }
  Heap& heap() { return heap_; }

 private:
  Heap& heap_;
  std::string out_;
};

void write_repr(Output& out, const Value& value, int depth);

void write_items(Output& out, const List& list, int depth) {
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.add(", ");
    write_repr(out, list.items[i], depth + 1);
  }
}

void write_list(Output& out, const List& list, int depth) {
  switch (list.kind) {
    case ListKind::kTuple:
    case ListKind::kGroup:
      out.add("(");
      write_items(out, list, depth);
      out.add(list.items.size() == 1 ? ",)" : ")");
      return;
    case ListKind::kItemsView:
    case ListKind::kKeysView:
    case ListKind::kValuesView:
      out.add(type_name(Value(const_cast<List*>(&list))));
      out.add("([");
      write_items(out, list, depth);
      out.add("])");
      return;
    case ListKind::kGenerator:
      out.add("<generator object>");
      return;
    default:
      out.add("[");
      write_items(out, list, depth);
      out.add("]");
  }
}

void write_dict(Output& out, const Dict& dict, int depth) {
  out.add("{");
  bool first = true;
  for (const auto& [key, value] : dict.entries()) {
    if (!first) out.add(", ");
    first = false;
    write_repr(out, key, depth + 1);
    out.add(": ");
    write_repr(out, value, depth + 1);
  }
  out.add("}");
}

void write_repr(Output& out, const Value& value, int depth) {
  if (depth > kNesting) out.heap().fail("a value is nested too deeply to print");
  switch (value.kind()) {
    case Kind::kUndefined:
      return out.add("Undefined");
    case Kind::kNone:
      return out.add("None");
    case Kind::kBool:
      return out.add(value.boolean() ? "True" : "False");
    case Kind::kInt:
      return out.add(std::to_string(value.integer()));
    case Kind::kFloat:
      return out.add(format_double(value.real()));
    case Kind::kText:
      return out.add(quoted(value.text()));
    case Kind::kList:
      return write_list(out, value.list(), depth);
    case Kind::kDict:
      return write_dict(out, value.dict(), depth);
    case Kind::kCallable:
      return out.add("<function " + value.callable().name->chars + ">");
    case Kind::kNamespace:
      out.add("<Namespace ");
      write_dict(out, value.space().fields, depth + 1);
      return out.add(">");
    case Kind::kLoop:
      return out.add("<LoopContext " + std::to_string(value.loop().index0 + 1) + "/" +
                     std::to_string(value.loop().items->items.size()) + ">");
  }
}

void append_escape(std::string& out, char32_t c) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out += kHex[(c >> shift) & 15];
}

std::string json_quoted(std::string_view s, bool ensure_ascii) {
  std::string out = "\"";
  for (size_t at = 0; at < s.size();) {
    const char32_t c = next_code_point(s, at);
    switch (c) {
      case '"':
        out += "\\\"";
        continue;
      case '\\':
        out += "\\\\";
        continue;
      case '\n':
        out += "\\n";
        continue;
      case '\r':
        out += "\\r";
        continue;
      case '\t':
        out += "\\t";
        continue;
      case '\f':
        out += "\\f";
        continue;
      case '\b':
        out += "\\b";
        continue;
      default:
        break;
    }
    if (c < 0x20 || (ensure_ascii && c > 0x7e && c < 0x10000)) {
      append_escape(out, c);
    } else if (ensure_ascii && c >= 0x10000) {
      append_escape(out, 0xd800 + ((c - 0x10000) >> 10));
      append_escape(out, 0xdc00 + ((c - 0x10000) & 0x3ff));
    } else {
      append_utf8(out, c);
    }
  }
  return out + "\"";
}

class JsonWriter {
 public:
  JsonWriter(Heap& heap, const JsonStyle& style) : out_(heap), style_(style) {}

  void write(const Value& value, int depth) {
    if (depth > kNesting) out_.heap().fail("tojson: a value is nested too deeply");
    switch (value.kind()) {
      case Kind::kText:
        return out_.add(json_quoted(value.text(), style_.ensure_ascii));
      case Kind::kList:
        return write_list(value.list(), depth);
      case Kind::kDict:
        return write_dict(value.dict(), depth);
      default:
        return out_.add(scalar(value));
    }
  }
  std::string take() { return out_.take(); }

 private:
  std::string scalar(const Value& value) {
    switch (value.kind()) {
      case Kind::kNone:
        return "null";
      case Kind::kBool:
        return value.boolean() ? "true" : "false";
      case Kind::kInt:
        return std::to_string(value.integer());
      case Kind::kFloat:
        if (std::isnan(value.real())) return "NaN";
        if (std::isinf(value.real())) return value.real() < 0 ? "-Infinity" : "Infinity";
        return format_double(value.real());
      default:
        out_.heap().fail(std::string("tojson: a value of type ").append(type_name(value)) +
                         " has no JSON form");
    }
  }

  void line_break(int depth) {
    if (!style_.indent) return;
    std::string margin = "\n";
    for (int i = 0; i < depth; ++i) margin += *style_.indent;
    out_.add(margin);
  }

  void write_list(const List& list, int depth) {
    if (list.kind != ListKind::kList && list.kind != ListKind::kTuple &&
        list.kind != ListKind::kGroup) {
      out_.add(scalar(Value(const_cast<List*>(&list))));  // fails with the type's name
    }
    if (list.items.empty()) return out_.add("[]");
    out_.add("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_.add(style_.item_separator);
      line_break(depth + 1);
      write(list.items[i], depth + 1);
    }
    line_break(depth);
    out_.add("]");
  }

  void write_dict(const Dict& dict, int depth) {
    if (dict.entries().empty()) return out_.add("{}");
    std::vector<std::pair<std::string, const Value*>> entries;
    for (const auto& [key, value] : dict.entries()) {
      entries.emplace_back(key.is(Kind::kText) ? key.text() : scalar(key), &value);
    }
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
    }
    out_.add("{");
    bool first = true;
    for (const auto& [key, value] : entries) {
      if (!first) out_.add(style_.item_separator);
      first = false;
      line_break(depth + 1);
      out_.add(json_quoted(key, style_.ensure_ascii));
      out_.add(style_.key_separator);
      write(*value, depth + 1);
    }
    line_break(depth);
    out_.add("}");
  }

  Output out_;
  const JsonStyle& style_;
};

}  // namespace

std::string to_text(Heap& heap, const Value& value) {
  if (value.is(Kind::kText)) return value.text();
  if (value.is(Kind::kUndefined)) return "";
  Output out(heap);
  write_repr(out, value, 0);
  return out.take();
}

Value to_text_value(Heap& heap, const Value& value) {
  return value.is(Kind::kText) ? value : heap.text(to_text(heap, value));
}

std::string to_repr(Heap& heap, const Value& value) {
  Output out(heap);
  write_repr(out, value, 0);
  return out.take();
}

std::string to_json(Heap& heap, const Value& value, const JsonStyle& style) {
  JsonWriter writer(heap, style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace spillway::jinja
