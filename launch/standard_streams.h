// Standard input and output as whole byte strings, for verbs that turn the one into the other.
#pragma once

#include <string>
#include <string_view>

namespace spillway {

// On a terminal, which would seem to hang: "the prompt comes from standard input: …".
void say_what_is_awaited(const char* what);
// All of standard input, any bytes, after saying so on a terminal. Throws Error when it cannot be
// read.
std::string read_standard_input(const char* what);
// Throws Error when the bytes cannot be written: a full disk, a reader that is gone.
void write_standard_output(std::string_view bytes);
// A whole file. Throws Error with its path.
std::string read_file_bytes(const std::string& path);

}  // namespace spillway
