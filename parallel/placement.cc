// The grammar of --place (placement.h):
//
//   places := pin { ";" pin }
//   pin    := ( "layer" | "layers" ) ( "all" | some { "," some } ) [ half ] "=" place
//   some   := N [ "-" N ]
//   half   := "attn" | "attention" | "ffn" | "feed-forward"
//   place  := "resident" | "cpu" | "streamed" | "hybrid" [ SHARE ] | "disk"
//
// SHARE is the CPU's part of a hybrid half, between 0 and 1.
#include "parallel/placement.h"

#include <charconv>

#include "kernels/core/error.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

constexpr const char* kNames[kPlaces] = {"resident", "cpu", "streamed", "hybrid", "disk"};
constexpr int64_t kMostLayers = 1'000'000;

class PlaceReader {
 public:
  explicit PlaceReader(const std::string& text) : text_(text) {}

  std::vector<PlacePin> read() {
    std::vector<PlacePin> pins;
    do {
      skip_blanks();
      if (at_ == text_.size() && !pins.empty()) break;  // a ";" at the end
      read_pins(pins);
    } while (accept(';'));
    if (at_ != text_.size()) fail("\";\" expected");
    return pins;
  }

 private:
  // One for each of the layers' ranges.
  void read_pins(std::vector<PlacePin>& pins) {
    PlacePin out;
    if (!accept_word("layers") && !accept_word("layer")) fail("\"layers\" expected");
    const std::vector<Range> all = ranges();
    if (accept_word("attention") || accept_word("attn")) {
      out.feed_forward = false;
    } else if (accept_word("feed-forward") || accept_word("ffn")) {
      out.attention = false;
    }
    if (!accept('=')) fail("attn, ffn or \"=\" expected");
    out.place = place();
    if (out.place == Place::kHybrid && !at_end_of_pin()) out.cpu_share = share();
    for (const Range& layers : all) {
      out.layers = layers;
      pins.push_back(out);
    }
  }

  std::vector<Range> ranges() {
    if (accept_word("all")) return {kAllLayers};
    std::vector<Range> all;
    do {
      all.push_back(range());
    } while (accept(','));
    return all;
  }

  Range range() {
    const int64_t first = layer();
    const int64_t last = accept('-') ? layer() : first;
    if (last < first) fail("the first layer comes after the last one");
    return {first, last + 1};
  }

  int64_t layer() {
    skip_blanks();
    int64_t value = 0;
    const char* last = text_.data() + text_.size();
    const auto result = std::from_chars(text_.data() + at_, last, value);
    if (result.ec != std::errc() || value < 0 || value > kMostLayers) {
      fail("the number of a layer expected");
    }
    at_ = static_cast<size_t>(result.ptr - text_.data());
    return value;
  }

  Place place() {
    for (int i = 0; i < kPlaces; ++i) {
      if (accept_word(kNames[i])) return static_cast<Place>(i);
    }
    fail("resident, cpu, streamed, hybrid or disk expected");
  }

  double share() {
    skip_blanks();
    double value = 0;
    const char* last = text_.data() + text_.size();
    const auto result = std::from_chars(text_.data() + at_, last, value, std::chars_format::fixed);
    if (result.ec != std::errc() || !(value >= 0 && value <= 1)) {
      fail("the CPU's share, from 0 to 1, expected");
    }
    at_ = static_cast<size_t>(result.ptr - text_.data());
    return value;
  }

  bool at_end_of_pin() {
    skip_blanks();
    return at_ == text_.size() || text_[at_] == ';';
  }

  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }

  bool accept(char wanted) {
    skip_blanks();
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || c == '-'; }

  bool accept_word(const std::string& word) {
    skip_blanks();
    if (text_.compare(at_, word.size(), word) != 0) return false;
    const size_t end = at_ + word.size();
    if (end < text_.size() && is_letter(text_[end])) return false;
    at_ = end;
    return true;
  }

  [[noreturn]] void fail(const std::string& reason) const {
    const std::string found =
        at_ < text_.size() ? "\"" + text_.substr(at_, 12) + "\"" : std::string("the end");
    throw Error("--place \"" + text_ + "\": " + reason + ", found " + found,
                "character " + std::to_string(at_ + 1),
                "name layers, a half if only one is meant, and where it lies: 'layers 40-79 ffn = "
                "cpu; layers 0-9 = streamed; layer 3 ffn = hybrid 0.6'");
  }

  const std::string& text_;
  size_t at_ = 0;
};

std::string range_text(const Range& layers) {
  if (layers == kAllLayers) return "all";
  const std::string first = std::to_string(layers.begin);
  return layers.size() == 1 ? first : first + "-" + std::to_string(layers.end - 1);
}

// Behind the pins from `first` on that differ in nothing but their layers, none of them all.
size_t end_of_list(const std::vector<PlacePin>& pins, size_t first) {
  size_t end = first + 1;
  if (pins[first].layers == kAllLayers) return end;
  PlacePin like = pins[first];
  for (; end < pins.size() && !(pins[end].layers == kAllLayers); ++end) {
    like.layers = pins[end].layers;
    if (!(pins[end] == like)) break;
  }
  return end;
}

}  // namespace

const char* place_name(Place place) { return kNames[static_cast<int>(place)]; }

std::vector<PlacePin> parse_places(const std::string& text) { return PlaceReader(text).read(); }

std::string places_text(const std::vector<PlacePin>& pins) {
  std::string text;
  for (size_t i = 0; i < pins.size();) {
    const PlacePin& pin = pins[i];
    const size_t end = end_of_list(pins, i);
    const bool one = end == i + 1 && pin.layers.size() == 1;
    std::string words = one ? "layer " : "layers ";
    for (const size_t first = i; i < end; ++i) {
      words += (i > first ? "," : "") + range_text(pins[i].layers);
    }
    if (!pin.feed_forward) words += " attn";
    if (!pin.attention) words += " ffn";
    words += std::string(" = ") + place_name(pin.place);
    if (pin.place == Place::kHybrid) words += " " + shortest_text(pin.cpu_share);
    append_item(text, "; ", words);
  }
  return text;
}

}  // namespace spillway
