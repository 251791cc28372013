// SharedMark: a word that all ranks of one host see without a message, so that a test can wait for
// what a rank has come to while that rank, or its own main thread, sits in a call of MPI. Used by
// the tests that run under mpirun.
//   Thread: set(), is_set() and wait() from any.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include "parallel/communicator.h"

namespace spillway::testing {

class SharedMark {
 public:
  // Collective over `world`. The file has lost its name when it returns.
  explicit SharedMark(Communicator& world) {
    std::array<char, 512> path{};
    int fd = -1;
    if (world.rank() == 0) {
      const std::string pattern = ::testing::TempDir() + "spillway_mark_XXXXXX";
      if (pattern.size() < path.size()) std::strcpy(path.data(), pattern.c_str());
      fd = ::mkstemp(path.data());
      if (fd < 0 || ::ftruncate(fd, sizeof(Word)) != 0) fail();
    }
    world.broadcast(std::as_writable_bytes(std::span(path)), 0);
    if (world.rank() != 0) fd = ::open(path.data(), O_RDWR | O_CLOEXEC);
    if (fd < 0) fail();
    void* memory = ::mmap(nullptr, sizeof(Word), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    if (memory == MAP_FAILED) fail();
    word_ = static_cast<Word*>(memory);
    world.barrier();
    if (world.rank() == 0) ::unlink(path.data());
  }
  ~SharedMark() { ::munmap(word_, sizeof(Word)); }
  SharedMark(const SharedMark&) = delete;
  SharedMark& operator=(const SharedMark&) = delete;

  void set() { word_->store(1); }
  bool is_set() const { return word_->load() != 0; }
  // False when nobody sets it within a minute, which no machine takes.
  bool wait() const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!is_set() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return is_set();
  }

 private:
  using Word = std::atomic<uint32_t>;
  static_assert(Word::is_always_lock_free);

  static void fail() { throw std::runtime_error("cannot share a word between the ranks"); }

  Word* word_ = nullptr;
};

}  // namespace spillway::testing
