// The flags of tokenize and template, see options_verbs.h.
#include <CLI/CLI.hpp>

#include "launch/options_verbs.h"

namespace spillway {

void add_tokenize(CLI::App& app, Options& o) {
  CLI::App* tokenize = app.add_subcommand(
      "tokenize", "Text on standard input to token ids on one line, or ids back to text");
  tokenize->add_option("-m,--model", o.model, "GGUF file; one with a vocabulary alone will do")
      ->required()
      ->type_name("FILE");
  tokenize->add_flag("--no-bos", o.text.no_bos,
                     "only the text's own ids, without BOS and EOS; with --decode: every id "
                     "given is the text's own");
  auto* decode = tokenize->add_flag("--decode", o.text.decode,
                                    "read ids, parted by white space, and write their bytes");
  tokenize
      ->add_flag("--no-parse-special", o.text.no_parse_special,
                 "\"<|im_end|>\" and the like in the text are letters, not the token")
      ->excludes(decode);
}

void add_template(CLI::App& app, Options& o) {
  CLI::App* chat = app.add_subcommand(
      "template", "Messages as JSON on standard input to the text of the prompt");
  chat->add_option("-m,--model", o.model, "GGUF file: its chat template, BOS and EOS")
      ->type_name("FILE");
  chat->add_option("--template", o.text.template_file, "Jinja file to use instead")
      ->type_name("FILE");
  chat->add_option("--tools", o.text.tools_file, "JSON file: an array of tools")->type_name("FILE");
  chat->add_flag("--add-generation-prompt", o.text.add_generation_prompt,
                 "end with what begins an answer");
  chat->add_option("--bos", o.text.bos, "bos_token of the template [the model's]")
      ->type_name("TEXT");
  chat->add_option("--eos", o.text.eos, "eos_token of the template [the model's]")
      ->type_name("TEXT");
}

}  // namespace spillway
