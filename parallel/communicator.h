// Communicator: a group of ranks that moves bytes. One contract for all fabrics: all ranks of a
// group call the same sequence of collectives with the same sizes. CPU fabrics work on host memory;
// they return when the data is there.
// post() is the one call that leaves something open.
//   Thread: collectives from the rank's main thread only; healthy() and abort() from any thread.
//   Errors: a peer that is gone, an abort() by anybody: throws Error from the call that waits.
//   Bits: all_reduce adds in rank order on every rank, so all ranks hold equal bits and two runs
//   agree.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace spillway {

class Communicator {
 public:
  // Posts that may be open to one rank. Steps in flight need three each, and there are as many as
  // pipeline stages.
  static constexpr int64_t kMostPosts = 256;

  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const char* kind() const = 0;  // "solo", "mpi"

  // values[i] = sum over ranks, added in rank order.
  virtual void all_reduce(std::span<double> values) = 0;
  // all = the ranks' `mine`, in rank order; all.size() == size() * mine.size().
  virtual void all_gather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  virtual void broadcast(std::span<std::byte> bytes, int root) = 0;
  virtual void send(std::span<const std::byte> bytes, int to) = 0;
  virtual void recv(std::span<std::byte> bytes, int from) = 0;
  // As send, in order with sends to that rank, but returns at once: the bytes must stay as they are
  // until finish(ticket). With kMostPosts open to `to` it waits for the oldest of them first.
  virtual int64_t post(std::span<const std::byte> bytes, int to) = 0;
  // Waits until this post, and all earlier ones to the same rank, have been received (or copied by
  // the fabric): nothing of them is read any more. A ticket may be finished again.
  virtual void finish(int64_t ticket) = 0;
  // Moves open posts along and returns at once: whether any is still open. Who waits for something
  // else than this communicator calls it meanwhile, since a long message goes piece by piece, and
  // what is waited for may need it.
  virtual bool progress() = 0;
  virtual void barrier() = 0;

  // A sub-group: ranks with the same colour, ordered by key. A negative colour takes part in the
  // call and gets nullptr. Collective over this group.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  virtual bool healthy() const = 0;
  // Makes every waiting and later call of this process, on this communicator and all split from it,
  // throw Error(reason).
  virtual void abort(const std::string& reason) = 0;

  // What this process waits for now, for the watchdog: "all-reduce 57"; "" when nothing.
  virtual std::string waiting_for() const = 0;
  // Main thread: it waits for what goes another way than over this communicator, for rows from
  // that rank or, `sending`, until that rank takes them; -1: not any more. waiting_for() says so.
  virtual void note_wait(int rank, bool sending) = 0;
  // Main thread: it is in a call of another library ("ncclCommInitRank") that waits for the ranks
  // of this group; "": not any more. It allocates: at start only.
  virtual void note_call(const std::string& call) = 0;
};

}  // namespace spillway
