// See terms.h.
#include "launch/terms.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/core/check.h"

namespace spillway {
namespace {

constexpr std::array<const char*, kTerms> kTermNames = {
    "matrix", "attention", "collective", "hop", "other", "gap", "wait", "host"};

using Named = std::pair<std::string_view, Term>;

// Every kernel of kernels/cuda; a test reads the sources for those that are missing here. What only
// runs at start (packing, probes) is other.
constexpr Named kOurs[] = {
    {"gemv_kernel", Term::kMatrix},
    {"tile_kernel", Term::kMatrix},
    {"strip_kernel", Term::kMatrix},
    {"wide_kernel", Term::kMatrix},
    {"dequant_kernel", Term::kMatrix},
    {"plain_kernel", Term::kMatrix},
    {"plain_bf16_kernel", Term::kMatrix},
    {"attend_split", Term::kAttention},
    {"attend_prefill", Term::kAttention},
    {"put_forms", Term::kAttention},
    {"store_rows", Term::kAttention},
    {"rotate_rows", Term::kAttention},
    {"rotate_and_store", Term::kAttention},
    {"rotate_and_store_blocks", Term::kAttention},
    {"make_table", Term::kAttention},
    {"small_sum_kernel", Term::kCollective},
    {"round_kernel", Term::kCollective},
    {"push_kernel", Term::kHop},
    {"take_kernel", Term::kHop},
    {"rms_norm_kernel", Term::kOther},
    {"rms_norm_long_kernel", Term::kOther},
    {"rms_norm_heads_kernel", Term::kOther},
    {"add_norm_kernel", Term::kOther},
    {"add_kernel", Term::kOther},
    {"scale_kernel", Term::kOther},
    {"gather_kernel", Term::kOther},
    {"gated_kernel", Term::kOther},
    {"quantize_kernel", Term::kOther},
    {"embed_kernel", Term::kOther},
    {"select_slices_kernel", Term::kOther},
    {"select_row_kernel", Term::kOther},
    {"greatest_of_slices_kernel", Term::kOther},
    {"greatest_of_row_kernel", Term::kOther},
    {"hash_kernel", Term::kOther},
    {"pack_kernel", Term::kOther},
    {"read_all", Term::kOther},
    {"write_kernel", Term::kOther},
    {"count_kernel", Term::kOther},
    {"nothing", Term::kOther},
};

// Of libraries: what their kernels' whole names hold. cuBLASLt's own, CUTLASS' and nvjet's are
// products; NCCL has one kernel a function.
constexpr Named kTheirs[] = {
    {"ncclDevKernel", Term::kCollective},
    {"ncclKernel", Term::kCollective},
    {"cublas", Term::kMatrix},
    {"cutlass", Term::kMatrix},
    {"nvjet", Term::kMatrix},
    {"gemm", Term::kMatrix},
    {"gemv", Term::kMatrix},
    {"splitK", Term::kMatrix},
};

std::string demangled(const std::string& mangled) {
  int status = 0;
  char* text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  if (text == nullptr) return mangled;
  std::string out(text);
  std::free(text);
  return out;
}

double ms(int64_t ns) { return 1e-6 * static_cast<double>(ns); }

struct Segment {
  int64_t begin = 0;
  int64_t end = 0;
  Term term = Term::kOther;
};

bool earlier(const Segment& a, const Segment& b) { return a.begin < b.begin; }

// What the host did from `begin` to `end`, without holes.
std::vector<Segment> host_segments(const StepTrace& trace, int64_t begin, int64_t end, bool front) {
  std::vector<Segment> known;
  for (const HostSpan& span : trace.spans) {
    known.push_back({span.begin_ns, span.received_ns, Term::kWait});
    known.push_back({span.received_ns, span.launched_ns, Term::kHost});
    known.push_back({span.launched_ns, span.end_ns, Term::kGap});
  }
  for (const HostWait& wait : trace.waits) {
    known.push_back({wait.begin_ns, wait.end_ns, Term::kWait});
  }
  std::sort(known.begin(), known.end(), earlier);
  const Term outside = front ? Term::kHost : Term::kWait;
  std::vector<Segment> out;
  int64_t at = begin;
  for (const Segment& segment : known) {
    if (segment.end <= at) continue;
    if (segment.begin >= end) break;
    if (segment.begin > at) out.push_back({at, segment.begin, outside});
    at = std::max(at, segment.begin);
    out.push_back({at, std::min(end, segment.end), segment.term});
    at = out.back().end;
  }
  if (at < end) out.push_back({at, end, outside});
  return out;
}

// The terms of the device's records, in the order in which they began.
class Records {
 public:
  Records(const StepTrace& trace, const TermRules& rules) : trace_(trace), rules_(rules) {
    for (const std::string& name : trace.device.names) {
      const std::optional<Term> term = term_of_kernel(name);
      if (!term && unknown_.empty()) unknown_ = kernel_name(name);
      names_.push_back(term.value_or(Term::kOther));
    }
    for (const DeviceRecord& record : trace.device.records) {
      const bool copied = record.kind == DeviceRecord::Kind::kToHost && carries_rows(record);
      const bool back = record.kind == DeviceRecord::Kind::kToDevice && carries_rows(record);
      sorted_.push_back({{record.begin_ns, record.end_ns, term_of(record)}, copied, back});
    }
    std::sort(sorted_.begin(), sorted_.end(),
              [](const Record& a, const Record& b) { return earlier(a.segment, b.segment); });
  }

