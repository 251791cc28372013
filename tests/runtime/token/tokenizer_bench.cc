// Speed of the tokenisers; run by hand: tokenizer_bench VOCABULARY.gguf [TEXT…]. The texts given,
// then what makes a tokeniser slow: one word of 1 MB, 1 MB of blanks, of Han characters, and so on.
// Best of three, one thread, BOS and special tokens included as a prompt has them.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <random>
#include <sstream>

#include "runtime/token/tokenizer.h"

namespace spillway {
namespace {

void measure(const Tokenizer& tokenizer, const std::string& name, const std::string& text) {
  using Clock = std::chrono::steady_clock;
  double best_s = 1e9;
  size_t n_ids = 0;
  for (int i = 0; i < 3; ++i) {
    const auto begin = Clock::now();
    n_ids = tokenizer.encode(text).size();
    best_s = std::min(best_s, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::printf("  %-24s %9zu bytes %9zu ids %8.2f MB/s\n", name.c_str(), text.size(), n_ids,
              static_cast<double>(text.size()) / best_s / 1e6);
}

void bench(int argc, char** argv) {
  const Tokenizer tokenizer = Tokenizer::make(Gguf::open(argv[1]));
  std::printf("%s\n", tokenizer.description().c_str());
  for (int i = 2; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    const std::string path = argv[i];
    measure(tokenizer, path.substr(path.rfind('/') + 1), text.str());
  }
  constexpr size_t kBytes = 1'000'000;
  std::mt19937 random(1);
  std::string word;
  while (word.size() < kBytes) word += static_cast<char>('a' + random() % 26);
  std::string han;
  while (han.size() < kBytes) {
    const unsigned c = 0x4E00 + random() % 8000;
    for (unsigned byte : {0xE0 | c >> 12, 0x80 | (c >> 6 & 63), 0x80 | (c & 63)}) {
      han += static_cast<char>(byte);
    }
  }
  std::string invalid;
  for (size_t i = 0; i < kBytes; ++i) invalid += static_cast<char>(0x80 + i % 120);
  measure(tokenizer, "one random word", word);
  measure(tokenizer, "one letter", std::string(kBytes, 'a'));
  measure(tokenizer, "blanks", std::string(kBytes, ' '));
  measure(tokenizer, "line ends", std::string(kBytes, '\n'));
  measure(tokenizer, "digits", std::string(kBytes, '7'));
  measure(tokenizer, "signs", std::string(kBytes, '='));
  measure(tokenizer, "Han", han);
  measure(tokenizer, "not UTF-8", invalid);
}

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s VOCABULARY.gguf [TEXT...]\n", argv[0]);
    return 1;
  }
  spillway::bench(argc, argv);
  return 0;
}
