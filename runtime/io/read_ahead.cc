// See read_ahead.h. Pieces have running numbers over all steps; number k is piece k % n. Threads
// take the chunks of the lowest number whose slot is free, in order, so that a piece is complete as
// early as it can be. A piece that is given as it lies in the page cache has a slot's turn all the
// same: its slot stays as it is.
#include "runtime/io/read_ahead.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/core/int_math.h"
#include "kernels/core/start_thread.h"
#include "parallel/disk_rate.h"

namespace spillway {

struct ReadAhead::State {
  struct Chunk {
    int64_t number = 0;
    int64_t begin = 0;
    int64_t bytes = 0;
  };

  const SpillFile& file;
  std::vector<FilePiece> pieces;
  std::vector<std::byte*> slots;
  const bool gives_mapped;

  std::mutex mutex;
  std::condition_variable changed;
  bool stop = false;
  std::optional<Error> failed;  // of the first chunk, in their order, that could not be read
  Chunk failed_at;
  bool asking = false;                   // a thread asks whether piece `taken` is in the page cache
  int64_t reading = 0;                   // chunks that threads have taken and not yet read
  int64_t taken = 0;                     // the number whose chunks are given out
  int64_t next = 0;                      // its next chunk's first byte
  int64_t waited = 0;                    // numbers that wait() has given out
  int64_t released = 0;                  // and that were released
  std::vector<int64_t> left;             // by slot: bytes that are still to come
  std::vector<int64_t> holds;            // by slot: the number that it is being filled with
  std::vector<const std::byte*> places;  // by slot: where that piece lies, in it or mapped
  std::atomic<int64_t> bytes{0};
  std::vector<std::thread> threads;

  State(const SpillFile& file_in, std::vector<FilePiece> pieces_in,
        std::vector<std::byte*> slots_in, InCache in_cache)
      : file(file_in),
        pieces(std::move(pieces_in)),
        slots(std::move(slots_in)),
        gives_mapped(in_cache == InCache::kMapped && !file_in.mapped().empty()) {
    left.assign(slots.size(), 0);
    holds.assign(slots.size(), -1);
    places.assign(slots.size(), nullptr);
  }

  int64_t n() const { return static_cast<int64_t>(pieces.size()); }
  const FilePiece& piece(int64_t number) const { return pieces[static_cast<size_t>(number % n())]; }
  size_t slot_of(int64_t number) const { return static_cast<size_t>(number % n()) % slots.size(); }

  // Numbers before this one must be released before the slot of `number` is filled: the last one
  // before it that had the slot, and itself.
  int64_t needs_released(int64_t number) const {
    const int64_t index = number % n();
    const auto n_slots = static_cast<int64_t>(slots.size());
    if (index >= n_slots) return number - n_slots + 1;
    if (number < n()) return 0;
    const int64_t last = index + (n() - 1 - index) / n_slots * n_slots;
    return number - index - n() + last + 1;
  }

  // The whole pages around a piece.
  static Range pages_of(const FilePiece& piece) {
    return {piece.offset / SpillFile::kAlignment * SpillFile::kAlignment,
            round_up(piece.offset + piece.bytes, SpillFile::kAlignment)};
  }

  // Number `taken` comes to its slot's turn.
  void hold(int64_t missing, const std::byte* place) {
    const size_t slot = slot_of(taken);
    left[slot] = missing;
    holds[slot] = taken;
    places[slot] = place;
  }

  // Gives number `taken` as it lies in the page cache, if all of it does. Asks without the lock: it
  // takes up to a millisecond, in which nobody else takes anything.
  bool give_mapped(std::unique_lock<std::mutex>& lock) {
    if (!gives_mapped) return false;
    const FilePiece& wanted = piece(taken);
    asking = true;
    lock.unlock();
    const bool there = file.cached(wanted.offset, wanted.bytes);
    lock.lock();
    asking = false;
    changed.notify_all();
    if (!there) return false;
    hold(0, file.mapped().data() + wanted.offset);
    bytes += wanted.bytes;
    ++taken;
    return true;
  }

