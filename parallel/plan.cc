// A plan's fingerprint and the check of its invariants. Called by the planner's tests, by the
// coordinator before it answers and by every rank when it gets its assignment. Never throws: a
// broken plan is described, the caller decides.
#include "parallel/plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "parallel/like_layers.h"
#include "parallel/shard.h"

namespace spillway {
namespace {

// FNV-1a, 64 bits (Fowler, Noll, Vo), little-endian bytes of every value.
class Fnv {
 public:
  void add(uint64_t value) {
    for (int i = 0; i < 8; ++i) add_byte(static_cast<uint8_t>(value >> (8 * i)));
  }
  void add(int64_t value) { add(static_cast<uint64_t>(value)); }
  void add(int value) { add(static_cast<uint64_t>(static_cast<int64_t>(value))); }
  void add(double value) {
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    add(bits);
  }
  void add(const Range& range) {
    add(range.begin);
    add(range.end);
  }
  void add(const std::string& text) {
    add(static_cast<uint64_t>(text.size()));
    for (const char c : text) add_byte(static_cast<uint8_t>(c));
  }
  uint64_t value() const { return hash_; }

 private:
  void add_byte(uint8_t byte) { hash_ = (hash_ ^ byte) * 1099511628211u; }
  uint64_t hash_ = 14695981039346656037u;
};

void add_part(Fnv& hash, const RankPart& part) {
  hash.add(part.rank);
  hash.add(part.stage);
  hash.add(part.tp_index);
  hash.add(static_cast<uint64_t>(part.layers.size()));
  for (const LayerPart& layer : part.layers) {
    hash.add(layer.heads);
    hash.add(layer.kv_heads);
    hash.add(layer.ff);
    hash.add(static_cast<int>(layer.attention));
    hash.add(static_cast<int>(layer.feed_forward));
    hash.add(layer.ff_on_cpu);
  }
  hash.add(part.embedding_rows);
  hash.add(part.output_rows);
  hash.add(static_cast<int>(part.gpu));
}

std::string text(const Range& range) {
  std::string out = "[";
  out += std::to_string(range.begin) + ", " + std::to_string(range.end) + ")";
  return out;
}

// Collects sentences; one method an invariant of plan.h.
class Checker {
 public:
  Checker(const Plan& plan, const ModelSpec& model) : plan_(plan), model_(model) {}

  std::vector<std::string> run() {
    stages();
    ranks();
    sizes();
    if (!found_.empty()) return found_;  // what follows indexes by stage and rank
    for (size_t s = 0; s < plan_.stages.size(); ++s) {
      const StagePlan& stage = plan_.stages[s];
      devices(stage, static_cast<int>(s));
      for (int64_t i = 0; i < stage.layers.size(); ++i) layer(stage, i);
      vocabulary(stage, "embedding", s == 0, &RankPart::embedding_rows);
      vocabulary(stage, "output", static_cast<int>(s) == plan_.last_stage(),
                 &RankPart::output_rows);
    }
    if (plan_.stages.size() == 1 && model_.tied_output()) tied();
    return found_;
  }

 private:
  void say(const std::string& sentence) { found_.push_back(sentence); }

  void stages() {
    int64_t at = 0;
    for (size_t s = 0; s < plan_.stages.size(); ++s) {
      const StagePlan& stage = plan_.stages[s];
      const std::string name = "stage " + std::to_string(s);
      if (stage.layers.begin != at) {
        say(name + " begins at layer " + std::to_string(stage.layers.begin) + ", not " +
            std::to_string(at));
      }
      if (stage.layers.empty()) say(name + " has no layers");
      if (stage.ranks.empty()) say(name + " has no ranks");
      if (stage.shares.size() != stage.ranks.size()) {
        say(name + " has " + std::to_string(stage.shares.size()) + " shares for " +
            std::to_string(stage.ranks.size()) + " ranks");
      }
      double sum = 0;
      for (const double share : stage.shares) sum += share > 0 ? share : NAN;
      if (!(std::fabs(sum - 1) < 1e-6)) say(name + ": shares must be above 0 and add up to 1");
      at = stage.layers.end;
    }
    if (at != model_.n_layers) {
      say("stages end at layer " + std::to_string(at) + ", the model has " +
          std::to_string(model_.n_layers));
    }
    if (static_cast<int64_t>(model_.layers.size()) != model_.n_layers) {
      say("the model describes " + std::to_string(model_.layers.size()) + " of its layers");
    }
  }

