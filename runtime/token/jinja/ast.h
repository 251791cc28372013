// The parsed template: statements and expressions as plain trees, names as numbers.
// Made by the parser, read by the interpreter. Immutable afterwards, shared between threads.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/token/jinja/filters.h"
#include "runtime/token/jinja/operators.h"
#include "runtime/token/jinja/predicates.h"
#include "runtime/token/jinja/value.h"

namespace spillway::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class ExpressionKind {
  kConstant,
  kName,       // id, name
  kList,       // operands
  kTuple,      // operands
  kDict,       // operands: key, value, key, value, …
  kAttribute,  // operands[0].name
  kSubscript,  // operands[0][operands[1]]
  kSlice,      // operands[0][operands[1] : operands[2] : operands[3]]; a missing one is none
  kCall,       // operands[0](operands[1…], named)
  kFilter,     // operands[0] | name(operands[1…], named); operands[0] is null for a block's text
  kTest,       // operands[0] is name(operands[1…], named)
  kNot,
  kNegative,
  kPositive,
  kArithmetic,  // operands[0] arithmetic operands[1]
  kAnd,
  kOr,
  kCompare,         // operands[0] comparisons[0] operands[1] comparisons[1] operands[2] …
  kConcatenate,     // operands
  kConditional,     // operands[1] if operands[0] else operands[2] (null: undefined)
  kNamespaceField,  // target only: id . name
};

enum class Comparison {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kConstant;
  int line = 0;
  int depth = 1;  // of this tree
  int id = -1;
  Text name;
  Value constant;
  Arithmetic arithmetic = Arithmetic::kAdd;
  std::vector<Comparison> comparisons;
  std::vector<ExpressionPtr> operands;
  std::vector<std::pair<Text, ExpressionPtr>> named;
  ExpressionPtr star;             // f(*star)
  ExpressionPtr double_star;      // f(**double_star)
  Filter filter = nullptr;        // null: unknown, an error when it is reached
  Predicate predicate = nullptr;  // the same
};

struct Statement;
using Body = std::vector<Statement>;

enum class StatementKind {
  kText,         // text
  kOutput,       // expression
  kIf,           // branches
  kFor,          // target, expression (what is walked), condition, body, otherwise
  kSet,          // target, expression
  kSetBlock,     // target, body, expression (a chain of filters, or null)
  kFilterBlock,  // expression (a chain of filters), body
  kMacro,        // macro, id
  kCall,         // expression (the call), macro (what `caller` is)
  kWith,         // target and expression (tuples of equal size), body
  kScope,        // body
  kBreak,
  kContinue,
};

struct Macro {
  struct Parameter {
    int id = -1;
    Text name;
    ExpressionPtr otherwise;  // null: undefined when not given
  };
  Text name;
  std::vector<Parameter> parameters;
  Body body;
  bool keeps_scope = false;
  // The body names them: only then further arguments and a call block are taken.
  bool uses_varargs = false;
  bool uses_kwargs = false;
  bool uses_caller = false;
};

struct Branch;

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 0;
  int id = -1;
  std::string text;
  ExpressionPtr target;
  ExpressionPtr expression;
  ExpressionPtr condition;
  Body body;
  Body otherwise;
  std::vector<Branch> branches;
  std::unique_ptr<Macro> macro;
  bool recursive = false;  // for
  // A macro is written inside, so the scope must live as long as the macro may be called.
  bool keeps_scope = false;
};

// One if, elif or else (condition null).
struct Branch {
  ExpressionPtr condition;
  Body body;
};

struct Template {
  Body body;
  std::vector<std::string> names;  // by id
  std::unordered_map<std::string, int> ids;
  int loop_id = -1;  // of "loop", and so on
  int varargs_id = -1;
  int kwargs_id = -1;
  int caller_id = -1;
};

}  // namespace spillway::jinja
