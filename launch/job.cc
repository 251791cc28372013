// See job.h.
#include "launch/job.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <span>
#include <thread>
#include <utility>

#include "kernels/core/error.h"
#include "launch/bus_guard.h"
#include "launch/gpu_probe.h"
#include "launch/heap.h"
#include "launch/job_notes.h"
#include "launch/rank_cores.h"
#include "launch/simulated_connect.h"
#include "parallel/agreement.h"
#include "parallel/budget.h"
#include "parallel/cpu_clock.h"
#include "parallel/patience.h"
#include "parallel/pins.h"
#include "parallel/probe.h"
#include "parallel/size_text.h"
#include "runtime/io/spill_file.h"
#include "runtime/model/not_finite.h"
#include "runtime/model/spec.h"

namespace spillway {
namespace {

// For the destructors of what an error leaves behind: all there is to wait for is goodbyes.
constexpr std::chrono::seconds kUnwinding{5};

// For a fault that an error may be an effect of, and for the coordinator's word on an error's own.
constexpr std::chrono::seconds kExplanation{1};
constexpr std::chrono::seconds kTelling{5};

cpu::Isa isa_of(const std::string& name) {
  const cpu::Isa best = cpu::best_isa();
  cpu::Isa wanted = best;
  if (name == "scalar") wanted = cpu::Isa::kScalar;
  if (name == "avx2") wanted = cpu::Isa::kAvx2;
  if (name == "avx512") wanted = cpu::Isa::kAvx512;
  if (wanted > best) {
    throw Error("this processor has no " + name, "",
                std::string("the best it has is ") + cpu::isa_name(best));
  }
  return wanted;
}

// What ranks that connect may take. GPUs and NCCL want seconds, on a busy file system tens of them;
// and each link between stages that does not work is given up after 20 s, one after the other.
std::chrono::milliseconds connect_limit(const Options& options, const Plan& plan) {
  constexpr double kStepTimeouts = 40;
  const double links_s = 20.0 * static_cast<double>(plan.stages.size() - 1);
  return std::chrono::milliseconds(
      static_cast<int64_t>((kStepTimeouts * options.step_timeout_s + links_s) * 1000));
}

// Of the ranks that lose the front, one of every host says so.
bool speaks_for_host(const World& world) {
  const int front_host = world.hosts[0];
  const int mine = world.hosts[static_cast<size_t>(world.rank)];
  return world.local_rank == (mine == front_host ? 1 : 0);
}

// The fault gate ends the process sooner.
[[noreturn]] void wait_for_end() {
  std::this_thread::sleep_for(std::chrono::seconds(2));
  _exit(1);
}

}  // namespace

Job::Job(const Options& options, WorkerNote& note) : options_(options), note_(note) {
  block_signals();
  bound_heap();
  world_ = bring_up(launched_as().size);
  agree(world_, obstacle_of([this] {
          gate_ = std::make_unique<FaultGate>(*world_.communicator, world_.front());
        }));
  try {
    open_model();
    const GpuSpec gpu = find_gpu();
    const int cores = settle_cores(world_, gpu.numa_node);
    agree(world_, obstacle_of([&] {
            pool_ = std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : cores);
            exec_ = {pool_.get(), isa_of(options.isa)};
          }));
    say_once(threads_note(options.threads, cores, world_.local_size));
    probe_and_join(gpu);
  } catch (const SharedError& error) {
    part(error);
    throw;
  } catch (const std::exception& error) {
    fail(error);
  }
}

Job::~Job() { quiet_down(); }

void Job::part(const SharedError& error) {
  end_at_latest(world_.front() ? error.what() : "", kUnwinding);
  quiet_down();
  if (gate_->explained(std::chrono::seconds(0))) wait_for_end();  // it was said another way
  try {
    world_.communicator->barrier();
  } catch (const Error&) {
    // A rank that is lost now changes nothing.
  }
}

void Job::quiet_down() {
  if (gate_ != nullptr) gate_->close();
  if (agent_ != nullptr) agent_->leave();
}

