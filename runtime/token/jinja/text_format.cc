// See text_format.h. Sources: Python 3.11 library reference, "printf-style String Formatting" and
// "Format Specification Mini-Language".
#include "runtime/token/jinja/text_format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "runtime/token/jinja/format.h"
#include "runtime/token/jinja/operators.h"
#include "runtime/token/jinja/text.h"

namespace spillway::jinja {
namespace {

constexpr int kWidest = 4096;  // of a field; a template that needs more is not a chat template

struct Spec {
  std::string fill = " ";
  char align = 0;  // < > ^ =, 0: the type's own
  char sign = 0;   // + or blank
  bool alternate = false;
  char group = 0;  // , or _
  int width = 0;
  int precision = -1;
  char type = 0;
};

std::string digits_of(uint64_t number, int base, bool capitals) {
  char buffer[72];
  std::string out(buffer, std::to_chars(buffer, buffer + sizeof(buffer), number, base).ptr);
  return capitals ? upper(out) : out;
}

// Commas or underscores between groups of digits before the point.
std::string grouped(const std::string& body, char mark, size_t each) {
  const size_t whole = std::min(body.find_first_not_of("0123456789abcdefABCDEF"), body.size());
  std::string out;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % each == 0) out += mark;
    out += body[i];
  }
  return out + body.substr(whole);
}

std::string real_body(double number, const Spec& spec) {
  if (!std::isfinite(number)) {
    const bool capitals = spec.type == 'F' || spec.type == 'E' || spec.type == 'G';
    const std::string name = std::isnan(number) ? "nan" : "inf";
    return (capitals ? upper(name) : name) + (spec.type == '%' ? "%" : "");
  }
  if (spec.type == 0 && spec.precision < 0) return format_double(number);
  const char type = spec.type == '%' ? 'f' : spec.type == 0 || spec.type == 'n' ? 'g' : spec.type;
  const std::string pattern = std::string(spec.alternate ? "%#.*" : "%.*") + type;
  char buffer[kWidest + 512];
  const double shown = spec.type == '%' ? number * 100 : number;
  std::snprintf(buffer, sizeof(buffer), pattern.c_str(), spec.precision < 0 ? 6 : spec.precision,
                shown);
  std::string out = buffer;
  // Without a type there is at least one digit behind the point.
  if (spec.type == 0 && out.find_first_of(".e") == std::string::npos) out += ".0";
  return spec.type == '%' ? out + "%" : out;
}

// The number without its sign, and the prefix that stays before zeros ("0x").
std::string number_body(Heap& heap, const Value& value, const Spec& spec, std::string& prefix) {
  const bool real = value.is(Kind::kFloat) ||
                    std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
  if (real && spec.type != 0) {
    if (std::string_view("eEfFgG%n").find(spec.type) == std::string_view::npos) {
      heap.fail(std::string("format '") + spec.type + "' does not go with a float");
    }
  }
  if (real) {
    const std::string body = real_body(std::abs(value.real()), spec);
    return spec.group != 0 ? grouped(body, spec.group, 3) : body;
  }
  const int64_t number = value.integer();
  const uint64_t size = number < 0 ? 0 - static_cast<uint64_t>(number) : number;
  const char type = spec.type == 0 || spec.type == 'n' ? 'd' : spec.type;
  const int base = type == 'd'                  ? 10
                   : type == 'x' || type == 'X' ? 16
                   : type == 'o'                ? 8
                   : type == 'b'                ? 2
                                                : 0;
  if (base == 0) heap.fail(std::string("format '") + type + "' does not go with an int");
  if (spec.alternate && base != 10) prefix = std::string("0") + type;
  const std::string body = digits_of(size, base, type == 'X');
  return spec.group != 0 ? grouped(body, spec.group, base == 10 ? 3 : 4) : body;
}

std::string repeated(const std::string& fill, int64_t times) {
  std::string out;
  for (int64_t i = 0; i < times; ++i) out += fill;
  return out;
}

std::string padded(const Spec& spec, const std::string& sign, const std::string& body, char align) {
  const int64_t room = spec.width - count_code_points(sign) - count_code_points(body);
  if (room <= 0) return sign + body;
  const int64_t left = align == '>' ? room : align == '^' ? room / 2 : 0;
  if (align == '=') return sign + repeated(spec.fill, room) + body;
  return repeated(spec.fill, left) + sign + body + repeated(spec.fill, room - left);
}

std::string first_code_points(const std::string& text, int64_t count) {
  size_t at = 0;
  for (; count > 0 && at < text.size(); --count) next_code_point(text, at);
  return text.substr(0, at);
}

