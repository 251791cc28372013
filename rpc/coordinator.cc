// See coordinator.h. One gRPC thread a rank reads its stream (Impl::Join); one thread of its own,
// the watch, keeps the times, makes the plan and calls the callbacks. The book is the Roster.
//   Locks: mutex_ for the book and the list of streams (an entry's cancel() only under it), never
//   held over a Write or a callback.
#include "rpc/coordinator.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "coordinator.grpc.pb.h"
#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/core/start_thread.h"
#include "rpc/address.h"
#include "rpc/listener.h"
#include "rpc/plan_wire.h"
#include "rpc/protocol.h"
#include "rpc/rank_stream.h"
#include "rpc/roster.h"
#include "rpc/secret.h"
#include "rpc/status_wire.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kTick{100};             // of the watch, when nothing wakes it earlier
constexpr milliseconds kOwnPause{1000};        // a tick this late: this process was stopped
constexpr milliseconds kHelloTimeout{2000};    // a stream that has not said Hello by then is ended
constexpr milliseconds kGoodbyeTimeout{300};   // for streams to end by themselves at destruction
constexpr milliseconds kShutdownTimeout{300};  // for what is left after that

struct Report {
  int rank = 0;
  std::string sentence;
  Clock::time_point due;
};

enum class Phase { kWaiting, kPlanning, kServing, kFailed };

}  // namespace

struct Coordinator::Impl final : public rpc::CoordinatorService::Service {
  Impl(CoordinatorOptions given, CoordinatorCallbacks called);
  ~Impl() override;

  // Called by gRPC, each in a thread of the server.
  grpc::Status Join(grpc::ServerContext* context, RankStream::Io* io) override;
  grpc::Status Status(grpc::ServerContext* context, const rpc::StatusRequest* request,
                      rpc::StatusReply* reply) override;

  void serve(RankStream& stream);
  std::string admit(RankStream& stream, const rpc::Hello& hello);
  bool await_plan(RankStream& stream);
  void follow(RankStream& stream, int rank);
  void on_stream_end(int rank);
  rpc::CoordinatorMessage alive() const;

  void watch();
  void end_strangers();
  void make_plan(std::unique_lock<std::mutex>& lock);
  void look_for_faults();
  void report_loading(std::unique_lock<std::mutex>& lock);
  void fail(const std::string& sentence, bool call_on_fault);
  void announce(std::unique_lock<std::mutex>& lock);
  JobStatus status_now();

  const CoordinatorOptions options;
  const CoordinatorCallbacks callbacks;
  const Clock::time_point started = Clock::now();
  HostPort address;  // bound

  std::mutex mutex_;
  std::condition_variable wake_watch_;
  std::condition_variable wake_streams_;
  bool woken_ = false;
  bool closing_ = false;
  Phase phase_ = Phase::kWaiting;
  Roster roster_;
  LinkSpec link_;
  std::vector<PairSpec> pairs_;
  Clock::time_point join_deadline_;
  std::vector<std::shared_ptr<RankStream>> streams_;
  std::unique_ptr<const rpc::CoordinatorMessage> assignment_;  // set once
  std::string plan_title_;
  double predicted_tok_per_s_ = 0;
  std::optional<Report> report_;
  std::string fault_;
  bool call_on_fault_ = false;
  bool announced_ = false;  // all streams know of the fault
  Roster::Loading shown_;   // the last that on_loading was given; the watch's own
  bool loading_over_ = false;

  std::unique_ptr<grpc::Server> server_;
  std::thread watch_;
};

Coordinator::Impl::Impl(CoordinatorOptions given, CoordinatorCallbacks called)
    : options(std::move(given)),
      callbacks(std::move(called)),
      roster_(options.n_ranks),
      join_deadline_(started + options.join_timeout) {
  CHECK(!options.secret.empty());
  CHECK(callbacks.make_plan != nullptr);
  server_ = listen_at(options.listen, options.n_ranks, this, &address);
  watch_ = start_thread("coordinator's watch", [this] { watch(); });
}

Coordinator::Impl::~Impl() {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    // Ranks that were told of a fault, or that leave, hang up by themselves: let them, since a
    // cancelled stream may lose its last message.
    if (phase_ == Phase::kFailed || roster_.all_left()) {
      wake_streams_.wait_for(lock, kGoodbyeTimeout, [this] { return streams_.empty(); });
    }
    closing_ = true;
    wake_watch_.notify_all();
    wake_streams_.notify_all();
    for (const std::shared_ptr<RankStream>& stream : streams_) stream->cancel();
  }
  server_->Shutdown(std::chrono::system_clock::now() + kShutdownTimeout);
  watch_.join();
}

// ---- streams ------------------------------------------------------------------------------------

