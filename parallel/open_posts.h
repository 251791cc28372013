// OpenPosts: what was posted from one buffer, to one rank or to several. Whoever owns a buffer that
// it posts keeps one of these beside it and finishes it before the buffer is written again.
//   Thread: main.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "parallel/communicator.h"

namespace spillway {

class OpenPosts {
 public:
  // most: posts between two calls of finish(), so that post() allocates nothing.
  explicit OpenPosts(size_t most) { tickets_.reserve(most); }

  int64_t post(Communicator& group, std::span<const std::byte> bytes, int to) {
    tickets_.push_back(group.post(bytes, to));
    return tickets_.back();
  }
  // Waits until all have been received. Throws as Communicator::finish().
  void finish(Communicator& group) {
    for (const int64_t ticket : tickets_) group.finish(ticket);
    tickets_.clear();
  }

 private:
  std::vector<int64_t> tickets_;
};

}  // namespace spillway
