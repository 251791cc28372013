// Flags of single verbs whose lists would make options.cc too long. Included by launch/ alone;
// options.cc calls the add_* functions.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace spillway {

struct Options;

// spillway quantize
struct QuantizeOptions {
  std::string input;
  std::string output;
  std::string type;
  bool force = false;
  bool dry_run = false;
  bool pure = false;
  std::string output_type;     // "": the mix's choice
  std::string embedding_type;  // "": the mix's choice
};
void add_quantize(CLI::App& app, Options& options);

}  // namespace spillway
