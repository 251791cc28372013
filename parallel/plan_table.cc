// A plan as people read it: the one-line title and the table. Called by the verbs and by errors;
// computes nothing that is not in the plan.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "parallel/budget.h"
#include "parallel/pins.h"
#include "parallel/plan.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

// {2/3, 1/3} -> "2:1"; in percent when no ratio of small numbers fits; "" for equal shares.
std::string ratio_text(const std::vector<double>& shares) {
  if (shares.size() < 2) return "";
  const auto [least, most] = std::minmax_element(shares.begin(), shares.end());
  if (*most - *least < 1e-9) return "";
  const auto joined = [&](double scale, const std::string& unit) {
    std::string text;
    for (const double share : shares) {
      append_item(text, ":", fixed_text(std::round(share * scale), 0));
    }
    return text + unit;
  };
  for (int k = 1; k <= 12; ++k) {
    const double scale = k / *least;
    const bool whole = std::all_of(shares.begin(), shares.end(), [&](double share) {
      return std::fabs(share * scale - std::round(share * scale)) < 1e-6;
    });
    if (whole && *most * scale < 100) return joined(scale, "");
  }
  return joined(100, " %");
}

std::string stage_text(const StagePlan& stage) {
  const std::string ratio = ratio_text(stage.shares);
  const std::string degree = "TP" + std::to_string(stage.ranks.size());
  return ratio.empty() ? degree : degree + " (" + ratio + ")";
}

std::string span_text(const Range& layers) {
  if (layers.size() == 1) return std::to_string(layers.begin);
  return std::to_string(layers.begin) + "-" + std::to_string(layers.end - 1);
}

// Characters on the screen: UTF-8 continuation bytes take no column.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// Rows of cells, columns as wide as their widest cell, two spaces between them.
class Table {
 public:
  // left: these columns are text and start on the left; numbers end on the right.
  explicit Table(std::vector<bool> left) : left_(std::move(left)) {}
  void row(std::vector<std::string> cells) {
    CHECK_EQ(cells.size(), left_.size());
    rows_.push_back(std::move(cells));
  }
  std::string text() const {
    std::string out;
    for (const auto& cells : rows_) {
      std::string line;
      for (size_t c = 0; c < cells.size(); ++c) {
        const std::string pad(column_width(c) - width_of(cells[c]), ' ');
        line += c == 0 ? " " : "  ";
        line += left_[c] ? cells[c] + pad : pad + cells[c];
      }
      line.erase(line.find_last_not_of(' ') + 1);
      out += line + "\n";
    }
    return out;
  }

 private:
  size_t column_width(size_t c) const {
    size_t width = 0;
    for (const auto& cells : rows_) width = std::max(width, width_of(cells[c]));
    return width;
  }
  std::vector<bool> left_;
  std::vector<std::vector<std::string>> rows_;
};

std::string shortened(const std::string& text, size_t most) {
  return text.size() <= most ? text : text.substr(0, most - 1) + "~";
}

// Query heads a layer, averaged over the stage's layers, where they differ with one decimal.
std::string heads_text(const RankPart& part) {
  int64_t heads = 0;
  for (const LayerPart& layer : part.layers) heads += layer.heads.size();
  const int64_t layers = std::max<int64_t>(1, static_cast<int64_t>(part.layers.size()));
  const double mean = static_cast<double>(heads) / static_cast<double>(layers);
  return fixed_text(mean, heads % layers == 0 ? 0 : 1);
}

constexpr double kMiB = 1024.0 * 1024.0;
constexpr double kGiB = 1024.0 * kMiB;

// What a rank holds in each memory, by the ledger's groups and in all.
constexpr std::array kGroups = {"weights", "kv", "activations", "program", ""};
using RankSums = std::map<std::string, std::array<int64_t, kGroups.size()>>;

// By rank; in one pass, since a thousand ranks have a million lines.
std::vector<RankSums> sums_of(const Plan& plan) {
  std::vector<RankSums> sums(plan.parts.size());
  for (const LedgerLine& line : plan.ledger) {
    auto& mine = sums[static_cast<size_t>(line.rank)][line.place];
    for (size_t g = 0; g < kGroups.size(); ++g) {
      if (line.name == kGroups[g] || g + 1 == kGroups.size()) mine[g] += line.bytes;
    }
  }
  return sums;
}

int64_t bytes_at(const RankSums& sums, const std::string& place, size_t group) {
  const auto found = sums.find(place);
  return found == sums.end() ? 0 : found->second[group];
}

// One unit for the whole table keeps it within 100 columns: GiB once a rank holds 4 of them.
double table_unit(const std::vector<RankSums>& sums) {
  int64_t most = 0;
  for (const RankSums& mine : sums) {
    int64_t all = 0;
    for (const auto& [place, groups] : mine) all += groups.back();
    most = std::max(most, all);
  }
  return static_cast<double>(most) >= 4 * kGiB ? kGiB : kMiB;
}

