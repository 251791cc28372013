// The grammar of expressions, one function a level of precedence.
#include "runtime/token/jinja/expression_parser.h"

#include "kernels/core/error.h"
#include "runtime/token/jinja/parser.h"

namespace spillway::jinja {

ExpressionParser::Nesting::Nesting(ExpressionParser& parser) : parser_(parser) {
  if (++parser_.nesting_ > kParseDepth) {
    parser_.fail(parser_.current().line,
                 "nested deeper than " + std::to_string(kParseDepth) + " levels");
  }
}

ExpressionPtr ExpressionParser::make(ExpressionKind kind, int line) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  return node;
}

void ExpressionParser::adopt(Expression& parent, ExpressionPtr child) const {
  if (child != nullptr && child->depth >= parent.depth) parent.depth = child->depth + 1;
  if (parent.depth > kTreeDepth) {
    fail(parent.line, "an expression of more than " + std::to_string(kTreeDepth) + " links");
  }
  parent.operands.push_back(std::move(child));
}

ExpressionPtr ExpressionParser::pair(ExpressionKind kind, int line, ExpressionPtr a,
                                     ExpressionPtr b) const {
  auto node = make(kind, line);
  adopt(*node, std::move(a));
  adopt(*node, std::move(b));
  return node;
}

ExpressionPtr ExpressionParser::expression(bool conditional) {
  const Nesting nesting(*this);
  const size_t unknown_before = unknown_.size();
  ExpressionPtr left = disjunction();
  while (conditional && skip_name("if")) {
    const int line = current().line;
    ExpressionPtr condition = disjunction();
    ExpressionPtr otherwise = skip_name("else") ? expression() : nullptr;
    auto node = make(ExpressionKind::kConditional, line);
    adopt(*node, std::move(condition));
    adopt(*node, std::move(left));
    adopt(*node, std::move(otherwise));
    left = std::move(node);
    unknown_.resize(unknown_before);  // the arms of a conditional are forgiven too
  }
  return left;
}

ExpressionPtr ExpressionParser::disjunction() {
  ExpressionPtr left = conjunction();
  while (at_name("or")) {
    const int line = next().line;
    left = pair(ExpressionKind::kOr, line, std::move(left), conjunction());
  }
  return left;
}

ExpressionPtr ExpressionParser::conjunction() {
  ExpressionPtr left = negation();
  while (at_name("and")) {
    const int line = next().line;
    left = pair(ExpressionKind::kAnd, line, std::move(left), negation());
  }
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  if (!at_name("not")) return comparison();
  const Nesting nesting(*this);
  auto node = make(ExpressionKind::kNot, next().line);
  adopt(*node, negation());
  return node;
}

bool ExpressionParser::comparison_operator(Comparison& out) {
  struct Row {
    std::string_view op;
    Comparison comparison;
  };
  static constexpr Row kRows[] = {
      {"==", Comparison::kEqual},  {"!=", Comparison::kNotEqual},
      {"<", Comparison::kLess},    {"<=", Comparison::kLessEqual},
      {">", Comparison::kGreater}, {">=", Comparison::kGreaterEqual},
  };
  for (const Row& row : kRows) {
    if (!skip_operator(row.op)) continue;
    out = row.comparison;
    return true;
  }
  if (skip_name("in")) {
    out = Comparison::kIn;
    return true;
  }
  if (at_name("not") && ahead().kind == TokenKind::kName && ahead().text == "in") {
    next();
    next();
    out = Comparison::kNotIn;
    return true;
  }
  return false;
}

ExpressionPtr ExpressionParser::comparison() {
  ExpressionPtr left = sum();
  const int line = current().line;
  Comparison op{};
  if (!comparison_operator(op)) return left;
  auto node = make(ExpressionKind::kCompare, line);
  adopt(*node, std::move(left));
  do {
    node->comparisons.push_back(op);
    adopt(*node, sum());
  } while (comparison_operator(op));
  return node;
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = concatenation();
  while (at_operator("+") || at_operator("-")) {
    const Token op = next();
    left = pair(ExpressionKind::kArithmetic, op.line, std::move(left), concatenation());
    left->arithmetic = op.text == "+" ? Arithmetic::kAdd : Arithmetic::kSubtract;
  }
  return left;
}

ExpressionPtr ExpressionParser::concatenation() {
  ExpressionPtr left = product();
  if (!at_operator("~")) return left;
  auto node = make(ExpressionKind::kConcatenate, current().line);
  adopt(*node, std::move(left));
  while (skip_operator("~")) adopt(*node, product());
  return node;
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  while (at_operator("*") || at_operator("/") || at_operator("//") || at_operator("%")) {
    const Token op = next();
    left = pair(ExpressionKind::kArithmetic, op.line, std::move(left), power());
    left->arithmetic = op.text == "*"    ? Arithmetic::kMultiply
                       : op.text == "/"  ? Arithmetic::kDivide
                       : op.text == "//" ? Arithmetic::kFloorDivide
                                         : Arithmetic::kModulo;
  }
  return left;
}

