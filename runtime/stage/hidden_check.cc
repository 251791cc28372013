// See hidden_check.h.
#include "runtime/stage/hidden_check.h"

#include <algorithm>

#include "kernels/core/check.h"

namespace spillway {
namespace {

// Of the ranks' values at one point: the one that most hold, at equal numbers the first.
uint64_t most_common(std::span<const uint64_t> values) {
  return *std::max_element(values.begin(), values.end(), [&](uint64_t a, uint64_t b) {
    return std::count(values.begin(), values.end(), a) <
           std::count(values.begin(), values.end(), b);
  });
}

std::string rank_list(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (i > 0) text += i + 1 == ranks.size() ? " and " : ", ";
    text += std::to_string(ranks[i]);
  }
  return text;
}

std::string point_text(const StagePlan& stage, HiddenCheck where, int64_t point) {
  if (where == HiddenCheck::kStage) {
    return "after layers " + std::to_string(stage.layers.begin) + " to " +
           std::to_string(stage.layers.end - 1);
  }
  if (point == 0) return "before layer " + std::to_string(stage.layers.begin);
  const std::string half = point % 2 == 1 ? "attention" : "feed-forward part";
  return "after the " + half + " of layer " + std::to_string(stage.layers.begin + (point - 1) / 2);
}

}  // namespace

HiddenHashes::HiddenHashes(HiddenCheck where, int64_t n_layers, int n_ranks)
    : where_(where),
      values_(static_cast<size_t>(2 * n_layers + 1)),
      all_(values_.size() * static_cast<size_t>(n_ranks)) {}

void HiddenHashes::begin() {
  std::fill(values_.begin(), values_.end(), 0);
  next_ = 0;
}

bool HiddenHashes::take(int64_t point) {
  if (where_ == HiddenCheck::kOff || point < next_) return false;
  if (where_ == HiddenCheck::kStage && point < last_point()) return false;
  CHECK_LE(point, last_point());
  next_ = point + 1;
  return true;
}

std::optional<Error> hidden_difference(const StagePlan& stage, HiddenCheck where, int64_t step,
                                       std::span<const uint64_t> all) {
  const size_t n_ranks = stage.ranks.size();
  const size_t n_points = all.size() / n_ranks;
  CHECK_EQ(n_points * n_ranks, all.size());
  if (std::equal(all.begin() + static_cast<int64_t>(n_points), all.end(), all.begin())) {
    return std::nullopt;  // each rank's are the one's before
  }
  for (size_t point = 0; point < n_points; ++point) {
    std::vector<uint64_t> values;
    for (size_t rank = 0; rank < n_ranks; ++rank) values.push_back(all[rank * n_points + point]);
    const uint64_t most = most_common(values);
    std::vector<int> odd;
    std::vector<int> others;
    for (size_t rank = 0; rank < n_ranks; ++rank) {
      (values[rank] == most ? others : odd).push_back(stage.ranks[rank]);
    }
    if (odd.empty()) continue;
    return Error(rank_list(odd) + (odd.size() == 1 ? " holds" : " hold") +
                     " another residual stream than " + rank_list(others),
                 "step " + std::to_string(step) + ", " +
                     point_text(stage, where, static_cast<int64_t>(point)),
                 where == HiddenCheck::kStage
                     ? "--check-hidden sums names the layer"
                     : "a sum over these ranks went wrong there: try another --comm, and tell us");
  }
  return std::nullopt;
}

void compare_hidden(Communicator& group, const StagePlan& stage, int64_t step, HiddenHashes& mine) {
  const std::span<const uint64_t> values = mine.values();
  const std::span<uint64_t> all = mine.all();
  group.all_gather(std::as_bytes(values), std::as_writable_bytes(all));
  const std::optional<Error> error = hidden_difference(stage, mine.where(), step, all);
  if (!error) return;
  if (group.rank() == 0) throw Error(*error);
  group.barrier();
}

}  // namespace spillway
