// ThreadCommunicator: the ranks of a job as threads of one process, a fake of Communicator for
// tests. send() and finish() wait until the message was received, as a large MPI message may, so an
// order of sends that could lock up a job locks up (and is ended by the test's limit) here too.
// Calls that do not match over the ranks (sizes, kinds) throw std::logic_error instead of moving
// bytes, and so does finish() of bytes that have changed since their post().
//   Thread: one rank a thread; abort() and healthy() from any.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/communicator.h"

namespace spillway::testing {

// What all groups of one job share: the lock, and whether somebody gave up.
struct ThreadHub {
  std::mutex mutex;
  std::condition_variable changed;
  bool aborted = false;
  std::string reason;

  void abort(const std::string& why) {
    const std::lock_guard lock(mutex);
    if (!aborted) reason = why;
    aborted = true;
    changed.notify_all();
  }
  template <typename Ready>
  void wait(std::unique_lock<std::mutex>& lock, Ready&& ready) {
    changed.wait(lock, [&] { return aborted || ready(); });
    if (aborted) throw Error(reason);
  }
};

// What the ranks of one group share. Fields are guarded by the hub's mutex; the bytes behind
// `posted`, and the posts themselves, stay as they are between the two waits of a call.
struct ThreadGroup {
  struct Post {
    std::string call;  // name and size: equal on all ranks
    const void* data = nullptr;
    int color = 0;
    int key = 0;
  };
  struct Letter {
    std::vector<std::byte> bytes;
    int64_t ticket = 0;  // the sender's
  };
  explicit ThreadGroup(int n) : size(n), posted(static_cast<size_t>(n)) {}