grpc::Status Coordinator::Impl::Join(grpc::ServerContext* context, RankStream::Io* io) {
  const auto stream = std::make_shared<RankStream>(context, io);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closing_) return {grpc::StatusCode::UNAVAILABLE, "the coordinator ends"};
    streams_.push_back(stream);
  }
  serve(*stream);
  stream->close();
  std::lock_guard<std::mutex> lock(mutex_);
  std::erase(streams_, stream);
  wake_streams_.notify_all();
  return grpc::Status::OK;
}

void Coordinator::Impl::serve(RankStream& stream) {
  rpc::WorkerMessage message;
  if (!stream.read(&message) || !message.has_hello()) return;
  const std::string reason = admit(stream, message.hello());
  if (!reason.empty()) return stream.finish(reason);
  const int rank = message.hello().inventory().rank();
  if (await_plan(stream)) follow(stream, rank);
}

// Why this peer may not join; empty when it may.
std::string Coordinator::Impl::admit(RankStream& stream, const rpc::Hello& hello) {
  if (!secrets_equal(options.secret, hello.secret())) {
    return "the job's secret does not match: this rank belongs to another job";
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (phase_ == Phase::kFailed) return fault_;
  const Roster::Admission admission = roster_.admit(
      from_wire(hello.inventory()), hello.header_hash(), hello.protocol(), Clock::now());
  if (admission.fatal) fail(admission.reason, true);
  if (!admission.reason.empty()) return admission.reason;
  stream.rank = hello.inventory().rank();
  if (roster_.all_joined()) {
    woken_ = true;
    wake_watch_.notify_all();
  }
  return "";
}

rpc::CoordinatorMessage Coordinator::Impl::alive() const {
  rpc::CoordinatorMessage message;
  message.mutable_alive()->set_silence_timeout_ms(options.silence_timeout.count());
  return message;
}

// Waits until the plan is there and sends it. False: the stream is at its end.
bool Coordinator::Impl::await_plan(RankStream& stream) {
  auto next_alive = Clock::now();
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    wake_streams_.wait_for(lock, kTick,
                           [this] { return assignment_ != nullptr || announced_ || closing_; });
    if (closing_ || announced_) return false;
    if (assignment_ != nullptr) break;
    lock.unlock();
    if (stream.cancelled()) {
      on_stream_end(stream.rank);
      return false;
    }
    if (Clock::now() >= next_alive) {
      stream.send(alive());
      next_alive = Clock::now() + kAlivePeriod;
    }
    lock.lock();
  }
  lock.unlock();
  return stream.send(*assignment_);  // set once, never changed
}

void Coordinator::Impl::follow(RankStream& stream, int rank) {
  rpc::WorkerMessage message;
  while (stream.read(&message)) {
    if (message.has_heartbeat()) {
      {
        std::lock_guard<std::mutex> lock(mutex_);
        roster_.heartbeat(rank, from_wire(message.heartbeat()), Clock::now());
      }
      stream.send(alive());
    } else if (message.has_fault()) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!report_) {
        report_ = Report{rank, message.fault().sentence(), Clock::now() + options.report_grace};
      }
    } else if (message.has_leave()) {
      std::lock_guard<std::mutex> lock(mutex_);
      return roster_.leave(rank);
    }
  }
  on_stream_end(rank);
}

// The stream of an admitted rank ended without Leave.
void Coordinator::Impl::on_stream_end(int rank) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (closing_ || roster_.left(rank)) return;
  if (!report_) {
    fail(roster_.died(rank), true);
  } else if (report_->rank == rank) {
    fail(roster_.reported(rank, report_->sentence, Clock::now()), true);
  } else {  // the other rank's report is most likely an effect of this death
    fail(roster_.died(rank) + "; " +
             roster_.reported(report_->rank, report_->sentence, Clock::now()),
         true);
  }
}

grpc::Status Coordinator::Impl::Status(grpc::ServerContext* context,
                                       const rpc::StatusRequest* request, rpc::StatusReply* reply) {
  if (!peer_is_loopback(context->peer()) && !secrets_equal(options.secret, request->secret())) {
    return {grpc::StatusCode::PERMISSION_DENIED, "the secret does not match"};
  }
  to_wire(status_now(), reply);
  return grpc::Status::OK;
}

JobStatus Coordinator::Impl::status_now() {
  std::lock_guard<std::mutex> lock(mutex_);
  JobStatus status;
  status.model = options.model;
  status.plan_title = plan_title_;
  status.predicted_tok_per_s = predicted_tok_per_s_;
  status.uptime_s = std::chrono::duration<double>(Clock::now() - started).count();
  status.ranks = roster_.rows(Clock::now());
  switch (phase_) {
    case Phase::kWaiting:
      status.state = "waiting for ranks";
      break;
    case Phase::kPlanning:
      status.state = "planning";
      break;
    case Phase::kServing:
      status.state = roster_.serving_state();
      break;
    case Phase::kFailed:
      status.state = "failed: " + fault_;
      break;
  }
  return status;
}

// ---- the watch ----------------------------------------------------------------------------------