std::string formatted(Heap& heap, const Value& value, const Spec& spec) {
  if (value.is_number() && !(value.is(Kind::kBool) && spec.type == 0)) {
    std::string prefix;
    const std::string body = number_body(heap, value, spec, prefix);
    const bool negative = value.is_integral() ? value.integer() < 0 : std::signbit(value.real());
    const std::string sign = negative ? "-" : spec.sign != 0 ? std::string(1, spec.sign) : "";
    return padded(spec, sign + prefix, body, spec.align == 0 ? '>' : spec.align);
  }
  if (spec.type != 0 && spec.type != 's') {
    heap.fail(std::string("format '") + spec.type + "' does not go with a " +
              std::string(type_name(value)));
  }
  std::string body = to_text(heap, value);
  heap.work_bytes(body.size());
  if (spec.precision >= 0) body = first_code_points(body, spec.precision);
  return padded(spec, "", body, spec.align == 0 ? '<' : spec.align);
}

int read_number(Heap& heap, std::string_view text, size_t& at) {
  int number = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    number = number * 10 + (text[at] - '0');
    if (number > kWidest) heap.fail("a format is limited to " + std::to_string(kWidest));
  }
  return number;
}

bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

Spec parse_spec(Heap& heap, std::string_view text) {
  Spec spec;
  size_t at = 0;
  size_t behind_fill = 0;
  if (!text.empty()) next_code_point(text, behind_fill);
  if (behind_fill > 0 && behind_fill < text.size() && is_align(text[behind_fill])) {
    spec.fill = text.substr(0, behind_fill);
    spec.align = text[behind_fill];
    at = behind_fill + 1;
  } else if (!text.empty() && is_align(text[0])) {
    spec.align = text[at++];
  }
  const auto skip = [&](char c) { return at < text.size() && text[at] == c ? ++at > 0 : false; };
  if (skip('+')) spec.sign = '+';
  if (skip(' ')) spec.sign = ' ';
  skip('-');
  spec.alternate = skip('#');
  if (skip('0') && spec.align == 0) {
    spec.fill = "0";
    spec.align = '=';
  }
  spec.width = read_number(heap, text, at);
  if (skip(',')) spec.group = ',';
  if (skip('_')) spec.group = '_';
  if (skip('.')) spec.precision = read_number(heap, text, at);
  if (at < text.size()) spec.type = text[at++];
  if (at < text.size()) heap.fail("the format '" + std::string(text) + "' is not known");
  return spec;
}

// Walks "name.attribute[key]" of a replacement field.
Value field_value(Heap& heap, std::string_view path, const Arguments& arguments, size_t& next) {
  const size_t end = std::min(path.find_first_of(".["), path.size());
  const std::string name(path.substr(0, end));
  Value value;
  const bool number =
      !name.empty() && name.size() < 7 && name.find_first_not_of("0123456789") == std::string::npos;
  if (name.empty() || number) {
    const size_t index = name.empty() ? next++ : static_cast<size_t>(std::stoi(name));
    if (index >= arguments.positional.size()) heap.fail("format: too few arguments");
    value = arguments.positional[index];
  } else {
    const auto found = std::find_if(arguments.named.begin(), arguments.named.end(),
                                    [&](const auto& entry) { return entry.first->chars == name; });
    if (found == arguments.named.end()) heap.fail("format: no argument '" + name + "'");
    value = found->second;
  }
  path.remove_prefix(end);
  while (!path.empty()) {
    const bool item = path.front() == '[';
    const size_t stop = item ? path.find(']') : std::min(path.find_first_of(".[", 1), path.size());
    if (stop == std::string_view::npos) heap.fail("format: ']' is missing");
    const std::string key(path.substr(1, stop - 1));
    const bool index = item && !key.empty() && key.size() < 7 &&
                       key.find_first_not_of("0123456789") == std::string::npos;
    value = index  ? subscript(heap, value, int64_t{std::stoi(key)})
            : item ? subscript(heap, value, heap.text(key))
                   : attribute(heap, value, literal_text(key));
    path.remove_prefix(item ? stop + 1 : stop);
  }
  return value;
}

// The text between "{" and its "}": path, conversion, format.
std::string replaced_field(Heap& heap, std::string_view field, const Arguments& arguments,
                           size_t& next) {
  const size_t colon = std::min(field.find(':'), field.size());
  std::string_view path = field.substr(0, colon);
  const size_t mark = path.find('!');
  const std::string_view conversion = mark == std::string_view::npos ? "" : path.substr(mark + 1);
  path = path.substr(0, mark);
  Value value = field_value(heap, path, arguments, next);
  if (conversion == "r") value = heap.text(to_repr(heap, value));
  if (conversion == "s") value = to_text_value(heap, value);
  if (!conversion.empty() && conversion != "r" && conversion != "s") {
    heap.fail("format: the conversion '!" + std::string(conversion) + "' is not known");
  }
  const std::string_view spec = colon < field.size() ? field.substr(colon + 1) : "";
  if (spec.find('{') != std::string_view::npos) {
    heap.fail("format: a field inside of a format is not part of this Jinja");
  }
  return formatted(heap, value, parse_spec(heap, spec));
}

