// The word that somebody meant: for errors about a key, a flag's value or a name that is unknown.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace spillway {

// The one of `words` that differs from `word` by the fewest letters put in, left out or changed, in
// any case; "" when all differ by more than two letters and a third of the longer word. Of several
// that are equally near the first four: "llama-1b, llama-8b or llama-70b".
std::string near_word(std::string_view word, std::span<const std::string> words);

}  // namespace spillway
