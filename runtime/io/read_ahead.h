// ReadAhead: pieces of a spill file in the order in which every step reads them, brought to memory
// before they are asked for. Piece i of a step always comes to slot i % slots.size(); the pieces of
// the next step follow those of this one without a pause.
//   Thread: wait() and release() by turns, from one thread at a time; stop() from any. Owns its
//   reading threads; after the constructor nothing allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/io/spill_file.h"

namespace spillway {

struct FilePiece {
  int64_t offset = 0;
  int64_t bytes = 0;
  std::string name;  // for errors: "layer 12 feed-forward"
};

// What becomes of a piece that lies whole in the page cache: it is copied to its slot like others,
// or given as it lies there (SpillFile::mapped), which costs nothing and leaves its slot as it is.
enum class InCache { kCopied, kMapped };

class ReadAhead {
 public:
  // Room that a slot needs for such a piece: the disk is read in whole pages around it.
  static constexpr int64_t slot_bytes(int64_t piece_bytes) {
    return (piece_bytes / SpillFile::kAlignment + 2) * SpillFile::kAlignment;
  }

  // file and the slots' memory must outlive it; every slot has slot_bytes() of the greatest piece
  // and begins at a multiple of SpillFile::kAlignment. Throws Error when the system has not so many
  // threads to give.
  ReadAhead(const SpillFile& file, std::vector<FilePiece> pieces, std::vector<std::byte*> slots,
            int n_threads, InCache in_cache = InCache::kCopied);
  ~ReadAhead();
  ReadAhead(ReadAhead&&) = delete;

  // Where a piece lies between wait() and release(), the same in every step, unless it is given as
  // it lies in the page cache.
  std::byte* at(size_t piece) const;
  // The next piece in order, once all of it is there: valid until release(). Throws Error when it
  // could not be read, or after stop(); nobody writes to the slots any more then.
  const std::byte* wait();
  // The piece that wait() gave is not needed any more; its slot may be filled again.
  void release();
  // Nothing is read any more; who waits for a piece that is not there gets an Error.
  void stop();

  int64_t bytes_read() const;  // since the start, with those that were given as they lie

 private:
  void stop_and_join();

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spillway
