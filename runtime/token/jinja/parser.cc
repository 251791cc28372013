// The grammar of statements: text, {{ … }} and {% … %} with their bodies.
#include "runtime/token/jinja/parser.h"

#include "runtime/token/jinja/expression_parser.h"
#include "runtime/token/jinja/lexer.h"

namespace spillway::jinja {
namespace {

class StatementParser {
 public:
  StatementParser(std::vector<Token> tokens, Template& out)
      : parser_(std::move(tokens), out), out_(out) {}

  void run() {
    out_.loop_id = parser_.id_of("loop");
    out_.varargs_id = parser_.id_of("varargs");
    out_.kwargs_id = parser_.id_of("kwargs");
    out_.caller_id = parser_.id_of("caller");
    out_.body = body({});
    parser_.refuse_unknown();
  }

 private:
  using Ends = std::initializer_list<std::string_view>;

  static Statement make(StatementKind kind, int line) {
    Statement s;
    s.kind = kind;
    s.line = line;
    return s;
  }

  // Statements up to {% end, whose name is the current token then; or to the end of the template.
  Body body(Ends ends) {
    const ExpressionParser::Nesting nesting(parser_);
    Body out;
    while (true) {
      const Token token = parser_.next();
      if (token.kind == TokenKind::kEnd) {
        if (ends.size() == 0) return out;
        parser_.fail(token.line, "the template ends where {% " + std::string(*(ends.end() - 1)) +
                                     " %} is missing");
      } else if (token.kind == TokenKind::kData) {
        out.push_back(make(StatementKind::kText, token.line));
        out.back().text = token.text;
      } else if (token.kind == TokenKind::kVariableBegin) {
        out.push_back(make(StatementKind::kOutput, token.line));
        out.back().expression = parser_.tuple();
        parser_.expect(TokenKind::kVariableEnd, "'}}'");
      } else {
        for (std::string_view end : ends) {
          if (parser_.at_name(end)) return out;
        }
        out.push_back(statement());
        parser_.expect(TokenKind::kBlockEnd, "'%}'");
      }
    }
  }

  // The body of a block: the rest of its opening tag, the statements, and the end's name.
  Body block(Ends ends) {
    parser_.skip_operator(":");
    parser_.expect(TokenKind::kBlockEnd, "'%}'");
    return body(ends);
  }

  // The same with a scope of its own, where Jinja forgives no unknown filter.
  Body scoped_block(Ends ends) {
    const bool forgiving = std::exchange(parser_.forgiving, false);
    Body out = block(ends);
    parser_.forgiving = forgiving;
    return out;
  }

  Statement statement() {
    const Token tag = parser_.expect(TokenKind::kName, "a tag's name");
    const std::string& name = tag.text;
    if (name == "if") return if_statement(tag.line);
    if (name == "for") return for_statement(tag.line);
    if (name == "set") return set_statement(tag.line);
    if (name == "macro") return macro_statement(tag.line);
    if (name == "call") return call_statement(tag.line);
    if (name == "with") return with_statement(tag.line);
    if (name == "filter") return filter_statement(tag.line);
    if (name == "generation") return generation_statement(tag.line);
    if (name == "break" || name == "continue") {
      if (loops_ == 0) parser_.fail(tag.line, "{% " + name + " %} outside of a loop");
      return make(name == "break" ? StatementKind::kBreak : StatementKind::kContinue, tag.line);
    }
    parser_.fail(tag.line, "the tag {% " + name + " %} is not part of this Jinja, or out of place");
  }

  Statement if_statement(int line) {
    Statement out = make(StatementKind::kIf, line);
    const bool forgiving = std::exchange(parser_.forgiving, true);
    while (true) {
      Branch& branch = out.branches.emplace_back();
      branch.condition = parser_.tuple(/*conditional=*/false);
      branch.body = block({"elif", "else", "endif"});
      if (!parser_.skip_name("elif")) break;
    }
    if (parser_.skip_name("else")) out.branches.emplace_back().body = block({"endif"});
    parser_.expect_name("endif");
    parser_.forgiving = forgiving;
    return out;
  }

  Statement for_statement(int line) {
    Statement out = make(StatementKind::kFor, line);
    out.target = parser_.target(/*with_fields=*/false);
    parser_.expect_name("in");
    out.expression = parser_.tuple(/*conditional=*/false);
    if (parser_.skip_name("if")) {
      const bool forgiving = std::exchange(parser_.forgiving, false);
      out.condition = parser_.expression();
      parser_.forgiving = forgiving;
    }
    out.recursive = parser_.skip_name("recursive");
    const int macros_before = macros_;
    ++loops_;
    out.body = scoped_block({"else", "endfor"});
    --loops_;
    if (parser_.skip_name("else")) out.otherwise = scoped_block({"endfor"});
    parser_.expect_name("endfor");
    out.keeps_scope = macros_ > macros_before;
    return out;
  }

