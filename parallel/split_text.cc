// The grammar of --split (planner.h): text to stage pins and back. Called by launch/options and by
// tables; never looks at a model or a machine.
//
//   split := stage { "+" stage }
//   stage := [ LAYERS "@" ] SHARE { ":" SHARE }
//
// LAYERS is a whole number from 1, SHARE a decimal number above 0, without sign or exponent.
#include <charconv>
#include <cmath>

#include "kernels/core/error.h"
#include "parallel/planner.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

constexpr int64_t kMostLayers = 1'000'000;
constexpr double kLargestShare = 1e9;

class SplitReader {
 public:
  explicit SplitReader(const std::string& text) : text_(text) {}

  std::vector<StagePin> read() {
    std::vector<StagePin> split;
    do {
      split.push_back(stage());
    } while (accept('+'));
    if (at_ != text_.size()) fail("\"+\" or \":\" expected");
    return split;
  }

 private:
  StagePin stage() {
    StagePin pin;
    const size_t start = at_;
    double first = number();
    if (accept('@')) {
      if (first != std::floor(first) || first < 1 || first > kMostLayers) {
        at_ = start;
        fail("a number of layers is a whole number from 1");
      }
      pin.n_layers = static_cast<int64_t>(first);
      first = number();
    }
    pin.shares.push_back(first);
    while (accept(':')) pin.shares.push_back(number());
    return pin;
  }

  double number() {
    size_t end = at_;
    while (end < text_.size() && is_number_part(text_[end])) ++end;
    double value = 0;
    const char* first = text_.data() + at_;
    const char* last = text_.data() + end;
    const auto result = std::from_chars(first, last, value, std::chars_format::fixed);
    if (end == at_ || result.ec != std::errc() || result.ptr != last) fail("a number expected");
    if (value <= 0) fail("numbers must be above 0");
    if (value > kLargestShare) fail("the number is too large");
    at_ = end;
    return value;
  }

  static bool is_number_part(char c) { return (c >= '0' && c <= '9') || c == '.'; }

  bool accept(char wanted) {
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  [[noreturn]] void fail(const std::string& reason) const {
    const std::string found =
        at_ < text_.size() ? "\"" + text_.substr(at_, 12) + "\"" : std::string("the end");
    throw Error("--split \"" + text_ + "\": " + reason + ", found " + found,
                "character " + std::to_string(at_ + 1),
                "join stages by + and a stage's shares by :, with LAYERS@ in front if you want: "
                "20@2:1+10@1 is 20 layers on two ranks, 2 to 1, then 10 layers on a third");
  }

  const std::string& text_;
  size_t at_ = 0;
};

}  // namespace

std::vector<StagePin> parse_split(const std::string& text) { return SplitReader(text).read(); }

std::string split_text(const std::vector<StagePin>& split) {
  std::string text;
  for (const StagePin& pin : split) {
    if (!text.empty()) text += '+';
    if (pin.n_layers > 0) text += std::to_string(pin.n_layers) + "@";
    for (size_t i = 0; i < pin.shares.size(); ++i) {
      if (i > 0) text += ':';
      text += shortest_text(pin.shares[i]);
    }
  }
  return text;
}

}  // namespace spillway
