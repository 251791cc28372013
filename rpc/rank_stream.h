// RankStream: the coordinator's end of one rank's stream: Writes from several threads in turn, and
// a last word that does not wait for a peer that no longer reads. Used by coordinator.cc only.
//   Thread: read() from the handler's thread; the others from any.
//   Invariants: nothing is written after the last word; context and io are not touched after
//   close(), which the handler calls before it returns (cancel() is the caller's to order).
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/sync_stream.h>

#include <chrono>
#include <mutex>
#include <string>

namespace spillway {

namespace rpc {  // generated from proto/coordinator.proto; complete in .cc files only
class CoordinatorMessage;
class WorkerMessage;
}  // namespace rpc

class RankStream {
 public:
  using Io = grpc::ServerReaderWriter<rpc::CoordinatorMessage, rpc::WorkerMessage>;

  RankStream(grpc::ServerContext* context, Io* io) : context_(context), io_(io) {}
  RankStream(const RankStream&) = delete;
  RankStream& operator=(const RankStream&) = delete;

  bool read(rpc::WorkerMessage* message);
  // False when the last word was said already. A broken stream shows at the next read().
  bool send(const rpc::CoordinatorMessage& message);
  // The last word: Reject before the assignment was sent, Abort after it. Gives up after 0.2 s when
  // another Write is stuck.
  void finish(const std::string& reason);
  void close();
  void cancel() { context_->TryCancel(); }
  bool cancelled() const { return context_->IsCancelled(); }

  // The coordinator's own, under its lock. -1: not admitted.
  int rank = -1;
  const std::chrono::steady_clock::time_point opened = std::chrono::steady_clock::now();

 private:
  grpc::ServerContext* const context_;
  Io* const io_;
  std::timed_mutex writing_;
  bool assigned_ = false;  // under writing_, as the two below
  bool finished_ = false;
  bool closed_ = false;
};

}  // namespace spillway
