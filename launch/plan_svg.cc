// See plan_svg.h.
#include "launch/plan_svg.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/budget.h"
#include "parallel/pins.h"
#include "parallel/size_text.h"
#include "parallel/spill.h"

namespace spillway {
namespace {

constexpr double kWidth = 1300;
constexpr double kLabel = 240;    // names, on the left
constexpr double kFigures = 160;  // bytes, on the right
constexpr double kBar = kWidth - kLabel - kFigures;
constexpr double kBarHeight = 26;
constexpr double kGap = 8;
constexpr double kHead = 62;
constexpr double kNoteHeight = 20;
constexpr double kLegend = 46;
// What a digit of a layer's number takes, and what lies around the number.
constexpr double kDigit = 5.5;
constexpr double kAround = 4;

struct Kind {
  const char* name;
  const char* colour;
};
// Of blocks, in the order of the legend.
enum Colour {
  kAttention,
  kFeedForward,
  kCpuHalf,
  kStreamedHalf,
  kHybridHalf,
  kDiskHalf,
  kVocabulary,
  kCache,
  kScratch,
  kProgram,
  kFree,
  kColours
};
constexpr std::array<Kind, kColours> kKinds = {{
    {"attention", "#2b6cb0"},
    {"feed-forward", "#63a4dd"},
    {"on the CPU", "#dd6b20"},
    {"streamed", "#d69e2e"},
    {"hybrid", "#e2a06b"},
    {"disk", "#97266d"},
    {"vocabulary, norms", "#805ad5"},
    {"KV cache", "#38a169"},
    {"activations, slots", "#a0aec0"},
    {"program, context", "#718096"},
    {"free", "#edf2f7"},
}};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool plain = c >= ' ' && c <= '~';
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += plain ? c : '?';
    }
  }
  return out;
}

std::string number(double value) { return fixed_text(value, 2); }

// "start", "end" or "middle" at x.
std::string text_at(double x, double y, const char* anchor, int size, const char* colour,
                    const std::string& text) {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" text-anchor=\"" + anchor +
         "\" font-size=\"" + std::to_string(size) + "\" fill=\"" + colour + "\">" + escaped(text) +
         "</text>\n";
}

std::string block(double x, double y, double width, double height, Colour colour,
                  const std::string& title) {
  return "<rect x=\"" + number(x) + "\" y=\"" + number(y) + "\" width=\"" + number(width) +
         "\" height=\"" + number(height) + "\" fill=\"" + kKinds[colour].colour + "\"><title>" +
         escaped(title) + "</title></rect>\n";
}

struct Piece {
  Colour colour = kFree;
  int64_t bytes = 0;
  std::string title;
  int64_t layer = -1;  // of its number's block: numbered_pieces() says which are drawn
};

Colour colour_of(Place place, Half half) {
  switch (place) {
    case Place::kCpu:
      return kCpuHalf;
    case Place::kStreamed:
      return kStreamedHalf;
    case Place::kHybrid:
      return kHybridHalf;
    case Place::kDisk:
      return kDiskHalf;
    default:
      return half == Half::kAttention ? kAttention : kFeedForward;
  }
}

// "layer 12 feed-forward" -> 12; -1 for other lines.
int64_t layer_of(const std::string& detail) {
  if (detail.rfind("layer ", 0) != 0) return -1;
  return std::stoll(detail.substr(6));
}

// A line of the ledger as a piece of its bar.
Piece piece_of(const Plan& plan, const LedgerLine& line) {
  Piece piece;
  piece.bytes = line.bytes;
  piece.title = line.name + ", " + line.detail + ": " + size_text(line.bytes);
  const int64_t layer = layer_of(line.detail);
  if (line.name == "kv") {
    piece.colour = kCache;
  } else if (line.name == "activations" || line.detail.find("slots") != std::string::npos) {
    piece.colour = kScratch;
  } else if (line.name == "program") {
    piece.colour = kProgram;
  } else if (layer < 0) {
    piece.colour = kVocabulary;
  } else {
    const bool attention = line.detail.find("attention") != std::string::npos;
    const Half half = attention ? Half::kAttention : Half::kFeedForward;
    const RankPart& part = plan.parts[static_cast<size_t>(line.rank)];
    const auto i = layer - plan.stages[static_cast<size_t>(part.stage)].layers.begin;
    const Place place = place_of_half(part.layers[static_cast<size_t>(i)], half);
    const bool home = (line.place == "host" && part.gpu) || line.place == "disk";
    // On the device of a spilled half its norms alone are left.
    piece.colour = home || place == Place::kResident ? colour_of(place, half) : kVocabulary;
    piece.layer = attention || home ? layer : -1;
  }
  return piece;
}

