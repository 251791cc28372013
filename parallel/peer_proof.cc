// See peer_proof.h. A mailbox is divided into a section a rank; rank r writes to section r of every
// other's, and fills its own section r, which nobody else writes, as the source of the copies.
#include "parallel/peer_proof.h"

#include <algorithm>
#include <optional>

#include "kernels/cuda/peer_memory.h"
#include "parallel/agreement.h"

namespace spillway {
namespace {

constexpr int64_t kMostSectionBytes = int64_t{4} << 20;
constexpr int kSpeedRuns = 8;

uint32_t seed_of(int from, int to, uint32_t salt) {
  return (salt << 16) + (static_cast<uint32_t>(from) << 8) + static_cast<uint32_t>(to) + 1;
}

}  // namespace

int64_t PeerProof::section_bytes() const {
  return std::min(mailbox_bytes / group.size(), kMostSectionBytes) / 256 * 256;
}

uint32_t* PeerProof::section(int mailbox, int from) const {
  std::byte* start = mailboxes[static_cast<size_t>(mailbox)];
  return reinterpret_cast<uint32_t*>(start + section_bytes() * from);
}

// What did not arrive in this rank's sections.
std::string PeerProof::missing(uint32_t salt, const char* how) const {
  const int size = group.size();
  const int rank = group.rank();
  const int64_t words = section_bytes() / 4;
  auto* n_wrong = reinterpret_cast<uint32_t*>(scratch);
  cuda::fill_zero(stream.handle(), n_wrong, size * 4);
  for (int from = 0; from < size; ++from) {
    if (from == rank) continue;
    cuda::count_wrong(exec, section(rank, from), words,
                      seed_of(from, salt == 1 ? rank : from, salt), n_wrong + from);
  }
  std::vector<uint32_t> wrong(static_cast<size_t>(size));
  cuda::copy_to_host(stream, wrong.data(), n_wrong, size * 4);
  stream.synchronize();
  for (int from = 0; from < size; ++from) {
    const uint32_t n = wrong[static_cast<size_t>(from)];
    if (n == 0) continue;
    return "of " + std::to_string(words) + " words that rank " + std::to_string(from) + how +
           " into this GPU's memory, " + std::to_string(n) + " are wrong";
  }
  return "";
}

std::string PeerProof::run() const {
  const int size = group.size();
  const int rank = group.rank();
  const int64_t words = section_bytes() / 4;
  const auto write = [&](int to, uint32_t salt) {
    cuda::write_pattern(exec, section(to, rank), words, seed_of(rank, to, salt));
  };
  // What this rank throws in the middle must not keep the others waiting.
  const auto look = [&](uint32_t salt, const char* how) {
    std::string text;
    const std::string thrown = obstacle_of([&] { text = missing(salt, how); });
    return thrown.empty() ? text : thrown;
  };
  std::string found = obstacle_of([&] {
    for (int to = 0; to < size; ++to) {
      if (to != rank) write(to, 1);
    }
    stream.synchronize();
  });
  group.barrier();
  if (found.empty()) found = look(1, "'s kernels wrote");
  group.barrier();
  const std::string copied = obstacle_of([&] {
    write(rank, 2);
    for (int to = 0; to < size; ++to) {
      if (to == rank) continue;
      cuda::copy_on_device(stream, section(to, rank), section(rank, rank), section_bytes());
    }
    stream.synchronize();
  });
  if (found.empty()) found = copied;
  group.barrier();
  if (found.empty()) found = look(2, "'s copy engine wrote");
  return first_obstacle(group, found);
}

// GB/s of this rank's stores.
double PeerProof::push_rate(int to, cuda::Event& start, cuda::Event& end) const {
  const int64_t words = section_bytes() / 4;
  uint32_t* there = section(to, group.rank());
  cuda::write_pattern(exec, there, words, 0);
  start.record(stream);
  for (int i = 0; i < kSpeedRuns; ++i) cuda::write_pattern(exec, there, words, 0);
  end.record(stream);
  end.synchronize();
  return static_cast<double>(section_bytes()) * kSpeedRuns / end.ms_since(start) * 1e-6;
}

// A rank that fails goes on until all know: the others wait for it.
std::string PeerProof::measure(std::vector<CommReport::Push>& pushes) const {
  std::optional<cuda::Event> start;
  std::optional<cuda::Event> end;
  std::string found = obstacle_of([&] {
    start.emplace();
    end.emplace();
  });
  for (int from = 0; from < group.size(); ++from) {
    for (int to = 0; to < group.size(); ++to) {
      if (from == to) continue;
      group.barrier();
      double rate = 0;
      if (from == group.rank() && section_bytes() > 0 && found.empty()) {
        found = obstacle_of([&] { rate = push_rate(to, *start, *end); });
      }
      pushes.push_back({from, to, greatest(group, rate)});
    }
  }
  return first_obstacle(group, found);
}

std::string PeerProof::clear() const {
  group.barrier();
  const std::string found = obstacle_of([&] {
    cuda::fill_zero(stream.handle(), mailboxes[static_cast<size_t>(group.rank())], mailbox_bytes);
    cuda::fill_zero(stream.handle(), scratch, scratch_bytes);
    stream.synchronize();
  });
  return first_obstacle(group, found);
}

}  // namespace spillway
