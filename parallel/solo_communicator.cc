// See solo_communicator.h.
#include "parallel/solo_communicator.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"
#include "parallel/abort_state.h"

namespace spillway {
namespace {

class SoloCommunicator final : public Communicator {
 public:
  explicit SoloCommunicator(std::shared_ptr<AbortState> abort) : abort_(std::move(abort)) {}

  int rank() const override { return 0; }
  int size() const override { return 1; }
  const char* kind() const override { return "solo"; }

  void all_reduce(std::span<double>) override { abort_->throw_if_raised(); }

  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    abort_->throw_if_raised();
    CHECK_EQ(all.size(), mine.size());
    if (!mine.empty() && mine.data() != all.data()) {
      std::copy(mine.begin(), mine.end(), all.begin());
    }
  }

  void broadcast(std::span<std::byte>, int root) override {
    abort_->throw_if_raised();
    CHECK_EQ(root, 0);
  }

  // There is nobody to send to: whoever calls this has a wrong idea of the plan.
  void send(std::span<const std::byte>, int to) override { refuse(to); }
  void recv(std::span<std::byte>, int from) override { refuse(from); }
  int64_t post(std::span<const std::byte>, int to) override { refuse(to); }
  void finish(int64_t ticket) override { CHECK_LT(ticket, 0); }  // no post, no ticket
  bool progress() override { return false; }

  void barrier() override { abort_->throw_if_raised(); }

  std::unique_ptr<Communicator> split(int color, int) override {
    abort_->throw_if_raised();
    if (color < 0) return nullptr;
    return std::make_unique<SoloCommunicator>(abort_);
  }

  bool healthy() const override { return !abort_->raised(); }
  void abort(const std::string& reason) override { abort_->raise(reason); }
  std::string waiting_for() const override { return ""; }
  void note_wait(int, bool) override {}
  void note_call(const std::string&) override {}

 private:
  [[noreturn]] static void refuse(int peer) {
    internal::check_failed(__FILE__, __LINE__, "a group of one has a peer",
                           "rank " + std::to_string(peer));
  }

  std::shared_ptr<AbortState> abort_;
};

}  // namespace

std::unique_ptr<Communicator> make_solo_communicator() {
  return std::make_unique<SoloCommunicator>(std::make_shared<AbortState>());
}

}  // namespace spillway
