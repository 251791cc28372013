// See mpi_communicator.h. All collectives are built from MPI_Isend and MPI_Irecv, for two reasons:
// a sum must be added in rank order, which MPI_Allreduce does not promise, and a receive that waits
// when the job is aborted can be cancelled, which a started MPI collective cannot.
//
// all_reduce, bytes that each of n ranks sends for a vector of b bytes:
//   direct   (n-1) b           one exchange: everybody sends everything to everybody, adds all
//   sliced   2 (n-1)/n b       two: each rank adds its slice of the vector, then sends it to all
// Direct has half the latency; it wins for n = 2 and for small vectors. Both give the same bits.
#include "parallel/mpi_communicator.h"

#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/core/int_math.h"
#include "parallel/abort_state.h"

namespace spillway {
namespace {

constexpr int kTagGroup = 1;  // collectives
constexpr int kTagPeer = 2;   // send and recv
// MPI counts are int: longer messages go in pieces.
constexpr int64_t kLargestMessage = int64_t{256} << 20;
// Up to this size the direct way is taken for any number of ranks: one exchange costs less than two
// while ranks wait for each other's time slices. Measured 2026-11-22 on 2 cores of a Zen 5 that
// also compiled, 3 ranks: 64 KiB direct 53 us, sliced 80 to 110 us; 4 ranks: about equal.
constexpr int64_t kDirectBytes = 64 << 10;
// Polls before the core is offered to others: ranks may outnumber the cores.
constexpr int kSpins = 50;
// An idle rank (no step for this long) sleeps between polls instead of burning its core.
constexpr std::chrono::milliseconds kIdleAfter{50};
constexpr std::chrono::microseconds kIdleNap{100};

void check_mpi(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Error(std::string("MPI: ") + what + ": " + std::string(text, length), "",
              "see what mpirun printed of the other ranks");
}

// Everything that a communicator and its children share. The staging buffer too: only the main
// thread communicates, one operation at a time.
struct Shared {
  explicit Shared(int64_t staging_doubles) : staging(static_cast<size_t>(staging_doubles)) {}
  AbortState abort;
  WaitState waiting;
  std::vector<double> staging;
};

class OpScope {
 public:
  OpScope(Shared& shared, CommOp op, int peer = -1) : shared_(shared) {
    shared_.abort.throw_if_raised();
    shared_.waiting.begin(op, peer);
  }
  ~OpScope() { shared_.waiting.end(); }
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  Shared& shared_;
};

// A message that nobody has waited for yet. MPI_Test makes the request null when it is through.
struct Post {
  MPI_Request request = MPI_REQUEST_NULL;
  int to = 0;
  int64_t ticket = 0;
};

class MpiCommunicator final : public Communicator {
 public:
  // Takes over `comm`.
  MpiCommunicator(MPI_Comm comm, std::shared_ptr<Shared> shared)
      : comm_(comm), shared_(std::move(shared)) {
    check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "error handler");
    check_mpi(MPI_Comm_rank(comm_, &rank_), "rank");
    check_mpi(MPI_Comm_size(comm_, &size_), "size");
    requests_.reserve(2 * static_cast<size_t>(size_));
    is_receive_.reserve(2 * static_cast<size_t>(size_));
    statuses_.resize(2 * static_cast<size_t>(size_));
    sources_.resize(static_cast<size_t>(size_));
    posts_.reserve(static_cast<size_t>(std::min<int64_t>(kMostPosts * size_, 4096)));
    find_job_ranks();
  }

  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    // After an abort requests may still be open on it; the process is about to end anyway.
    if (finalized == 0 && !shared_->abort.raised()) MPI_Comm_free(&comm_);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const char* kind() const override { return "mpi"; }
  bool healthy() const override { return !shared_->abort.raised(); }
  void abort(const std::string& reason) override { shared_->abort.raise(reason); }
  std::string waiting_for() const override { return shared_->waiting.text(); }
  void note_call(const std::string& call) override { shared_->waiting.call(call, job_ranks_); }
  void note_wait(int rank, bool sending) override {
    if (rank < 0) return shared_->waiting.end();
    shared_->waiting.begin(sending ? CommOp::kSend : CommOp::kRecv, job_ranks_[rank]);
  }