void Coordinator::Impl::watch() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!closing_) {
    const auto before = Clock::now();
    wake_watch_.wait_for(lock, kTick, [this] { return woken_ || closing_; });
    woken_ = false;
    if (closing_) return;
    const auto pause = Clock::now() - before - kTick;
    if (pause > kOwnPause) {
      roster_.forgive(pause);
      join_deadline_ += pause;
    }
    end_strangers();
    if (phase_ == Phase::kWaiting && roster_.all_joined()) make_plan(lock);
    look_for_faults();
    if (phase_ == Phase::kServing) report_loading(lock);
    if (phase_ == Phase::kFailed && !announced_) announce(lock);
  }
}

// Streams that do not say who they are would use up the server's threads.
void Coordinator::Impl::end_strangers() {
  const auto now = Clock::now();
  for (const std::shared_ptr<RankStream>& stream : streams_) {
    if (stream->rank < 0 && now - stream->opened > kHelloTimeout) stream->cancel();
  }
}

void Coordinator::Impl::make_plan(std::unique_lock<std::mutex>& lock) {
  phase_ = Phase::kPlanning;
  const ClusterSpec cluster = roster_.cluster(link_, pairs_);
  lock.unlock();
  auto message = std::make_unique<rpc::CoordinatorMessage>();
  std::string failure;
  Plan plan;
  std::string title;
  try {
    plan = callbacks.make_plan(cluster);
    title = plan_title(plan);
    rpc::Assignment* assignment = message->mutable_assignment();
    to_wire(plan, assignment->mutable_plan());
    to_wire(cluster, assignment->mutable_cluster());
    assignment->set_fingerprint(plan_fingerprint(plan));
  } catch (const std::bad_alloc&) {
    failure = "rank 0 has no memory for the plan (free memory on its host, or raise ulimit -v)";
  } catch (const std::exception& error) {
    failure = error.what();
    if (failure.empty()) failure = "no plan could be made";
  }
  lock.lock();
  if (phase_ != Phase::kPlanning) return;  // a rank died meanwhile
  if (!failure.empty()) return fail(failure, false);
  phase_ = Phase::kServing;
  plan_title_ = title;
  predicted_tok_per_s_ = plan.prediction.decode_tok_per_s;
  roster_.assign(plan, Clock::now());
  assignment_ = std::move(message);
  wake_streams_.notify_all();
}

void Coordinator::Impl::look_for_faults() {
  const auto now = Clock::now();
  if (phase_ == Phase::kWaiting && now >= join_deadline_) {
    fail(roster_.missing(options.join_timeout), true);
  } else if (phase_ == Phase::kServing) {
    if (report_ && now >= report_->due) {
      fail(roster_.reported(report_->rank, report_->sentence, now), true);
    } else if (const auto sentence = roster_.silent(now, options.silence_timeout)) {
      fail(*sentence, true);
    }
  }
}

void Coordinator::Impl::report_loading(std::unique_lock<std::mutex>& lock) {
  if (loading_over_ || callbacks.on_loading == nullptr) return;
  const Roster::Loading loading = roster_.loading();
  loading_over_ = loading.finished;
  const bool same =
      loading.done_bytes == shown_.done_bytes && loading.total_bytes == shown_.total_bytes;
  if (!loading.known || loading.total_bytes <= 0 || same) return;
  shown_ = loading;
  lock.unlock();
  callbacks.on_loading(loading.done_bytes, loading.total_bytes);
  lock.lock();
}

// Under mutex_. The first fault stays; the watch tells everybody.
void Coordinator::Impl::fail(const std::string& sentence, bool call_on_fault) {
  if (phase_ == Phase::kFailed) return;
  phase_ = Phase::kFailed;
  fault_ = sentence;
  call_on_fault_ = call_on_fault;
  woken_ = true;
  wake_watch_.notify_all();
}

void Coordinator::Impl::announce(std::unique_lock<std::mutex>& lock) {
  std::vector<std::shared_ptr<RankStream>> streams;
  for (const std::shared_ptr<RankStream>& stream : streams_) {
    if (stream->rank >= 0) streams.push_back(stream);
  }
  lock.unlock();
  for (const std::shared_ptr<RankStream>& stream : streams) stream->finish(fault_);
  lock.lock();
  announced_ = true;
  wake_streams_.notify_all();
  if (!call_on_fault_ || callbacks.on_fault == nullptr) return;
  lock.unlock();
  callbacks.on_fault(fault_);
  lock.lock();
}

// ---- the public face ----------------------------------------------------------------------------

Coordinator::Coordinator(CoordinatorOptions options, CoordinatorCallbacks callbacks)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(callbacks))) {}

Coordinator::~Coordinator() = default;

std::string Coordinator::address() const { return to_string(reachable(impl_->address)); }

void Coordinator::set_link(const LinkSpec& link, const std::vector<PairSpec>& pairs) {
  std::lock_guard<std::mutex> lock(impl_->mutex_);
  impl_->link_ = link;
  impl_->pairs_ = pairs;
}

JobStatus Coordinator::status() const { return impl_->status_now(); }

}  // namespace spillway
