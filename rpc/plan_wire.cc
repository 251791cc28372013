// See plan_wire.h. Encoders take structures apart by structured bindings: a field that is added to
// a structure and forgotten here does not compile.
#include "rpc/plan_wire.h"

#include "coordinator.pb.h"
#include "kernels/core/error.h"
#include "rpc/rates_wire.h"

namespace spillway {
namespace {

Error broken(const std::string& what) {
  return Error("the plan that came over the wire is broken: " + what, "",
               "use the same build of spillway on all hosts");
}

void range_to_wire(const Range& range, rpc::Range* wire) {
  const auto& [begin, end] = range;
  wire->set_begin(begin);
  wire->set_end(end);
}

Range range_from_wire(const rpc::Range& wire) { return {wire.begin(), wire.end()}; }

Place place_from_wire(uint32_t place) {
  return static_cast<Place>(std::min(place, static_cast<uint32_t>(kPlaces - 1)));
}

void part_to_wire(const RankPart& part, rpc::RankPart* wire) {
  const auto& [rank, stage, tp_index, layers, embedding_rows, output_rows, gpu] = part;
  wire->set_rank(rank);
  wire->set_stage(stage);
  wire->set_tp_index(tp_index);
  for (const LayerPart& layer : layers) {
    const auto& [heads, kv_heads, ff, attention, feed_forward, ff_on_cpu] = layer;
    rpc::LayerPart* out = wire->add_layers();
    range_to_wire(heads, out->mutable_heads());
    range_to_wire(kv_heads, out->mutable_kv_heads());
    range_to_wire(ff, out->mutable_ff());
    out->set_attention(static_cast<uint32_t>(attention));
    out->set_feed_forward(static_cast<uint32_t>(feed_forward));
    range_to_wire(ff_on_cpu, out->mutable_ff_on_cpu());
  }
  range_to_wire(embedding_rows, wire->mutable_embedding_rows());
  range_to_wire(output_rows, wire->mutable_output_rows());
  wire->set_gpu(gpu);
}

RankPart part_from_wire(const rpc::RankPart& wire) {
  RankPart part;
  part.rank = wire.rank();
  part.stage = wire.stage();
  part.tp_index = wire.tp_index();
  for (const rpc::LayerPart& layer : wire.layers()) {
    part.layers.push_back({range_from_wire(layer.heads()), range_from_wire(layer.kv_heads()),
                           range_from_wire(layer.ff()), place_from_wire(layer.attention()),
                           place_from_wire(layer.feed_forward()),
                           range_from_wire(layer.ff_on_cpu())});
  }
  part.embedding_rows = range_from_wire(wire.embedding_rows());
  part.output_rows = range_from_wire(wire.output_rows());
  part.gpu = wire.gpu();
  return part;
}

void stage_to_wire(const StagePlan& stage, rpc::StagePlan* wire) {
  const auto& [layers, ranks, shares, achieved] = stage;
  range_to_wire(layers, wire->mutable_layers());
  for (const int rank : ranks) wire->add_ranks(rank);
  for (const double share : shares) wire->add_shares(share);
  for (const double share : achieved) wire->add_achieved(share);
}

StagePlan stage_from_wire(const rpc::StagePlan& wire) {
  StagePlan stage;
  stage.layers = range_from_wire(wire.layers());
  stage.ranks.assign(wire.ranks().begin(), wire.ranks().end());
  stage.shares.assign(wire.shares().begin(), wire.shares().end());
  stage.achieved.assign(wire.achieved().begin(), wire.achieved().end());
  return stage;
}

void limits_to_wire(const StepLimits& limits, rpc::StepLimits* wire) {
  const auto& [max_rows, max_sequences, max_logit_rows, max_candidates, max_wanted, all_logits,
               max_cpu_rows] = limits;
  wire->set_max_rows(max_rows);
  wire->set_max_sequences(max_sequences);
  wire->set_max_logit_rows(max_logit_rows);
  wire->set_max_candidates(max_candidates);
  wire->set_max_wanted(max_wanted);
  wire->set_all_logits(all_logits);
  wire->set_max_cpu_rows(max_cpu_rows);
}

StepLimits limits_from_wire(const rpc::StepLimits& wire) {
  StepLimits limits;
  limits.max_rows = wire.max_rows();
  limits.max_sequences = wire.max_sequences();
  limits.max_logit_rows = wire.max_logit_rows();
  limits.max_candidates = wire.max_candidates();
  limits.max_wanted = wire.max_wanted();
  limits.all_logits = wire.all_logits();
  limits.max_cpu_rows = wire.max_cpu_rows();
  return limits;
}

void kv_to_wire(const KvPlan& kv, rpc::KvPlan* wire) {
  const auto& [type, page_tokens, n_pages, context] = kv;
  wire->set_type(static_cast<uint32_t>(type));
  wire->set_page_tokens(page_tokens);
  wire->set_n_pages(n_pages);
  wire->set_context(context);
}

KvPlan kv_from_wire(const rpc::KvPlan& wire) {
  if (wire.type() >= kKvTypes) {
    throw broken("KV type " + std::to_string(wire.type()) + " is unknown");
  }
  return {static_cast<KvType>(wire.type()), wire.page_tokens(), wire.n_pages(), wire.context()};
}

void ledger_line_to_wire(const LedgerLine& line, rpc::LedgerLine* wire) {
  const auto& [rank, place, name, detail, bytes] = line;
  wire->set_rank(rank);
  wire->set_place(place);
  wire->set_name(name);
  wire->set_detail(detail);
  wire->set_bytes(bytes);
}

void prediction_to_wire(const Prediction& prediction, rpc::Prediction* wire) {
  const auto& [matrix, attention, launch, collective, hop, cpu, bus, disk, total, decode, prefill,
               sequences, measured] = prediction;
  wire->set_launch_ms(launch);
  wire->set_cpu_ms(cpu);
  wire->set_bus_ms(bus);
  wire->set_disk_ms(disk);
  wire->set_sequences_tok_per_s(sequences);
  wire->set_matrix_ms(matrix);
  wire->set_attention_ms(attention);
  wire->set_collective_ms(collective);
  wire->set_hop_ms(hop);
  wire->set_total_ms(total);
  wire->set_decode_tok_per_s(decode);
  wire->set_prefill_tok_per_s(prefill);
  wire->set_measured_cluster(measured);
}

Prediction prediction_from_wire(const rpc::Prediction& wire) {
  Prediction p;
  p.matrix_ms = wire.matrix_ms();
  p.attention_ms = wire.attention_ms();
  p.launch_ms = wire.launch_ms();
  p.collective_ms = wire.collective_ms();
  p.hop_ms = wire.hop_ms();
  p.cpu_ms = wire.cpu_ms();
  p.bus_ms = wire.bus_ms();
  p.disk_ms = wire.disk_ms();
  p.total_ms = wire.total_ms();
  p.decode_tok_per_s = wire.decode_tok_per_s();
  p.prefill_tok_per_s = wire.prefill_tok_per_s();
  p.sequences_tok_per_s = wire.sequences_tok_per_s();
  p.measured_cluster = wire.measured_cluster();
  return p;
}

void budget_to_wire(const RankBudget& budget, rpc::RankBudget* wire) {
  const auto& [gpu_bytes, host_bytes, gpu_given, host_given, gpu_asked_bytes, host_asked_bytes] =
      budget;
  wire->set_gpu_bytes(gpu_bytes);
  wire->set_host_bytes(host_bytes);
  wire->set_gpu_given(gpu_given);
  wire->set_host_given(host_given);
  wire->set_gpu_asked_bytes(gpu_asked_bytes);
  wire->set_host_asked_bytes(host_asked_bytes);
}

void gpu_to_wire(const GpuSpec& gpu, rpc::Gpu* wire) {
  const auto& [name, uuid, ordinal, major, minor, multiprocessors, total_bytes, free_bytes,
               read_gb_per_s, matrix_tflops, h2d_gb_per_s, d2h_gb_per_s, launch_gap_us, numa_node] =
      gpu;
  wire->set_name(name);
  wire->set_uuid(uuid);
  wire->set_ordinal(ordinal);
  wire->set_major(major);
  wire->set_minor(minor);
  wire->set_multiprocessors(multiprocessors);
  wire->set_total_bytes(total_bytes);
  wire->set_free_bytes(free_bytes);
  wire->set_read_gb_per_s(read_gb_per_s);
  wire->set_matrix_tflops(matrix_tflops);
  wire->set_h2d_gb_per_s(h2d_gb_per_s);
  wire->set_d2h_gb_per_s(d2h_gb_per_s);
  wire->set_launch_gap_us(launch_gap_us);
  wire->set_numa_node(numa_node);
}

GpuSpec gpu_from_wire(const rpc::Gpu& wire) {
  GpuSpec gpu;
  gpu.name = wire.name();
  gpu.uuid = wire.uuid();
  gpu.ordinal = wire.ordinal();
  gpu.major = wire.major();
  gpu.minor = wire.minor();
  gpu.multiprocessors = wire.multiprocessors();
  gpu.total_bytes = wire.total_bytes();
  gpu.free_bytes = wire.free_bytes();
  gpu.read_gb_per_s = wire.read_gb_per_s();
  gpu.matrix_tflops = wire.matrix_tflops();
  gpu.h2d_gb_per_s = wire.h2d_gb_per_s();
  gpu.d2h_gb_per_s = wire.d2h_gb_per_s();
  gpu.launch_gap_us = wire.launch_gap_us();
  gpu.numa_node = wire.numa_node();
  return gpu;
}

void host_read_to_wire(const HostRead& read, rpc::HostRead* wire) {
  const auto& [threads, gb_per_s, beside_bus_gb_per_s, bus_gb_per_s] = read;
  wire->set_threads(threads);
  wire->set_gb_per_s(gb_per_s);
  wire->set_beside_bus_gb_per_s(beside_bus_gb_per_s);
  wire->set_bus_gb_per_s(bus_gb_per_s);
}

HostRead host_read_from_wire(const rpc::HostRead& wire) {
  return {wire.threads(), wire.gb_per_s(), wire.beside_bus_gb_per_s(), wire.bus_gb_per_s()};
}

void pair_to_wire(const PairSpec& pair, rpc::Pair* wire) {
  const auto& [from, to, fabric, gb_per_s, small_sum_us] = pair;
  wire->set_from(from);
  wire->set_to(to);
  wire->set_fabric(fabric);
  wire->set_gb_per_s(gb_per_s);
  wire->set_small_sum_us(small_sum_us);
}

PairSpec pair_from_wire(const rpc::Pair& wire, int n_ranks) {
  if (wire.from() < 0 || wire.from() >= wire.to() || wire.to() >= n_ranks) {
    throw broken("a pair of the ranks " + std::to_string(wire.from()) + " and " +
                 std::to_string(wire.to()));
  }
  return {wire.from(), wire.to(), wire.fabric(), wire.gb_per_s(), wire.small_sum_us()};
}

// Whatever a reader uses as an index lies in range, and every list is as long as its twin.
void check_indices(const Plan& plan) {
  const int n_ranks = plan.n_ranks();
  if (!plan.budgets.empty() && static_cast<int>(plan.budgets.size()) != n_ranks) {
    throw broken("not one budget a rank");
  }
  const int n_stages = static_cast<int>(plan.stages.size());
  for (int i = 0; i < n_stages; ++i) {
    const StagePlan& stage = plan.stages[i];
    const std::string name = "stage " + std::to_string(i);
    if (stage.ranks.empty()) throw broken(name + " has no ranks");
    if (stage.shares.size() != stage.ranks.size() || stage.achieved.size() != stage.ranks.size()) {
      throw broken(name + " has not one share a rank");
    }
    for (const int rank : stage.ranks) {
      if (rank < 0 || rank >= n_ranks) throw broken(name + " has rank " + std::to_string(rank));
    }
  }
  for (int i = 0; i < n_ranks; ++i) {
    const RankPart& part = plan.parts[i];
    const std::string name = "part " + std::to_string(i);
    if (part.rank != i) throw broken(name + " is of rank " + std::to_string(part.rank));
    if (part.stage < 0 || part.stage >= n_stages) {
      throw broken(name + " is in stage " + std::to_string(part.stage));
    }
    const StagePlan& stage = plan.stages[part.stage];
    const bool in_stage = part.tp_index >= 0 &&
                          part.tp_index < static_cast<int>(stage.ranks.size()) &&
                          stage.ranks[part.tp_index] == i;
    if (!in_stage) throw broken(name + " has TP index " + std::to_string(part.tp_index));
    if (static_cast<int64_t>(part.layers.size()) != stage.layers.size()) {
      throw broken(name + " has " + std::to_string(part.layers.size()) + " layers");
    }
  }
}

}  // namespace

void to_wire(const Plan& plan, rpc::Plan* wire) {
  const auto& [model_name, header_hash, stages, parts, limits, kv, ledger, budgets, prediction] =
      plan;
  wire->set_model_name(model_name);
  wire->set_header_hash(header_hash);
  for (const StagePlan& stage : stages) stage_to_wire(stage, wire->add_stages());
  for (const RankPart& part : parts) part_to_wire(part, wire->add_parts());
  limits_to_wire(limits, wire->mutable_limits());
  kv_to_wire(kv, wire->mutable_kv());
  for (const LedgerLine& line : ledger) ledger_line_to_wire(line, wire->add_ledger());
  for (const RankBudget& budget : budgets) budget_to_wire(budget, wire->add_budgets());
  prediction_to_wire(prediction, wire->mutable_prediction());
}

Plan from_wire(const rpc::Plan& wire) {
  Plan plan;
  plan.model_name = wire.model_name();
  plan.header_hash = wire.header_hash();
  for (const rpc::StagePlan& stage : wire.stages()) plan.stages.push_back(stage_from_wire(stage));
  for (const rpc::RankPart& part : wire.parts()) plan.parts.push_back(part_from_wire(part));
  plan.limits = limits_from_wire(wire.limits());
  plan.kv = kv_from_wire(wire.kv());
  for (const rpc::LedgerLine& line : wire.ledger()) {
    plan.ledger.push_back({line.rank(), line.place(), line.name(), line.detail(), line.bytes()});
  }
  for (const rpc::RankBudget& budget : wire.budgets()) {
    plan.budgets.push_back({budget.gpu_bytes(), budget.host_bytes(), budget.gpu_given(),
                            budget.host_given(), budget.gpu_asked_bytes(),
                            budget.host_asked_bytes()});
  }
  plan.prediction = prediction_from_wire(wire.prediction());
  check_indices(plan);
  return plan;
}

void to_wire(const RankSpec& spec, rpc::Inventory* wire) {
  const auto& [rank, host, local_rank, local_size, pid, cpu, isa, threads, memory_free_bytes,
               read_gb_per_s, matrix_gop_per_s, measured, gpu, host_reads, pin_gb_per_s, numa_nodes,
               disk_gb_per_s, page_cache_gb_per_s, together, cpu_alone, cpu_together, busy_share] =
      spec;
  (void)busy_share;  // said where the rates come from, before a job joins
  wire->set_rank(rank);
  wire->set_host(host);
  wire->set_local_rank(local_rank);
  wire->set_local_size(local_size);
  wire->set_pid(pid);
  wire->set_cpu(cpu);
  wire->set_isa(isa);
  wire->set_threads(threads);
  wire->set_memory_free_bytes(memory_free_bytes);
  wire->set_read_gb_per_s(read_gb_per_s);
  wire->set_matrix_gop_per_s(matrix_gop_per_s);
  wire->set_measured(measured);
  if (gpu.present()) gpu_to_wire(gpu, wire->mutable_gpu());
  for (const HostRead& read : host_reads) host_read_to_wire(read, wire->add_host_reads());
  wire->set_pin_gb_per_s(pin_gb_per_s);
  wire->set_numa_nodes(numa_nodes);
  wire->set_disk_gb_per_s(disk_gb_per_s);
  wire->set_page_cache_gb_per_s(page_cache_gb_per_s);
  if (together.threads > 0) host_read_to_wire(together, wire->mutable_together());
  if (cpu_alone.threads > 0) cpu_rates_to_wire(cpu_alone, wire->mutable_cpu_alone());
  if (cpu_together.threads > 0) cpu_rates_to_wire(cpu_together, wire->mutable_cpu_together());
}

RankSpec from_wire(const rpc::Inventory& wire) {
  RankSpec spec;
  spec.rank = wire.rank();
  spec.host = wire.host();
  spec.local_rank = wire.local_rank();
  spec.local_size = wire.local_size();
  spec.pid = wire.pid();
  spec.cpu = wire.cpu();
  spec.isa = wire.isa();
  spec.threads = wire.threads();
  spec.memory_free_bytes = wire.memory_free_bytes();
  spec.read_gb_per_s = wire.read_gb_per_s();
  spec.matrix_gop_per_s = wire.matrix_gop_per_s();
  spec.measured = wire.measured();
  if (wire.has_gpu()) spec.gpu = gpu_from_wire(wire.gpu());
  for (const rpc::HostRead& read : wire.host_reads()) {
    spec.host_reads.push_back(host_read_from_wire(read));
  }
  spec.pin_gb_per_s = wire.pin_gb_per_s();
  spec.numa_nodes = wire.numa_nodes();
  spec.disk_gb_per_s = wire.disk_gb_per_s();
  spec.page_cache_gb_per_s = wire.page_cache_gb_per_s();
  if (wire.has_together()) spec.together = host_read_from_wire(wire.together());
  if (wire.has_cpu_alone()) spec.cpu_alone = cpu_rates_from_wire(wire.cpu_alone());
  if (wire.has_cpu_together()) spec.cpu_together = cpu_rates_from_wire(wire.cpu_together());
  return spec;
}

void to_wire(const ClusterSpec& cluster, rpc::Cluster* wire) {
  const auto& [ranks, link, pairs] = cluster;
  const auto& [latency_us, gb_per_s, measured, row_sum_us] = link;
  for (const RankSpec& rank : ranks) to_wire(rank, wire->add_ranks());
  wire->mutable_link()->set_latency_us(latency_us);
  wire->mutable_link()->set_gb_per_s(gb_per_s);
  wire->mutable_link()->set_row_sum_us(row_sum_us);
  wire->mutable_link()->set_measured(measured);
  for (const PairSpec& pair : pairs) pair_to_wire(pair, wire->add_pairs());
}

ClusterSpec from_wire(const rpc::Cluster& wire) {
  ClusterSpec cluster;
  for (const rpc::Inventory& rank : wire.ranks()) {
    if (rank.rank() != cluster.size()) {
      throw broken("rank " + std::to_string(rank.rank()) + " stands where rank " +
                   std::to_string(cluster.size()) + " must");
    }
    cluster.ranks.push_back(from_wire(rank));
  }
  cluster.link = {wire.link().latency_us(), wire.link().gb_per_s(), wire.link().measured(),
                  wire.link().row_sum_us()};
  for (const rpc::Pair& pair : wire.pairs()) {
    cluster.pairs.push_back(pair_from_wire(pair, cluster.size()));
  }
  return cluster;
}

std::string encode_plan(const Plan& plan) {
  rpc::Plan wire;
  to_wire(plan, &wire);
  return wire.SerializeAsString();
}

Plan decode_plan(const std::string& bytes) {
  rpc::Plan wire;
  if (!wire.ParseFromString(bytes)) throw broken("it does not parse");
  return from_wire(wire);
}

std::string encode_cluster(const ClusterSpec& cluster) {
  rpc::Cluster wire;
  to_wire(cluster, &wire);
  return wire.SerializeAsString();
}

ClusterSpec decode_cluster(const std::string& bytes) {
  rpc::Cluster wire;
  if (!wire.ParseFromString(bytes)) throw broken("the cluster does not parse");
  return from_wire(wire);
}

}  // namespace spillway
