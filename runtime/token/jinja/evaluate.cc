// Expressions: one function a kind of node, and calls.
#include "runtime/token/jinja/format.h"
#include "runtime/token/jinja/interpreter_state.h"
#include "runtime/token/jinja/methods.h"
#include "runtime/token/jinja/operators.h"

namespace spillway::jinja {

Value Interpreter::evaluate(const Expression& e) {
  const Nesting nesting(*this, e.line);
  const auto operand = [&](size_t i) { return evaluate(*e.operands[i]); };
  switch (e.kind) {
    case ExpressionKind::kConstant:
      return e.constant;
    case ExpressionKind::kName:
      return evaluate_name(e);
    case ExpressionKind::kList:
    case ExpressionKind::kTuple:
      return evaluate_list(e);
    case ExpressionKind::kDict:
      return evaluate_dict(e);
    case ExpressionKind::kAttribute: {
      const Value object = operand(0);
      heap_.at_line(e.line);
      return attribute(heap_, object, e.name);
    }
    case ExpressionKind::kSubscript:
      return evaluate_subscript(e);
    case ExpressionKind::kSlice:
      return evaluate_slice(e);
    case ExpressionKind::kCall:
      return evaluate_call(e);
    case ExpressionKind::kFilter:
      return evaluate_filter(e, nullptr);
    case ExpressionKind::kTest:
      return evaluate_test(e);
    case ExpressionKind::kNot:
      return !truth(operand(0));
    case ExpressionKind::kNegative:
      return negate(heap_, operand(0));
    case ExpressionKind::kPositive:
      return arithmetic(heap_, Arithmetic::kAdd, int64_t{0}, operand(0));
    case ExpressionKind::kArithmetic: {
      const Value a = operand(0);
      const Value b = operand(1);
      heap_.at_line(e.line);
      return arithmetic(heap_, e.arithmetic, a, b);
    }
    case ExpressionKind::kAnd: {
      const Value a = operand(0);
      return truth(a) ? operand(1) : a;
    }
    case ExpressionKind::kOr: {
      const Value a = operand(0);
      return truth(a) ? a : operand(1);
    }
    case ExpressionKind::kCompare:
      return evaluate_compare(e);
    case ExpressionKind::kConcatenate:
      return evaluate_concatenate(e);
    case ExpressionKind::kConditional:
      if (truth(operand(0))) return operand(1);
      return e.operands[2] == nullptr ? Value() : operand(2);
    case ExpressionKind::kNamespaceField:
      break;
  }
  heap_.fail("a namespace's field stands where a value should");
}

Value Interpreter::evaluate_name(const Expression& e) const {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    for (const auto& [id, value] : scope->names) {
      if (id == e.id) return value;
    }
  }
  return Undefined{e.name};
}

Value Interpreter::evaluate_list(const Expression& e) {
  List* out = heap_.list(e.kind == ExpressionKind::kTuple ? ListKind::kTuple : ListKind::kList);
  for (const ExpressionPtr& item : e.operands) heap_.append(*out, evaluate(*item));
  return out;
}

Value Interpreter::evaluate_dict(const Expression& e) {
  Dict* out = heap_.dict();
  for (size_t i = 0; i + 1 < e.operands.size(); i += 2) {
    Value key = evaluate(*e.operands[i]);
    Value value = evaluate(*e.operands[i + 1]);
    heap_.at_line(e.line);
    heap_.set(*out, std::move(key), std::move(value));
  }
  return out;
}

Value Interpreter::evaluate_subscript(const Expression& e) {
  const Value object = evaluate(*e.operands[0]);
  const Value key = evaluate(*e.operands[1]);
  heap_.at_line(e.line);
  return subscript(heap_, object, key);
}

Value Interpreter::evaluate_slice(const Expression& e) {
  const Value object = evaluate(*e.operands[0]);
  Value bounds[3] = {None{}, None{}, None{}};
  for (size_t i = 0; i < 3; ++i) {
    if (e.operands[i + 1] != nullptr) bounds[i] = evaluate(*e.operands[i + 1]);
  }
  heap_.at_line(e.line);
  return slice(heap_, object, bounds[0], bounds[1], bounds[2]);
}

Arguments Interpreter::evaluate_arguments(const Expression& e) {
  Arguments out;
  for (size_t i = 1; i < e.operands.size(); ++i) {
    out.positional.push_back(evaluate(*e.operands[i]));
  }
  for (const auto& [name, value] : e.named) out.named.emplace_back(name, evaluate(*value));
  if (e.star != nullptr || e.double_star != nullptr) unpack_arguments(e, out);
  heap_.at_line(e.line);
  return out;
}

