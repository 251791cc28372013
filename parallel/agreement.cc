// See agreement.h.
#include "parallel/agreement.h"

#include <algorithm>
#include <array>

namespace spillway {

std::string first_obstacle(Communicator& group, const std::string& mine,
                           const std::vector<int>& ranks) {
  using Text = std::array<char, 512>;  // its last byte stays 0
  Text text{};
  std::copy_n(mine.begin(), std::min(mine.size(), text.size() - 1), text.begin());
  std::vector<Text> all(static_cast<size_t>(group.size()));
  group.all_gather(std::as_bytes(std::span(&text, 1)), std::as_writable_bytes(std::span(all)));
  for (size_t r = 0; r < all.size(); ++r) {
    if (all[r][0] == 0) continue;
    const std::string who =
        ranks.empty() ? std::to_string(r) + " of the group" : std::to_string(ranks[r]);
    return "rank " + who + ": " + all[r].data();
  }
  return "";
}

double greatest(Communicator& group, double mine) {
  std::vector<double> all(static_cast<size_t>(group.size()));
  group.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  return *std::max_element(all.begin(), all.end());
}

}  // namespace spillway
