// Statements: output, branches, loops, assignments, macros. Expressions are in evaluate.cc.
// Scopes as in Jinja: bodies of for, set, filter and macro have their own, if has not; a macro sees
// the scope it was written in, as it is when the macro is called.
#include "runtime/token/jinja/interpreter.h"

#include <algorithm>

#include "runtime/token/jinja/format.h"
#include "runtime/token/jinja/functions.h"
#include "runtime/token/jinja/interpreter_state.h"
#include "runtime/token/jinja/operators.h"

namespace spillway::jinja {

Interpreter::Nesting::Nesting(Interpreter& self, int line) : self_(self) {
  self_.heap_.at_line(line);
  self_.heap_.step();
  if (self_.nesting_ >= self_.heap_.limits().depth) {
    self_.heap_.fail("the template nests deeper than " +
                     std::to_string(self_.heap_.limits().depth) + " levels");
  }
  ++self_.nesting_;
}

Interpreter::Block::Block(Interpreter& self, Scope* parent, bool keep)
    : self_(self), outer_(self.scope_) {
  local_.parent = parent;
  self_.scope_ = keep ? self_.heap_.scope(parent) : &local_;
}

Interpreter::Block::~Block() { self_.scope_ = outer_; }

Interpreter::Capture::Capture(Interpreter& self) : self_(self), outer_(self.out_) {
  self_.out_ = &text_;
}

Interpreter::Capture::~Capture() {
  self_.out_ = outer_;
  self_.heap_.release(static_cast<int64_t>(text_.size()) + charged_);
}

std::string Interpreter::Capture::take() {
  self_.out_ = outer_;
  charged_ = static_cast<int64_t>(text_.size());  // released with the capture
  return std::exchange(text_, {});
}

std::string Interpreter::run(const Variables& variables) {
  Scope globals;
  Scope context;
  context.parent = &globals;
  const auto define = [&](Scope& scope, std::string_view name, const Value& value) {
    const auto id = program_.ids.find(std::string(name));
    if (id != program_.ids.end()) scope.set(id->second, value);
  };
  for (const GlobalFunction& function : global_functions()) {
    Callable callable;
    callable.name = literal_text(function.name);
    callable.function = function.function;
    define(globals, function.name, heap_.callable(std::move(callable)));
  }
  for (const auto& [name, value] : variables) define(context, name, value);
  Capture capture(*this);
  const Block block(*this, &context, false);
  execute(program_.body);
  return capture.take();
}

void Interpreter::emit(std::string_view text) {
  heap_.work_bytes(text.size());
  heap_.charge(static_cast<int64_t>(text.size()));
  // Charged before it is appended: the capture releases what it holds.
  out_->append(text);
  if (static_cast<int64_t>(out_->size()) > heap_.limits().output_bytes) {
    heap_.fail("the template writes more than " + std::to_string(heap_.limits().output_bytes) +
               " bytes");
  }
}

Interpreter::Flow Interpreter::execute(const Body& body) {
  for (const Statement& s : body) {
    const Flow flow = execute(s);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute(const Statement& s) {
  const Nesting nesting(*this, s.line);
  switch (s.kind) {
    case StatementKind::kText:
      emit(s.text);
      return Flow::kNext;
    case StatementKind::kOutput: {
      const Value value = evaluate(*s.expression);
      emit(to_text_value(heap_, value).text());
      return Flow::kNext;
    }
    case StatementKind::kIf:
      return execute_if(s);
    case StatementKind::kFor:
      return execute_for(s);
    case StatementKind::kSet:
      assign(*s.target, evaluate(*s.expression));
      return Flow::kNext;
    case StatementKind::kSetBlock:
      return execute_set_block(s);
    case StatementKind::kFilterBlock:
      return execute_filter_block(s);
    case StatementKind::kMacro:
      define_macro(s);
      return Flow::kNext;
    case StatementKind::kCall:
      return execute_call(s);
    case StatementKind::kWith:
      return execute_with(s);
    case StatementKind::kScope: {
      const Block block(*this, scope_, s.keeps_scope);
      return execute(s.body);
    }
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_if(const Statement& s) {
  for (const Branch& branch : s.branches) {
    if (branch.condition == nullptr || truth(evaluate(*branch.condition))) {
      return execute(branch.body);
    }
  }
  return Flow::kNext;
}

// The items that pass `for … if condition`.
const List& Interpreter::chosen_items(const Statement& s, const List& items) {
  List* chosen = heap_.list();
  for (size_t i = 0; i < items.items.size(); ++i) {
    const Value item = items.items[i];
    const Block block(*this, scope_, false);
    scope_->set(program_.loop_id, Undefined{literal_text("loop")});
    assign(*s.target, item);
    if (truth(evaluate(*s.condition))) heap_.append(*chosen, item);
  }
  return *chosen;
}

Interpreter::Flow Interpreter::execute_for(const Statement& s) {
  const Value walked = evaluate(*s.expression);
  return run_loop(s, walked, scope_, 0);
}

Interpreter::Flow Interpreter::run_loop(const Statement& s, const Value& walked, Scope* outer,
                                        int64_t depth0) {
  const List* items = &iterate(heap_, walked);
  if (s.condition != nullptr) items = &chosen_items(s, *items);
  Loop* loop = heap_.loop();
  loop->items = items;
  loop->depth0 = depth0;
  loop->recursive = s.recursive ? &s : nullptr;
  loop->outer = outer;
  // As in Jinja, the else branch runs unless some iteration reached the end of the body: also after
  // a break or continue in each.
  bool completed = false;
  // By index, and size() anew each time: the body may change the list it walks.
  for (size_t i = 0; i < items->items.size(); ++i) {
    heap_.step();
    loop->index0 = i;
    loop->previous = std::exchange(loop->item, Value(items->items[i]));
    const Block block(*this, outer, s.keeps_scope);
    scope_->set(program_.loop_id, loop);
    assign(*s.target, loop->item);
    const Flow flow = execute(s.body);
    if (flow == Flow::kBreak) break;
    completed = completed || flow == Flow::kNext;
  }
  loop->recursive = nullptr;  // the scope may go before the last reference to the loop
  if (completed || s.otherwise.empty()) return Flow::kNext;
  const Block block(*this, outer, s.keeps_scope);
  return execute(s.otherwise);
}

// loop(items) inside of a recursive loop: its text over other items, a level deeper.
Value Interpreter::call_loop(const Loop& loop, const Arguments& arguments) {
  if (loop.recursive == nullptr) {
    heap_.fail("loop() needs {% for … recursive %}, and to be called inside of it");
  }
  ArgumentReader reader(heap_, "loop", arguments);
  const Value items = reader.required("iterable");
  reader.finish();
  const Nesting nesting(*this, heap_.line());
  Capture capture(*this);
  Scope* const here = scope_;
  scope_ = loop.outer;
  run_loop(*loop.recursive, items, loop.outer, loop.depth0 + 1);
  scope_ = here;
  return heap_.text(capture.take());
}

// What the body writes, through the statement's filters; only when it returns kNext.
Interpreter::Flow Interpreter::execute_filtered(const Statement& s, Value& out) {
  Value text;
  {
    Capture capture(*this);
    const Block block(*this, scope_, s.keeps_scope);
    const Flow flow = execute(s.body);
    if (flow != Flow::kNext) return flow;
    text = heap_.text(capture.take());
  }
  out = evaluate_filters(s.expression.get(), text);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_set_block(const Statement& s) {
  Value value;
  const Flow flow = execute_filtered(s, value);
  if (flow == Flow::kNext) assign(*s.target, value);
  return flow;
}

Interpreter::Flow Interpreter::execute_filter_block(const Statement& s) {
  Value value;
  const Flow flow = execute_filtered(s, value);
  if (flow == Flow::kNext) emit(to_text_value(heap_, value).text());
  return flow;
}

Interpreter::Flow Interpreter::execute_call(const Statement& s) {
  Callable body;
  body.name = s.macro->name;
  body.macro = s.macro.get();
  body.closure = scope_;
  const Value function = evaluate(*s.expression->operands[0]);
  Arguments arguments = evaluate_arguments(*s.expression);
  arguments.named.emplace_back(s.macro->name, heap_.callable(std::move(body)));
  emit(to_text_value(heap_, call(function, arguments)).text());
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_with(const Statement& s) {
  const Value values = evaluate(*s.expression);
  const Block block(*this, scope_, s.keeps_scope);
  assign(*s.target, values);
  return execute(s.body);
}

void Interpreter::define_macro(const Statement& s) {
  Callable callable;
  callable.name = s.macro->name;
  callable.macro = s.macro.get();
  callable.closure = scope_;
  scope_->set(s.id, heap_.callable(std::move(callable)));
}

// Puts what no parameter takes into varargs, kwargs and caller, where the body reads these.
Arguments Interpreter::take_further(const Macro& macro, const Arguments& arguments) {
  Arguments own;
  List* varargs = heap_.list(ListKind::kTuple);
  Dict* kwargs = heap_.dict();
  Value caller = Undefined{literal_text("caller")};
  for (const Value& value : arguments.positional) {
    const bool further = macro.uses_varargs && own.positional.size() >= macro.parameters.size();
    if (further) {
      heap_.append(*varargs, value);
    } else {
      own.positional.push_back(value);
    }
  }
  for (const auto& [name, value] : arguments.named) {
    const std::string& chars = name->chars;
    const bool parameter =
        std::any_of(macro.parameters.begin(), macro.parameters.end(),
                    [&](const Macro::Parameter& p) { return p.name->chars == chars; });
    if (!parameter && macro.uses_caller && chars == "caller") {
      caller = value;
    } else if (!parameter && macro.uses_kwargs) {
      heap_.set(*kwargs, Value(name), value);
    } else {
      own.named.emplace_back(name, value);
    }
  }
  if (macro.uses_varargs) scope_->set(program_.varargs_id, varargs);
  if (macro.uses_kwargs) scope_->set(program_.kwargs_id, kwargs);
  if (macro.uses_caller) scope_->set(program_.caller_id, caller);
  return own;
}

Value Interpreter::call_macro(const Callable& callable, const Arguments& all) {
  const Macro& macro = *callable.macro;
  Capture capture(*this);
  const Block block(*this, callable.closure, macro.keeps_scope);
  const bool further = macro.uses_varargs || macro.uses_kwargs || macro.uses_caller;
  const Arguments own = further ? take_further(macro, all) : Arguments{};
  const Arguments& arguments = further ? own : all;
  ArgumentReader reader(heap_, macro.name->chars, arguments);
  std::vector<bool> given(macro.parameters.size(), true);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Macro::Parameter& parameter = macro.parameters[i];
    const bool named =
        std::any_of(arguments.named.begin(), arguments.named.end(),
                    [&](const auto& entry) { return entry.first->chars == parameter.name->chars; });
    given[i] = named || i < arguments.positional.size();
    scope_->set(parameter.id, reader.optional(parameter.name->chars, Undefined{parameter.name}));
  }
  reader.finish();
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Macro::Parameter& parameter = macro.parameters[i];
    if (given[i] || parameter.otherwise == nullptr) continue;
    scope_->set(parameter.id, evaluate(*parameter.otherwise));
  }
  execute(macro.body);
  return heap_.text(capture.take());
}

void Interpreter::assign(const Expression& target, const Value& value) {
  if (target.kind == ExpressionKind::kName) {
    scope_->set(target.id, value);
    return;
  }
  if (target.kind == ExpressionKind::kNamespaceField) {
    const Value space = evaluate_name(target);
    heap_.at_line(target.line);
    if (!space.is(Kind::kNamespace)) {
      heap_.fail("only a namespace's fields can be assigned, not those of a value of type " +
                 std::string(type_name(space)));
    }
    heap_.set(space.space().fields, Value(target.name), value);
    return;
  }
  heap_.at_line(target.line);
  const List& items = iterate(heap_, value);
  if (items.items.size() != target.operands.size()) {
    heap_.fail("cannot unpack " + std::to_string(items.items.size()) + " values into " +
               std::to_string(target.operands.size()) + " names");
  }
  for (size_t i = 0; i < target.operands.size(); ++i) assign(*target.operands[i], items.items[i]);
}

std::string interpret(Heap& heap, const Template& program, const Variables& variables) {
  return Interpreter(heap, program).run(variables);
}

}  // namespace spillway::jinja
