// What the verbs tokenize and template are told. A part of Options; its flags are in
// options_text.cc.
#pragma once

#include <optional>
#include <string>

namespace spillway {

struct TextOptions {
  bool no_bos = false;            // tokenize
  bool decode = false;            // tokenize
  bool no_parse_special = false;  // tokenize

  std::string template_file;           // template; "": the model's
  std::string tools_file;              // template; "": none, or what standard input says
  bool add_generation_prompt = false;  // template
  std::optional<std::string> bos;      // template; nothing: the model's
  std::optional<std::string> eos;      // template
};

}  // namespace spillway
