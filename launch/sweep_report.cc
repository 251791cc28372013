// See sweep_report.h.
#include "launch/sweep_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "launch/sweep_cases.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

std::string error_text(double predicted, double measured) {
  if (predicted <= 0 || measured <= 0) return "-";
  const double error = 100 * error_of(predicted, measured);
  return (error >= 0 ? "+" : "") + fixed_text(error, 1) + " %";
}

std::string figure_text(double rate) {
  return rate > 0 ? fixed_text(rate, rate < 100 ? 2 : 0) : "-";
}

std::string csv_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

// "median error 4.2 %, greatest 11.0 %, rank correlation 0.98" over the measured rows.
std::string summary_line(const char* name, const std::vector<SweepRow>& rows,
                         double SweepRow::*predicted, Measured SweepRow::*measured) {
  std::vector<double> a;
  std::vector<double> b;
  std::vector<double> errors;
  for (const SweepRow& row : rows) {
    const double median = (row.*measured).median;
    if (median <= 0 || row.*predicted <= 0) continue;
    a.push_back(row.*predicted);
    b.push_back(median);
    errors.push_back(std::fabs(error_of(row.*predicted, median)));
  }
  if (errors.empty()) return "";
  std::sort(errors.begin(), errors.end());
  const double median = (errors[(errors.size() - 1) / 2] + errors[errors.size() / 2]) / 2;
  std::string out = std::string(name) + ": median error " + fixed_text(100 * median, 1) +
                    " %, greatest " + fixed_text(100 * errors.back(), 1) + " %";
  if (errors.size() > 1) out += ", rank correlation " + fixed_text(rank_correlation(a, b), 3);
  return out + "\n";
}

// "    3 runs: decode 40.90 to 59.52, prefill 205 to 231"; of one run "".
std::string range_line(const SweepRow& row) {
  std::string out;
  const auto add = [&out](const char* name, const Measured& of) {
    if (of.runs.size() < 2) return;
    out += out.empty() ? "    " + std::to_string(of.runs.size()) + " runs: " : ", ";
    out += std::string(name) + " " + figure_text(of.least) + " to " + figure_text(of.most);
  };
  add("decode", row.decode);
  add("prefill", row.prefill);
  return out.empty() ? "" : out + "\n";
}

using Cells = std::vector<std::string>;

// Columns as wide as what is in them, the first one to the left. A line of more than kColumns
// letters puts its name above the figures.
std::string aligned(const std::vector<Cells>& lines, const std::vector<std::string>& behind) {
  constexpr size_t kColumns = 100;
  std::vector<size_t> widths(lines[0].size(), 0);
  for (const Cells& cells : lines) {
    for (size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], cells[i].size());
  }
  size_t all = widths[0];
  for (size_t i = 1; i < widths.size(); ++i) all += widths[i] + 2;
  const bool apart = all > kColumns;
  std::string out;
  for (size_t l = 0; l < lines.size(); ++l) {
    const Cells& cells = lines[l];
    if (apart && !cells[0].empty()) out += cells[0] + "\n";
    if (!apart) out += cells[0] + std::string(widths[0] - cells[0].size(), ' ');
    for (size_t i = 1; i < cells.size(); ++i) {
      out += "  " + std::string(widths[i] - cells[i].size(), ' ') + cells[i];
    }
    out += "\n" + behind[l];
  }
  return out;
}

}  // namespace

double error_of(double predicted, double measured) { return measured / predicted - 1; }

std::string sweep_table(const std::vector<SweepRow>& rows) {
  const bool gpu = std::any_of(rows.begin(), rows.end(), [](const SweepRow& row) {
    return row.ledger_gpu_bytes > 0 || row.on_gpu > 0;
  });
  std::vector<Cells> lines = {
      {"", "decode", "predicted", "error", "prefill", "predicted", "error"}};
  if (gpu) lines[0].insert(lines[0].begin() + 1, "on GPU");
  if (gpu) lines[0].insert(lines[0].end(), {"GPU ledger", "measured", "error"});
  std::vector<std::string> behind = {""};
  for (const SweepRow& row : rows) {
    Cells cells = {(row.control ? "* " : "") + row.name,
                   figure_text(row.decode.median),
                   figure_text(row.predicted_decode),
                   error_text(row.predicted_decode, row.decode.median),
                   figure_text(row.prefill.median),
                   figure_text(row.predicted_prefill),
                   error_text(row.predicted_prefill, row.prefill.median)};
    if (gpu) {
      const bool known = row.measured_gpu_bytes > 0;
      cells.insert(cells.begin() + 1, fixed_text(100 * row.on_gpu, 0) + " %");
      cells.push_back(size_text(row.ledger_gpu_bytes));
      cells.push_back(known ? size_text(row.measured_gpu_bytes) : "-");
      cells.push_back(error_text(static_cast<double>(row.ledger_gpu_bytes),
                                 static_cast<double>(row.measured_gpu_bytes)));
    }
    lines.push_back(std::move(cells));
    behind.push_back(row.failed.empty() ? range_line(row)
                                        : "    not measured: " + row.failed + "\n");
  }
  std::string out = aligned(lines, behind);
  out += "\n" + summary_line("decode", rows, &SweepRow::predicted_decode, &SweepRow::decode) +
         summary_line("prefill", rows, &SweepRow::predicted_prefill, &SweepRow::prefill);
  const bool controls =
      std::any_of(rows.begin(), rows.end(), [](const SweepRow& row) { return row.control; });
  if (controls) out += "* a control: not among the fastest predicted\n";
  return out;
}

std::string sweep_csv(const std::vector<SweepRow>& rows) {
  std::string out =
      "name,control,on_gpu,decode_tok_per_s,predicted_decode_tok_per_s,prefill_tok_per_s,"
      "predicted_prefill_tok_per_s,ledger_gpu_bytes,measured_gpu_bytes,failed,runs,"
      "decode_least,decode_most,prefill_least,prefill_most\n";
  for (const SweepRow& row : rows) {
    out += csv_text(row.name) + "," + (row.control ? "1" : "0") + "," + shortest_text(row.on_gpu) +
           "," + shortest_text(row.decode.median) + "," + shortest_text(row.predicted_decode) +
           "," + shortest_text(row.prefill.median) + "," + shortest_text(row.predicted_prefill) +
           "," + std::to_string(row.ledger_gpu_bytes) + "," +
           std::to_string(row.measured_gpu_bytes) + "," + csv_text(row.failed) + "," +
           std::to_string(row.decode.runs.size()) + "," + shortest_text(row.decode.least) + "," +
           shortest_text(row.decode.most) + "," + shortest_text(row.prefill.least) + "," +
           shortest_text(row.prefill.most) + "\n";
  }
  return out;
}

nlohmann::ordered_json sweep_json(const std::vector<SweepRow>& rows) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const SweepRow& row : rows) {
    out.push_back({{"name", row.name},
                   {"control", row.control},
                   {"on_gpu", row.on_gpu},
                   {"decode_tok_per_s", row.decode.median},
                   {"predicted_decode_tok_per_s", row.predicted_decode},
                   {"prefill_tok_per_s", row.prefill.median},
                   {"predicted_prefill_tok_per_s", row.predicted_prefill},
                   {"ledger_gpu_bytes", row.ledger_gpu_bytes},
                   {"measured_gpu_bytes", row.measured_gpu_bytes},
                   {"decode_runs", row.decode.runs},
                   {"prefill_runs", row.prefill.runs},
                   {"failed", row.failed}});
  }
  return out;
}

}  // namespace spillway
