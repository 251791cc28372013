// See spill_search.h.
#include "parallel/spill_search.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/arena.h"
#include "parallel/gpu_ledger.h"
#include "parallel/host_share.h"
#include "parallel/ledger.h"
#include "parallel/rates.h"
#include "parallel/shortage.h"
#include "parallel/spill.h"
#include "parallel/stage_clock.h"

namespace spillway {
namespace {

constexpr double kShareStep = 0.05;  // between the hybrid shares that are tried
constexpr int kSharesAround = 3;     // on either side of the one by rates

// Whether the i-th of n is among `chosen` of them that lie as evenly as can be.
bool spread(int64_t i, int64_t n, int64_t chosen) { return (i + 1) * chosen / n > i * chosen / n; }

bool pinned(const std::vector<PlacePin>& pins, int64_t layer, Half half) {
  return std::any_of(pins.begin(), pins.end(), [&](const PlacePin& pin) {
    return layer >= pin.layers.begin && layer < pin.layers.end &&
           (half == Half::kAttention ? pin.attention : pin.feed_forward);
  });
}

PlacePin pin_of(int64_t layer, Half half, Place place, double share = 0.5) {
  PlacePin pin;
  pin.layers = {layer, layer + 1};
  pin.attention = half == Half::kAttention;
  pin.feed_forward = half == Half::kFeedForward;
  pin.place = place;
  pin.cpu_share = share;
  return pin;
}

struct SpillHalf {
  int64_t layer = 0;
  Half half = Half::kFeedForward;
};

// Halves of a stage that the user has not placed.
struct FreeHalves {
  std::vector<SpillHalf> feed_forward;
  std::vector<SpillHalf> attention;

  FreeHalves(const StagePlan& stage, const std::vector<PlacePin>& pins) {
    for (int64_t layer = stage.layers.begin; layer < stage.layers.end; ++layer) {
      for (const Half half : {Half::kFeedForward, Half::kAttention}) {
        auto& list = half == Half::kAttention ? attention : feed_forward;
        if (!pinned(pins, layer, half)) list.push_back({layer, half});
      }
    }
  }

  // As few as are enough, feed-forward halves first, spread evenly; all when that is too little.
  template <typename Enough>
  std::vector<SpillHalf> fewest(const Enough& enough) const {
    const auto n_ff = static_cast<int64_t>(feed_forward.size());
    const auto n_attention = static_cast<int64_t>(attention.size());
    const auto chosen = [&](int64_t n) {
      std::vector<SpillHalf> halves;
      for (int64_t i = 0; i < n_ff; ++i) {
        if (spread(i, n_ff, std::min(n, n_ff))) {
          halves.push_back(feed_forward[static_cast<size_t>(i)]);
        }
      }
      for (int64_t i = 0; i < n_attention; ++i) {
        if (n > n_ff && spread(i, n_attention, n - n_ff)) {
          halves.push_back(attention[static_cast<size_t>(i)]);
        }
      }
      return halves;
    };
    int64_t low = 0;  // the least that is enough lies above; layers differ little in size
    int64_t high = n_ff + n_attention;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (enough(chosen(middle)) ? high : low) = middle;
    }
    return chosen(high);
  }
};

int64_t bytes_of_half(const Plan& plan, const ModelSpec& model, int rank, const SpillHalf& half) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  const int64_t first = plan.stages[static_cast<size_t>(part.stage)].layers.begin;
  return half_bytes(model, model.layers[static_cast<size_t>(half.layer)],
                    part.layers[static_cast<size_t>(half.layer - first)], half.half);
}

// The search within one stage.
class StageSpill {
 public:
  StageSpill(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster, size_t stage,
             const std::vector<PlacePin>& pins)
      : plan_(plan),
        model_(model),
        cluster_(cluster),
        lacks_(lacks_of(plan)),
        index_(stage),
        stage_(plan_.stages[stage]),
        free_(stage_, pins) {
    const auto layers = static_cast<size_t>(stage_.layers.size());
    for (const int rank : stage_.ranks) {
      auto& mine = bytes_.emplace_back(2 * layers);
      for (const auto* list : {&free_.feed_forward, &free_.attention}) {
        for (const SpillHalf& half : *list) {
          mine[index_of(half)] = bytes_of_half(plan_, model_, rank, half);
        }
      }
    }
  }

