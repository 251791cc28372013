// See worker_agent.h. Two threads: `listen` reads the stream, `beat` sends heartbeats and looks
// whether the coordinator still answers.
//   Locks: mutex_ for the state, never held over a Write or a callback; writing_ serialises Writes.
#include "rpc/worker_agent.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "coordinator.grpc.pb.h"
#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/core/start_thread.h"
#include "rpc/channel.h"
#include "rpc/plan_wire.h"
#include "rpc/protocol.h"
#include "rpc/status_wire.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kTick{100};            // heartbeats while loading; looks at the time
constexpr milliseconds kOwnPause{1000};       // a tick this late: this process was stopped
constexpr milliseconds kFirstSilence{5000};   // until the coordinator has said its own timeout
constexpr milliseconds kGoodbyeTimeout{500};  // for the answer to Leave
constexpr milliseconds kReportTimeout{1000};  // for the answer to Fault, at destruction
constexpr milliseconds kWriteTimeout{500};    // for a stream that another thread is writing to

std::string seconds_text(milliseconds duration) {
  const int64_t tenths = (duration.count() + 50) / 100;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " s";
}

bool loads(const std::string& state) {
  return state == "joining" || state == "waiting" || state == kReadsPrompt || state == "loading";
}

}  // namespace

struct WorkerAgent::Impl {
  Impl(WorkerOptions given, std::function<RankProgress()> asked,
       std::function<void(const std::string&)> called)
      : options(std::move(given)), progress(std::move(asked)), on_fault(std::move(called)) {}
  ~Impl();

  void open();
  Plan wait_for_plan();
  void listen();
  void take_assignment(const rpc::Assignment& assignment);
  void beat();
  bool write(const rpc::WorkerMessage& message);
  void end(const std::string& reason);
  bool coordinator_is_silent();
  std::string gone() const { return "rank 0 (coordinator) at " + options.coordinator + " is gone"; }

  const WorkerOptions options;
  const std::function<RankProgress()> progress;
  const std::function<void(const std::string&)> on_fault;

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<rpc::CoordinatorService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<rpc::WorkerMessage, rpc::CoordinatorMessage>> stream_;
  std::timed_mutex writing_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Plan> plan_;
  ClusterSpec cluster_;
  std::string end_reason_;  // why the stream is of no use any more; empty: it is
  bool joined_ = false;     // join() has returned the plan: from now on an end is a fault
  bool leaving_ = false;    // leave() or destruction: nothing is a fault any more
  bool reported_ = false;   // report_fault() has sent something
  bool over_ = false;       // the stream's last message was read
  Clock::time_point heard_;
  milliseconds silence_ = kFirstSilence;
  std::thread listen_;
  std::thread beat_;
};

WorkerAgent::Impl::~Impl() {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (reported_ && !leaving_) {  // cancelling now could lose the report: wait for its answer
      changed_.wait_for(lock, kReportTimeout, [this] { return over_ || !end_reason_.empty(); });
    }
    leaving_ = true;
    changed_.notify_all();
  }
  context_.TryCancel();
  if (beat_.joinable()) beat_.join();
  if (listen_.joinable()) listen_.join();
}

// Connects and introduces this rank.
void WorkerAgent::Impl::open() {
  const HostPort address = parse_host_port(options.coordinator, false);
  channel_ = open_channel(address);
  if (!wait_for_server(*channel_, options.connect_timeout)) {
    throw Error("no Spillway coordinator answers at " + options.coordinator + " within " +
                    seconds_text(options.connect_timeout),
                "rank " + std::to_string(options.inventory.rank),
                "is rank 0 running, and does the network between the hosts let this port through?");
  }
  stub_ = rpc::CoordinatorService::NewStub(channel_);
  stream_ = stub_->Join(&context_);
  rpc::WorkerMessage message;
  rpc::Hello* hello = message.mutable_hello();
  hello->set_protocol(kProtocol);
  hello->set_secret(options.secret);
  hello->set_header_hash(options.header_hash);
  to_wire(options.inventory, hello->mutable_inventory());
  heard_ = Clock::now();
  stream_->Write(message);  // a broken stream shows at the first Read
  listen_ = start_thread("coordinator's listener", [this] { listen(); });
}

Plan WorkerAgent::Impl::wait_for_plan() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!plan_ && end_reason_.empty()) {
    const auto before = Clock::now();
    changed_.wait_for(lock, kTick);
    const auto pause = Clock::now() - before - kTick;
    if (pause > kOwnPause) heard_ += pause;
    if (!plan_ && coordinator_is_silent()) end_reason_ = gone();
  }
  if (!end_reason_.empty()) {
    const std::string reason = end_reason_;
    leaving_ = true;
    lock.unlock();
    context_.TryCancel();
    throw Error(reason);
  }
  joined_ = true;
  return *plan_;
}

