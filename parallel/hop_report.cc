// See hop_report.h. Ranks beyond the plan's stay out, so what all must know goes by way of rank 0,
// message by message.
#include "parallel/hop_report.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <span>

#include "kernels/core/check.h"

namespace spillway {
namespace {

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}
template <typename T>
std::span<std::byte> writable_bytes_of(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

bool same_host(const RankPlace& a, const RankPlace& b) { return a.host == b.host; }

std::string ranks_text(int a, int b) {
  return "ranks " + std::to_string(std::min(a, b)) + " and " + std::to_string(std::max(a, b));
}

// A report with a text of fixed size.
struct SentReport {
  std::array<char, 512> obstacle{};  // its last byte stays 0
  int32_t from = 0;
  int32_t to = 0;
  double small_us = 0;
  double gb_per_s = 0;
  int64_t large_rows = 0;
};

SentReport sent(const HopReport& report) {
  SentReport out;
  std::copy_n(report.obstacle.begin(), std::min(report.obstacle.size(), out.obstacle.size() - 1),
              out.obstacle.begin());
  out.from = report.from;
  out.to = report.to;
  out.small_us = report.small_us;
  out.gb_per_s = report.gb_per_s;
  out.large_rows = report.large_rows;
  return out;
}

HopReport received(const SentReport& report) {
  return {report.from,     report.to,       report.obstacle.data(),
          report.small_us, report.gb_per_s, report.large_rows};
}

}  // namespace

std::vector<HopSeat> gather_hop_seats(Communicator& world, int n_ranks, const HopSeat& mine) {
  CHECK(world.rank() < n_ranks && n_ranks <= world.size());
  std::vector<HopSeat> seats(static_cast<size_t>(n_ranks));
  const auto all = std::as_writable_bytes(std::span(seats));
  seats[static_cast<size_t>(world.rank())] = mine;
  if (world.rank() != 0) {
    world.send(bytes_of(mine), 0);
    world.recv(all, 0);
    return seats;
  }
  for (int r = 1; r < n_ranks; ++r) {
    world.recv(writable_bytes_of(seats[static_cast<size_t>(r)]), r);
  }
  for (int r = 1; r < n_ranks; ++r) world.send(all, r);
  return seats;
}

std::string hop_obstacle(const std::vector<HopSeat>& seats, int from, int to, CommChoice choice) {
  if (choice == CommChoice::kStaged) return "--comm staged";
  const HopSeat& sender = seats[static_cast<size_t>(from)];
  const HopSeat& receiver = seats[static_cast<size_t>(to)];
  for (const int rank : {from, to}) {
    if (seats[static_cast<size_t>(rank)].gpu == 0) {
      return "rank " + std::to_string(rank) + " computes on its CPU";
    }
  }
  if (!same_host(sender.place, receiver.place)) {
    return ranks_text(from, to) + " are on different hosts";
  }
  for (const int rank : {from, to}) {
    for (size_t other = 0; other < seats.size(); ++other) {
      const HopSeat& seat = seats[other];
      if (static_cast<int>(other) == rank || seat.gpu == 0) continue;
      if (shared_gpu({seats[static_cast<size_t>(rank)].place, seat.place}).empty()) continue;
      return ranks_text(rank, static_cast<int>(other)) + " share GPU " + seat.place.pci.data();
    }
  }
  if (same_process(sender.place, receiver.place)) {
    return ranks_text(from, to) + " are one process";
  }
  return "";
}

std::vector<HopReport> staged_hops(const std::vector<HopSeat>& seats, int from,
                                   const std::vector<int>& sends_to, CommChoice choice) {
  std::vector<HopReport> reports;
  for (const int to : sends_to) {
    reports.push_back({from, to, hop_obstacle(seats, from, to, choice)});
  }
  return reports;
}

std::vector<HopReport> gather_hop_reports(Communicator& world, int n_ranks,
                                          const std::vector<HopReport>& mine) {
  if (world.rank() != 0) {
    const auto n = static_cast<int64_t>(mine.size());
    world.send(bytes_of(n), 0);
    for (const HopReport& report : mine) world.send(bytes_of(sent(report)), 0);
    return {};
  }
  std::vector<HopReport> all = mine;
  for (int r = 1; r < n_ranks; ++r) {
    int64_t n = 0;
    world.recv(writable_bytes_of(n), r);
    for (int64_t i = 0; i < n; ++i) {
      SentReport report;
      world.recv(writable_bytes_of(report), r);
      all.push_back(received(report));
    }
  }
  return all;
}

std::string hop_report_text(const std::vector<HopReport>& reports) {
  if (reports.empty()) return "";
  std::string text = "hops between stages\n";
  for (const HopReport& report : reports) {
    text += "  " + std::to_string(report.from) + " -> " + std::to_string(report.to) + "  ";
    if (!report.by_peer()) {
      text += "host memory and MPI: " + report.obstacle + "\n";
      continue;
    }
    char line[96];
    std::snprintf(line, sizeof(line), "peer, %.1f us a row, %.0f GB/s %lld rows\n", report.small_us,
                  report.gb_per_s, static_cast<long long>(report.large_rows));
    text += line;
  }
  return text;
}

}  // namespace spillway
