// See profile.h.
#include "launch/profile.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>
#include <string_view>

#include "launch/forward_loop.h"
#include "launch/parallel_loop.h"
#include "parallel/cost.h"
#include "parallel/spill.h"
#include "runtime/engine/follower.h"

namespace spillway {
namespace {

constexpr int64_t kDecodeSteps = 16;
// The first makes graphs and memory warm, and gives the begin of the second, which counts.
constexpr int kPasses = 2;

// What a rank tells of one kind of step.
struct Message {
  int64_t traced = 0;
  int64_t dropped = 0;
  std::array<double, kTerms> ms{};
  double total_ms = 0;
  std::array<char, 64> unknown{};
};

TermRules rules_of(const Job& job, const House& house) {
  const RankPart& part = house.plan.parts[static_cast<size_t>(house.mesh.rank)];
  const Range& layers = house.plan.stages[static_cast<size_t>(part.stage)].layers;
  return {job.model().dim * static_cast<int64_t>(sizeof(float)),
          house.pipeline->sum_kind() == "staged", house.mesh.front(),
          streamed_copies(job.model(), part, layers)};
}

Message message_of(const StepTrace& trace, size_t n_runs, int64_t n_steps, const TermRules& rules) {
  Message out;
  if (std::max(trace.spans.size(), trace.on_cpu.size()) <= n_runs) return out;
  const TermTimes times = term_times(trace, n_runs, n_steps, rules);
  out.traced = 1;
  out.dropped = trace.device.dropped;
  out.ms = times.ms;
  out.total_ms = times.total_ms;
  times.unknown.copy(out.unknown.data(), out.unknown.size() - 1);
  return out;
}

std::vector<StepProfile::Rank> gather(Communicator& world, const Message& mine) {
  std::vector<Message> all(static_cast<size_t>(world.size()));
  world.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  std::vector<StepProfile::Rank> ranks;
  for (const Message& message : all) {
    ranks.push_back({message.traced != 0,
                     {message.ms, message.total_ms, message.unknown.data()},
                     message.dropped});
  }
  return ranks;
}

class Profiler {
 public:
  Profiler(const Options& options, Job& job, House& house)
      : options_(options), job_(job), house_(house) {}

  // "" when every rank can trace, else the first obstacle.
  std::string open() {
    std::string mine;
    try {
      if (house_.pipeline != nullptr) house_.pipeline->open_trace();
    } catch (const Error& e) {
      mine = e.what();
    }
    const std::vector<std::string> all = gather_texts(job_.world(), mine);
    for (size_t rank = 0; rank < all.size(); ++rank) {
      if (!all[rank].empty()) return "rank " + std::to_string(rank) + ": " + all[rank];
    }
    return "";
  }

  StepProfile prefill(double timed_ms) {
    std::vector<int32_t> tokens(static_cast<size_t>(options_.bench_prompt));
    std::mt19937 random(1);
    for (int32_t& token : tokens) {
      token = static_cast<int32_t>(random() % static_cast<uint32_t>(job_.model().vocab_size));
    }
    const int64_t steps = div_up(options_.bench_prompt, house_.plan.limits.max_rows);
    return traced(steps, steps, timed_ms, [&](Engine& engine) {
      ForwardLoop loop(house_.plan, engine);
      for (int pass = 0; pass < kPasses; ++pass) {
        loop.restart();
        loop.feed(tokens, 1);
      }
    });
  }

  StepProfile decode(double timed_ms) {
    const int64_t steps = std::min(kDecodeSteps, options_.bench_new);
    const int64_t stages = static_cast<int64_t>(house_.plan.stages.size());
    const int64_t groups = std::min(stages, options_.bench_sequences);
    return traced(steps * groups, steps, timed_ms, [&](Engine& engine) {
      ParallelLoop loop(house_.plan, engine, job_.model().vocab_size, options_.bench_sequences,
                        options_.bench_depth + options_.bench_new);
      for (int pass = 0; pass < kPasses; ++pass) {
        loop.restart(options_.bench_depth);
        for (int64_t i = 0; i < steps; ++i) loop.step();
        loop.finish();
      }
    });
  }

 private:
  // Every rank traces what `body` makes the front do; the last n_runs of the executor count.
  template <typename Body>
  StepProfile traced(int64_t n_runs, int64_t n_steps, double timed_ms, const Body& body) {
    StepTrace trace;
    if (house_.pipeline != nullptr) house_.pipeline->begin_trace();
    if (job_.world().front()) {
      Engine engine(house_.plan, job_.model(), *house_.pipeline, house_.mesh, job_.watchdog(),
                    job_.metrics());
      body(engine);
      engine.stop();
    } else {
      follow(house_.plan, house_.pipeline.get(), house_.mesh, job_.watchdog(), job_.metrics());
    }
    Message mine;
    if (house_.pipeline != nullptr) {
      trace = house_.pipeline->end_trace();
      mine = message_of(trace, static_cast<size_t>(n_runs), n_steps, rules_of(job_, house_));
    }
    return {gather(*house_.mesh.world, mine), n_steps, timed_ms};
  }