  void ranks() {
    size_t placed = 0;
    for (const StagePlan& stage : plan_.stages) placed += stage.ranks.size();
    if (placed != plan_.parts.size()) {
      say("stages name " + std::to_string(placed) + " ranks, the plan has " +
          std::to_string(plan_.parts.size()));
    }
    for (size_t r = 0; r < plan_.parts.size(); ++r) {
      const RankPart& part = plan_.parts[r];
      const std::string name = "part " + std::to_string(r);
      if (part.rank != static_cast<int>(r)) say(name + " is of rank " + std::to_string(part.rank));
      if (part.stage < 0 || part.stage > plan_.last_stage()) {
        say(name + " is in stage " + std::to_string(part.stage) + ", which does not exist");
        continue;
      }
      const StagePlan& stage = plan_.stages[part.stage];
      const bool in_stage =
          part.tp_index >= 0 && part.tp_index < static_cast<int>(stage.ranks.size());
      if (!in_stage || stage.ranks[part.tp_index] != part.rank) {
        say(name + " is not rank " + std::to_string(part.tp_index) + " of its stage");
      }
      if (static_cast<int64_t>(part.layers.size()) != stage.layers.size()) {
        say(name + " has " + std::to_string(part.layers.size()) + " layers, its stage " +
            std::to_string(stage.layers.size()));
      }
    }
  }

  void sizes() {
    const KvPlan& kv = plan_.kv;
    if (kv.page_tokens <= 0 || kv.n_pages <= 0 || kv.context <= 0 ||
        kv.n_pages * kv.page_tokens < kv.context) {
      say("the cache's " + std::to_string(kv.n_pages) + " pages of " +
          std::to_string(kv.page_tokens) + " tokens do not hold a context of " +
          std::to_string(kv.context));
    }
    if (!kv_type_fits(kv.type, model_.head_dim)) {
      say("heads of " + std::to_string(model_.head_dim) + " values are no whole blocks of the " +
          "cache's type " + kv_type_name(kv.type));
    }
    const StepLimits& limits = plan_.limits;
    if (limits.max_rows < 1 || limits.max_sequences < 1 || limits.max_logit_rows < 1 ||
        limits.max_candidates < 1 || limits.max_wanted < 0) {
      say("a limit of the step is not positive");
    }
    for (const LedgerLine& line : plan_.ledger) {
      if (line.rank < 0 || line.rank >= plan_.n_ranks() || line.bytes < 0) {
        say("ledger line \"" + line.name + "\" of rank " + std::to_string(line.rank) + " has " +
            std::to_string(line.bytes) + " bytes");
      }
    }
  }

  void devices(const StagePlan& stage, int s) {
    const auto gpus = std::count_if(stage.ranks.begin(), stage.ranks.end(),
                                    [this](int rank) { return plan_.parts[rank].gpu; });
    if (gpus == 0 || gpus == static_cast<int64_t>(stage.ranks.size())) return;
    say("stage " + std::to_string(s) + " has " + std::to_string(gpus) + " ranks on GPUs and " +
        std::to_string(static_cast<int64_t>(stage.ranks.size()) - gpus) + " on CPUs");
  }

  // `range` must continue at `at` and begin on a unit. Empty ranges lie anywhere.
  void piece(const std::string& what, int rank, const Range& range, int64_t unit, int64_t& at) {
    if (range.begin == range.end) return;
    if (range.end < range.begin || range.begin != at || range.begin % unit != 0) {
      say("rank " + std::to_string(rank) + ": " + what + " " + text(range) + " must begin at " +
          std::to_string(at) + " on a multiple of " + std::to_string(unit));
    }
    at = range.end;
  }

  void covered(const std::string& what, int64_t at, int64_t n) {
    if (at != n) {
      say(what + " are covered up to " + std::to_string(at) + " of " + std::to_string(n));
    }
  }

  void layer(const StagePlan& stage, int64_t i) {
    const int64_t index = stage.layers.begin + i;
    const std::string name = "layer " + std::to_string(index);
    const LayerSpec& spec = model_.layers[index];
    // Any cut on whole quant blocks is sound; whole KV groups are only the planner's preference.
    const int64_t head_cut = head_unit(model_, spec, model_.n_heads);
    int64_t head_at = 0;
    int64_t ff_at = 0;
    for (const int rank : stage.ranks) {
      const LayerPart& part = plan_.parts[rank].layers[i];
      piece(name + " heads", rank, part.heads, head_cut, head_at);
      piece(name + " ff columns", rank, part.ff, ff_unit(spec), ff_at);
      kv_heads(name, rank, part);
    }
    covered(name + " heads", head_at, model_.n_heads);
    covered(name + " ff columns", ff_at, model_.ff_dim);
  }