void bound(Heap& heap, const std::string& out) {
  heap.step();
  if (static_cast<int64_t>(out.size()) > heap.limits().live_bytes) {
    heap.fail("a formatted text is too long");
  }
}

// One directive of %, from behind the sign to its type.
struct Directive {
  Spec spec;
  std::optional<std::string> key;
};

Directive parse_directive(Heap& heap, std::string_view text, size_t& at) {
  Directive out;
  if (at < text.size() && text[at] == '(') {
    const size_t close = text.find(')', at);
    if (close == std::string_view::npos) heap.fail("%(: ')' is missing");
    out.key = std::string(text.substr(at + 1, close - at - 1));
    at = close + 1;
  }
  bool zero = false;
  bool left = false;
  for (; at < text.size() && std::string_view("#0- +").find(text[at]) != std::string_view::npos;
       ++at) {
    zero = zero || text[at] == '0';
    left = left || text[at] == '-';
    out.spec.alternate = out.spec.alternate || text[at] == '#';
    if (text[at] == '+' || (text[at] == ' ' && out.spec.sign == 0)) out.spec.sign = text[at];
  }
  out.spec.width = read_number(heap, text, at);
  if (at < text.size() && text[at] == '.') {
    ++at;
    out.spec.precision = read_number(heap, text, at);
  }
  if (at == text.size()) heap.fail("a text ends in the middle of a % directive");
  out.spec.type = text[at++];
  out.spec.align = left ? '<' : zero && out.spec.type != 's' && out.spec.type != 'r' ? '=' : '>';
  if (out.spec.align == '=') out.spec.fill = "0";
  return out;
}

std::string directed(Heap& heap, const Value& value, Spec spec) {
  switch (spec.type) {
    case 's':
    case 'r':
      spec.type = 's';
      return formatted(heap, value, spec);
    case 'i':
    case 'u':
      spec.type = 'd';
      break;
    case 'd':
    case 'x':
    case 'X':
    case 'o':
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      break;
    default:
      heap.fail(std::string("the directive '%") + spec.type + "' is not part of this Jinja");
  }
  if (!value.is_number()) {
    heap.fail(std::string("%") + spec.type + " needs a number, not " +
              std::string(type_name(value)));
  }
  const bool truncates = value.is(Kind::kFloat) && spec.type == 'd';
  if (truncates && !(std::abs(value.real()) < 9e18)) heap.fail("%d: beyond 64 bits");
  return formatted(heap, truncates ? Value(static_cast<int64_t>(value.real())) : value, spec);
}

}  // namespace

Value percent_format(Heap& heap, const std::string& text, const Value& value) {
  const bool tuple = value.is(Kind::kList) && value.list().kind == ListKind::kTuple;
  size_t taken = 0;
  const auto take = [&](const Directive& directive) -> Value {
    if (directive.key) {
      if (!value.is(Kind::kDict)) heap.fail("%(name) needs a dict");
      const Value* found = value.dict().find(*directive.key);
      if (found == nullptr) heap.fail("%(" + *directive.key + "): no such key");
      return *found;
    }
    if (taken >= (tuple ? value.list().items.size() : 1)) heap.fail("%: too few values");
    return tuple ? value.list().items[taken++] : (++taken, value);
  };
  heap.work_bytes(text.size());
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t sign = std::min(text.find('%', at), text.size());
    out.append(text, at, sign - at);
    at = sign + 1;
    if (sign == text.size()) break;
    if (at < text.size() && text[at] == '%') {
      out += '%';
      ++at;
      continue;
    }
    const Directive directive = parse_directive(heap, text, at);
    Value one = take(directive);
    if (directive.spec.type == 'r') one = heap.text(to_repr(heap, one));
    if (directive.spec.type == 's') one = to_text_value(heap, one);
    out += directed(heap, one, directive.spec);
    bound(heap, out);
  }
  const bool all = value.is(Kind::kDict) || value.is(Kind::kList) ||
                   taken == (tuple ? value.list().items.size() : 1);
  if (!all || (tuple && taken < value.list().items.size())) {
    heap.fail("%: not all values were used");
  }
  return heap.text(std::move(out));
}

Value brace_format(Heap& heap, const std::string& text, const Arguments& arguments) {
  heap.work_bytes(text.size());
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if ((c == '{' || c == '}') && at + 1 < text.size() && text[at + 1] == c) {
      out += c;
      at += 2;
      continue;
    }
    if (c == '}') heap.fail("format: a single '}'");
    if (c != '{') {
      const size_t end = std::min(text.find_first_of("{}", at), text.size());
      out.append(text, at, end - at);
      at = end;
      continue;
    }
    const size_t close = text.find('}', at);
    if (close == std::string::npos) heap.fail("format: '}' is missing");
    const std::string_view field = std::string_view(text).substr(at + 1, close - at - 1);
    out += replaced_field(heap, field, arguments, next);
    at = close + 1;
    bound(heap, out);
  }
  return heap.text(std::move(out));
}

}  // namespace spillway::jinja
