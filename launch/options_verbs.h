// The flags of single verbs, added to the command line by parse_options(). Private to the
// options*.cc files, the only ones that see CLI11.
#pragma once

#include <CLI/CLI.hpp>

#include "launch/options.h"

namespace spillway {

void add_tokenize(CLI::App& app, Options& o);
void add_template(CLI::App& app, Options& o);

}  // namespace spillway
