// See peer_hop.h. The two ends of a link tell each other after every step of its making what is in
// the way, so that both use it or neither does.
#include "parallel/peer_hop.h"

#include <algorithm>
#include <array>
#include <exception>
#include <span>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "parallel/agreement.h"
#include "parallel/gpu_ledger.h"
#include "parallel/stream_patience.h"

namespace spillway {
namespace {

constexpr int64_t kLargeRows = 512;
constexpr size_t kGraphRuns = 5;
// Words in pinned memory, apart from each other.
constexpr int64_t kAbortAt = 0;
constexpr int64_t kWaitsAt = 128;

// The same of both: posts cannot stand in each other's way.
template <typename T>
T exchange(Communicator& world, int peer, const T& mine) {
  T theirs{};
  const int64_t ticket = world.post(std::as_bytes(std::span(&mine, 1)), peer);
  world.recv(std::as_writable_bytes(std::span(&theirs, 1)), peer);
  world.finish(ticket);
  return theirs;
}

uint32_t seed_of(int number) { return 77u + static_cast<uint32_t>(number); }

}  // namespace

struct PeerHops::Link {
  int peer = 0;
  bool sends = false;
  int index = 0;  // of the sender's tries: each has words of its own, whatever became of the last
};

PeerHops::PeerHops(Communicator& world, const cuda::Exec& exec, const cuda::Stream& stream,
                   const HopOptions& options)
    : world_(world),
      exec_(exec),
      stream_(stream),
      max_rows_(options.max_rows),
      dim_(options.dim),
      memory_("the slots of hops between stages",
              device_hop_bytes(options.has_slots, true, options.max_rows, options.dim)),
      host_("the words of hops between stages", device_hop_pinned_bytes(options.has_slots, true)),
      receives_from_(options.receives_from),
      wanted_receivers_(options.sends_to) {
  *host_word(kAbortAt) = 0;
  *host_word(kWaitsAt) = 0;
  const cuda::HopHost host{host_word(kAbortAt), host_word(kWaitsAt)};
  sender_.host = host;
  sender_.slot_floats = max_rows_ * dim_;
  receiver_.host = host;
  opened_.reserve(options.sends_to.size() + 1);
}

void PeerHops::connect(const std::vector<HopSeat>& seats, CommChoice choice, float* x) {
  x_ = x;
  const auto refused = [&](int from, int to) {
    if (dim_ % 4 != 0) return "rows of " + std::to_string(dim_) + " values, not a multiple of 4";
    return hop_obstacle(seats, from, to, choice);
  };
  const int me = world_.rank();
  if (receives_from_ >= 0 && refused(receives_from_, me).empty()) {
    receives_ = make({receives_from_, false, 0}, nullptr).empty();
  }
  int tries = 0;
  for (const int to : wanted_receivers_) {
    HopReport report{me, to, refused(me, to)};
    if (report.by_peer()) report.obstacle = make({to, true, tries++}, &report);
    if (report.by_peer()) receivers_.push_back(to);
    reports_.push_back(std::move(report));
  }
  cuda::fill_zero(stream_, x, max_rows_ * dim_ * 4);
}

// Memory goes only when nobody maps it any more.
PeerHops::~PeerHops() {
  opened_.clear();
  if (!world_.healthy() || std::uncaught_exceptions() > 0) return;
  (void)obstacle_of([&] {
    for (const int peer : peers_) exchange(world_, peer, int32_t{0});
  });
}

bool PeerHops::sends_to(int rank) const {
  return std::find(receivers_.begin(), receivers_.end(), rank) != receivers_.end();
}

void PeerHops::push(const cuda::Exec& exec, View2D<const float> x) const {
  cuda::hop_push(exec, sender_, x);
}

void PeerHops::take(const cuda::Exec& exec, View2D<float> x) const {
  cuda::hop_take(exec, receiver_, x);
}

int PeerHops::waits_for() const {
  const uint32_t word = __atomic_load_n(host_word(kWaitsAt), __ATOMIC_RELAXED);
  if (word == 0) return -1;
  if (word == cuda::kWaitsForRows) return receives_from_;
  const size_t link = word - cuda::kWaitsForSlot;
  return link < receivers_.size() ? receivers_[link] : -1;
}

// A plain word that kernels read through the bus; once links are made it only ever becomes 1.
void PeerHops::abort() { __atomic_store_n(host_word(kAbortAt), 1u, __ATOMIC_RELEASE); }

// On both ends: "", or what is in the way, in the sender's words if it has any.
std::string PeerHops::make(const Link& link, HopReport* report) {
  using Text = std::array<char, 256>;  // its last byte stays 0
  const auto agree = [&](const std::string& mine) {
    Text text{};
    std::copy_n(mine.begin(), std::min(mine.size(), text.size() - 1), text.begin());
    const std::string theirs = exchange(world_, link.peer, text).data();
    const std::string mine_cut = text.data();
    const std::string& first = link.sends ? mine_cut : theirs;
    return first.empty() ? (link.sends ? theirs : mine_cut) : first;
  };
  struct Hello {
    cuda::IpcHandle handle;
    int32_t index = 0;
  };
  Hello mine;
  mine.index = link.index;
  std::string found = obstacle_of([&] { mine.handle = cuda::ipc_handle(memory_); });
  if (link.sends && link.index >= cuda::kMostHopReceivers) {
    found = "it sends to more than " + std::to_string(cuda::kMostHopReceivers) + " ranks";
  }
  const Hello theirs = exchange(world_, link.peer, mine);
  found = agree(found);
  if (!found.empty()) return found;
  const Link known{link.peer, link.sends, link.sends ? link.index : theirs.index};
  found = agree(obstacle_of([&] { open(known, theirs.handle); }));
  if (found.empty()) found = agree(obstacle_of([&] { prove(known); }));
  if (found.empty()) found = agree(examine(known, report));
  if (!found.empty()) forget(known);
  return found;
}

void PeerHops::open(const Link& link, const cuda::IpcHandle& theirs) {
  opened_.emplace_back(theirs);
  peers_.push_back(link.peer);
  std::byte* other = opened_.back().data();
  if (link.sends) {
    sender_.to[sender_.n_links++] =
        cuda::hop_to(memory_.data(), other, link.index, max_rows_, dim_);
  } else {
    receiver_ = cuda::hop_from(memory_.data(), other, link.index, max_rows_, dim_, receiver_.host);
  }
}

// The other end does the same.
void PeerHops::forget(const Link& link) {
  if (peers_.empty() || peers_.back() != link.peer) return;  // it was never opened
  opened_.pop_back();
  peers_.pop_back();
  if (link.sends) --sender_.n_links;
}

// One side of a hop over this link alone, the last that was opened.
void PeerHops::hop(const Link& link, int64_t rows) const {
  const View2D<float> x(x_, rows, dim_);
  if (!link.sends) return take(exec_, x);
  cuda::HopSender alone = sender_;
  alone.to[0] = sender_.to[sender_.n_links - 1];
  alone.n_links = 1;
  cuda::hop_push(exec_, alone, View2D<const float>(x));
}

// Real hops with a pattern, in both slots, whole ones and of one row.
void PeerHops::prove(const Link& link) const {
  auto* n_wrong =
      reinterpret_cast<uint32_t*>(memory_.data() + cuda::hop_layout(false, max_rows_, dim_).spare);
  cuda::fill_zero(stream_, n_wrong, 4);
  int number = 0;
  for (const int64_t rows : {int64_t{1}, max_rows_, max_rows_, int64_t{1}, max_rows_}) {
    auto* words = reinterpret_cast<uint32_t*>(x_);
    if (link.sends) cuda::write_pattern(exec_, words, rows * dim_, seed_of(number));
    hop(link, rows);
    if (!link.sends) cuda::count_wrong(exec_, words, rows * dim_, seed_of(number), n_wrong);
    ++number;
  }
  wait();
  uint32_t wrong = 0;
  cuda::copy_to_host(stream_, &wrong, n_wrong, 4);
  stream_.synchronize();
  if (wrong == 0) return;
  throw Error(std::to_string(wrong) + " words that rank " + std::to_string(link.peer) +
              " wrote into this GPU's memory are wrong");
}

// How long hops take in a graph that is replayed.
std::string PeerHops::examine(const Link& link, HopReport* report) const {
  return obstacle_of([&] {
    const int64_t rows = std::min(max_rows_, kLargeRows);
    const double small_us = time(link, 1, 64);
    const double large_us = time(link, rows, 4);
    if (report == nullptr) return;
    report->small_us = small_us;
    report->large_rows = rows;
    report->gb_per_s = static_cast<double>(rows * dim_ * 4) / large_us * 1e-3;
  });
}

// us of a hop, the best of a few runs. They follow each other at once, so that the two ends are in
// step without a message, which one of them might not send any more.
double PeerHops::time(const Link& link, int64_t rows, int hops) const {
  const cuda::Graph graph = cuda::Graph::of(stream_, [&] {
    for (int i = 0; i < hops; ++i) hop(link, rows);
  });
  std::array<cuda::Event, kGraphRuns + 1> marks;
  marks[0].record(stream_);
  for (size_t run = 1; run < marks.size(); ++run) {
    graph.launch(stream_);
    marks[run].record(stream_);
  }
  wait();
  double best = 0;
  for (size_t run = 1; run < marks.size(); ++run) {
    const double us = marks[run].ms_since(marks[run - 1]) * 1e3 / hops;
    if (run == 1 || us < best) best = us;
  }
  return best;
}

void PeerHops::wait() const {
  const auto tell = [this](uint32_t told) {
    __atomic_store_n(host_word(kAbortAt), told, __ATOMIC_RELEASE);
  };
  if (!waits_in_vain(stream_, [&] { tell(1); })) return;
  tell(0);  // other links may be sound
  throw Error("a hop did not end in 10 s: what the GPUs write does not reach each other");
}

}  // namespace spillway
