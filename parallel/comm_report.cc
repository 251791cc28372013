// See comm_report.h.
#include "parallel/comm_report.h"

#include <cstdio>

#include "kernels/core/check.h"
#include "kernels/core/error.h"

namespace spillway {
namespace {

void refuse_unless_works(const FabricReport& fabric, CommChoice choice) {
  CHECK(fabric.tried);
  if (fabric.works()) return;
  throw Error(fabric.obstacle, std::string("--comm ") + comm_choice_name(choice),
              "use --comm auto, or --comm staged, which works everywhere");
}

CommChoice large_choice(int size, const CommReport& report) {
  if (!report.peer.works()) {
    return report.nccl.works() ? CommChoice::kNccl : CommChoice::kStaged;
  }
  if (!report.nccl.works()) return CommChoice::kPeer;
  if (report.peer.large_us > 0 && report.nccl.large_us > 0) {
    return report.peer.large_us <= report.nccl.large_us ? CommChoice::kPeer : CommChoice::kNccl;
  }
  return size == 2 ? CommChoice::kPeer : CommChoice::kNccl;
}

std::string us_text(double us) {
  char text[32];
  std::snprintf(text, sizeof(text), us < 100 ? "%.1f us" : "%.0f us", us);
  return text;
}

void add_fabric(const char* name, const FabricReport& fabric, int64_t large_rows,
                std::string& text) {
  if (!fabric.tried) return;
  text += std::string("  ") + name + "    ";
  if (!fabric.works()) {
    text += "no: " + fabric.obstacle + "\n";
    return;
  }
  text += fabric.small_us > 0 ? us_text(fabric.small_us) + " a row" : "works";
  if (fabric.large_us > 0) {
    text += ", " + us_text(fabric.large_us) + " " + std::to_string(large_rows) + " rows";
  }
  text += "\n";
}

}  // namespace

const char* comm_choice_name(CommChoice choice) {
  switch (choice) {
    case CommChoice::kAuto:
      return "auto";
    case CommChoice::kNccl:
      return "nccl";
    case CommChoice::kPeer:
      return "peer";
    case CommChoice::kStaged:
      return "staged";
  }
  CHECK(false);
}

void choose_fabrics(CommChoice choice, int size, CommReport& report) {
  if (choice == CommChoice::kPeer) refuse_unless_works(report.peer, choice);
  if (choice == CommChoice::kNccl) refuse_unless_works(report.nccl, choice);
  if (choice != CommChoice::kAuto) {
    report.small = report.large = choice;
    return;
  }
  report.large = large_choice(size, report);
  report.small = report.peer.works() ? CommChoice::kPeer : report.large;
}

std::string comm_report_text(const CommReport& report, int size, int64_t small_rows) {
  std::string text = "sums of " + std::to_string(size) + " GPUs: ";
  text += comm_choice_name(report.small);
  if (report.large != report.small) {
    text += " up to " + std::to_string(small_rows) + " rows, ";
    text += std::string(comm_choice_name(report.large)) + " beyond";
  }
  text += "\n";
  add_fabric("peer", report.peer, report.large_rows, text);
  add_fabric("nccl", report.nccl, report.large_rows, text);
  for (const CommReport::Push& push : report.pushes) {
    char line[64];
    std::snprintf(line, sizeof(line), "  %d -> %d  %.0f GB/s\n", push.from, push.to, push.gb_per_s);
    text += line;
  }
  return text;
}

}  // namespace spillway
