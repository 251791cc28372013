// How `--help` looks: lines of at most 100 characters, and of what a value may be only what a
// person asks of a list of flags; a value that is out of range is told the range. See
// options_verbs.h.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/options_verbs.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

constexpr size_t kColumn = 34;  // where descriptions begin
constexpr size_t kWidth = 100;

// "INT:INT in [1 - 4096]" -> "INT", "TEXT:{f16,f32}" -> "{f16,f32}".
std::string short_kind(std::string text) {
  for (const char* range : {":INT in [", ":FLOAT in ["}) {
    const size_t begin = text.find(range);
    if (begin == std::string::npos) continue;
    text.erase(begin, text.find(']', begin) + 1 - begin);
  }
  const size_t sign = text.find(":NONNEGATIVE");
  if (sign != std::string::npos) text.erase(sign, std::string(":NONNEGATIVE").size());
  const size_t braces = text.find(":{");
  const size_t word = braces == std::string::npos ? braces : text.rfind(' ', braces);
  if (word != std::string::npos) text.erase(word + 1, braces - word);
  return text;
}

std::string described(const std::string& text) { return wrapped_text(text, kWidth - kColumn, 0); }

class HelpFormatter final : public CLI::Formatter {
 public:
  HelpFormatter() { column_width(kColumn); }
  std::string make_option_opts(const CLI::Option* option) const override {
    return short_kind(Formatter::make_option_opts(option));
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    return described(Formatter::make_option_desc(option));
  }
  std::string make_subcommand(const CLI::App* verb) const override {
    std::stringstream out;
    CLI::detail::format_help(out, verb->get_name(), described(verb->get_description()), kColumn);
    return out.str();
  }
};

}  // namespace

void set_help_format(CLI::App& app) { app.formatter(std::make_shared<HelpFormatter>()); }

}  // namespace spillway
