// The files of configs/ that came with the program, by their names. Called by verbs that take
// "2x3090" for configs/clusters/2x3090.toml.
#pragma once

#include <string>

namespace spillway {

// `name` when it is a file; else configs/FOLDER/NAME.toml in the program's folder or one above it,
// or in the current one. Throws Error: what (a "cluster", a "model shape") is not there, the
// nearest that is, and all.
std::string shipped_file(const std::string& folder, const std::string& name, const char* what);

}  // namespace spillway