  // Blocks until there is something to read; none: the end.
  std::optional<Chunk> take() {
    std::unique_lock<std::mutex> lock(mutex);
    do {
      changed.wait(lock, [this] {
        return stop || failed.has_value() ||
               (!asking && (next > 0 || released >= needs_released(taken)));
      });
    } while (!stop && !failed.has_value() && next == 0 && give_mapped(lock));
    if (stop || failed.has_value()) return {};
    const Range pages = pages_of(piece(taken));
    const int64_t all = pages.size();
    if (next == 0) hold(all, slots[slot_of(taken)] + (piece(taken).offset - pages.begin));
    const Chunk chunk{taken, next, std::min(kDiskChunkBytes, all - next)};
    next += chunk.bytes;
    ++reading;
    if (next >= all) {
      ++taken;
      next = 0;
      changed.notify_all();
    }
    return chunk;
  }

  void read(const Chunk& chunk) {
    std::byte* to = slots[slot_of(chunk.number)] + chunk.begin;
    file.read(pages_of(piece(chunk.number)).begin + chunk.begin,
              {to, static_cast<size_t>(chunk.bytes)});
    bytes += chunk.bytes;
    const std::lock_guard<std::mutex> lock(mutex);
    --reading;
    int64_t& missing = left[slot_of(chunk.number)];
    missing -= chunk.bytes;
    if (missing == 0 || failed || stop) changed.notify_all();
  }

  // Chunks are given out in order and none after a failure, so once no thread reads any more the
  // first failure of all is known, whichever thread came first.
  void fail(const Chunk& chunk, const Error& error) {
    const std::lock_guard<std::mutex> lock(mutex);
    --reading;
    if (!failed ||
        std::tie(chunk.number, chunk.begin) < std::tie(failed_at.number, failed_at.begin)) {
      failed.emplace(error.message(), error.where() + ", " + piece(chunk.number).name,
                     error.todo());
      failed_at = chunk;
    }
    changed.notify_all();
  }

  void work() {
    while (const std::optional<Chunk> chunk = take()) {
      try {
        read(*chunk);
      } catch (const Error& error) {
        fail(*chunk, error);
      }
    }
  }
};

ReadAhead::ReadAhead(const SpillFile& file, std::vector<FilePiece> pieces,
                     std::vector<std::byte*> slots, int n_threads, InCache in_cache)
    : state_(std::make_unique<State>(file, std::move(pieces), std::move(slots), in_cache)) {
  CHECK(!state_->pieces.empty() && !state_->slots.empty());
  for (const FilePiece& piece : state_->pieces) {
    CHECK_GE(piece.offset, 0);
    CHECK_GT(piece.bytes, 0);
  }
  try {
    start_threads(
        "readers of the spill file", n_threads, [state = state_.get()](int) { state->work(); },
        state_->threads);
  } catch (...) {
    stop_and_join();
    throw;
  }
}

ReadAhead::~ReadAhead() { stop_and_join(); }

void ReadAhead::stop_and_join() {
  stop();
  for (std::thread& thread : state_->threads) thread.join();
}

std::byte* ReadAhead::at(size_t piece) const {
  const State& s = *state_;
  const FilePiece& p = s.pieces[piece];
  return s.slots[piece % s.slots.size()] + (p.offset - State::pages_of(p).begin);
}

void ReadAhead::stop() {
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stop = true;
  }
  state_->changed.notify_all();
}

const std::byte* ReadAhead::wait() {
  State& s = *state_;
  std::unique_lock<std::mutex> lock(s.mutex);
  CHECK_EQ(s.waited, s.released);
  const size_t slot = s.slot_of(s.waited);
  const auto complete = [&] { return s.holds[slot] == s.waited && s.left[slot] == 0; };
  s.changed.wait(
      lock, [&] { return complete() || ((s.failed.has_value() || s.stop) && s.reading == 0); });
  if (!complete() && s.failed.has_value()) throw Error(*s.failed);
  if (!complete()) throw Error("the spill file is not read any more", s.piece(s.waited).name, "");
  ++s.waited;
  return s.places[slot];
}

void ReadAhead::release() {
  State& s = *state_;
  const std::lock_guard<std::mutex> lock(s.mutex);
  CHECK_EQ(s.waited, s.released + 1);
  ++s.released;
  s.changed.notify_all();
}

int64_t ReadAhead::bytes_read() const { return state_->bytes.load(); }

}  // namespace spillway