  std::vector<PlacePin> run(SpillWay way, int64_t extra_bytes) {
    on_host_ = free_.fewest(
        [&](const std::vector<SpillHalf>& halves) { return enough(halves, extra_bytes); });
    to_disk();
    std::vector<PlacePin> out;
    for (const SpillHalf& half : on_disk_) {
      out.push_back(pin_of(half.layer, half.half, Place::kDisk));
    }
    std::vector<SpillHalf> movable;
    for (const SpillHalf& half : on_host_) {
      if (half.half == Half::kAttention || biased(half.layer)) {
        out.push_back(pin_of(half.layer, half.half, Place::kStreamed));
      } else {
        movable.push_back(half);
      }
    }
    place_weights(plan_, model_, out);
    const std::vector<PlacePin> best = best_places(movable, way);
    out.insert(out.end(), best.begin(), best.end());
    return out;
  }

 private:
  bool biased(int64_t layer) const {
    const LayerSpec& spec = model_.layers[static_cast<size_t>(layer)];
    return spec.gate_bias || spec.up_bias || spec.down_bias;
  }

  size_t index_of(const SpillHalf& half) const {
    return static_cast<size_t>(2 * (half.layer - stage_.layers.begin)) +
           (half.half == Half::kAttention ? 0 : 1);
  }

  // Of a half that is free, whole.
  int64_t bytes_of(int rank, const SpillHalf& half) const {
    const RankPart& part = plan_.parts[static_cast<size_t>(rank)];
    return bytes_[static_cast<size_t>(part.tp_index)][index_of(half)];
  }

  // What a rank's GPU gains when these halves leave it: less the slots that they need, and the page
  // tables of as much as its host can pin.
  int64_t gain(int rank, const std::vector<SpillHalf>& halves) const {
    const RankPart& part = plan_.parts[static_cast<size_t>(rank)];
    const int64_t before = stream_slot_bytes(model_, part, stage_.layers);
    int64_t most = before;
    int64_t bytes = 0;
    for (const SpillHalf& half : halves) {
      const int64_t mine = bytes_of(rank, half);
      bytes += mine;
      most = std::max(most, mine);
    }
    const int64_t pinned = std::clamp<int64_t>(-lacks_.host[static_cast<size_t>(rank)], 0, bytes) /
                           kPinnedBytesAPageTableByte;
    return bytes - kStreamSlots * (Arena::rounded(most) - Arena::rounded(before)) - pinned - 1;
  }

  bool enough(const std::vector<SpillHalf>& halves, int64_t extra_bytes) const {
    return std::all_of(stage_.ranks.begin(), stage_.ranks.end(), [&](int rank) {
      return gain(rank, halves) >= lacks_.gpu[static_cast<size_t>(rank)] + extra_bytes;
    });
  }

  // Moves halves to the disk until the hosts hold the others.
  void to_disk() {
    const auto n = static_cast<int64_t>(on_host_.size());
    const auto fits = [&](int64_t disk) {
      return std::all_of(stage_.ranks.begin(), stage_.ranks.end(), [&](int rank) {
        int64_t host = 0;
        int64_t greatest = 0;
        for (int64_t i = 0; i < n; ++i) {
          const int64_t bytes = bytes_of(rank, on_host_[static_cast<size_t>(i)]);
          spread(i, n, disk) ? (void)(greatest = std::max(greatest, bytes)) : (void)(host += bytes);
        }
        const RankPart& part = plan_.parts[static_cast<size_t>(rank)];
        // Beyond those that the user's halves on disk have already.
        const int64_t slots =
            kDiskSlots * std::max<int64_t>(0, disk_slot_bytes(greatest) -
                                                  disk_slot_bytes(model_, part, stage_.layers));
        const int64_t cpu_bytes = cpu_buffer_bytes(part);
        return host + slots + cpu_bytes <= -lacks_.host[static_cast<size_t>(rank)];
      });
    };
    int64_t disk = 0;
    while (disk < n && !fits(disk)) ++disk;
    if (!fits(disk)) disk = 0;  // nothing is gained by slots that do not fit either
    std::vector<SpillHalf> host;
    for (int64_t i = 0; i < n; ++i) {
      const SpillHalf& half = on_host_[static_cast<size_t>(i)];
      (spread(i, n, disk) ? on_disk_ : host).push_back(half);
    }
    on_host_ = std::move(host);
  }