  void all_reduce(std::span<double> values) override {
    const OpScope scope(*shared_, CommOp::kAllReduce);
    if (size_ == 1) return;
    const auto staging = static_cast<int64_t>(shared_->staging.size());
    const auto n = static_cast<int64_t>(values.size());
    const int64_t direct_most = staging / size_;
    const int64_t direct =
        size_ == 2 ? direct_most : std::min<int64_t>(direct_most, kDirectBytes / 8);
    int64_t at = 0;
    if (n > direct && size_ > 2) {
      // A slice arrives from every rank: n slices of piece / n, rounded up, must fit.
      const int64_t sliced_most = std::max<int64_t>(size_, staging / size_ * size_);
      for (; at < n; at += sliced_most) {
        sum_sliced(values.subspan(at, std::min(sliced_most, n - at)));
      }
    }
    for (; at < n; at += direct_most) {
      sum_direct(values.subspan(at, std::min(direct_most, n - at)));
    }
  }

  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    const OpScope scope(*shared_, CommOp::kAllGather);
    CHECK_EQ(all.size(), mine.size() * static_cast<size_t>(size_));
    const size_t n = mine.size();
    std::byte* own = all.data() + n * static_cast<size_t>(rank_);
    if (n > 0 && own != mine.data()) std::memmove(own, mine.data(), n);
    for (size_t at = 0; at < n && size_ > 1; at += kLargestMessage) {
      const size_t bytes = std::min<size_t>(kLargestMessage, n - at);
      for (int r = 0; r < size_; ++r) {
        if (r != rank_) start_recv(all.data() + n * static_cast<size_t>(r) + at, bytes, r);
      }
      for (int i = 1; i < size_; ++i) start_send(own + at, bytes, (rank_ + i) % size_);
      wait();
    }
  }

  // Down a binomial tree: rank r, counted from the root, hears from r without its lowest bit.
  void broadcast(std::span<std::byte> bytes, int root) override {
    const OpScope scope(*shared_, CommOp::kBroadcast);
    CHECK(root >= 0 && root < size_);
    const int me = (rank_ - root + size_) % size_;
    for (size_t at = 0; at < bytes.size() && size_ > 1; at += kLargestMessage) {
      const size_t n = std::min<size_t>(kLargestMessage, bytes.size() - at);
      int bit = 1;
      while (bit < size_ && (me & bit) == 0) bit <<= 1;
      if (me != 0) {
        start_recv(bytes.data() + at, n, (me - bit + root) % size_);
        wait();
      }
      for (bit >>= 1; bit > 0; bit >>= 1) {
        if (me + bit < size_) start_send(bytes.data() + at, n, (me + bit + root) % size_);
      }
      wait();
    }
  }

  void send(std::span<const std::byte> bytes, int to) override {
    CHECK(to >= 0 && to < size_ && to != rank_);
    const OpScope scope(*shared_, CommOp::kSend, job_ranks_[to]);
    for (size_t at = 0; at < bytes.size(); at += kLargestMessage) {
      const size_t n = std::min<size_t>(kLargestMessage, bytes.size() - at);
      start_send(bytes.data() + at, n, to, kTagPeer);
      wait();
    }
  }

  void recv(std::span<std::byte> bytes, int from) override {
    CHECK(from >= 0 && from < size_ && from != rank_);
    const OpScope scope(*shared_, CommOp::kRecv, job_ranks_[from]);
    for (size_t at = 0; at < bytes.size(); at += kLargestMessage) {
      const size_t n = std::min<size_t>(kLargestMessage, bytes.size() - at);
      start_recv(bytes.data() + at, n, from, kTagPeer);
      wait();
      int got = 0;
      check_mpi(MPI_Get_count(&statuses_[0], MPI_BYTE, &got), "length of a message");
      if (static_cast<size_t>(got) == n) continue;
      throw Error("a message of " + std::to_string(got) + " bytes came where " + std::to_string(n) +
                      " were expected",
                  "from rank " + std::to_string(job_ranks_[from]),
                  "all ranks must run the same build of spillway");
    }
  }

  int64_t post(std::span<const std::byte> bytes, int to) override {
    CHECK(to >= 0 && to < size_ && to != rank_);
    shared_->abort.throw_if_raised();
    size_t at = 0;
    while (at < bytes.size()) {
      make_room_for_post(to);
      const size_t n = std::min<size_t>(kLargestMessage, bytes.size() - at);
      MPI_Request request = MPI_REQUEST_NULL;
      check_mpi(MPI_Isend(bytes.data() + at, static_cast<int>(n), MPI_BYTE, to, kTagPeer, comm_,
                          &request),
                "post");
      at += n;
      posts_.push_back({request, to, next_ticket_});
    }
    return next_ticket_++;
  }

