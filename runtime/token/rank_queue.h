// RankQueue: which neighbours of a long word to merge next, the lowest rank first and of equal
// ranks the leftmost. Called by Bpe and Spm. Positions wait in a chain for each rank and are sorted
// when its turn comes, which needs no heap of a million entries: 4 times faster than one on a word
// of 1 MB. In a sound vocabulary a merge only makes pairs of higher ranks; pairs of lower ones,
// which a strange vocabulary may bring, go through a heap, so that no vocabulary costs quadratic
// time. Owned by one encode(), used by its thread; empty again when pop() has said so.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <queue>
#include <tuple>
#include <utility>
#include <vector>

namespace spillway {

class RankQueue {
 public:
  // Ranks are below n_ranks. To be called before the first push.
  void reserve(uint32_t n_ranks) {
    if (heads_.size() < n_ranks) heads_.resize(n_ranks, -1);
  }

  void push(uint32_t rank, int32_t position) {
    if (open_ && rank <= rank_) {
      early_.push({rank, position});
      return;
    }
    if (heads_[rank] < 0) ranks_.push(rank);
    waiting_.push_back({position, heads_[rank]});
    heads_[rank] = static_cast<int32_t>(waiting_.size()) - 1;
  }

  // False when nothing is left.
  bool pop(uint32_t& rank, int32_t& position) {
    if (at_ == current_.size() && early_.empty() && !advance()) return false;
    const bool early = !early_.empty() &&
                       (at_ == current_.size() || early_.top() < std::pair(rank_, current_[at_]));
    if (early) {
      std::tie(rank, position) = early_.top();
      early_.pop();
    } else {
      rank = rank_;
      position = current_[at_++];
    }
    return true;
  }

 private:
  struct Waiting {
    int32_t position;
    int32_t next;  // in waiting_, -1 at the end
  };

  // To the next rank that has positions.
  bool advance() {
    current_.clear();
    at_ = 0;
    open_ = !ranks_.empty();
    if (!open_) {
      waiting_.clear();
      return false;
    }
    rank_ = ranks_.top();
    ranks_.pop();
    for (int32_t i = heads_[rank_]; i >= 0; i = waiting_[i].next) {
      current_.push_back(waiting_[i].position);
    }
    heads_[rank_] = -1;
    std::reverse(current_.begin(), current_.end());
    if (!std::is_sorted(current_.begin(), current_.end())) {
      std::sort(current_.begin(), current_.end());
    }
    return true;
  }

  using Early = std::pair<uint32_t, int32_t>;
  std::vector<int32_t> heads_;  // by rank, into waiting_; -1: none
  std::vector<Waiting> waiting_;
  std::priority_queue<uint32_t, std::vector<uint32_t>, std::greater<>> ranks_;
  std::priority_queue<Early, std::vector<Early>, std::greater<>> early_;
  std::vector<int32_t> current_;  // positions of rank_, sorted; those before at_ are done
  size_t at_ = 0;
  uint32_t rank_ = 0;
  bool open_ = false;  // rank_ has begun
};

}  // namespace spillway
