// What people type who know llama.cpp, or who mistype: taken where it means the same here, else
// refused in words that say what to type. See options_verbs.h.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "launch/options_verbs.h"
#include "parallel/near_word.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

using Words = std::vector<std::string>;

struct Advice {
  std::string what, todo;
};

struct Pair {
  const char* first;
  const char* second;
};

// llama.cpp's name and ours.
constexpr Pair kSame[] = {
    {"-ngl", "--gpu-layers"},        {"--n-gpu-layers", "--gpu-layers"},
    {"-ts", "--tensor-split"},       {"-ub", "--ubatch-size"},
    {"--n-predict", "--predict"},    {"-sys", "--system"},
    {"--system-prompt", "--system"}, {"-cnv", "--chat"},
    {"--conversation", "--chat"},    {"-ctk", "--cache-type-k"},
    {"-ctv", "--cache-type-v"},
};

// llama.cpp's flags that mean nothing here or something else, and what to do instead.
constexpr Pair kForeign[] = {
    {"-b --batch-size", "a step has one size: --ubatch-size"},
    {"-fa --flash-attn", "leave it out: attention never expands the cache"},
    {"--mmap --no-mmap --mlock -dio --direct-io",
     "leave it out: a rank reads its part of the weights into memory, once"},
    {"-sm --split-mode", "--tp N cuts every layer, --pp N between layers, --split by hand"},
    {"-mg --main-gpu -dev", "CUDA_VISIBLE_DEVICES picks GPUs, --order the ranks' sequence"},
    {"-f --file -bf --binary-file", "give the text on standard input: <FILE"},
    {"-np --parallel -ns", "bench and plan take --sequences N; run has one sequence"},
    {"-hf -hfr -hff --hf-repo --hf-file -mu --model-url",
     "nothing is downloaded: give -m the path of a .gguf file"},
    {"-ot --override-tensor -cmoe --cpu-moe -ncmoe --n-cpu-moe",
     "--place 'layers 40-79 ffn = cpu' says where halves of layers lie"},
    {"-nkvo --no-kv-offload -kvo", "leave it out: the cache lies where its layer computes"},
    {"-md --model-draft --draft --draft-max -ngld", "leave it out: there are no draft models"},
    {"--rpc", "start a rank for each GPU with mpirun, on several hosts too: docs/launching.md"},
    {"--lora --lora-scaled --control-vector", "merge it into the model's file first"},
    {"--grammar --grammar-file -j --json-schema", "leave it out: text is not bound to a grammar"},
    {"-tb --threads-batch", "-t N is for both"},
    {"-i --interactive -if --interactive-first", "--chat without -p talks, a line a turn"},
    {"--host --port --api-key", "leave it out: there is no HTTP server"},
    {"-s", "--seed N"},
    {"-fit --fit -fitt --fit-target", "leave it out: a plan always fits; --gpu-memory bounds it"},
    {"--numa", "leave it out: ranks keep to their node (docs/launching.md, Cores)"},
    {"--rope-scaling --rope-scale --rope-freq-base --rope-freq-scale",
     "leave it out: the file's own are taken"},
    {"--samplers --typical --mirostat --dynatemp-range --xtc-probability --dry-multiplier",
     "--top-k, --top-p, --min-p, --temp and the penalties are there"},
    {"--jinja -e --escape --color --simple-io --no-display-prompt --no-warmup --warmup -no-cnv "
     "--no-conversation -st --single-turn --no-context-shift --log-disable -v --verbose",
     "leave it out"},
};

constexpr Pair kVerbs[] = {
    {"serve server", "there is no HTTP server; run --chat talks in the terminal"},
    {"chat", "spillway run --chat"},
    {"generate complete cli", "spillway run -m FILE -p TEXT"},
    {"pull download list ls", "nothing is downloaded: every verb takes -m FILE.gguf"},
};

bool among(const std::string& word, const char* words) {
  return (" " + std::string(words) + " ").find(" " + word + " ") != std::string::npos;
}

// What a table has for the word; "" when it has nothing.
template <size_t N>
std::string found_in(const Pair (&table)[N], const std::string& word) {
  if (word.empty() || word.find(' ') != std::string::npos) return "";
  for (const Pair& row : table) {
    if (among(word, row.first)) return row.second;
  }
  return "";
}

std::string name_of(const std::string& word) { return word.substr(0, word.find('=')); }

// A flag's word in our name, with what stands behind its =.
std::string own_word(const std::string& word) {
  const std::string name = name_of(word);
  const std::string own = found_in(kSame, name);
  return own.empty() ? word : own + word.substr(name.size());
}

