// The interpreter's class, private to interpreter.cc (statements) and evaluate.cc (expressions).
#pragma once

#include <string>

#include "runtime/token/jinja/interpreter.h"

namespace spillway::jinja {

class Interpreter {
 public:
  Interpreter(Heap& heap, const Template& program) : heap_(heap), program_(program) {}

  std::string run(const Variables& variables);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  // Counts the recursion of the interpreter itself.
  class Nesting {
   public:
    Nesting(Interpreter& self, int line);
    ~Nesting() { --self_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    Interpreter& self_;
  };

  // A scope on the C++ stack, or on the heap when a macro may outlive the block; enters it and
  // leaves it again.
  class Block {
   public:
    Block(Interpreter& self, Scope* parent, bool keep);
    ~Block();
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

   private:
    Interpreter& self_;
    Scope* outer_;
    Scope local_;
  };

  // Output goes to a text of its own until it is taken; its bytes count as live meanwhile.
  class Capture {
   public:
    explicit Capture(Interpreter& self);
    ~Capture();
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    std::string take();

   private:
    Interpreter& self_;
    std::string* outer_;
    std::string text_;
    int64_t charged_ = 0;
  };

  // interpreter.cc
  Flow execute(const Body& body);
  Flow execute(const Statement& s);
  Flow execute_if(const Statement& s);
  Flow execute_for(const Statement& s);
  Flow run_loop(const Statement& s, const Value& walked, Scope* outer, int64_t depth0);
  Value call_loop(const Loop& loop, const Arguments& arguments);
  Flow execute_call(const Statement& s);
  Flow execute_with(const Statement& s);
  const List& chosen_items(const Statement& s, const List& items);
  Flow execute_filtered(const Statement& s, Value& out);
  Flow execute_set_block(const Statement& s);
  Flow execute_filter_block(const Statement& s);
  void define_macro(const Statement& s);
  void emit(std::string_view text);
  void assign(const Expression& target, const Value& value);
  Value call_macro(const Callable& macro, const Arguments& arguments);
  Arguments take_further(const Macro& macro, const Arguments& arguments);

  // evaluate.cc
  Value evaluate(const Expression& e);
  Value evaluate_filters(const Expression* chain, const Value& input);
  Value evaluate_name(const Expression& e) const;
  Value evaluate_list(const Expression& e);
  Value evaluate_dict(const Expression& e);
  Value evaluate_subscript(const Expression& e);
  Value evaluate_slice(const Expression& e);
  Value evaluate_call(const Expression& e);
  Value evaluate_filter(const Expression& e, const Value* block_text);
  Value evaluate_test(const Expression& e);
  Value evaluate_compare(const Expression& e);
  Value evaluate_concatenate(const Expression& e);
  bool compare(Comparison op, const Value& a, const Value& b);
  Arguments evaluate_arguments(const Expression& e);
  void unpack_arguments(const Expression& e, Arguments& out);
  Value call(const Value& callee, const Arguments& arguments);

  Heap& heap_;
  const Template& program_;
  Scope* scope_ = nullptr;
  std::string* out_ = nullptr;
  int nesting_ = 0;
};

}  // namespace spillway::jinja
