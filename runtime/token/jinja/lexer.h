// Lexer: template text to tokens, with Jinja's white-space rules for trim_blocks and lstrip_blocks.
// Called by the parser. Throws Error ("line N: …") for what cannot be a token.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::jinja {

enum class TokenKind {
  kData,           // text outside of tags, white space already trimmed
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kName,
  kString,  // unescaped
  kInteger,
  kFloat,
  kOperator,  // text is the operator itself
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 0;
  std::string text;
  int64_t integer = 0;
  double real = 0;
};

// Always ends with one kEnd token. The source must be UTF-8 (else an Error says where it is not).
std::vector<Token> tokenize(std::string_view source);

}  // namespace spillway::jinja