std::vector<std::string> place_names(const RankPart& part, const RankSums& sums) {
  std::vector<std::string> names = {"host"};
  if (part.gpu) names.insert(names.begin(), "gpu");
  if (bytes_at(sums, "disk", kGroups.size() - 1) > 0) names.emplace_back("disk");
  return names;
}

// What the rank may take there: its budget, or what is free when the plan does not say.
int64_t allowed_bytes(const Plan& plan, const RankSpec& spec, const std::string& place) {
  if (place == "disk") return 0;
  const bool gpu = place == "gpu";
  if (plan.budgets.empty()) return gpu ? spec.gpu.free_bytes : spec.memory_free_bytes;
  const RankBudget& budget = plan.budgets[static_cast<size_t>(spec.rank)];
  return gpu ? budget.gpu_bytes : budget.host_bytes;
}

// How the budgets came about.
std::string budget_text(const Plan& plan) {
  if (plan.budgets.empty()) return "";
  const auto some = [&](bool RankBudget::*given) {
    return std::any_of(plan.budgets.begin(), plan.budgets.end(),
                       [&](const RankBudget& budget) { return budget.*given; });
  };
  std::string gpu = "what is free beside the CUDA context, counted again as a margin";
  if (some(&RankBudget::gpu_given)) gpu = "--gpu-memory, the CUDA context included";
  std::string host = "what is free less 1/" + std::to_string(kHostMarginShare);
  if (some(&RankBudget::host_given)) host = "--host-memory";
  const std::string of_gpus = plan.uses_gpu() ? " budget of GPUs: " + gpu + "\n" : "";
  std::string cut;
  for (const std::string& one : cut_budgets(plan)) {
    cut += wrapped_text("  " + one, 100, 6) + "\n";
  }
  return of_gpus + " budget of hosts: " + host + "\n" + cut;
}

// The columns before the sizes; `place` only where some rank is on a GPU. A rank's second row names
// its place alone.
std::vector<std::string> rank_cells(const Plan& plan, const RankPart& part, const RankSpec& spec,
                                    const std::string& place, bool first, bool with_place) {
  const StagePlan& stage = plan.stages[part.stage];
  std::vector<std::string> cells(6);
  if (first) {
    cells = {std::to_string(part.rank),
             shortened(spec.host, 10),
             std::to_string(part.stage) + "." + std::to_string(part.tp_index),
             span_text(stage.layers),
             heads_text(part),
             fixed_text(100 * stage.achieved[part.tp_index], 1) + "%"};
  }
  if (with_place) cells.push_back(place);
  return cells;
}

std::string rank_table(const Plan& plan, const ClusterSpec& cluster) {
  const std::vector<RankSums> by_rank = sums_of(plan);
  const bool with_place =
      std::any_of(plan.parts.begin(), plan.parts.end(), [&](const RankPart& part) {
        return part.gpu || place_names(part, by_rank[static_cast<size_t>(part.rank)]).size() > 1;
      });
  std::vector<bool> left = {false, true, true, true, false, false};
  std::vector<std::string> titles = {"rank", "host", "stage", "layers", "heads", "share"};
  if (with_place) {
    left.push_back(true);
    titles.push_back("place");
  }
  for (const char* title : {"weights", "KV", "activ.", "program", "total", "budget"}) {
    left.push_back(false);
    titles.push_back(title);
  }
  Table table(left);
  table.row(titles);
  const double unit = table_unit(by_rank);
  const auto size = [unit](int64_t bytes) {
    return fixed_text(static_cast<double>(bytes) / unit, 2);
  };
  std::array<int64_t, kGroups.size()> sums{};
  int rows = 0;
  for (const RankPart& part : plan.parts) {
    const RankSpec& spec = cluster.ranks[part.rank];
    const RankSums& mine = by_rank[static_cast<size_t>(part.rank)];
    const std::vector<std::string> places = place_names(part, mine);
    for (const std::string& place : places) {
      const bool first = place == places.front();
      std::vector<std::string> cells = rank_cells(plan, part, spec, place, first, with_place);
      for (size_t g = 0; g < kGroups.size(); ++g) {
        sums[g] += bytes_at(mine, place, g);
        cells.push_back(size(bytes_at(mine, place, g)));
      }
      const std::string text = size(allowed_bytes(plan, spec, place));
      cells.push_back(place == "disk"   ? ""
                      : text.size() > 8 ? text.substr(0, text.find('.'))
                                        : text);
      table.row(std::move(cells));
      ++rows;
    }
  }
  if (rows > 1) {
    std::vector<std::string> cells(with_place ? 7 : 6);
    cells[0] = "all";
    for (const int64_t sum : sums) cells.push_back(size(sum));
    cells.push_back("");
    table.row(std::move(cells));
  }
  return table.text() + " sizes in " + (unit == kGiB ? "GiB" : "MiB") +
         "; heads are a layer's mean, share is of the stage's layer weights\n";
}

