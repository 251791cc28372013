// Truth, arithmetic, order and membership. Subscripts and iteration are in access.cc.
#include "runtime/token/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "runtime/token/jinja/text.h"
#include "runtime/token/jinja/text_format.h"

namespace spillway::jinja {
namespace {

constexpr int kNesting = 200;

std::string_view symbol(Arithmetic op) {
  switch (op) {
    case Arithmetic::kAdd:
      return "+";
    case Arithmetic::kSubtract:
      return "-";
    case Arithmetic::kMultiply:
      return "*";
    case Arithmetic::kDivide:
      return "/";
    case Arithmetic::kFloorDivide:
      return "//";
    case Arithmetic::kModulo:
      return "%";
    case Arithmetic::kPower:
      return "**";
  }
  return "?";
}

[[noreturn]] void fail_types(Heap& heap, std::string_view op, const Value& a, const Value& b) {
  if (a.is(Kind::kUndefined)) fail_undefined(heap, a);
  if (b.is(Kind::kUndefined)) fail_undefined(heap, b);
  heap.fail(std::string(op)
                .append(" does not go between ")
                .append(type_name(a))
                .append(" and ")
                .append(type_name(b)));
}

Value power(Heap& heap, int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) heap.fail("0 cannot be raised to a negative power");
    return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  }
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    const bool overflow = (exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result);
    const bool square_overflow = exponent > 1 && __builtin_mul_overflow(base, base, &base);
    if (overflow || square_overflow) heap.fail("** gives an integer beyond 64 bits");
  }
  return result;
}

Value integer_arithmetic(Heap& heap, Arithmetic op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case Arithmetic::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Arithmetic::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Arithmetic::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Arithmetic::kPower:
      return power(heap, a, b);
    case Arithmetic::kDivide:
      if (b == 0) heap.fail("division by zero");
      return static_cast<double>(a) / static_cast<double>(b);
    case Arithmetic::kFloorDivide:
    case Arithmetic::kModulo: {
      if (b == 0) heap.fail("division by zero");
      if (b == -1) {  // INT64_MIN / -1 traps
        if (op == Arithmetic::kModulo) return int64_t{0};
        overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
        break;
      }
      const bool round_down = a % b != 0 && ((a < 0) != (b < 0));
      result =
          op == Arithmetic::kModulo ? a % b + (round_down ? b : 0) : a / b - (round_down ? 1 : 0);
      break;
    }
  }
  if (overflow) {
    heap.fail(std::string(symbol(op)) + " gives an integer beyond 64 bits");
  }
  return result;
}

Value float_arithmetic(Heap& heap, Arithmetic op, double a, double b) {
  switch (op) {
    case Arithmetic::kAdd:
      return a + b;
    case Arithmetic::kSubtract:
      return a - b;
    case Arithmetic::kMultiply:
      return a * b;
    case Arithmetic::kPower:
      return std::pow(a, b);
    case Arithmetic::kDivide:
      if (b == 0) heap.fail("division by zero");
      return a / b;
    case Arithmetic::kFloorDivide:
    case Arithmetic::kModulo: {
      if (b == 0) heap.fail("division by zero");
      double remainder = std::fmod(a, b);
      if (remainder != 0 && ((remainder < 0) != (b < 0))) remainder += b;
      if (op == Arithmetic::kModulo)
        return std::copysign(remainder, remainder == 0 ? b : remainder);
      return std::round((a - remainder) / b);
    }
  }
  return 0.0;
}

Value repeat(Heap& heap, const Value& sequence, int64_t times) {
  if (times < 0) times = 0;
  if (sequence.is(Kind::kText)) {
    const std::string& s = sequence.text();
    int64_t bytes = 0;
    if (__builtin_mul_overflow(static_cast<int64_t>(s.size()), times, &bytes) ||
        bytes > heap.limits().live_bytes) {
      heap.fail("* makes a text beyond the memory limit");
    }
    heap.work_bytes(static_cast<size_t>(bytes));
    std::string out;
    out.reserve(static_cast<size_t>(bytes));
    if (s.empty()) times = 0;
    for (int64_t i = 0; i < times; ++i) out += s;
    return heap.text(std::move(out));
  }
  List* out = heap.list(sequence.list().kind);
  if (sequence.list().items.empty()) times = 0;
  for (int64_t i = 0; i < times; ++i) {
    for (const Value& item : sequence.list().items) {
      heap.step();
      heap.append(*out, item);
    }
  }
  return out;
}

Value join_lists(Heap& heap, const List& a, const List& b) {
  List* out = heap.list(a.kind);
  heap.step(static_cast<int64_t>(a.items.size() + b.items.size()));
  for (const Value& item : a.items) heap.append(*out, item);
  for (const Value& item : b.items) heap.append(*out, item);
  return out;
}