  bool progress() override {
    shared_->abort.throw_if_raised();
    std::erase_if(posts_, [](Post& post) {
      int done = 0;
      check_mpi(MPI_Test(&post.request, &done, MPI_STATUS_IGNORE), "a post");
      return done != 0;
    });
    return !posts_.empty();
  }
  void finish(int64_t ticket) override {
    shared_->abort.throw_if_raised();
    CHECK(ticket >= 0 && ticket < next_ticket_);
    const auto mine = std::find_if(posts_.begin(), posts_.end(),
                                   [&](const Post& post) { return post.ticket == ticket; });
    if (mine != posts_.end()) finish_until(ticket, mine->to);
  }

  // Dissemination (Hensgen, Finkel, Manber 1988): after round k a rank knows of 2^k others.
  void barrier() override {
    const OpScope scope(*shared_, CommOp::kBarrier);
    std::byte in{};
    std::byte out{};
    for (int step = 1; step < size_; step *= 2) {
      start_recv(&in, 1, (rank_ - step + size_) % size_);
      start_send(&out, 1, (rank_ + step) % size_);
      wait();
    }
  }

  std::unique_ptr<Communicator> split(int color, int key) override {
    shared_->abort.throw_if_raised();
    MPI_Comm part = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split(comm_, color < 0 ? MPI_UNDEFINED : color, key, &part), "split");
    if (part == MPI_COMM_NULL) return nullptr;
    return std::make_unique<MpiCommunicator>(part, shared_);
  }

 private:
  // Peers are named by their rank in the job: a sub-group's own numbers say nothing to a person.
  void find_job_ranks() {
    std::vector<int> mine(static_cast<size_t>(size_));
    for (int r = 0; r < size_; ++r) mine[r] = r;
    job_ranks_.resize(mine.size());
    MPI_Group group = MPI_GROUP_NULL;
    MPI_Group world = MPI_GROUP_NULL;
    check_mpi(MPI_Comm_group(comm_, &group), "group");
    check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "group of the job");
    const int code = MPI_Group_translate_ranks(group, size_, mine.data(), world, job_ranks_.data());
    MPI_Group_free(&group);
    MPI_Group_free(&world);
    check_mpi(code, "ranks of a group");
  }

  void start_send(const void* data, size_t bytes, int to, int tag = kTagGroup) {
    CHECK_LT(requests_.size(), statuses_.size());
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, to, tag, comm_, &request), "send");
    requests_.push_back(request);
    is_receive_.push_back(false);
  }

  void start_recv(void* data, size_t bytes, int from, int tag = kTagGroup) {
    CHECK_LT(requests_.size(), statuses_.size());
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, from, tag, comm_, &request),
              "receive");
    requests_.push_back(request);
    is_receive_.push_back(true);
  }

  // Polls until done() says so, or throws what abort() said after calling give_up().
  template <typename Done, typename GiveUp>
  void poll(const Done& done, const GiveUp& give_up) {
    const auto start = std::chrono::steady_clock::now();
    bool idle = false;
    for (int64_t polls = 0; !done(); ++polls) {
      if (shared_->abort.raised()) [[unlikely]] {
        give_up();
        shared_->abort.throw_if_raised();
      }
      if (polls < kSpins) continue;
      if (polls % 64 == 0) idle = std::chrono::steady_clock::now() - start > kIdleAfter;
      if (idle) {
        std::this_thread::sleep_for(kIdleNap);
      } else {
        sched_yield();
      }
    }
  }

  // Until all started messages are through.
  void wait() {
    const auto through = [this] {
      int done = 0;
      const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                                   statuses_.data());
      if (code != MPI_SUCCESS) fail(code);
      return done != 0;
    };
    poll(through, [this] { cancel_receives(); });
    forget_requests();
  }

  // Until the posts to this rank up to this ticket are through; forgets them.
  void finish_until(int64_t ticket, int to) {
    const auto wanted = [&](const Post& post) { return post.to == to && post.ticket <= ticket; };
    const auto through = [&] {
      for (Post& post : posts_) {
        if (!wanted(post)) continue;
        int done = 0;
        check_mpi(MPI_Test(&post.request, &done, MPI_STATUS_IGNORE), "waiting for a post");
        if (done == 0) return false;
      }
      return true;
    };
    if (!through()) {
      const OpScope scope(*shared_, CommOp::kSend, job_ranks_[to]);
      poll(through, [] {});  // a send cannot be cancelled
    }
    std::erase_if(posts_, wanted);
  }

  void make_room_for_post(int to) {
    const auto same = [&](const Post& post) { return post.to == to; };
    if (std::count_if(posts_.begin(), posts_.end(), same) < kMostPosts) return;
    finish_until(std::find_if(posts_.begin(), posts_.end(), same)->ticket, to);
  }

  void forget_requests() {
    requests_.clear();
    is_receive_.clear();
  }

  // So that nothing is written to the caller's memory after it is gone. Sends cannot be cancelled
  // in Open MPI; they only read.
  void cancel_receives() {
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (!is_receive_[i] || requests_[i] == MPI_REQUEST_NULL) continue;
      MPI_Cancel(&requests_[i]);
      MPI_Request_free(&requests_[i]);
    }
    forget_requests();
  }

  [[noreturn]] void fail(int code) {
    for (size_t i = 0; code == MPI_ERR_IN_STATUS && i < requests_.size(); ++i) {
      const int error = statuses_[i].MPI_ERROR;
      if (error != MPI_SUCCESS && error != MPI_ERR_PENDING) code = error;
    }
    cancel_receives();
    check_mpi(code, "waiting for messages");
    throw Error("MPI: waiting for messages failed without a reason");
  }

  void add_sources(int64_t n, double* out) const {
    for (int64_t i = 0; i < n; ++i) {
      double sum = sources_[0][i];
      for (int r = 1; r < size_; ++r) sum += sources_[r][i];
      out[i] = sum;
    }
  }

  void sum_direct(std::span<double> values) {
    const auto n = static_cast<int64_t>(values.size());
    for (int r = 0; r < size_; ++r) {
      double* place = shared_->staging.data() + r * n;
      sources_[r] = r == rank_ ? values.data() : place;
      if (r != rank_) start_recv(place, values.size_bytes(), r);
    }
    for (int i = 1; i < size_; ++i) {
      start_send(values.data(), values.size_bytes(), (rank_ + i) % size_);
    }
    wait();
    add_sources(n, values.data());
  }

  void sum_sliced(std::span<double> values) {
    const auto n = static_cast<int64_t>(values.size());
    const auto slice = [&](int r) {
      const int64_t begin = n * r / size_;
      return values.subspan(begin, n * (r + 1) / size_ - begin);
    };
    const std::span<double> own = slice(rank_);
    const int64_t room = div_up(n, size_);
    for (int r = 0; r < size_; ++r) {
      double* place = shared_->staging.data() + r * room;
      sources_[r] = r == rank_ ? own.data() : place;
      if (r != rank_) start_recv(place, own.size_bytes(), r);
    }
    for (int i = 1; i < size_; ++i) {
      const int to = (rank_ + i) % size_;
      start_send(slice(to).data(), slice(to).size_bytes(), to);
    }
    wait();
    add_sources(static_cast<int64_t>(own.size()), own.data());
    for (int r = 0; r < size_; ++r) {
      if (r != rank_) start_recv(slice(r).data(), slice(r).size_bytes(), r);
    }
    for (int i = 1; i < size_; ++i) start_send(own.data(), own.size_bytes(), (rank_ + i) % size_);
    wait();
  }

  MPI_Comm comm_;
  std::shared_ptr<Shared> shared_;
  int rank_ = 0;
  int size_ = 1;
  std::vector<MPI_Request> requests_;
  std::vector<bool> is_receive_;  // of requests_
  std::vector<MPI_Status> statuses_;
  std::vector<const double*> sources_;
  std::vector<int> job_ranks_;
  std::vector<Post> posts_;  // open, in order
  int64_t next_ticket_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(int64_t staging_bytes) {
  int level = 0;
  int ranks = 0;
  check_mpi(MPI_Query_thread(&level), "thread level");
  CHECK_GE(level, MPI_THREAD_FUNNELED);
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "duplicate the job's communicator");
  check_mpi(MPI_Comm_size(comm, &ranks), "size");
  // At least a value from every rank.
  const int64_t doubles = std::max<int64_t>(ranks, staging_bytes / 8);
  return std::make_unique<MpiCommunicator>(comm, std::make_shared<Shared>(doubles));
}

}  // namespace spillway