// One type of both caches; throws where llama.cpp has two.
void join_cache_types(Words& words) {
  std::array<std::string, 2> types;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string name = name_of(words[i]);
    const bool keys = name == "--cache-type-k";
    if (!keys && name != "--cache-type-v") continue;
    const bool apart = name.size() == words[i].size();
    if (apart && i + 1 == words.size()) throw Error(name + " has no value", "", "e.g. -k q8_0");
    types[keys ? 0 : 1] = apart ? words[i + 1] : words[i].substr(name.size() + 1);
    const auto at = words.begin() + static_cast<int64_t>(i);
    words.erase(at, at + (apart ? 2 : 1));
    --i;
  }
  if (types[0].empty() && types[1].empty()) return;
  if (types[0] != types[1]) {
    const auto text = [](const std::string& type) { return type.empty() ? "f16" : type; };
    throw Error("-ctk " + text(types[0]) + " and -ctv " + text(types[1]) +
                    ": keys and values have one type here",
                "", "use -k " + text(types[0].empty() ? types[1] : types[0]));
  }
  words.insert(words.end(), {"--kv-type", types[0]});
}

bool known(const CLI::App& app, const std::string& word) {
  return word.size() > 1 && app.get_option_no_throw(word) != nullptr;
}

// The option that takes the word, as "--predict", "-n", "-n5" or "--predict=5"; nullptr: none.
const CLI::Option* option_of(const CLI::App& app, const std::string& word) {
  if (word.rfind("--", 0) == 0) return app.get_option_no_throw(name_of(word));
  return app.get_option_no_throw(word.substr(0, 2));
}

bool is_flag(const std::string& word) {
  if (word.size() < 2 || word[0] != '-') return false;
  return std::isalpha(static_cast<unsigned char>(word[word[1] == '-' ? 2 : 1])) != 0;
}

// The words behind the verb that are flags or stand alone, without their values.
Words without_values(const CLI::App& app, const Words& words) {
  Words out;
  const auto verb = std::find(words.begin(), words.end(), app.get_name());
  const auto begin = static_cast<size_t>(verb - words.begin()) + 1;
  for (size_t i = begin; i < words.size(); ++i) {
    out.push_back(words[i]);
    if (!is_flag(words[i])) continue;
    const CLI::Option* option = option_of(app, words[i]);
    const bool joined =
        words[i][1] == '-' ? words[i].find('=') != std::string::npos : words[i].size() > 2;
    if (option == nullptr || joined || option->get_items_expected_max() == 0) continue;
    if (i + 1 < words.size()) ++i;
    if (option->get_items_expected_max() == 1) continue;
    while (i + 1 < words.size() && !is_flag(words[i + 1])) ++i;
  }
  return out;
}