  int size;
  int arrived = 0;
  uint64_t generation = 0;
  std::vector<Post> posted;
  std::map<std::pair<int, int>, std::deque<Letter>> letters;  // (from, to): under way, in order
  std::map<std::pair<uint64_t, int>, std::shared_ptr<ThreadGroup>> made;  // by split() and colour
};

class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadHub> hub, std::shared_ptr<ThreadGroup> group, int rank)
      : hub_(std::move(hub)), group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return group_->size; }
  const char* kind() const override { return "threads"; }

  void all_reduce(std::span<double> values) override {
    meet({"all_reduce " + std::to_string(values.size()), values.data(), 0, 0});
    std::vector<double> sum(values.size(), 0.0);
    for (int r = 0; r < size(); ++r) {
      const auto* theirs = static_cast<const double*>(posted(r));
      for (size_t i = 0; i < sum.size(); ++i) sum[i] = r == 0 ? theirs[i] : sum[i] + theirs[i];
    }
    leave();
    std::copy(sum.begin(), sum.end(), values.begin());
  }
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    if (all.size() != mine.size() * static_cast<size_t>(size())) misuse("all_gather sizes");
    meet({"all_gather " + std::to_string(mine.size()), mine.data(), 0, 0});
    for (int r = 0; r < size() && !mine.empty(); ++r) {
      std::memcpy(all.data() + mine.size() * static_cast<size_t>(r), posted(r), mine.size());
    }
    leave();
  }
  void broadcast(std::span<std::byte> bytes, int root) override {
    meet({"broadcast " + std::to_string(bytes.size()) + " from " + std::to_string(root),
          bytes.data(), 0, 0});
    if (rank_ != root && !bytes.empty()) std::memcpy(bytes.data(), posted(root), bytes.size());
    leave();
  }
  void send(std::span<const std::byte> bytes, int to) override { finish(post(bytes, to)); }
  int64_t post(std::span<const std::byte> bytes, int to) override {
    if (to == rank_ || to < 0 || to >= size()) misuse("send to rank " + std::to_string(to));
    const auto same = [&](const Post& post) { return post.to == to; };
    if (std::count_if(open_.begin(), open_.end(), same) >= kMostPosts) {
      finish(std::find_if(open_.begin(), open_.end(), same)->ticket);
    }
    std::unique_lock lock(hub_->mutex);
    if (hub_->aborted) throw Error(hub_->reason);
    const int64_t ticket = next_ticket_++;
    open_.push_back({ticket, to, bytes, {bytes.begin(), bytes.end()}});
    group_->letters[{rank_, to}].push_back({{bytes.begin(), bytes.end()}, ticket});
    hub_->changed.notify_all();
    return ticket;
  }
  bool progress() override {
    const std::unique_lock lock(hub_->mutex);
    if (hub_->aborted) throw Error(hub_->reason);
    return std::any_of(open_.begin(), open_.end(), [&](const Post& post) {
      const auto& letters = group_->letters[{rank_, post.to}];
      return !letters.empty() && letters.front().ticket <= post.ticket;
    });
  }
  void finish(int64_t ticket) override {
    const auto mine = std::find_if(open_.begin(), open_.end(),
                                   [&](const Post& post) { return post.ticket == ticket; });
    if (mine == open_.end()) return;
    const int to = mine->to;
    {
      std::unique_lock lock(hub_->mutex);
      const auto& letters = group_->letters[{rank_, to}];
      hub_->wait(lock, [&] { return letters.empty() || letters.front().ticket > ticket; });
    }
    const auto done = [&](const Post& post) { return post.to == to && post.ticket <= ticket; };
    for (const Post& post : open_) {
      if (!done(post) || std::equal(post.copy.begin(), post.copy.end(), post.bytes.begin()))
        continue;
      misuse("bytes of an open post to rank " + std::to_string(to) + " were changed");
    }
    std::erase_if(open_, done);
  }
  void recv(std::span<std::byte> bytes, int from) override {
    if (from == rank_ || from < 0 || from >= size()) misuse("recv from " + std::to_string(from));
    std::unique_lock lock(hub_->mutex);
    auto& letters = group_->letters[{from, rank_}];
    hub_->wait(lock, [&] { return !letters.empty(); });
    const ThreadGroup::Letter letter = std::move(letters.front());
    letters.pop_front();
    hub_->changed.notify_all();
    if (letter.bytes.size() != bytes.size()) {
      lock.unlock();
      misuse("recv of " + std::to_string(bytes.size()) + " bytes, sent were " +
             std::to_string(letter.bytes.size()));
    }
    std::copy(letter.bytes.begin(), letter.bytes.end(), bytes.begin());
  }
  void barrier() override {
    meet({"barrier", nullptr, 0, 0});
    leave();
  }

  std::unique_ptr<Communicator> split(int color, int key) override {
    meet({"split", nullptr, color, key});
    std::vector<std::pair<int, int>> members;  // key, rank
    for (int r = 0; r < size(); ++r) {
      const ThreadGroup::Post& post = group_->posted[static_cast<size_t>(r)];
      if (post.color == color) members.emplace_back(post.key, r);
    }
    std::sort(members.begin(), members.end());
    std::shared_ptr<ThreadGroup> made;
    if (color >= 0) {
      const std::lock_guard lock(hub_->mutex);
      auto& slot = group_->made[{group_->generation, color}];
      if (slot == nullptr) slot = std::make_shared<ThreadGroup>(static_cast<int>(members.size()));
      made = slot;
    }
    leave();
    if (color < 0) return nullptr;
    const auto mine = std::find(members.begin(), members.end(), std::pair{key, rank_});
    return std::make_unique<ThreadCommunicator>(hub_, made,
                                                static_cast<int>(mine - members.begin()));
  }

  bool healthy() const override {
    const std::lock_guard lock(hub_->mutex);
    return !hub_->aborted;
  }
  void abort(const std::string& reason) override { hub_->abort(reason); }
  std::string waiting_for() const override { return ""; }
  void note_wait(int, bool) override {}
  void note_call(const std::string&) override {}

 private:
  // Sent and not finished yet.
  struct Post {
    int64_t ticket = 0;
    int to = 0;
    std::span<const std::byte> bytes;
    std::vector<std::byte> copy;
  };

  [[noreturn]] void misuse(const std::string& what) {
    hub_->abort("a call that the other ranks do not make: " + what);
    throw std::logic_error("rank " + std::to_string(rank_) + ": " + what);
  }
  const void* posted(int r) const { return group_->posted[static_cast<size_t>(r)].data; }

  // Posts and waits for all; throws when the ranks are not in the same call.
  void meet(ThreadGroup::Post post) {
    const std::string call = post.call;
    std::unique_lock lock(hub_->mutex);
    group_->posted[static_cast<size_t>(rank_)] = std::move(post);
    wait_for_all(lock);
    for (const ThreadGroup::Post& other : group_->posted) {
      if (other.call == call) continue;
      const std::string what = call + " beside " + other.call;
      lock.unlock();
      misuse(what);
    }
  }
  // Ends a call: nobody reads what is posted any more.
  void leave() {
    std::unique_lock lock(hub_->mutex);
    wait_for_all(lock);
  }
  void wait_for_all(std::unique_lock<std::mutex>& lock) {
    if (hub_->aborted) throw Error(hub_->reason);
    const uint64_t mine = group_->generation;
    if (++group_->arrived == group_->size) {
      group_->arrived = 0;
      ++group_->generation;
      hub_->changed.notify_all();
    } else {
      hub_->wait(lock, [&] { return group_->generation != mine; });
    }
  }

  std::shared_ptr<ThreadHub> hub_;
  std::shared_ptr<ThreadGroup> group_;
  int rank_;
  std::vector<Post> open_;
  int64_t next_ticket_ = 0;
};

// Runs body(communicator) on n threads and waits for all. What a rank throws aborts the others;
// the result holds what each rank threw (nullptr: nothing).
inline std::vector<std::exception_ptr> run_ranks_catching(
    int n, const std::function<void(std::unique_ptr<Communicator>)>& body) {
  auto hub = std::make_shared<ThreadHub>();
  auto group = std::make_shared<ThreadGroup>(n);
  std::vector<std::exception_ptr> thrown(static_cast<size_t>(n));
  std::vector<std::thread> threads;
  for (int r = 0; r < n; ++r) {
    threads.emplace_back([&, r] {
      try {
        body(std::make_unique<ThreadCommunicator>(hub, group, r));
      } catch (const std::exception& error) {
        thrown[static_cast<size_t>(r)] = std::current_exception();
        hub->abort("rank " + std::to_string(r) + ": " + error.what());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

// As above; throws on what the first rank threw that did not only hear of another's fault.
inline void run_ranks(int n, const std::function<void(std::unique_ptr<Communicator>)>& body) {
  std::exception_ptr first;
  for (const std::exception_ptr& thrown : run_ranks_catching(n, body)) {
    if (thrown == nullptr) continue;
    try {
      std::rethrow_exception(thrown);
    } catch (const std::logic_error&) {
      throw;
    } catch (const std::exception& error) {
      const bool heard = std::string(error.what()).rfind("rank ", 0) == 0;
      if (first == nullptr || !heard) first = thrown;
    }
  }
  if (first != nullptr) std::rethrow_exception(first);
}

}  // namespace spillway::testing
