// ExpressionParser: the expression half of the parser, over a row of tokens. Precedence, lowest
// first: conditional, or, and, not, comparison, + -, ~, * / // %, **, unary, postfix, filter and
// is. (That ** binds looser than a unary minus, and ~ between + and *, is Jinja's own.) Called by
// parser.cc, which owns it and moves along the same tokens.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include "runtime/token/jinja/ast.h"
#include "runtime/token/jinja/lexer.h"

namespace spillway::jinja {

class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, Template& out)
      : tokens_(std::move(tokens)), out_(out) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token next();
  bool at_operator(std::string_view op) const;
  bool at_name(std::string_view name) const;
  bool skip_operator(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_operator(std::string_view op);
  void expect_name(std::string_view name);
  Token expect(TokenKind kind, std::string_view what);
  [[noreturn]] void fail(int line, const std::string& what) const;
  [[noreturn]] void fail_here(const std::string& expected) const;

  // A number for a variable's name, the same for the same name.
  int id_of(const std::string& name);

  ExpressionPtr expression(bool conditional = true);
  // Expressions with commas between them are a tuple, also without parentheses. until: a name that
  // ends it, for `for … in`.
  ExpressionPtr tuple(bool conditional = true, bool parentheses = false);
  // What can stand left of = or after `for`: names, tuples of names, and namespace.field.
  ExpressionPtr target(bool with_fields);
  ExpressionPtr plain_name();
  // An empty tuple, and putting an expression into it.
  ExpressionPtr bundle(int line) const { return make(ExpressionKind::kTuple, line); }
  void put(Expression& tuple, ExpressionPtr item) const { adopt(tuple, std::move(item)); }
  bool current_is_name() const { return current().kind == TokenKind::kName; }
  // | filter | filter …, onto `input`, which may be null. start: without the first bar.
  ExpressionPtr filters(ExpressionPtr input, bool start = false);

  // Unknown filters and tests are forgiven while set, until they are reached.
  bool forgiving = false;

  // How often the names that only a macro's body knows were read so far.
  struct Mentions {
    int varargs = 0;
    int kwargs = 0;
    int caller = 0;
  };
  Mentions mentions;
  // Throws for the first unforgiven one.
  void refuse_unknown() const;

  // Counts nesting of the parser's own recursion.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser& parser);
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    ExpressionParser& parser_;
  };

 private:
  struct Unknown {
    int line;
    std::string what;
  };

  ExpressionPtr make(ExpressionKind kind, int line) const;
  void adopt(Expression& parent, ExpressionPtr child) const;
  ExpressionPtr pair(ExpressionKind kind, int line, ExpressionPtr a, ExpressionPtr b) const;
  bool tuple_ends(bool target) const;

  ExpressionPtr disjunction();
  ExpressionPtr conjunction();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  bool comparison_operator(Comparison& out);
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters);
  ExpressionPtr primary(bool with_fields = false);
  ExpressionPtr name_or_constant(bool with_fields);
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr node);
  ExpressionPtr member(ExpressionPtr node);
  ExpressionPtr subscripted(ExpressionPtr node);
  ExpressionPtr filters_and_tests(ExpressionPtr node);
  ExpressionPtr call(ExpressionPtr node);
  ExpressionPtr test(ExpressionPtr node);
  ExpressionPtr one_filter(ExpressionPtr input);
  void call_arguments(Expression& out);

  std::vector<Token> tokens_;
  Template& out_;
  size_t at_ = 0;
  int nesting_ = 0;
  std::vector<Unknown> unknown_;
};

}  // namespace spillway::jinja