  // What multiplying on the CPU takes beside the halves, at most.
  int64_t cpu_buffer_bytes(const RankPart& part) const {
    RankPart all = part;
    for (LayerPart& layer : all.layers) layer.ff_on_cpu = layer.ff;
    StepLimits limits = plan_.limits;
    limits.max_cpu_rows = std::max(limits.max_cpu_rows, kMostCpuRows);
    return spill_pinned_buffers(model_, all, limits).total() +
           spill_cpu_buffers(model_, all, limits).total();
  }

  double decode_ms(const std::vector<PlacePin>& places) {
    place_weights(plan_, model_, places);
    return StageClock(plan_, model_, cluster_)
        .times(index_, {1, predicted_context(plan_), false})
        .total_ms();
  }

  static std::vector<PlacePin> mixed(const std::vector<SpillHalf>& halves, int64_t on_cpu) {
    std::vector<PlacePin> out;
    const auto n = static_cast<int64_t>(halves.size());
    for (int64_t i = 0; i < n; ++i) {
      const Place place = spread(i, n, on_cpu) ? Place::kCpu : Place::kStreamed;
      out.push_back(pin_of(halves[static_cast<size_t>(i)].layer, Half::kFeedForward, place));
    }
    return out;
  }

  static std::vector<PlacePin> hybrid(const std::vector<SpillHalf>& halves, double share) {
    std::vector<PlacePin> out;
    for (const SpillHalf& half : halves) {
      out.push_back(pin_of(half.layer, half.half, Place::kHybrid, share));
    }
    return out;
  }

  // The CPU's part by the rates of the slowest rank.
  double share_by_rates() const {
    double share = 1;
    for (const int rank : stage_.ranks) {
      const RankSpec& spec = cluster_.ranks[static_cast<size_t>(rank)];
      const RankRates rates = rates_of(spec, true);
      int beside = 0;
      for (const int other : stage_.ranks) {
        beside += cluster_.ranks[static_cast<size_t>(other)].host == spec.host ? 1 : 0;
      }
      const double cpu = rates.cpu_read / read_slowdown(spec, beside * spec.threads, true);
      const double bus = rates.bus / bus_slowdown(spec, beside);
      share = std::min(share, cpu / (cpu + bus));
    }
    return share;
  }

  std::vector<PlacePin> best_places(const std::vector<SpillHalf>& halves, SpillWay way) {
    if (halves.empty()) return {};
    const auto n = static_cast<int64_t>(halves.size());
    if (way == SpillWay::kCpu) return mixed(halves, n);
    if (way == SpillWay::kStreamed) return mixed(halves, 0);
    std::vector<std::vector<PlacePin>> tries;
    const double share = share_by_rates();
    if (way == SpillWay::kMixed) {
      const int64_t middle = std::llround(share * static_cast<double>(n));
      for (int64_t k = middle - kSharesAround; k <= middle + kSharesAround; ++k) {
        if (k >= 0 && k <= n) tries.push_back(mixed(halves, k));
      }
    } else {
      for (int i = -kSharesAround; i <= kSharesAround; ++i) {
        const double mine = std::round((share + i * kShareStep) * 100) / 100;
        if (mine > 0 && mine < 1) tries.push_back(hybrid(halves, mine));
      }
    }
    size_t best = 0;
    double least_ms = 0;
    for (size_t i = 0; i < tries.size(); ++i) {
      const double ms = decode_ms(tries[i]);
      if (i > 0 && ms >= least_ms) continue;
      best = i;
      least_ms = ms;
    }
    return tries[best];
  }

  Plan plan_;  // with places that are tried
  const ModelSpec& model_;
  const ClusterSpec& cluster_;
  const Lacks lacks_;  // with all of its weights on its device
  size_t index_;
  const StagePlan stage_;
  const FreeHalves free_;
  std::vector<std::vector<int64_t>> bytes_;  // by the stage's ranks and index_of, of free halves
  std::vector<SpillHalf> on_host_;
  std::vector<SpillHalf> on_disk_;
};

}  // namespace