Words long_flags(const CLI::App& app) {
  Words names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

Advice on_unknown_flag(const CLI::App& app, const std::string& word) {
  const std::string name = name_of(word);
  if (name == "--config")
    return {"--config is given behind the verb", "write it before " + app.get_name()};
  const std::string near = near_word(name, long_flags(app));
  return {name + " is no flag of " + app.get_name(),
          near.empty() ? "" : "did you mean " + near + "?"};
}

Advice on_stray_word(const CLI::App& app, const std::string& word) {
  Advice advice{"\"" + word + "\" belongs to no flag", ""};
  const bool file = word.size() > 5 && word.compare(word.size() - 5, 5, ".gguf") == 0;
  if (file) {
    advice.todo = "the model's flag is -m " + word;
  } else if (known(app, "--prompt")) {
    advice.todo = "text of several words goes in quotes: -p \"Once upon a time\"";
  } else if (app.get_name() == "tokenize" || app.get_name() == "template") {
    advice.todo = "it is read from standard input";
  }
  return advice;
}

Advice foreign_advice(const CLI::App& verb, const std::vector<std::string>& words) {
  for (const std::string& word : without_values(verb, words)) {
    const std::string name = name_of(word);
    const std::string todo = found_in(kForeign, name);
    if (todo.empty() || known(verb, name)) continue;
    return {name + " is llama.cpp's and no flag of " + verb.get_name(), todo};
  }
  return {};
}

Advice flag_advice(const CLI::App& verb, const std::vector<std::string>& words) {
  Advice advice = foreign_advice(verb, words);
  if (!advice.what.empty()) return advice;
  size_t places = 0;  // of words without a flag
  for (const CLI::Option* option : verb.get_options()) places += option->get_positional() ? 1 : 0;
  for (const std::string& word : without_values(verb, words)) {
    if (is_flag(word) && option_of(verb, word) == nullptr) return on_unknown_flag(verb, word);
    if (is_flag(word)) continue;
    if (places == 0) return on_stray_word(verb, word);
    --places;
  }
  return {};
}

Advice verb_advice(const CLI::App& app, const std::vector<std::string>& words) {
  if (words.empty()) {
    Words verbs;
    for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
    std::string all;
    for (const std::string& verb : verbs) append_item(all, ", ", verb);
    return {"what to do is missing: " + all, ""};
  }
  if (words[0].rfind('-', 0) == 0) {
    const bool a_runs = std::any_of(words.begin(), words.end(), [](const std::string& word) {
      return among(name_of(word), "-m --model -p --prompt");
    });
    return {"a verb comes first", a_runs ? "as in spillway run -m FILE" : ""};
  }
  Advice advice{"there is no verb \"" + words[0] + "\"", found_in(kVerbs, words[0])};
  Words verbs;
  for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  const std::string near = near_word(words[0], verbs);
  if (advice.todo.empty() && !near.empty()) advice.todo = "did you mean " + near + "?";
  return advice;
}

// "Could not convert: --temp = hot", "x.toml was not readable (missing?)" in our words.
std::string plainer(const std::string& said) {
  static const std::string kConvert = "Could not convert: ";
  const size_t missing = said.find(" was not readable (missing?)");
  if (missing != std::string::npos) {
    return "the --config file " + said.substr(0, missing) + " cannot be read";
  }
  const size_t wanted = said.find(": 1 required ");
  const std::string kMissing = " missing";
  if (wanted != std::string::npos && said.ends_with(kMissing)) {
    const size_t kind = wanted + std::string(": 1 required ").size();
    return said.substr(0, wanted) +
           " needs a value: " + said.substr(kind, said.size() - kMissing.size() - kind);
  }
  const size_t value = said.find(": Value ");
  const size_t range = said.find(" not in range ");
  if (value != std::string::npos && range != std::string::npos && range > value) {
    const size_t number = value + std::string(": Value ").size();
    return said.substr(0, value) + " " + said.substr(number, range - number) + " is not in " +
           said.substr(range + std::string(" not in range ").size());
  }
  const size_t equals = said.find(" = ");
  if (said.rfind(kConvert, 0) != 0 || equals == std::string::npos) return said;
  return said.substr(kConvert.size(), equals - kConvert.size()) + ": \"" + said.substr(equals + 3) +
         "\" is no value of its kind";
}

[[noreturn]] void refuse(const Advice& advice, const std::string& verb) {
  std::string todo = advice.todo;
  append_item(todo, "; ", "see spillway" + (verb.empty() ? "" : " " + verb) + " --help");
  throw Error(advice.what, "", todo);
}

}  // namespace

std::vector<std::string> own_words(const std::vector<std::string>& words) {
  Words out;
  for (size_t i = 0; i < words.size(); ++i) {
    const bool value = i > 0 && among(words[i - 1], "-p --prompt --system -f --file -m --model");
    out.push_back(value ? words[i] : own_word(words[i]));
  }
  join_cache_types(out);
  if (!out.empty() && out[0] == "help") {
    out.erase(out.begin());
    out.emplace_back("--help");
  }
  return out;
}

void refuse_foreign(const CLI::App& verb, const std::vector<std::string>& words) {
  const Advice advice = foreign_advice(verb, words);
  if (!advice.what.empty()) refuse(advice, verb.get_name());
}

void refuse_config(const std::string& said) {
  std::string key = said.substr(said.rfind(' ') + 1);
  for (char& c : key) c = c >= ' ' && c <= '~' ? c : '?';
  const size_t table = key.rfind(".++");  // CLI11's mark of a table's beginning
  const size_t dot = key.find('.');
  if (table != std::string::npos) {
    throw Error("the --config file has a table [" + key.substr(0, table) + "], which is no verb",
                "", "docs/config.md lists the tables and keys");
  }
  throw Error("the --config file sets " + key +
                  (dot == std::string::npos ? " outside of the tables of verbs"
                                            : ", which is not a flag of that verb"),
              "",
              dot == std::string::npos ? "write it below a line [run], [bench], ..."
                                       : "docs/config.md lists the keys");
}

void refuse_line(const CLI::App& app, const std::vector<std::string>& words,
                 const std::string& said) {
  const auto chosen = app.get_subcommands();
  const std::string verb = chosen.empty() ? "" : chosen.front()->get_name();
  Advice advice = chosen.empty() ? verb_advice(app, words) : flag_advice(*chosen.front(), words);
  if (advice.what.empty()) advice.what = plainer(said);
  refuse(advice, verb);
}

}  // namespace spillway