  Statement set_statement(int line) {
    Statement out = make(StatementKind::kSet, line);
    out.target = parser_.target(/*with_fields=*/true);
    if (parser_.skip_operator("=")) {
      out.expression = parser_.tuple();
      return out;
    }
    out.kind = StatementKind::kSetBlock;
    out.expression = parser_.filters(nullptr);
    const int macros_before = macros_;
    out.body = scoped_block({"endset"});
    parser_.expect_name("endset");
    out.keeps_scope = macros_ > macros_before;
    return out;
  }

  Statement filter_statement(int line) {
    Statement out = make(StatementKind::kFilterBlock, line);
    out.expression = parser_.filters(nullptr, /*start=*/true);
    const int macros_before = macros_;
    out.body = scoped_block({"endfilter"});
    parser_.expect_name("endfilter");
    out.keeps_scope = macros_ > macros_before;
    return out;
  }

  // {% generation %} marks what a model said, for training; here only its body counts.
  Statement generation_statement(int line) {
    Statement out = make(StatementKind::kScope, line);
    const int macros_before = macros_;
    out.body = scoped_block({"endgeneration"});
    parser_.expect_name("endgeneration");
    out.keeps_scope = macros_ > macros_before;
    return out;
  }

  Statement macro_statement(int line) {
    Statement out = make(StatementKind::kMacro, line);
    out.macro = std::make_unique<Macro>();
    const ExpressionPtr name = parser_.plain_name();
    out.id = name->id;
    out.macro->name = name->name;
    parameters(*out.macro, line);
    macro_body(*out.macro, "endmacro");
    return out;
  }

  // (a, b=1)
  void parameters(Macro& macro, int line) {
    parser_.expect_operator("(");
    bool first = true;
    while (!parser_.at_operator(")")) {
      if (!first) parser_.expect_operator(",");
      first = false;
      const ExpressionPtr parameter = parser_.plain_name();
      Macro::Parameter& entry = macro.parameters.emplace_back();
      entry.id = parameter->id;
      entry.name = parameter->name;
      if (parser_.skip_operator("=")) {
        entry.otherwise = parser_.expression();
      } else if (macro.parameters.size() > 1 &&
                 (macro.parameters.end() - 2)->otherwise != nullptr) {
        parser_.fail(line, "a parameter without a default follows one with a default");
      }
    }
    parser_.expect_operator(")");
  }

  void macro_body(Macro& macro, std::string_view end) {
    const int macros_before = macros_;
    const ExpressionParser::Mentions before = parser_.mentions;
    const int loops = std::exchange(loops_, 0);
    macro.body = scoped_block({end});
    loops_ = loops;
    parser_.expect_name(end);
    macro.keeps_scope = macros_ > macros_before;
    macro.uses_varargs = parser_.mentions.varargs > before.varargs;
    macro.uses_kwargs = parser_.mentions.kwargs > before.kwargs;
    macro.uses_caller = parser_.mentions.caller > before.caller;
    ++macros_;
  }

  // {% call(a, b) macro(…) %} … {% endcall %}: the body is what `caller(a, b)` writes.
  Statement call_statement(int line) {
    Statement out = make(StatementKind::kCall, line);
    out.macro = std::make_unique<Macro>();
    out.macro->name = literal_text("caller");
    if (parser_.at_operator("(")) parameters(*out.macro, line);
    out.expression = parser_.expression();
    if (out.expression->kind != ExpressionKind::kCall) {
      parser_.fail(line, "{% call %} needs a call of a macro");
    }
    macro_body(*out.macro, "endcall");
    return out;
  }

  Statement with_statement(int line) {
    Statement out = make(StatementKind::kWith, line);
    out.target = parser_.bundle(line);
    out.expression = parser_.bundle(line);
    while (parser_.current_is_name()) {
      parser_.put(*out.target, parser_.plain_name());
      parser_.expect_operator("=");
      parser_.put(*out.expression, parser_.expression());
      if (!parser_.skip_operator(",")) break;
    }
    const int macros_before = macros_;
    out.body = scoped_block({"endwith"});
    parser_.expect_name("endwith");
    out.keeps_scope = macros_ > macros_before;
    return out;
  }

  ExpressionParser parser_;
  Template& out_;
  int loops_ = 0;
  int macros_ = 0;
};

}  // namespace

Template parse_template(std::string_view source) {
  Template out;
  StatementParser(tokenize(source), out).run();
  return out;
}

}  // namespace spillway::jinja