ExpressionPtr ExpressionParser::power() {
  ExpressionPtr left = unary(true);
  while (at_operator("**")) {
    const int line = next().line;
    left = pair(ExpressionKind::kArithmetic, line, std::move(left), unary(true));
    left->arithmetic = Arithmetic::kPower;
  }
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const Nesting nesting(*this);
  ExpressionPtr node;
  if (at_operator("-") || at_operator("+")) {
    const Token op = next();
    node = make(op.text == "-" ? ExpressionKind::kNegative : ExpressionKind::kPositive, op.line);
    adopt(*node, unary(false));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filters ? filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr node) {
  while (true) {
    if (at_operator(".")) {
      node = member(std::move(node));
    } else if (at_operator("[")) {
      node = subscripted(std::move(node));
    } else if (at_operator("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::filters_and_tests(ExpressionPtr node) {
  while (true) {
    if (at_operator("|")) {
      node = filters(std::move(node));
    } else if (at_name("is")) {
      node = test(std::move(node));
    } else if (at_operator("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::member(ExpressionPtr node) {
  const int line = next().line;
  const Token token = next();
  if (token.kind == TokenKind::kInteger) {
    auto key = make(ExpressionKind::kConstant, token.line);
    key->constant = token.integer;
    return pair(ExpressionKind::kSubscript, line, std::move(node), std::move(key));
  }
  if (token.kind != TokenKind::kName) fail(token.line, "a name or number must follow a dot");
  auto out = make(ExpressionKind::kAttribute, line);
  out->name = literal_text(token.text);
  adopt(*out, std::move(node));
  return out;
}

ExpressionPtr ExpressionParser::subscripted(ExpressionPtr node) {
  const int line = next().line;
  ExpressionPtr bounds[3];
  bool slice = false;
  for (int i = 0; i < 3; ++i) {
    if (!at_operator(":") && !at_operator("]")) bounds[i] = expression();
    if (i == 2 || !skip_operator(":")) break;
    slice = true;
  }
  if (at_operator(",")) fail(line, "subscripts with commas are not part of this Jinja");
  if (!slice && bounds[0] == nullptr) fail(line, "a subscript is empty");
  expect_operator("]");
  if (!slice) return pair(ExpressionKind::kSubscript, line, std::move(node), std::move(bounds[0]));
  auto out = make(ExpressionKind::kSlice, line);
  adopt(*out, std::move(node));
  for (ExpressionPtr& bound : bounds) adopt(*out, std::move(bound));
  return out;
}

ExpressionPtr ExpressionParser::call(ExpressionPtr node) {
  auto out = make(ExpressionKind::kCall, current().line);
  adopt(*out, std::move(node));
  call_arguments(*out);
  return out;
}

void ExpressionParser::call_arguments(Expression& out) {
  const int line = current().line;
  expect_operator("(");
  bool first = true;
  while (!at_operator(")")) {
    if (!first) expect_operator(",");
    first = false;
    if (at_operator(")")) break;
    if (at_operator("*") || at_operator("**")) {
      ExpressionPtr& unpacked = next().text == "*" ? out.star : out.double_star;
      if (unpacked != nullptr || out.double_star != nullptr) fail(line, "a misplaced * argument");
      unpacked = expression();
      out.depth = std::max(out.depth, unpacked->depth + 1);
      continue;
    }
    const bool is_named = current().kind == TokenKind::kName &&
                          ahead().kind == TokenKind::kOperator && ahead().text == "=";
    if (!is_named) {
      if (!out.named.empty() || out.star != nullptr || out.double_star != nullptr)
        fail(line, "a positional argument follows a keyword argument");
      adopt(out, expression());
      continue;
    }
    Text name = literal_text(next().text);
    next();
    for (const auto& entry : out.named) {
      if (entry.first->chars == name->chars) fail(line, "argument '" + name->chars + "' twice");
    }
    ExpressionPtr value = expression();
    out.depth = std::max(out.depth, value->depth + 1);
    out.named.emplace_back(std::move(name), std::move(value));
  }
  expect_operator(")");
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr input, bool start) {
  while (start || skip_operator("|")) {
    start = false;
    input = one_filter(std::move(input));
  }
  return input;
}

ExpressionPtr ExpressionParser::one_filter(ExpressionPtr input) {
  const Token name = expect(TokenKind::kName, "a filter's name");
  auto node = make(ExpressionKind::kFilter, name.line);
  node->name = literal_text(name.text);
  node->filter = find_filter(name.text);
  if (node->filter == nullptr && !forgiving) {
    unknown_.push_back({name.line, "no filter '" + name.text + "'"});
  }
  adopt(*node, std::move(input));
  if (at_operator("(")) call_arguments(*node);
  return node;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr node) {
  const int line = next().line;
  const bool negated = skip_name("not");
  const Token name = expect(TokenKind::kName, "a test's name");
  auto out = make(ExpressionKind::kTest, line);
  out->name = literal_text(name.text);
  out->predicate = find_predicate(name.text);
  if (out->predicate == nullptr && !forgiving) {
    unknown_.push_back({line, "no test '" + name.text + "'"});
  }
  adopt(*out, std::move(node));
  const TokenKind kind = current().kind;
  const bool operand =
      kind == TokenKind::kString || kind == TokenKind::kInteger || kind == TokenKind::kFloat ||
      at_operator("[") || at_operator("{") ||
      (kind == TokenKind::kName && !at_name("else") && !at_name("or") && !at_name("and"));
  if (at_operator("(")) {
    call_arguments(*out);
  } else if (operand) {
    if (at_name("is")) fail(line, "tests cannot be chained with is");
    adopt(*out, postfix(primary()));
  }
  if (!negated) return out;
  auto inverse = make(ExpressionKind::kNot, line);
  adopt(*inverse, std::move(out));
  return inverse;
}

void ExpressionParser::refuse_unknown() const {
  if (!unknown_.empty()) fail(unknown_.front().line, unknown_.front().what);
}

}  // namespace spillway::jinja