const char* spill_way_name(SpillWay way) {
  switch (way) {
    case SpillWay::kMixed:
      return "CPU and bus in turns";
    case SpillWay::kHybrid:
      return "hybrid";
    case SpillWay::kCpu:
      return "CPU";
    case SpillWay::kStreamed:
      return "streamed";
  }
  return "";
}

std::vector<PlacePin> spill_pins(const Plan& plan, const ModelSpec& model,
                                 const ClusterSpec& cluster, const std::vector<PlacePin>& pins,
                                 SpillWay way, const std::vector<int64_t>& extra_bytes) {
  std::vector<PlacePin> out;
  const Lacks all = lacks_of(plan);
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StagePlan& stage = plan.stages[s];
    const bool lacks = std::any_of(stage.ranks.begin(), stage.ranks.end(), [&](int rank) {
      return all.gpu[static_cast<size_t>(rank)] + extra_bytes[s] > 0;
    });
    if (!plan.on_gpu(stage) || !lacks) continue;
    const std::vector<PlacePin> mine =
        StageSpill(plan, model, cluster, s, pins).run(way, extra_bytes[s]);
    out.insert(out.end(), mine.begin(), mine.end());
  }
  return out;
}

std::vector<PlacePin> disk_pins(const Plan& plan, const ModelSpec& model,
                                const std::vector<PlacePin>& pins,
                                const std::vector<int64_t>& extra_bytes) {
  std::vector<PlacePin> out;
  const Lacks all = lacks_of(plan);
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StagePlan& stage = plan.stages[s];
    // What halves leave, less the slots that they need and the page tables of their mapping.
    const auto gain = [&](int rank, const std::vector<SpillHalf>& halves) {
      const RankPart& part = plan.parts[static_cast<size_t>(rank)];
      const int64_t before = disk_slot_bytes(model, part, stage.layers);
      int64_t slot = before;
      int64_t bytes = 0;
      for (const SpillHalf& half : halves) {
        const int64_t mine = bytes_of_half(plan, model, rank, half);
        bytes += mine;
        slot = std::max(slot, disk_slot_bytes(mine));
      }
      return bytes - bytes / kMappedBytesAPageTableByte - kDiskSlots * (slot - before) - 1;
    };
    const auto lacks = [&](int rank) {
      return all.host[static_cast<size_t>(rank)] + extra_bytes[s];
    };
    const auto enough = [&](const std::vector<SpillHalf>& halves) {
      return std::all_of(stage.ranks.begin(), stage.ranks.end(),
                         [&](int rank) { return gain(rank, halves) >= lacks(rank); });
    };
    if (plan.on_gpu(stage) || enough({})) continue;
    for (const SpillHalf& half : FreeHalves(stage, pins).fewest(enough)) {
      out.push_back(pin_of(half.layer, half.half, Place::kDisk));
    }
  }
  return out;
}

void choose_cpu_rows(Plan& plan, const ModelSpec& model, const ClusterSpec& cluster) {
  std::vector<size_t> stages;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const auto& ranks = plan.stages[s].ranks;
    if (std::any_of(ranks.begin(), ranks.end(), [&](int rank) {
          return cpu_half_rows(plan.parts[static_cast<size_t>(rank)], plan.limits) > 0;
        })) {
      stages.push_back(s);
    }
  }
  if (stages.empty()) return;
  const StageClock clock(plan, model, cluster);
  const int64_t context = predicted_context(plan);
  const auto step_ms = [&](int64_t rows, int64_t cpu_rows) {
    plan.limits.max_cpu_rows = cpu_rows;
    double ms = 0;
    for (const size_t s : stages) ms += clock.times(s, {rows, context, false}).total_ms();
    return ms;
  };
  int64_t rows = 1;
  for (int64_t more = 2; more <= std::min(kMostCpuRows, plan.limits.max_rows); more *= 2) {
    if (step_ms(more, more) > step_ms(more, more - 1)) break;
    rows = more;
  }
  plan.limits.max_cpu_rows = rows;
}

}  // namespace spillway
