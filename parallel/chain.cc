// See chain.h.
#include "parallel/chain.h"

#include <algorithm>
#include <array>

#include "kernels/core/check.h"
#include "parallel/spill.h"

namespace spillway {
namespace {

enum class Cause { kNone, kCpu, kBus, kDisk };

// The ways into one rank's device.
class Ways {
 public:
  // When the half's weights are there; 0: they always are.
  double arrival(const HalfWork& half, Cause& cause) {
    double at = 0;
    if (half.disk_ms > 0) {
      double& slot = disk_slots_[disk_halves_++ % disk_slots_.size()];
      disk_free_ = std::max(disk_free_, slot) + half.disk_ms;
      at = disk_free_;
      cause = Cause::kDisk;
      pending_disk_ = &slot;
    }
    if (half.bus_ms > 0) {
      const double slot = slots_[halves_ % slots_.size()];
      const double start = std::max(bus_free_, slot);
      if (at <= start) cause = Cause::kBus;
      bus_free_ = std::max(start, at) + half.bus_ms;
      at = bus_free_;
      if (pending_disk_ != nullptr) *pending_disk_ = at;
      pending_disk_ = nullptr;
    }
    return at;
  }

  // The half's product is done.
  void release(const HalfWork& half, double at) {
    if (half.bus_ms > 0) slots_[halves_++ % slots_.size()] = at;
    if (pending_disk_ != nullptr) *pending_disk_ = at;
    pending_disk_ = nullptr;
  }

 private:
  std::array<double, kStreamSlots> slots_{};
  std::array<double, kDiskSlots> disk_slots_{};
  size_t halves_ = 0;
  size_t disk_halves_ = 0;
  double bus_free_ = 0;
  double disk_free_ = 0;
  double* pending_disk_ = nullptr;
};

}  // namespace

ChainWaits chain_waits(const std::vector<std::vector<HalfWork>>& ranks,
                       const std::vector<double>& base_ms, double sum_ms) {
  ChainWaits waits;
  std::vector<Ways> ways(ranks.size());
  double now = 0;
  for (size_t h = 0; h < base_ms.size(); ++h) {
    double end = now + base_ms[h];
    const double alone = end;
    Cause cause = Cause::kNone;
    for (size_t r = 0; r < ranks.size(); ++r) {
      CHECK_EQ(ranks[r].size(), base_ms.size());
      const HalfWork& half = ranks[r][h];
      Cause late = Cause::kNone;
      const double done = std::max(now, ways[r].arrival(half, late)) + half.device_ms;
      ways[r].release(half, done);
      if (done > end && late != Cause::kNone) {
        end = done;
        cause = late;
      }
      if (half.cpu_ms > 0 && now + half.cpu_ms > end) {
        end = now + half.cpu_ms;
        cause = Cause::kCpu;
      }
    }
    const double waited = end - alone;
    if (cause == Cause::kCpu) waits.cpu_ms += waited;
    if (cause == Cause::kBus) waits.bus_ms += waited;
    if (cause == Cause::kDisk) waits.disk_ms += waited;
    now = end + sum_ms;
  }
  return waits;
}

}  // namespace spillway