// Lines of one memory: weights by layer, the cache and what follows as one block a kind.
std::vector<Piece> pieces_of(const Plan& plan, int rank, const std::string& place) {
  std::vector<Piece> pieces;
  std::array<Piece, kColours> sums;
  for (const LedgerLine& line : plan.ledger) {
    if (line.rank != rank || line.place != place || line.bytes == 0) continue;
    Piece piece = piece_of(plan, line);
    const bool layers = piece.colour < kVocabulary;
    if (layers) {
      pieces.push_back(std::move(piece));
      continue;
    }
    Piece& sum = sums[piece.colour];
    sum.colour = piece.colour;
    sum.bytes += piece.bytes;
    sum.title = std::string(kKinds[piece.colour].name) + ": " + size_text(sum.bytes);
  }
  for (const Colour colour : {kVocabulary, kCache, kScratch, kProgram}) {
    if (sums[colour].bytes > 0) pieces.push_back(sums[colour]);
  }
  return pieces;
}

struct Bar {
  int rank = 0;
  std::string place;
  int64_t budget_bytes = 0;
  int64_t used_bytes = 0;
};

std::vector<Bar> bars_of(const Plan& plan, const ClusterSpec& cluster) {
  std::vector<Bar> bars;
  std::vector<int> ranks;
  for (const StagePlan& stage : plan.stages) {
    ranks.insert(ranks.end(), stage.ranks.begin(), stage.ranks.end());
  }
  for (const int rank : ranks) {
    const RankPart& part = plan.parts[static_cast<size_t>(rank)];
    for (const char* place : {"gpu", "host", "disk"}) {
      const std::string name = place;
      const int64_t used = plan.rank_bytes(part.rank, "", name);
      const bool weights = plan.rank_bytes(part.rank, "weights", name) > 0;
      // The host of a rank on a GPU only where weights lie there.
      if (used == 0 || (name != "gpu" && part.gpu && !weights)) continue;
      const RankSpec& spec = cluster.ranks[static_cast<size_t>(part.rank)];
      int64_t budget = name == "gpu" ? spec.gpu.free_bytes : spec.memory_free_bytes;
      if (!plan.budgets.empty()) {
        const RankBudget& mine = plan.budgets[static_cast<size_t>(part.rank)];
        budget = name == "gpu" ? mine.gpu_bytes : mine.host_bytes;
      }
      bars.push_back({part.rank, name, name == "disk" ? used : budget, used});
    }
  }
  return bars;
}

// GPUs are alike in size, hosts are greater by far: each kind has a scale of its own.
int64_t scale_bytes(const std::vector<Bar>& bars, const std::string& place) {
  int64_t most = 1;
  for (const Bar& bar : bars) {
    if (bar.place != place) continue;
    // Of a host mostly free, what is used and as much again.
    const int64_t shown =
        place == "host" ? std::min(bar.budget_bytes, 2 * bar.used_bytes) : bar.budget_bytes;
    most = std::max({most, shown, bar.used_bytes});
  }
  return most;
}

// "3 GPU, stage 1.0, layers 20-39".
std::string bar_label(const Plan& plan, const Bar& bar) {
  const RankPart& part = plan.parts[static_cast<size_t>(bar.rank)];
  const Range& layers = plan.stages[static_cast<size_t>(part.stage)].layers;
  return "rank " + std::to_string(bar.rank) + " " + (bar.place == "gpu" ? "GPU" : bar.place) +
         ", stage " + std::to_string(part.stage) + "." + std::to_string(part.tp_index) +
         ", layers " + std::to_string(layers.begin) + "-" + std::to_string(layers.end - 1);
}

// Which pieces show their layer's number: all, or every 5th, 10th, … so that none touches the next.
// Of layers without gaps the round numbers, else counted.
std::vector<bool> numbered_pieces(const std::vector<Piece>& pieces, double per_byte) {
  std::vector<size_t> at;
  std::vector<double> left;
  double x = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    // Once a layer, of which both halves may lie here.
    if (pieces[i].layer >= 0 && (at.empty() || pieces[at.back()].layer != pieces[i].layer)) {
      at.push_back(i);
      left.push_back(x);
    }
    x += static_cast<double>(pieces[i].bytes) * per_byte;
  }
  std::vector<bool> shown(pieces.size(), false);
  if (at.empty()) return shown;
  const int64_t first = pieces[at.front()].layer;
  const int64_t last = pieces[at.back()].layer;
  const bool whole = last - first + 1 == static_cast<int64_t>(at.size());
  const double room = kDigit * static_cast<double>(std::to_string(last).size()) + kAround;
  for (const int64_t step : {1, 5, 10, 20, 50, 100}) {
    shown.assign(pieces.size(), false);
    double free_from = -1;
    bool apart = true;
    for (size_t n = 0; n < at.size(); ++n) {
      if ((whole ? pieces[at[n]].layer : static_cast<int64_t>(n)) % step != 0) continue;
      shown[at[n]] = true;
      apart = apart && left[n] >= free_from;
      free_from = left[n] + room;
    }
    if (apart) break;
  }
  return shown;
}