void Job::open_model() {
  std::string error;
  try {
    gguf_ = std::make_unique<Gguf>(Gguf::open(options_.model));
    model_ = read_model_spec(*gguf_);
  } catch (const Error& e) {
    error = e.what();
  }
  agree(world_, error);
}

void Job::probe_and_join(const GpuSpec& gpu) {
  if (world_.n_hosts > 1 && options_.listen.rfind("127.", 0) == 0) {
    throw SharedError("the ranks lie on " + std::to_string(world_.n_hosts) +
                          " hosts, but the coordinator would listen on " + options_.listen,
                      "",
                      "pass --coordinator ADDRESS:0 with an address of rank 0's host that all "
                      "can reach");
  }
  // All measure first, so that no rank waits in a join while another is still busy.
  RankSpec facts = probe_rank(exec_, {world_.rank, world_.local_rank, world_.local_size, false});
  facts.host = world_.host;
  facts.gpu = gpu;
  const JobRates rates = settle_rates(world_, exec_, cuda_gpus(), facts, matrix_types(model_));
  say_warnings(rates.warning);
  const bool tell = !options_.quiet && !options_.json && !rates.note.empty();
  if (world_.front() && tell && (rates.kept || explains())) {
    std::fprintf(stderr, "%s\n", rates.note.c_str());
  }
  const auto [address, secret] = start_coordinator(rates);
  join(rates.mine, address, secret);
}

GpuSpec Job::find_gpu() {
  GpuProbe found;
  std::string error;
  try {
    const PlanRequest request = plan_request(options_);
    check_device_list(request.devices, world_.size);
    check_built_with_cuda(request, cuda_gpus());
    found = probe_gpu(request.device_of(world_.rank), gpu_seat(world_.hosts, request, world_.rank),
                      cuda_gpus());
  } catch (const Error& e) {
    error = e.what();
  }
  agree(world_, error);
  say_warnings(found.warning);
  gpu_bytes_before_ = found.used_before_bytes;
  return found.gpu;
}

void Job::say_warnings(const std::string& mine) {
  const std::vector<std::string> warnings = gather_texts(world_, mine);
  for (size_t rank = 0; rank < warnings.size(); ++rank) {
    // The same words from many ranks (an old driver) are said once.
    const bool said = std::find(warnings.begin(), warnings.begin() + static_cast<int64_t>(rank),
                                warnings[rank]) != warnings.begin() + static_cast<int64_t>(rank);
    if (!world_.front() || options_.quiet || said) continue;
    const std::string who = rank > 0 ? "rank " + std::to_string(rank) + ": " : "";
    if (!warnings[rank].empty()) print_warning(who + warnings[rank]);
  }
}

void Job::say_once(const std::string& mine) {
  const std::vector<std::string> notes = gather_texts(world_, mine);
  const auto first = std::find_if(notes.begin(), notes.end(),
                                  [](const std::string& note) { return !note.empty(); });
  if (world_.front() && !options_.quiet && first != notes.end()) print_warning(*first);
}

std::pair<std::string, std::string> Job::start_coordinator(const JobRates& rates) {
  std::string address;
  std::string secret;
  std::string error;
  if (world_.front()) {
    bar_ = std::make_unique<ProgressBar>("loading", !options_.quiet && !options_.json);
    CoordinatorCallbacks callbacks;
    callbacks.make_plan = [this](const ClusterSpec& cluster) {
      return make_plan(model_, cluster, plan_request(options_));
    };
    callbacks.on_loading = [this](int64_t done, int64_t total) { bar_->update(done, total); };
    callbacks.on_fault = [this](const std::string& sentence) { gate_->fault(sentence, true); };
    try {
      secret = make_job_secret();
      CoordinatorOptions coordinator;
      coordinator.listen = options_.listen;
      coordinator.n_ranks = world_.size;
      coordinator.secret = secret;
      coordinator.model = options_.model;
      coordinator_ = std::make_unique<Coordinator>(coordinator, callbacks);
      coordinator_->set_link(rates.link, rates.pairs);
      address = coordinator_->address();
    } catch (const Error& e) {
      error = e.what();
    }
  }
  agree(world_, error);
  if (world_.front() && !options_.quiet && !options_.json) {
    std::fprintf(stderr, "coordinator at %s\n", address.c_str());
  }
  address = share_text(world_, address);
  return {address, share_text(world_, secret)};
}

