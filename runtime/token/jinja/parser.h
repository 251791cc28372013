// Parser: template text to a tree (ast.h). Called by ChatTemplate::parse.
#pragma once

#include <string_view>

#include "runtime/token/jinja/ast.h"

namespace spillway::jinja {

// Nested brackets and blocks beyond this are an error: the parser recurses.
inline constexpr int kParseDepth = 150;
// Long chains (a + b + c + …) make deep trees without nesting; the interpreter recurses over them.
inline constexpr int kTreeDepth = 500;

// Throws Error ("line N: …") for what is not a template, and for a tag, filter or test that is not
// part of this Jinja. As in Jinja, an unknown filter or test directly in the arm of an `if` is an
// error only when it is reached.
Template parse_template(std::string_view source);

}  // namespace spillway::jinja