// f(*list, **dict)
void Interpreter::unpack_arguments(const Expression& e, Arguments& out) {
  if (e.star != nullptr) {
    const Value items = evaluate(*e.star);
    heap_.at_line(e.line);
    for (const Value& item : iterate(heap_, items).items) {
      heap_.step();
      out.positional.push_back(item);
    }
  }
  if (e.double_star == nullptr) return;
  const Value entries = evaluate(*e.double_star);
  heap_.at_line(e.line);
  if (!entries.is(Kind::kDict)) {
    heap_.fail(std::string("** needs a dict, not ").append(type_name(entries)));
  }
  for (const auto& [key, value] : entries.dict().entries()) {
    heap_.step();
    if (!key.is(Kind::kText)) heap_.fail("** needs a dict whose keys are str");
    out.named.emplace_back(key.shared_text(), value);
  }
}

Value Interpreter::evaluate_call(const Expression& e) {
  const Expression& callee = *e.operands[0];
  if (callee.kind != ExpressionKind::kAttribute) {
    const Value function = evaluate(callee);
    return call(function, evaluate_arguments(e));
  }
  // object.method(…) without making a bound method: loops over a conversation call many.
  const Value object = evaluate(*callee.operands[0]);
  heap_.at_line(callee.line);
  const Method* method = find_method(object, callee.name->chars);
  if (method == nullptr || method->function == nullptr) {
    const Value function = attribute(heap_, object, callee.name);
    return call(function, evaluate_arguments(e));
  }
  return method->function(heap_, object, evaluate_arguments(e));
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  if (callee.is(Kind::kUndefined)) fail_undefined(heap_, callee);
  if (callee.is(Kind::kLoop)) return call_loop(callee.loop(), arguments);
  if (!callee.is(Kind::kCallable)) {
    heap_.fail(std::string("a value of type ").append(type_name(callee)) + " cannot be called");
  }
  const Callable& callable = callee.callable();
  if (callable.macro != nullptr) return call_macro(callable, arguments);
  if (callable.function == nullptr) {
    heap_.fail("the method '" + callable.name->chars + "' of " +
               std::string(type_name(callable.receiver)) + " is not part of this Jinja");
  }
  return callable.function(heap_, callable.receiver, arguments);
}

Value Interpreter::evaluate_filter(const Expression& e, const Value* block_text) {
  Value input;
  if (e.operands[0] != nullptr) {
    const Expression& inner = *e.operands[0];
    const bool chain = block_text != nullptr && inner.kind == ExpressionKind::kFilter;
    input = chain ? evaluate_filter(inner, block_text) : evaluate(inner);
  } else if (block_text != nullptr) {
    input = *block_text;
  }
  heap_.at_line(e.line);
  if (e.filter == nullptr) heap_.fail("no filter '" + e.name->chars + "'");
  return e.filter(heap_, input, evaluate_arguments(e));
}

Value Interpreter::evaluate_filters(const Expression* chain, const Value& input) {
  return chain == nullptr ? input : evaluate_filter(*chain, &input);
}

Value Interpreter::evaluate_test(const Expression& e) {
  const Value subject = evaluate(*e.operands[0]);
  heap_.at_line(e.line);
  if (e.predicate == nullptr) heap_.fail("no test '" + e.name->chars + "'");
  return e.predicate(heap_, subject, evaluate_arguments(e));
}

bool Interpreter::compare(Comparison op, const Value& a, const Value& b) {
  switch (op) {
    case Comparison::kEqual:
      return equals(heap_, a, b);
    case Comparison::kNotEqual:
      return !equals(heap_, a, b);
    case Comparison::kLess:
      return less(heap_, a, b);
    case Comparison::kLessEqual:
      return less(heap_, a, b) || equals(heap_, a, b);
    case Comparison::kGreater:
      return less(heap_, b, a);
    case Comparison::kGreaterEqual:
      return less(heap_, b, a) || equals(heap_, a, b);
    case Comparison::kIn:
      return contains(heap_, b, a);
    case Comparison::kNotIn:
      return !contains(heap_, b, a);
  }
  return false;
}

Value Interpreter::evaluate_compare(const Expression& e) {
  Value left = evaluate(*e.operands[0]);
  for (size_t i = 0; i < e.comparisons.size(); ++i) {
    Value right = evaluate(*e.operands[i + 1]);
    heap_.at_line(e.line);
    if (!compare(e.comparisons[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::evaluate_concatenate(const Expression& e) {
  std::string out;
  for (const ExpressionPtr& part : e.operands) {
    const Value value = evaluate(*part);
    out += to_text_value(heap_, value).text();
    if (static_cast<int64_t>(out.size()) > heap_.limits().live_bytes) break;  // text() refuses it
  }
  heap_.at_line(e.line);
  return heap_.text(std::move(out));
}

}  // namespace spillway::jinja