  const Options& options_;
  Job& job_;
  House& house_;
};

}  // namespace

std::array<double, kTerms> job_terms(const StepProfile& decode, const Plan& plan) {
  TermTimes sum;
  for (const StagePlan& stage : plan.stages) {
    const TermTimes& first = decode.ranks[static_cast<size_t>(stage.ranks.front())].times;
    for (size_t i = 0; i < kTerms; ++i) sum.ms[i] += first.ms[i];
  }
  sum[Term::kWait] = 0;
  // A stage that takes rows waits for them inside of its kernel, while the one before works.
  if (plan.stages.size() > 1) sum[Term::kHop] = 0;
  double rest = decode.ranks.front().times.total_ms;
  for (const double ms : sum.ms) rest -= ms;
  sum[Term::kHop] += std::max(0.0, rest);
  return sum.ms;
}

std::vector<ComparedTerm> compared_terms(const std::array<double, kTerms>& job,
                                         const Prediction& p) {
  const TermTimes measured{job, 0, ""};
  std::vector<ComparedTerm> out;
  const auto add = [&](Term term, double predicted_ms) {
    out.push_back({term_name(term), predicted_ms, measured[term]});
  };
  add(Term::kMatrix, p.matrix_ms);
  add(Term::kAttention, p.attention_ms);
  add(Term::kCollective, p.collective_ms);
  add(Term::kHop, p.hop_ms);
  add(Term::kCpu, p.cpu_ms);
  add(Term::kBus, p.bus_ms);
  add(Term::kDisk, p.disk_ms);
  out.push_back({"launch", p.launch_ms,
                 measured[Term::kOther] + measured[Term::kGap] + measured[Term::kHost]});
  return out;
}

std::string far_off_text(double measured, double predicted) {
  constexpr double kAsked = 0.15;
  const double off = predicted > 0 ? measured / predicted - 1 : 0;
  if (std::abs(off) <= kAsked) return "";
  char line[128];
  std::snprintf(
      line, sizeof(line),
      "\ndecode is %.0f %% %s than predicted: --profile says which term of a step is off\n",
      100 * std::abs(off), off > 0 ? "faster" : "slower");
  return line;
}

const ComparedTerm& furthest_off(const std::vector<ComparedTerm>& terms) {
  const auto is_way = [](const ComparedTerm& t) {
    const std::string_view name = t.name;
    return name == term_name(Term::kCpu) || name == term_name(Term::kBus) ||
           name == term_name(Term::kDisk);
  };
  const auto off = [](const ComparedTerm& t) { return t.measured_ms - t.predicted_ms; };
  // The CPU, the bus and the disk work at once, and the last one is waited for: of two that end
  // together it is either. So all of them are off by no more than they are together.
  double ways = 0;
  for (const ComparedTerm& t : terms) ways += is_way(t) ? off(t) : 0;
  const auto size = [&](const ComparedTerm& t) {
    return is_way(t) ? std::min(std::abs(off(t)), std::abs(ways)) : std::abs(off(t));
  };
  return *std::max_element(terms.begin(), terms.end(),
                           [&](const auto& a, const auto& b) { return size(a) < size(b); });
}

Profile profile_steps(const Options& options, Job& job, House& house, double timed_decode_ms,
                      double timed_prefill_ms) {
  Profile out;
  Profiler profiler(options, job, house);
  out.obstacle = profiler.open();
  if (!out.obstacle.empty()) return out;
  if (options.bench_prompt > 0) out.prefill = profiler.prefill(timed_prefill_ms);
  if (options.bench_new == 0) return out;
  out.decode = profiler.decode(timed_decode_ms);
  out.predicted =
      predict(house.plan, job.model(), job.cluster(), options.bench_depth + options.bench_new / 2);
  out.comparable = options.bench_sequences == 1;
  if (out.comparable) out.job = job_terms(out.decode, house.plan);
  return out;
}

namespace {

template <typename... Values>
void append(std::string& text, const char* format, Values... values) {
  char line[256];
  std::snprintf(line, sizeof(line), format, values...);
  text += line;
}

constexpr double kLeastMs = 0.0005;  // that the table shows

// All terms of which any rank has so much.
std::vector<size_t> shown_terms(const StepProfile& step) {
  std::vector<size_t> shown;
  for (size_t i = 0; i < kTerms; ++i) {
    const bool there = std::any_of(step.ranks.begin(), step.ranks.end(),
                                   [i](const auto& rank) { return rank.times.ms[i] >= kLeastMs; });
    if (there) shown.push_back(i);
  }
  return shown;
}

void add_step(const char* name, const StepProfile& step, std::string& text) {
  if (step.steps == 0) return;
  append(text, "\na %s step, mean of %lld: ms and per cent of the rank's time\n rank", name,
         static_cast<long long>(step.steps));
  const std::vector<size_t> shown = shown_terms(step);
  for (const size_t i : shown) append(text, " %14s", term_name(static_cast<Term>(i)));
  append(text, " %9s\n", "total");
  std::string notes;
  for (size_t rank = 0; rank < step.ranks.size(); ++rank) {
    const StepProfile::Rank& r = step.ranks[rank];
    append(text, " %4zu", rank);
    if (!r.traced) {
      text += "  not in the plan\n";
      continue;
    }
    for (const size_t i : shown) {
      const double ms = r.times.ms[i];
      append(text, " %8.3f %4.1f%%", ms, 100 * ms / std::max(r.times.total_ms, 1e-12));
    }
    append(text, " %9.3f\n", r.times.total_ms);
    if (!r.times.unknown.empty()) {
      append(notes, " rank %zu: the kernel %s has no term and counts as other\n", rank,
             r.times.unknown.c_str());
    }
    if (r.dropped > 0) {
      append(notes, " rank %zu: the tracer lost %lld records\n", rank,
             static_cast<long long>(r.dropped));
    }
  }
  text += notes;
  if (!step.ranks.front().traced) return;
  append(text, " traced it lasts %.3f ms, untraced %.3f\n", step.ranks.front().times.total_ms,
         step.timed_ms);
}

void add_comparison(const Profile& profile, std::string& text) {
  const TermTimes job{profile.job, 0, ""};
  text += "\nthe decode step of the whole job: predicted and measured ms\n";
  const std::vector<ComparedTerm> terms = compared_terms(profile.job, profile.predicted);
  double measured_ms = 0;
  for (const ComparedTerm& t : terms) {
    measured_ms += t.measured_ms;
    if (t.predicted_ms == 0 && t.measured_ms == 0) continue;
    append(text, " %-10s %9.3f %9.3f\n", t.name, t.predicted_ms, t.measured_ms);
  }
  append(text, "            of these %9.3f other kernels or ops, %.3f gaps, %.3f host\n",
         job[Term::kOther], job[Term::kGap], job[Term::kHost]);
  append(text, " %-10s %9.3f %9.3f\n", "all", profile.predicted.total_ms, measured_ms);
  append(text, "furthest off: %s\n", furthest_off(terms).name);
}

nlohmann::ordered_json terms_json(const std::array<double, kTerms>& ms) {
  nlohmann::ordered_json out;
  for (size_t i = 0; i < kTerms; ++i) {
    out[std::string(term_name(static_cast<Term>(i))) + "_ms"] = ms[i];
  }
  return out;
}

nlohmann::ordered_json step_json(const StepProfile& step) {
  nlohmann::ordered_json out = {{"steps", step.steps}, {"untraced_ms", step.timed_ms}};
  out["ranks"] = nlohmann::ordered_json::array();
  for (size_t rank = 0; rank < step.ranks.size(); ++rank) {
    const StepProfile::Rank& r = step.ranks[rank];
    nlohmann::ordered_json one = {{"rank", rank}, {"traced", r.traced}};
    if (r.traced) {
      one.update(terms_json(r.times.ms));
      one["total_ms"] = r.times.total_ms;
      one["dropped"] = r.dropped;
      if (!r.times.unknown.empty()) one["unknown"] = r.times.unknown;
    }
    out["ranks"].push_back(one);
  }
  return out;
}

}  // namespace

std::string profile_text(const Profile& profile) {
  if (!profile.obstacle.empty()) return "\nno profile: " + profile.obstacle + "\n";
  std::string text;
  add_step("prefill", profile.prefill, text);
  add_step("decode", profile.decode, text);
  if (profile.comparable) add_comparison(profile, text);
  return text;
}

nlohmann::ordered_json profile_json(const Profile& profile) {
  nlohmann::ordered_json out;
  if (!profile.obstacle.empty()) {
    out["obstacle"] = profile.obstacle;
    return out;
  }
  if (profile.prefill.steps > 0) out["prefill"] = step_json(profile.prefill);
  if (profile.decode.steps > 0) out["decode"] = step_json(profile.decode);
  if (!profile.comparable) return out;
  out["measured"] = terms_json(profile.job);
  const std::vector<ComparedTerm> terms = compared_terms(profile.job, profile.predicted);
  for (const ComparedTerm& t : terms) {
    out["predicted"][std::string(t.name) + "_ms"] = t.predicted_ms;
    out["measured"][std::string(t.name) + "_ms"] = t.measured_ms;
  }
  out["furthest_off"] = furthest_off(terms).name;
  return out;
}

}  // namespace spillway