void Job::join(const RankSpec& inventory, const std::string& address, const std::string& secret) {
  WorkerOptions worker;
  worker.coordinator = address;
  worker.secret = secret;
  worker.inventory = inventory;
  worker.header_hash = model_.header_hash;
  // The front speaks for all.
  const auto on_fault = [this](const std::string& sentence) {
    const bool coordinator_gone = sentence.find("(coordinator)") != std::string::npos;
    gate_->fault(sentence, world_.front() || (coordinator_gone && speaks_for_host(world_)));
  };
  agree(world_, obstacle_of([&] {
          agent_ = std::make_unique<WorkerAgent>(
              worker, [this] { return progress(); }, on_fault);
        }));
  std::string error;
  try {
    plan_ = agent_->join();
  } catch (const Error& e) {
    error = e.what();
  }
  agree(world_, error);
  state_ = "waiting";
  std::string note;
  agree(world_, obstacle_of([&] { note = comm_note(plan_, options_.comm); }));
  say_once(note);
  if (world_.front() && !options_.quiet) say_of_plan();
  watchdog_ = std::make_unique<Watchdog>(
      std::chrono::milliseconds(static_cast<int64_t>(options_.step_timeout_s * 1000)),
      [this] { return world_.communicator->waiting_for(); },
      [this](const std::string& sentence) { agent_->report_fault(sentence); });
}

void Job::say_of_plan() const {
  const PlanRequest request = plan_request(options_);
  print_warning(gpu_memory_note(cluster(), request));
  for (const std::string& warning : unused_gpus(plan_, model_, cluster(), request)) {
    print_warning(warning);
  }
  // The table says so itself.
  if (!options_.show_plan) {
    for (const std::string& note : cut_budgets(plan_)) print_warning(note);
  }
  // A table would be asked for; but who waits for spilled weights should know it beforehand.
  const std::string spilled = spill_text(plan_);
  if (!spilled.empty() && !options_.json) {
    std::fprintf(stderr, "spilled: %s; predicted %s tok/s decode, %.0f prefill\n", spilled.c_str(),
                 rate_text(plan_.prediction.decode_tok_per_s).c_str(),
                 plan_.prediction.prefill_tok_per_s);
  }
}

RankProgress Job::progress() const {
  RankProgress p;
  p.state = state_.load();
  p.loaded_bytes = loaded_bytes_;
  p.load_total_bytes = load_total_bytes_;
  p.step = note_.metrics.step;
  p.waiting_for = world_.communicator->waiting_for();
  p.memory_bytes = resident_bytes();
  if (world_.front()) {
    p.decode_tok_per_s = note_.metrics.decode_tok_per_s();
    p.prefill_tok_per_s = note_.metrics.prefill_tok_per_s();
    p.tokens_done = note_.metrics.new_tokens;
  }
  return p;
}

std::unique_ptr<House> Job::build(const Plan& plan, bool show_progress) {
  auto house = std::make_unique<House>();
  house->plan = plan;
  std::string error;
  std::string note;
  try {
    note = spill_folder_note(plan, world_.rank, options_.spill_folder,
                             lies_in_memory(options_.spill_folder));
    house->mesh = build_mesh(house->plan, world_.communicator->split(0, world_.rank));
    if (house->mesh.tp != nullptr) {
      const auto loaded = [this, show_progress](int64_t done, int64_t total) {
        if (!show_progress) return;
        load_total_bytes_ = total;
        loaded_bytes_ = done;
      };
      state_ = "loading";
      house->pipeline = std::make_unique<Pipeline>(*gguf_, model_, house->plan, house->mesh, exec_,
                                                   cluster().ranks[world_.rank].gpu.ordinal,
                                                   options_.spill_folder, loaded);
    }
    gguf_->drop_pages();
  } catch (const std::exception& e) {
    error = words_of(e);
  }
  agree(world_, error);
  if (show_progress) say_once(note);
  guard_spill(*house);
  connect(*house);
  state_ = "ready";
  if (show_progress && world_.front() && explains() && !options_.quiet) {
    std::fputs(house->pipeline->comm_report().c_str(), stderr);
  }
  if (show_progress && bar_ != nullptr) {
    // All have loaded; the bar ends before the first text, not with the next heartbeat.
    int64_t total = 0;
    for (const RankPart& part : plan.parts) total += plan.rank_bytes(part.rank, "weights");
    bar_->update(total, total);
  }
  return house;
}

