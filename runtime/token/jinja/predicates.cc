// Jinja's tests: types, truth, comparison.
#include "runtime/token/jinja/predicates.h"

#include "runtime/token/jinja/filters.h"
#include "runtime/token/jinja/format.h"
#include "runtime/token/jinja/operators.h"
#include "runtime/token/jinja/text.h"

namespace spillway::jinja {
namespace {

bool is_defined(const Value& v) { return !v.is(Kind::kUndefined); }
bool is_undefined(const Value& v) { return v.is(Kind::kUndefined); }
bool is_none(const Value& v) { return v.is(Kind::kNone); }
bool is_boolean(const Value& v) { return v.is(Kind::kBool); }
bool is_true(const Value& v) { return v.is(Kind::kBool) && v.boolean(); }
bool is_false(const Value& v) { return v.is(Kind::kBool) && !v.boolean(); }
bool is_integer(const Value& v) { return v.is(Kind::kInt); }
bool is_float(const Value& v) { return v.is(Kind::kFloat); }
bool is_number(const Value& v) { return v.is_number(); }
bool is_string(const Value& v) { return v.is(Kind::kText); }
bool is_mapping(const Value& v) { return v.is(Kind::kDict); }
bool is_iterable(const Value& v) { return iterable(v); }
bool is_callable(const Value& v) { return v.is(Kind::kCallable) || v.is(Kind::kUndefined); }
// Python asks for a length and for subscripts: a dict has both, and so has Jinja's undefined.
bool is_sequence(const Value& v) {
  return v.is(Kind::kUndefined) || v.is(Kind::kText) || v.is(Kind::kDict) ||
         (v.is(Kind::kList) && v.list().has_index());
}

template <bool (*kTest)(const Value&)>
bool unary(Heap& heap, const Value& subject, const Arguments& arguments) {
  ArgumentReader(heap, "a test", arguments).finish();
  return kTest(subject);
}

bool is_equal(Heap& heap, const Value& a, const Value& b) { return equals(heap, a, b); }
bool is_different(Heap& heap, const Value& a, const Value& b) { return !equals(heap, a, b); }
bool is_less(Heap& heap, const Value& a, const Value& b) { return less(heap, a, b); }
bool is_greater(Heap& heap, const Value& a, const Value& b) { return less(heap, b, a); }
bool is_at_most(Heap& heap, const Value& a, const Value& b) {
  return less(heap, a, b) || equals(heap, a, b);
}
bool is_at_least(Heap& heap, const Value& a, const Value& b) {
  return less(heap, b, a) || equals(heap, a, b);
}
bool is_in(Heap& heap, const Value& a, const Value& b) { return contains(heap, b, a); }
bool is_same(Heap& heap, const Value& a, const Value& b) { return a.same_object(b); }

bool is_divisible(Heap& heap, const Value& a, const Value& b) {
  const Value rest = arithmetic(heap, Arithmetic::kModulo, a, b);
  return rest.is_number() && rest.real() == 0;
}

template <int kRest>
bool is_parity(Heap& heap, const Value& subject, const Arguments& arguments) {
  ArgumentReader(heap, "a test", arguments).finish();
  const Value rest = arithmetic(heap, Arithmetic::kModulo, subject, int64_t{2});
  return rest.is_number() && rest.real() == kRest;
}

template <bool kUpper>
bool is_case(Heap& heap, const Value& subject, const Arguments& arguments) {
  ArgumentReader(heap, "a test", arguments).finish();
  const std::string text = to_text(heap, subject);
  heap.work_bytes(2 * text.size());
  return is_of_case(text, kUpper);
}

template <bool kFilter>
bool is_known(Heap& heap, const Value& subject, const Arguments& arguments) {
  ArgumentReader(heap, "a test", arguments).finish();
  if (!subject.is(Kind::kText)) return false;
  return kFilter ? find_filter(subject.text()) != nullptr
                 : find_predicate(subject.text()) != nullptr;
}

template <bool (*kTest)(Heap&, const Value&, const Value&)>
bool binary(Heap& heap, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader(heap, "a test", arguments);
  const Value other = reader.required("other");
  reader.finish();
  return kTest(heap, subject, other);
}

struct Entry {
  std::string_view name;
  Predicate predicate;
};
constexpr Entry kPredicates[] = {
    {"defined", unary<is_defined>},   {"undefined", unary<is_undefined>},
    {"none", unary<is_none>},         {"boolean", unary<is_boolean>},
    {"true", unary<is_true>},         {"false", unary<is_false>},
    {"integer", unary<is_integer>},   {"float", unary<is_float>},
    {"number", unary<is_number>},     {"string", unary<is_string>},
    {"mapping", unary<is_mapping>},   {"iterable", unary<is_iterable>},
    {"sequence", unary<is_sequence>}, {"callable", unary<is_callable>},
    {"equalto", binary<is_equal>},    {"eq", binary<is_equal>},
    {"==", binary<is_equal>},         {"ne", binary<is_different>},
    {"!=", binary<is_different>},     {"lt", binary<is_less>},
    {"lessthan", binary<is_less>},    {"<", binary<is_less>},
    {"gt", binary<is_greater>},       {"greaterthan", binary<is_greater>},
    {">", binary<is_greater>},        {"le", binary<is_at_most>},
    {"<=", binary<is_at_most>},       {"ge", binary<is_at_least>},
    {">=", binary<is_at_least>},      {"in", binary<is_in>},
    {"sameas", binary<is_same>},      {"divisibleby", binary<is_divisible>},
    {"even", is_parity<0>},           {"odd", is_parity<1>},
    {"upper", is_case<true>},         {"lower", is_case<false>},
    {"filter", is_known<true>},       {"test", is_known<false>},
};

}  // namespace

Predicate find_predicate(std::string_view name) {
  for (const Entry& entry : kPredicates) {
    if (entry.name == name) return entry.predicate;
  }
  return nullptr;
}

}  // namespace spillway::jinja