std::string draw_bar(const Plan& plan, const Bar& bar, double y, int64_t scale) {
  const double per_byte = kBar / static_cast<double>(scale);
  const double right = kLabel + kBar;
  std::string out = text_at(kLabel - 8, y + 17, "end", 11, "#2d3748", bar_label(plan, bar));
  double x = kLabel;
  std::string numbers;
  const std::vector<Piece> pieces = pieces_of(plan, bar.rank, bar.place);
  const std::vector<bool> numbered = numbered_pieces(pieces, per_byte);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    const double width = static_cast<double>(piece.bytes) * per_byte;
    // A hair of background parts blocks that are wide enough.
    out += block(x, y, width > 3 ? width - 0.6 : width, kBarHeight, piece.colour, piece.title);
    const std::string layer = std::to_string(piece.layer);
    const bool wide = width >= kDigit * static_cast<double>(layer.size());
    if (numbered[i]) {
      numbers += text_at(wide ? x + width / 2 : x + 1, y + 17, wide ? "middle" : "start", 9,
                         "#ffffff", layer);
    }
    x += width;
  }
  const double end = kLabel + static_cast<double>(bar.budget_bytes) * per_byte;
  if (end > x) {
    out += block(x, y, std::min(end, right) - x, kBarHeight, kFree,
                 "free: " + size_text(bar.budget_bytes - bar.used_bytes));
  }
  // Of a host that has much more free, the bar is cut.
  if (end > right + 1) numbers += text_at(right - 6, y + 17, "end", 9, "#718096", "more free >");
  const std::string of = bar.place == "disk" ? "" : " of " + size_text(bar.budget_bytes);
  std::string figures = size_text(bar.used_bytes) + of;
  return out + numbers + text_at(right + 8, y + 17, "start", 11, "#2d3748", figures);
}

std::string draw_legend(double y) {
  std::string out;
  double x = kLabel;
  for (int i = 0; i < kColours; ++i) {
    out += block(x, y, 12, 12, static_cast<Colour>(i), kKinds[i].name);
    out += text_at(x + 16, y + 10, "start", 11, "#2d3748", kKinds[i].name);
    x += 26 + 6.2 * static_cast<double>(std::string(kKinds[i].name).size());
  }
  return out;
}

}  // namespace

std::string plan_svg(const Plan& plan, const ModelSpec& model, const ClusterSpec& measured) {
  const ClusterSpec cluster = with_shared_gpus(measured);
  const std::vector<Bar> bars = bars_of(plan, cluster);
  double y = kHead;
  std::string body;
  for (const std::string& one : cut_budgets(plan)) {
    body += text_at(16, y + 4, "start", 12, "#c05621", one);
    y += kNoteHeight;
  }
  int last_stage = 0;
  for (const Bar& bar : bars) {
    const int stage = plan.parts[static_cast<size_t>(bar.rank)].stage;
    if (stage != last_stage) y += kGap;  // stages stand apart
    last_stage = stage;
    body += draw_bar(plan, bar, y, scale_bytes(bars, bar.place));
    y += kBarHeight + kGap;
  }
  body += draw_legend(y + 10);
  const Prediction& p = plan.prediction;
  const std::string name = plan.model_name.empty() ? model.architecture : plan.model_name;
  const std::string spilled = spill_text(plan);
  std::string figures = "decode " + rate_text(p.decode_tok_per_s) + " tok/s, prefill " +
                        fixed_text(p.prefill_tok_per_s, 0) + " tok/s, context " +
                        std::to_string(plan.kv.context) + " (" + kv_type_name(plan.kv.type) + ")";
  append_item(figures, "; ", spilled.empty() ? "all weights resident" : spilled);
  std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + number(kWidth) +
                    "\" height=\"" + number(y + kLegend) + "\" viewBox=\"0 0 " + number(kWidth) +
                    " " + number(y + kLegend) +
                    "\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\">\n" +
                    "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
  out += text_at(16, 26, "start", 16, "#1a202c", name + ": " + plan_title(plan));
  out += text_at(16, 46, "start", 12, "#4a5568", figures);
  return out + body + "</svg>\n";
}

void write_plan_svg(const std::string& path, const Plan& plan, const ModelSpec& model,
                    const ClusterSpec& cluster) {
  std::ofstream file(path);
  file << plan_svg(plan, model, cluster);
  file.close();
  if (!file)
    throw Error("the drawing cannot be written", path,
                "give --svg a file in a folder that is there");
}

}  // namespace spillway