bool repeatable(const Value& v) {
  return v.is(Kind::kText) || (v.is(Kind::kList) && (v.list().kind == ListKind::kList ||
                                                     v.list().kind == ListKind::kTuple));
}

bool less_at(Heap& heap, const Value& a, const Value& b, int depth) {
  heap.step();
  if (depth > kNesting) heap.fail("values nested too deeply to compare");
  if (a.is_integral() && b.is_integral()) return a.integer() < b.integer();
  if (a.is_number() && b.is_number()) return a.real() < b.real();
  if (a.is(Kind::kText) && b.is(Kind::kText)) {
    heap.work_bytes(std::min(a.text().size(), b.text().size()));
    return a.text() < b.text();  // bytes of UTF-8 are ordered as code points are
  }
  if (!a.is(Kind::kList) || !b.is(Kind::kList) || a.list().kind != b.list().kind ||
      !repeatable(a)) {
    fail_types(heap, "<", a, b);
  }
  const auto& x = a.list().items;
  const auto& y = b.list().items;
  for (size_t i = 0; i < x.size() && i < y.size(); ++i) {
    if (!equals(heap, x[i], y[i])) return less_at(heap, x[i], y[i], depth + 1);
  }
  return x.size() < y.size();
}

}  // namespace

void fail_undefined(Heap& heap, const Value& value) {
  const Text& name = value.undefined().name;
  heap.fail(name == nullptr ? "a value is undefined" : "'" + name->chars + "' is undefined");
}

int64_t expect_int(Heap& heap, std::string_view what, const Value& value) {
  if (value.is(Kind::kUndefined)) fail_undefined(heap, value);
  if (!value.is_integral()) {
    heap.fail(std::string(what).append(" must be an int, not ").append(type_name(value)));
  }
  return value.integer();
}

int64_t expect_width(Heap& heap, std::string_view what, const Value& value) {
  constexpr int64_t kWidest = int64_t{1} << 40;  // even: center() asks whether a width is odd
  return std::clamp(expect_int(heap, what, value), -kWidest, kWidest);
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.integer() != 0;
    case Kind::kFloat:
      return value.real() != 0;
    case Kind::kText:
      return !value.text().empty();
    case Kind::kList:
      return value.list().kind == ListKind::kGenerator || !value.list().items.empty();
    case Kind::kDict:
      return !value.dict().entries().empty();
    default:
      return true;
  }
}

Value arithmetic(Heap& heap, Arithmetic op, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    return integer_arithmetic(heap, op, a.integer(), b.integer());
  }
  if (a.is_number() && b.is_number()) return float_arithmetic(heap, op, a.real(), b.real());
  if (op == Arithmetic::kAdd && a.kind() == b.kind()) {
    if (a.is(Kind::kText)) {
      const bool safe = a.is_safe_text() || b.is_safe_text();
      std::string joined;
      joined.reserve(a.text().size() + b.text().size());
      for (const Value* part : {&a, &b}) {
        joined += safe && !part->is_safe_text() ? escape_html(part->text()) : part->text();
      }
      return heap.text(std::move(joined), safe);
    }
    if (repeatable(a) && repeatable(b) && a.list().kind == b.list().kind) {
      return join_lists(heap, a.list(), b.list());
    }
  }
  if (op == Arithmetic::kMultiply && repeatable(a) && b.is_integral()) {
    return repeat(heap, a, b.integer());
  }
  if (op == Arithmetic::kMultiply && repeatable(b) && a.is_integral()) {
    return repeat(heap, b, a.integer());
  }
  if (op == Arithmetic::kModulo && a.is(Kind::kText)) {
    return percent_format(heap, a.text(), b);
  }
  fail_types(heap, symbol(op), a, b);
}

Value negate(Heap& heap, const Value& a) {
  if (a.is_integral()) return integer_arithmetic(heap, Arithmetic::kSubtract, 0, a.integer());
  if (a.is(Kind::kFloat)) return -a.real();
  if (a.is(Kind::kUndefined)) fail_undefined(heap, a);
  heap.fail(std::string("- does not go before ").append(type_name(a)));
}

bool less(Heap& heap, const Value& a, const Value& b) { return less_at(heap, a, b, 0); }

bool contains(Heap& heap, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kText:
      if (!item.is(Kind::kText)) fail_types(heap, "in", item, container);
      heap.work_bytes(container.text().size());
      return find_text(container.text(), item.text(), 0) != std::string::npos;
    case Kind::kList: {
      for (const Value& candidate : iterate(heap, container).items) {
        if (equals(heap, candidate, item)) return true;
      }
      return false;
    }
    case Kind::kDict:
      return heap.find(container.dict(), item) != nullptr;
    default:
      fail_types(heap, "in", item, container);
  }
}

}  // namespace spillway::jinja