  void kv_heads(const std::string& name, int rank, const LayerPart& part) {
    const int64_t group = model_.heads_per_kv();
    const Range wanted = part.heads.empty()
                             ? Range{part.kv_heads.begin, part.kv_heads.begin}
                             : Range{part.heads.begin / group, div_up(part.heads.end, group)};
    if (part.kv_heads == wanted) return;
    say("rank " + std::to_string(rank) + ": " + name + " heads " + text(part.heads) +
        " read KV heads " + text(wanted) + ", it holds " + text(part.kv_heads));
  }

  void vocabulary(const StagePlan& stage, const std::string& what, bool held,
                  Range RankPart::*rows) {
    int64_t at = 0;
    for (const int rank : stage.ranks) {
      piece(what + " rows", rank, plan_.parts[rank].*rows, 1, at);
    }
    covered(what + " rows of the stage", at, held ? model_.vocab_size : 0);
  }

  void tied() {
    for (const RankPart& part : plan_.parts) {
      if (part.embedding_rows == part.output_rows) continue;
      say("rank " + std::to_string(part.rank) + " must hold the same rows " +
          "of a tied embedding and output");
    }
  }

  const Plan& plan_;
  const ModelSpec& model_;
  std::vector<std::string> found_;
};

}  // namespace

bool Plan::uses_gpu() const {
  return std::any_of(parts.begin(), parts.end(), [](const RankPart& part) { return part.gpu; });
}

int64_t Plan::rank_bytes(int rank, const std::string& name, const std::string& place) const {
  int64_t sum = 0;
  for (const LedgerLine& line : ledger) {
    if (line.rank != rank || (!name.empty() && line.name != name)) continue;
    if (place.empty() || line.place == place) sum += line.bytes;
  }
  return sum;
}

bool same_size(const RankPart& a, const RankPart& b) {
  const auto alike = [](const LayerPart& x, const LayerPart& y) { return same_size(x, y); };
  return a.stage == b.stage && a.gpu == b.gpu &&
         a.embedding_rows.size() == b.embedding_rows.size() &&
         a.output_rows.size() == b.output_rows.size() &&
         std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(), alike);
}

int64_t predicted_context(const Plan& plan) {
  constexpr int64_t kUsual = 512;
  return std::min(kUsual, plan.kv.context);
}

uint64_t plan_fingerprint(const Plan& plan) {
  Fnv hash;
  hash.add(plan.model_name);
  hash.add(plan.header_hash);
  hash.add(static_cast<uint64_t>(plan.stages.size()));
  for (const StagePlan& stage : plan.stages) {
    hash.add(stage.layers);
    hash.add(static_cast<uint64_t>(stage.ranks.size()));
    for (const int rank : stage.ranks) hash.add(rank);
    for (const double share : stage.shares) hash.add(share);
  }
  hash.add(static_cast<uint64_t>(plan.parts.size()));
  for (const RankPart& part : plan.parts) add_part(hash, part);
  const StepLimits& limits = plan.limits;
  hash.add(limits.max_rows);
  hash.add(limits.max_sequences);
  hash.add(limits.max_logit_rows);
  hash.add(limits.max_candidates);
  hash.add(limits.max_wanted);
  hash.add(static_cast<int>(limits.all_logits));
  hash.add(limits.max_cpu_rows);
  hash.add(static_cast<int>(plan.kv.type));
  hash.add(plan.kv.page_tokens);
  hash.add(plan.kv.n_pages);
  hash.add(plan.kv.context);
  hash.add(static_cast<uint64_t>(plan.ledger.size()));
  for (const LedgerLine& line : plan.ledger) {
    hash.add(line.rank);
    hash.add(line.place);
    hash.add(line.name);
    hash.add(line.detail);
    hash.add(line.bytes);
  }
  // Budgets that were given; others follow what is free, which is never the same twice.
  for (const RankBudget& budget : plan.budgets) {
    hash.add(budget.gpu_given ? budget.gpu_bytes : 0);
    hash.add(budget.host_given ? budget.host_bytes : 0);
  }
  return hash.value();
}

std::vector<std::string> check_plan(const Plan& plan, const ModelSpec& model) {
  return Checker(plan, model).run();
}

}  // namespace spillway