  struct Record {
    Segment segment;
    bool rows_to_host = false;
    bool rows_to_device = false;
  };
  const std::vector<Record>& sorted() const { return sorted_; }
  const std::string& unknown() const { return unknown_; }

 private:
  // Staged sums go in pieces; a hop is all rows of the step at once, and no other copy is as long.
  bool carries_rows(const DeviceRecord& record) const {
    if (rules_.row_bytes <= 0) return false;
    if (rules_.staged) return record.bytes >= rules_.row_bytes;
    const auto after = std::upper_bound(
        trace_.spans.begin(), trace_.spans.end(), record.begin_ns,
        [](int64_t moment, const HostSpan& span) { return moment < span.begin_ns; });
    if (after == trace_.spans.begin()) return false;
    return record.bytes >= std::prev(after)->rows * rules_.row_bytes;
  }

  Term term_of(const DeviceRecord& record) const {
    if (record.kind == DeviceRecord::Kind::kKernel) {
      return names_[static_cast<size_t>(record.name)];
    }
    if (record.kind == DeviceRecord::Kind::kOther || !carries_rows(record)) return Term::kOther;
    return rules_.staged ? Term::kCollective : Term::kHop;
  }

  const StepTrace& trace_;
  const TermRules& rules_;
  std::vector<Term> names_;
  std::vector<Record> sorted_;
  std::string unknown_;
};

// Adds [begin, end), in which the GPU did nothing. `next`: the first segment that may reach into
// it; intervals come in order.
void add_idle(const std::vector<Segment>& host, int64_t begin, int64_t end, size_t& next,
              TermTimes& out) {
  while (next < host.size() && host[next].end <= begin) ++next;
  for (size_t i = next; i < host.size() && host[i].begin < end; ++i) {
    const int64_t from = std::max(begin, host[i].begin);
    out[host[i].term] += ms(std::min(end, host[i].end) - from);
  }
}

}  // namespace

const char* term_name(Term term) { return kTermNames[static_cast<size_t>(term)]; }

std::string kernel_name(const std::string& mangled) {
  std::string text = demangled(mangled);
  static constexpr std::string_view kNameless = "(anonymous namespace)";
  for (size_t at; (at = text.find(kNameless)) != std::string::npos;) {
    text.erase(at, kNameless.size());
  }
  text.resize(std::min(text.size(), text.find_first_of("<(")));
  const size_t before = text.find_last_of(": ");
  return before == std::string::npos ? text : text.substr(before + 1);
}

std::optional<Term> term_of_kernel(const std::string& mangled) {
  const std::string whole = demangled(mangled);
  if (whole.find("spillway::") != std::string::npos) {
    const std::string name = kernel_name(mangled);
    for (const auto& [ours, term] : kOurs) {
      if (name == ours) return term;
    }
    return std::nullopt;
  }
  for (const auto& [part, term] : kTheirs) {
    if (whole.find(part) != std::string::npos) return term;
  }
  return std::nullopt;
}

TermTimes term_times(const StepTrace& trace, size_t n_runs, int64_t n_steps,
                     const TermRules& rules) {
  CHECK_LT(n_runs, trace.spans.size());
  CHECK_GT(n_steps, 0);
  const int64_t begin = trace.spans[trace.spans.size() - n_runs - 1].end_ns;
  const int64_t end = trace.spans.back().end_ns;
  const std::vector<Segment> host = host_segments(trace, begin, end, rules.front);
  const Records records(trace, rules);
  TermTimes out;
  out.unknown = records.unknown();
  int64_t at = begin;
  size_t next = 0;
  bool at_host = false;  // the rows of a staged sum
  for (const Records::Record& record : records.sorted()) {
    const Segment& segment = record.segment;
    if (segment.begin >= end) break;
    const int64_t from = std::max(at, segment.begin);
    if (from > at && rules.staged && at_host && record.rows_to_device) {
      out[Term::kCollective] += ms(from - at);
    } else if (from > at) {
      add_idle(host, at, from, next, out);
    }
    const int64_t until = std::min(end, segment.end);
    if (until > from) out[segment.term] += ms(until - from);
    at = std::max({at, from, until});
    at_host = record.rows_to_host;
  }
  if (at < end) add_idle(host, at, end, next, out);
  for (double& value : out.ms) value /= static_cast<double>(n_steps);
  out.total_ms = ms(end - begin) / static_cast<double>(n_steps);
  return out;
}

}  // namespace spillway