void WorkerAgent::Impl::listen() {
  rpc::CoordinatorMessage message;
  while (stream_->Read(&message)) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      heard_ = Clock::now();
    }
    if (message.has_alive()) {
      std::lock_guard<std::mutex> lock(mutex_);
      silence_ = milliseconds(std::max<int64_t>(message.alive().silence_timeout_ms(), 0));
    } else if (message.has_assignment()) {
      take_assignment(message.assignment());
    } else if (message.has_reject() || message.has_abort()) {
      end(message.has_reject() ? message.reject().reason() : message.abort().reason());
      context_.TryCancel();  // the coordinator may forget this stream
    }
  }
  const grpc::Status status = stream_->Finish();
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    end(options.coordinator + " answers, but is not a Spillway coordinator");
  } else {
    end(gone());
  }
  std::lock_guard<std::mutex> lock(mutex_);
  over_ = true;
  changed_.notify_all();
}

void WorkerAgent::Impl::take_assignment(const rpc::Assignment& assignment) {
  try {
    Plan plan = from_wire(assignment.plan());
    ClusterSpec cluster = from_wire(assignment.cluster());
    if (plan_fingerprint(plan) != assignment.fingerprint()) {
      throw Error("the plan reads differently on rank " + std::to_string(options.inventory.rank) +
                      " than at the coordinator",
                  "", "use the same build of spillway on all hosts");
    }
    std::lock_guard<std::mutex> lock(mutex_);
    plan_ = std::move(plan);
    cluster_ = std::move(cluster);
    changed_.notify_all();
  } catch (const Error& error) {
    end(error.what());
  }
}

// The stream is of no use any more. The first reason counts: join() throws it, later it is a
// fault.
void WorkerAgent::Impl::end(const std::string& reason) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!end_reason_.empty() || leaving_) return;
    end_reason_ = reason;
    changed_.notify_all();
    if (!joined_) return;
  }
  if (on_fault != nullptr) on_fault(reason);
}

// Under mutex_.
bool WorkerAgent::Impl::coordinator_is_silent() {
  return Clock::now() - heard_ > silence_ + kAliveSlack;
}

void WorkerAgent::Impl::beat() {
  auto next = Clock::now();
  std::unique_lock<std::mutex> lock(mutex_);
  while (!leaving_ && end_reason_.empty()) {
    if (Clock::now() >= next) {
      lock.unlock();
      const auto asked = Clock::now();
      const RankProgress now = progress ? progress() : RankProgress{};
      const auto answered = Clock::now();
      rpc::WorkerMessage message;
      to_wire(now, message.mutable_heartbeat());
      write(message);
      next = Clock::now() +
             (loads(now.state) ? std::min(kTick, options.heartbeat) : options.heartbeat);
      lock.lock();
      if (leaving_ || !end_reason_.empty()) break;
      heard_ += answered - asked;  // no heartbeat was sent, so none was answered
    }
    const auto before = Clock::now();
    const auto until = std::min(next, before + kTick);
    changed_.wait_until(lock, until);
    const auto pause = Clock::now() - before - kTick;
    if (pause > kOwnPause) heard_ += pause;
    if (!leaving_ && coordinator_is_silent()) {
      lock.unlock();
      end(gone());
      context_.TryCancel();
      return;
    }
  }
}

// False when the stream is broken, or jammed by a peer that does not read.
bool WorkerAgent::Impl::write(const rpc::WorkerMessage& message) {
  // The system's clock, not the steady one: thread sanitizers know only pthread_mutex_timedlock.
  std::unique_lock<std::timed_mutex> writing(writing_,
                                             std::chrono::system_clock::now() + kWriteTimeout);
  return writing.owns_lock() && stream_->Write(message);
}

WorkerAgent::WorkerAgent(WorkerOptions options, std::function<RankProgress()> progress,
                         std::function<void(const std::string&)> on_fault)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(progress), std::move(on_fault))) {
  // Here, so that all ranks know of it before the coordinator waits for one that cannot join.
  keep_grpc_up();
  check_threads("connection to the coordinator", 2);  // impl_->listen_ and beat_
}

WorkerAgent::~WorkerAgent() = default;

Plan WorkerAgent::join() {
  CHECK(impl_->stream_ == nullptr);  // once
  impl_->open();
  Plan plan = impl_->wait_for_plan();
  Impl* impl = impl_.get();
  impl_->beat_ = start_thread("heartbeats", [impl] { impl->beat(); });
  return plan;
}

const ClusterSpec& WorkerAgent::cluster() const { return impl_->cluster_; }

bool WorkerAgent::report_fault(const std::string& sentence) {
  {
    std::lock_guard<std::mutex> lock(impl_->mutex_);
    if (!impl_->joined_ || impl_->leaving_ || !impl_->end_reason_.empty()) return false;
  }
  rpc::WorkerMessage message;
  message.mutable_fault()->set_sentence(sentence);
  if (!impl_->write(message)) return false;
  std::lock_guard<std::mutex> lock(impl_->mutex_);
  impl_->reported_ = true;
  return true;
}

void WorkerAgent::leave() {
  std::unique_lock<std::mutex> lock(impl_->mutex_);
  if (!impl_->joined_ || impl_->leaving_) return;
  const bool ended = !impl_->end_reason_.empty();
  impl_->leaving_ = true;
  impl_->changed_.notify_all();
  if (ended) return;  // nobody listens any more
  lock.unlock();
  rpc::WorkerMessage message;
  message.mutable_leave();
  impl_->write(message);
  lock.lock();
  impl_->changed_.wait_for(lock, kGoodbyeTimeout, [this] { return impl_->over_; });
}

}  // namespace spillway
