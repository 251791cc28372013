// The other half of ExpressionParser: moving along the tokens, literals, names, tuples and targets.
#include "kernels/core/error.h"
#include "runtime/token/jinja/expression_parser.h"

namespace spillway::jinja {
namespace {

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kEnd:
      return "the end of the template";
    case TokenKind::kString:
      return "a string";
    default:
      return "'" + token.text + "'";
  }
}

}  // namespace

void ExpressionParser::fail(int line, const std::string& what) const {
  throw Error("line " + std::to_string(line) + ": " + what, "chat template");
}

void ExpressionParser::fail_here(const std::string& expected) const {
  fail(current().line, expected + " is missing before " + describe(current()));
}

Token ExpressionParser::next() {
  const size_t at = at_;
  if (at_ + 1 < tokens_.size()) ++at_;
  return tokens_[at];
}

bool ExpressionParser::at_operator(std::string_view op) const {
  return current().kind == TokenKind::kOperator && current().text == op;
}

bool ExpressionParser::at_name(std::string_view name) const {
  return current().kind == TokenKind::kName && current().text == name;
}

bool ExpressionParser::skip_operator(std::string_view op) {
  if (!at_operator(op)) return false;
  next();
  return true;
}

bool ExpressionParser::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  next();
  return true;
}

void ExpressionParser::expect_operator(std::string_view op) {
  if (!skip_operator(op)) fail_here("'" + std::string(op) + "'");
}

void ExpressionParser::expect_name(std::string_view name) {
  if (!skip_name(name)) fail_here("'" + std::string(name) + "'");
}

Token ExpressionParser::expect(TokenKind kind, std::string_view what) {
  if (current().kind != kind) fail_here(std::string(what));
  return next();
}

int ExpressionParser::id_of(const std::string& name) {
  const auto [entry, added] = out_.ids.emplace(name, static_cast<int>(out_.names.size()));
  if (added) out_.names.push_back(name);
  return entry->second;
}

ExpressionPtr ExpressionParser::primary(bool with_fields) {
  const int line = current().line;
  switch (current().kind) {
    case TokenKind::kName:
      return name_or_constant(with_fields);
    case TokenKind::kString: {
      auto node = make(ExpressionKind::kConstant, line);
      std::string text;
      while (current().kind == TokenKind::kString) text += next().text;
      node->constant = literal_text(text);
      return node;
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat: {
      auto node = make(ExpressionKind::kConstant, line);
      const Token token = next();
      node->constant = token.kind == TokenKind::kInteger ? Value(token.integer) : Value(token.real);
      return node;
    }
    default:
      break;
  }
  if (skip_operator("(")) {
    ExpressionPtr node = tuple(true, /*parentheses=*/true);
    expect_operator(")");
    return node;
  }
  if (at_operator("[")) return list();
  if (at_operator("{")) return dict();
  fail_here("an expression");
}

ExpressionPtr ExpressionParser::name_or_constant(bool with_fields) {
  const Token token = next();
  const std::string& name = token.text;
  const bool is_true = name == "true" || name == "True";
  if (is_true || name == "false" || name == "False" || name == "none" || name == "None") {
    auto node = make(ExpressionKind::kConstant, token.line);
    node->constant = name == "none" || name == "None" ? Value(None{}) : Value(is_true);
    return node;
  }
  auto node = make(ExpressionKind::kName, token.line);
  node->id = id_of(name);
  node->name = literal_text(name);
  mentions.varargs += name == "varargs";
  mentions.kwargs += name == "kwargs";
  mentions.caller += name == "caller";
  if (with_fields && skip_operator(".")) {
    node->kind = ExpressionKind::kNamespaceField;
    node->name = literal_text(expect(TokenKind::kName, "the name of a namespace's field").text);
  }
  return node;
}

ExpressionPtr ExpressionParser::list() {
  auto node = make(ExpressionKind::kList, next().line);
  while (!at_operator("]")) {
    if (!node->operands.empty()) expect_operator(",");
    if (at_operator("]")) break;
    adopt(*node, expression());
  }
  expect_operator("]");
  return node;
}

ExpressionPtr ExpressionParser::dict() {
  auto node = make(ExpressionKind::kDict, next().line);
  while (!at_operator("}")) {
    if (!node->operands.empty()) expect_operator(",");
    if (at_operator("}")) break;
    adopt(*node, expression());
    expect_operator(":");
    adopt(*node, expression());
  }
  expect_operator("}");
  return node;
}

bool ExpressionParser::tuple_ends(bool target) const {
  return current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
         at_operator(")") || (target && at_name("in"));
}

ExpressionPtr ExpressionParser::tuple(bool conditional, bool parentheses) {
  const int line = current().line;
  std::vector<ExpressionPtr> items;
  bool comma = false;
  while (!tuple_ends(false)) {
    items.push_back(expression(conditional));
    if (!skip_operator(",")) break;
    comma = true;
  }
  if (!comma && items.size() == 1) return std::move(items.front());
  if (items.empty() && !parentheses) fail_here("an expression");
  auto node = make(ExpressionKind::kTuple, line);
  for (ExpressionPtr& item : items) adopt(*node, std::move(item));
  return node;
}

ExpressionPtr ExpressionParser::target(bool with_fields) {
  const Nesting nesting(*this);
  const int line = current().line;
  std::vector<ExpressionPtr> items;
  bool comma = false;
  while (!tuple_ends(true)) {
    ExpressionPtr item;
    if (skip_operator("(")) {
      item = target(with_fields);
      expect_operator(")");
    } else {
      item = primary(with_fields);
    }
    const bool assignable = item->kind == ExpressionKind::kName ||
                            item->kind == ExpressionKind::kNamespaceField ||
                            item->kind == ExpressionKind::kTuple;
    if (!assignable) fail(line, "this cannot be assigned to");
    items.push_back(std::move(item));
    if (!skip_operator(",")) break;
    comma = true;
  }
  if (items.empty()) fail_here("a name");
  if (!comma && items.size() == 1) return std::move(items.front());
  auto node = make(ExpressionKind::kTuple, line);
  for (ExpressionPtr& item : items) adopt(*node, std::move(item));
  return node;
}

ExpressionPtr ExpressionParser::plain_name() {
  const Token token = expect(TokenKind::kName, "a name");
  auto node = make(ExpressionKind::kName, token.line);
  node->id = id_of(token.text);
  node->name = literal_text(token.text);
  return node;
}

}  // namespace spillway::jinja
