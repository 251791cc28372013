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

constexpr std::array<const char*, kTerms> kTermNames = {"matrix", "attention", "collective", "hop",
                                                        "other",  "gap",       "wait",       "host",
                                                        "cpu",    "bus",       "disk"};

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
      if (is_spilled_half(record)) {
        ways_.push_back({record.begin_ns, record.end_ns, Term::kBus});
        continue;
      }
      const bool copied = record.kind == DeviceRecord::Kind::kToHost && carries_rows(record);
      const bool back = record.kind == DeviceRecord::Kind::kToDevice && carries_rows(record);
      sorted_.push_back({{record.begin_ns, record.end_ns, term_of(record)}, copied, back});
    }
    std::sort(sorted_.begin(), sorted_.end(),
              [](const Record& a, const Record& b) { return earlier(a.segment, b.segment); });
    for (const HostCall& call : trace.calls) {
      const bool disk = call.kind == HostCall::Kind::kReadDisk;
      ways_.push_back({call.begin_ns, call.end_ns, disk ? Term::kDisk : Term::kCpu});
    }
    std::sort(ways_.begin(), ways_.end(),
              [](const Segment& a, const Segment& b) { return a.end < b.end; });
  }

  struct Record {
    Segment segment;
    bool rows_to_host = false;
    bool rows_to_device = false;
  };
  const std::vector<Record>& sorted() const { return sorted_; }
  // What the GPU may wait for, in the order of the ends.
  const std::vector<Segment>& ways() const { return ways_; }
  const std::string& unknown() const { return unknown_; }

 private:
  bool is_spilled_half(const DeviceRecord& record) const {
    const std::vector<int64_t>& sizes = rules_.spilled_bytes;
    return record.kind == DeviceRecord::Kind::kToDevice &&
           std::find(sizes.begin(), sizes.end(), record.bytes) != sizes.end();
  }

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
  std::vector<Segment> ways_;
  std::string unknown_;
};

// Shares out the time in which the GPU did nothing, in intervals that come in order.
class Idle {
 public:
  Idle(std::vector<Segment> host, const std::vector<Segment>& ways, TermTimes& out)
      : host_(std::move(host)), ways_(ways), out_(out) {}

  void add(int64_t begin, int64_t end) {
    while (next_ < host_.size() && host_[next_].end <= begin) ++next_;
    while (first_way_ < ways_.size() && ways_[first_way_].end <= begin) ++first_way_;
    size_t last = first_way_;
    while (last < ways_.size() && ways_[last].end <= end) ++last;
    int64_t until = end;
    for (size_t i = last; i-- > first_way_ && until > begin;) {
      const Segment& way = ways_[i];
      const int64_t to = std::min(way.end, until);
      const int64_t from = std::max(way.begin, begin);
      if (from >= to) continue;
      add_host(to, until);
      out_[way.term] += ms(to - from);
      until = from;
    }
    add_host(begin, until);
  }

 private:
  void add_host(int64_t begin, int64_t end) {
    for (size_t i = next_; i < host_.size() && host_[i].begin < end; ++i) {
      const int64_t from = std::max(begin, host_[i].begin);
      const int64_t to = std::min(end, host_[i].end);
      if (to > from) out_[host_[i].term] += ms(to - from);
    }
  }

  std::vector<Segment> host_;
  const std::vector<Segment>& ways_;
  TermTimes& out_;
  size_t next_ = 0;       // the first segment of the host's that may reach into an interval
  size_t first_way_ = 0;  // and the first way that ends in it
};

Term term_of_work(size_t work) {
  constexpr std::array<Term, kCpuWorks> kTermsOfWorks = {
      Term::kMatrix, Term::kAttention, Term::kCollective, Term::kHop,
      Term::kWait,   Term::kDisk,      Term::kOther};
  return kTermsOfWorks[work];
}

// Of a rank on a CPU, which has one thread for all: outside of its steps the front makes them, or
// waits for results; the others wait for steps.
TermTimes cpu_term_times(const StepTrace& trace, size_t n_runs, int64_t n_steps, bool front) {
  CHECK_LT(n_runs, trace.on_cpu.size());
  const size_t first = trace.on_cpu.size() - n_runs;
  const int64_t begin = trace.on_cpu[first - 1].end_ns;
  const int64_t end = trace.on_cpu.back().end_ns;
  TermTimes out;
  out.total_ms = ms(end - begin);
  double outside = out.total_ms;
  for (size_t i = first; i < trace.on_cpu.size(); ++i) {
    const CpuSpan& span = trace.on_cpu[i];
    for (size_t work = 0; work < kCpuWorks; ++work) out[term_of_work(work)] += ms(span.ns[work]);
    outside -= ms(span.end_ns - span.begin_ns);
  }
  for (const HostWait& wait : trace.waits) {
    const int64_t waited = std::min(end, wait.end_ns) - std::max(begin, wait.begin_ns);
    if (waited <= 0) continue;
    out[Term::kWait] += ms(waited);
    outside -= ms(waited);
  }
  out[front ? Term::kHost : Term::kWait] += std::max(0.0, outside);
  for (double& value : out.ms) value /= static_cast<double>(n_steps);
  out.total_ms /= static_cast<double>(n_steps);
  return out;
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
  CHECK_GT(n_steps, 0);
  if (!trace.on_cpu.empty()) return cpu_term_times(trace, n_runs, n_steps, rules.front);
  CHECK_LT(n_runs, trace.spans.size());
  const int64_t begin = trace.spans[trace.spans.size() - n_runs - 1].end_ns;
  const int64_t end = trace.spans.back().end_ns;
  const Records records(trace, rules);
  TermTimes out;
  out.unknown = records.unknown();
  Idle idle(host_segments(trace, begin, end, rules.front), records.ways(), out);
  int64_t at = begin;
  bool at_host = false;  // the rows of a staged sum
  for (const Records::Record& record : records.sorted()) {
    const Segment& segment = record.segment;
    if (segment.begin >= end) break;
    const int64_t from = std::max(at, segment.begin);
    if (from > at && rules.staged && at_host && record.rows_to_device) {
      out[Term::kCollective] += ms(from - at);
    } else if (from > at) {
      idle.add(at, from);
    }
    const int64_t until = std::min(end, segment.end);
    if (until > from) out[segment.term] += ms(until - from);
    at = std::max({at, from, until});
    at_host = record.rows_to_host;
  }
  if (at < end) idle.add(at, end);
  for (double& value : out.ms) value /= static_cast<double>(n_steps);
  out.total_ms = ms(end - begin) / static_cast<double>(n_steps);
  return out;
}

}  // namespace spillway
