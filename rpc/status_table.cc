// status_table: see job_status.h. Text only; asks nobody.
#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "parallel/size_text.h"
#include "rpc/job_status.h"

namespace spillway {
namespace {

constexpr size_t kMaxHost = 12;   // longer host names keep their ends, where they differ
constexpr size_t kMaxState = 14;  // of a rank
constexpr size_t kColumns = 9;
using Row = std::array<std::string, kColumns>;

std::string number(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

// Terminals obey control characters; names from other hosts must not.
std::string printable(const std::string& text) {
  std::string clean = text;
  for (char& c : clean) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return clean;
}

std::string tail(const std::string& text, size_t limit) {
  if (text.size() <= limit) return text;
  std::string shorter = text.substr(text.size() - limit);
  shorter.front() = '~';
  return shorter;
}

// "104 of 120 MiB (87 %)"; both in the larger one's unit.
std::string memory_text(int64_t resident, int64_t planned) {
  constexpr double kMiB = 1024.0 * 1024.0;
  constexpr double kGiB = 1024.0 * kMiB;
  const bool large = std::max(resident, planned) >= static_cast<int64_t>(kGiB);
  const double unit = large ? kGiB : kMiB;
  const int decimals = large ? 2 : 1;
  const std::string used = number(static_cast<double>(resident) / unit, decimals);
  const std::string name = large ? " GiB" : " MiB";
  if (planned <= 0) return used + name;
  const double percent = 100.0 * static_cast<double>(resident) / static_cast<double>(planned);
  return used + " of " + number(static_cast<double>(planned) / unit, decimals) + name + " (" +
         number(percent, 0) + " %)";
}

std::string duration_text(double seconds) {
  if (seconds < 60) return number(seconds, 1) + " s";
  const auto whole = static_cast<int64_t>(seconds);
  if (whole < 3600) {
    return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
  }
  return std::to_string(whole / 3600) + " h " + std::to_string(whole / 60 % 60) + " min";
}

std::string state_text(const RankProgress& progress) {
  if (progress.state == "loading" && progress.load_total_bytes > 0) {
    const double part =
        static_cast<double>(progress.loaded_bytes) / static_cast<double>(progress.load_total_bytes);
    return "loading " + number(100.0 * std::clamp(part, 0.0, 1.0), 0) + " %";
  }
  return printable(progress.state).substr(0, kMaxState);
}

Row row_text(const RankStatus& rank) {
  const bool placed = rank.stage >= 0;
  std::string layers = rank.n_layers > 0 ? std::to_string(rank.first_layer) : "-";
  if (rank.n_layers > 1) layers += "-" + std::to_string(rank.first_layer + rank.n_layers - 1);
  return {std::to_string(rank.rank),
          tail(printable(rank.host), kMaxHost) + ":" + std::to_string(rank.pid),
          placed ? std::to_string(rank.stage) + "/" + std::to_string(rank.tp_index) : "-",
          layers,
          placed ? number(100.0 * rank.share, 1) + " %" : "-",
          state_text(rank.progress),
          rank.progress.step < 0 ? "-" : std::to_string(rank.progress.step),
          memory_text(rank.progress.memory_bytes, rank.planned_bytes),
          duration_text(rank.heartbeat_age_s)};
}

std::string speed_line(const JobStatus& status) {
  double decode = 0;
  double prefill = 0;
  int64_t tokens = 0;
  for (const RankStatus& rank : status.ranks) {
    decode = std::max(decode, rank.progress.decode_tok_per_s);
    prefill = std::max(prefill, rank.progress.prefill_tok_per_s);
    tokens = std::max(tokens, rank.progress.tokens_done);
  }
  std::string line = "decode ";
  line += decode > 0 ? number(decode, 1) + " tok/s" : std::string("not measured yet");
  if (status.predicted_tok_per_s > 0) {
    line += " (predicted " + number(status.predicted_tok_per_s, 1) + ")";
  }
  if (prefill > 0) line += ", prefill " + number(prefill, 1) + " tok/s";
  if (tokens > 0) line += ", " + count_text(tokens, "token");
  return line;
}

}  // namespace

std::string status_table(const JobStatus& status) {
  std::string text = printable(status.model);
  if (!status.plan_title.empty()) text += ", " + printable(status.plan_title);
  text += '\n';
  // A fault's sentence has a line for itself.
  text += printable(status.state) + (status.state.starts_with("failed") ? "\n" : ", ");
  text += "up " + duration_text(status.uptime_s) + ", " + speed_line(status) + "\n";
  if (status.ranks.empty()) return text + "no rank has joined yet\n";

  std::vector<Row> rows;
  rows.push_back({"rank", "host:pid", "part", "layers", "share", "state", "step",
                  "memory of planned", "heard"});
  for (const RankStatus& rank : status.ranks) rows.push_back(row_text(rank));
  std::array<size_t, kColumns> width{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < kColumns; ++i) width[i] = std::max(width[i], row[i].size());
  }
  // Words to the left, numbers to the right.
  constexpr std::array<bool, kColumns> kLeft = {false, true,  false, false, false,
                                                true,  false, false, false};
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < kColumns; ++i) {
      const std::string gap(width[i] - row[i].size(), ' ');
      if (i > 0) line += "  ";
      line += kLeft[i] ? row[i] + gap : gap + row[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace spillway