void Job::guard_spill(const House& house) {
  const SpillFile* file = house.pipeline == nullptr ? nullptr : house.pipeline->spill_file();
  const auto mapped = file == nullptr ? std::span<const std::byte>() : file->mapped();
  mapped_bytes_ = static_cast<int64_t>(mapped.size());
  guard_spill_file(mapped, file == nullptr ? "" : file->where());
}

// Only when all have loaded: a rank that could not would leave the others waiting in here. On the
// watchdog, since they wait where heartbeats go on: in NCCL, in a driver.
void Job::connect(House& house) {
  state_ = "connecting";
  const WatchedStep watched(*watchdog_, "connecting", connect_limit(options_, house.plan));
  std::string error;
  try {
    simulate_connect_fault(world_.rank);
    if (house.pipeline != nullptr) house.pipeline->connect(options_.comm, options_.check_hidden);
  } catch (const Error& e) {
    // A lost rank, or the others wait for this one where they do not hear that it failed.
    if (!world_.communicator->healthy()) fail(e);
    error = e.what();
  }
  const Patience patience(*world_.communicator, error);
  try {
    agree(world_, error);
  } catch (const Error& e) {
    if (!world_.communicator->healthy()) fail(e);
    throw;
  }
}

void Job::leave(std::unique_ptr<House> house) {
  state_ = "leaving";
  // Its GPUs part from each other, which needs MPI.
  house.reset();
  quiet_down();
  // All have left before the coordinator goes, so that nobody hears a broken stream.
  world_.communicator->barrier();
  watchdog_.reset();
  agent_.reset();
  coordinator_.reset();
  gate_.reset();
  finish(world_);
}

std::string Job::sentence(const std::exception& error) const {
  const auto* damaged = dynamic_cast<const NotFinite*>(&error);
  if (damaged == nullptr) return words_of(error);
  const auto found = find_not_finite(*gguf_, std::chrono::seconds(10));
  if (!found) return error.what();
  return Error("tensor " + found->tensor + " holds " + std::to_string(found->value) + " in row " +
                   std::to_string(found->row) + "; " + damaged->message(),
               found->path + ", offset " + std::to_string(found->offset) + ", " + damaged->where(),
               "the file is damaged; download or convert it again")
      .what();
}

void Job::fail(const std::exception& error) {
  const std::string sentence = this->sentence(error);
  if (world_.size == 1) gate_->fault(sentence, true);
  // A dead peer shows as an error here and, a moment later, by name at the coordinator.
  if (!gate_->explained(kExplanation)) {
    // Through the coordinator it comes back to all ranks, and the front says it with this rank's
    // name; that takes its grace, and longer on a busy machine.
    const bool told = agent_ != nullptr && agent_->report_fault(sentence);
    if (!told || !gate_->explained(kTelling)) {
      gate_->fault("rank " + std::to_string(world_.rank) + " (" + world_.host + "): " + sentence,
                   true);
    }
  }
  wait_for_end();
}

int run_job(const Options& options, WorkerNote& note, const std::function<int(Job&)>& body) {
  Job job(options, note);
  try {
    return body(job);
  } catch (const SharedError& error) {
    job.part(error);
    throw;
  } catch (const std::exception& error) {
    job.fail(error);
  }
}

}  // namespace spillway
