// See rank_stream.h.
#include "rpc/rank_stream.h"

#include "coordinator.grpc.pb.h"

namespace spillway {
namespace {

constexpr std::chrono::milliseconds kStuck{200};

}  // namespace

bool RankStream::read(rpc::WorkerMessage* message) { return io_->Read(message); }

bool RankStream::send(const rpc::CoordinatorMessage& message) {
  std::lock_guard<std::timed_mutex> writing(writing_);
  if (finished_) return false;
  assigned_ = assigned_ || message.has_assignment();
  io_->Write(message);
  return true;
}

void RankStream::finish(const std::string& reason) {
  // The system's clock, not the steady one: thread sanitizers know only pthread_mutex_timedlock.
  std::unique_lock<std::timed_mutex> writing(writing_, std::chrono::system_clock::now() + kStuck);
  if (!writing.owns_lock() || finished_ || closed_) return;
  finished_ = true;
  rpc::CoordinatorMessage message;
  if (assigned_) {
    message.mutable_abort()->set_reason(reason);
  } else {
    message.mutable_reject()->set_reason(reason);
  }
  io_->Write(message);
}

void RankStream::close() {
  std::lock_guard<std::timed_mutex> writing(writing_);
  closed_ = true;
}

}  // namespace spillway