// A line for every GPU: what it is, and whether the plan uses it.
std::string gpu_lines(const Plan& plan, const ClusterSpec& cluster) {
  std::string out;
  for (const RankPart& part : plan.parts) {
    GpuSpec gpu = cluster.ranks[part.rank].gpu;
    if (!gpu.present()) continue;
    gpu.name = shortened(gpu.name, 40);
    const size_t ranks = ranks_on_gpu(cluster, part.rank).size();
    out += " rank " + std::to_string(part.rank) + ": " + gpu.text() +
           (gpu.free_bytes > 0 ? ", " + size_text(gpu.free_bytes) + " free" : "") +
           (ranks > 1 ? ", a share of " + std::to_string(ranks) : "") +
           (part.gpu ? "" : ", not used") + "\n";
  }
  return out;
}

// "12.34 matrices + 0.50 attention + …": the terms that there are.
std::string terms_text(const Prediction& p, bool gpus) {
  const std::pair<double, const char*> terms[] = {{p.matrix_ms, "matrices"},
                                                  {p.attention_ms, "attention"},
                                                  {p.launch_ms, gpus ? "launches" : "other ops"},
                                                  {p.collective_ms, "sums over ranks"},
                                                  {p.hop_ms, "hops"},
                                                  {p.cpu_ms, "for the CPU"},
                                                  {p.bus_ms, "for the bus"},
                                                  {p.disk_ms, "for the disk"}};
  std::string text;
  for (const auto& [ms, name] : terms) {
    if (ms > 0) append_item(text, " + ", fixed_text(ms, 2) + " " + name);
  }
  return text;
}

std::string prediction_text(const Plan& plan) {
  const Prediction& p = plan.prediction;
  const std::string context = count_text(predicted_context(plan), "token");
  std::string out = "predicted: decode " + rate_text(p.decode_tok_per_s) + " tok/s, prefill " +
                    fixed_text(p.prefill_tok_per_s, 0) + " tok/s, with " + context +
                    " cached, from " + (p.measured_cluster ? "measured" : "assumed") + " rates\n" +
                    "  " + fixed_text(p.total_ms, 2) + " ms a token = ";
  const std::string terms = terms_text(p, plan.uses_gpu());
  // Two lines where one would be too long.
  size_t cut = std::string::npos;
  if (terms.size() > 75) cut = terms.rfind(" + ", 75);
  out += terms.substr(0, cut) + "\n";
  if (cut != std::string::npos) out += "     " + terms.substr(cut) + "\n";
  if (plan.limits.max_sequences > 1) {
    out += "  decode of " + count_text(plan.limits.max_sequences, "sequence") + " at once " +
           fixed_text(p.sequences_tok_per_s, 1) + " tok/s\n";
  }
  return out;
}

// Where halves lie that are not with their device.
std::string spill_lines(const Plan& plan) {
  const std::string text = spill_text(plan);
  if (text.empty()) return "";
  std::string out = wrapped_text("spilled: " + text, 100, 4) + "\n";
  if (plan.rank_bytes(0) > 0 && plan.uses_gpu()) {
    out += "  steps of more than " + count_text(plan.limits.max_cpu_rows, "token") +
           " stream all of it\n";
  }
  return out;
}

}  // namespace

std::string plan_title(const Plan& plan) {
  if (plan.stages.empty()) return "no stages";
  std::string title = stage_text(plan.stages[0]);
  bool same = true;
  for (const StagePlan& stage : plan.stages) same = same && stage_text(stage) == title;
  std::string layers;
  std::string degrees;
  for (const StagePlan& stage : plan.stages) {
    append_item(degrees, " + ", stage_text(stage));
    append_item(layers, "+", std::to_string(stage.layers.size()));
  }
  if (plan.stages.size() == 1) return title;
  if (same) return title + " x PP" + std::to_string(plan.stages.size()) + ", layers " + layers;
  return degrees + ", layers " + layers;
}

std::string plan_table(const Plan& plan, const ModelSpec& model, const ClusterSpec& measured) {
  CHECK_EQ(plan.n_ranks(), measured.size());
  const ClusterSpec cluster = with_shared_gpus(measured);
  const std::string name = plan.model_name.empty() ? model.architecture : plan.model_name;
  std::string out = "plan for " + name + ": " + plan_title(plan) + "\n";
  out += "context " + count_text(plan.kv.context, "token") + ", KV cache " +
         kv_type_name(plan.kv.type) + " in " + count_text(plan.kv.n_pages, "page") + " of " +
         std::to_string(plan.kv.page_tokens) + ", steps of up to " +
         count_text(plan.limits.max_rows, "token") + "\n\n";
  out += rank_table(plan, cluster);
  out += budget_text(plan);
  out += gpu_lines(plan, cluster);
  return out + "\n" + spill_lines(plan) + prediction_text(plan);
}

}  // namespace spillway
