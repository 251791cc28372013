// See plan_json.h.
#include "launch/plan_json.h"

#include <nlohmann/json.hpp>

#include "parallel/budget.h"
#include "parallel/pins.h"

namespace spillway {
namespace {

using Json = nlohmann::ordered_json;

Json range_json(const Range& range) { return Json::array({range.begin, range.end}); }

Json gpu_json(const GpuSpec& gpu) {
  if (!gpu.present()) return nullptr;
  return {{"name", gpu.name},
          {"uuid", gpu.uuid},
          {"ordinal", gpu.ordinal},
          {"major", gpu.major},
          {"minor", gpu.minor},
          {"multiprocessors", gpu.multiprocessors},
          {"total_bytes", gpu.total_bytes},
          {"free_bytes", gpu.free_bytes},
          {"read_gb_per_s", gpu.read_gb_per_s},
          {"matrix_tflops", gpu.matrix_tflops}};
}

Json rank_json(const Plan& plan, const RankPart& part, const RankSpec& rank) {
  Json out;
  out["rank"] = part.rank;
  out["host"] = rank.host;
  out["threads"] = rank.threads;
  out["device"] = part.gpu ? "gpu" : "cpu";
  out["gpu"] = gpu_json(rank.gpu);
  out["stage"] = part.stage;
  out["tp_index"] = part.tp_index;
  out["embedding_rows"] = range_json(part.embedding_rows);
  out["output_rows"] = range_json(part.output_rows);
  out["layers"] = Json::array();
  for (const LayerPart& layer : part.layers) {
    out["layers"].push_back({{"heads", range_json(layer.heads)},
                             {"kv_heads", range_json(layer.kv_heads)},
                             {"ff", range_json(layer.ff)},
                             {"attention", place_name(layer.attention)},
                             {"feed_forward", place_name(layer.feed_forward)},
                             {"ff_on_cpu", range_json(layer.ff_on_cpu)}});
  }
  for (const char* name : {"weights", "kv", "activations", "program"}) {
    out["bytes"][name] = plan.rank_bytes(part.rank, name);
  }
  out["bytes"]["total"] = plan.rank_bytes(part.rank);
  out["bytes"]["free"] = rank.memory_free_bytes;
  if (!plan.budgets.empty()) {
    const RankBudget& budget = plan.budgets[static_cast<size_t>(part.rank)];
    out["bytes"]["budgets"] = {{"host", budget.host_bytes},
                               {"gpu", budget.gpu_bytes},
                               {"host_given", budget.host_given},
                               {"gpu_given", budget.gpu_given},
                               {"host_asked", budget.host_asked_bytes},
                               {"gpu_asked", budget.gpu_asked_bytes}};
  }
  for (const char* place : {"host", "gpu", "disk"}) {
    out["bytes"]["places"][place] = plan.rank_bytes(part.rank, "", place);
  }
  return out;
}

}  // namespace

Json plan_json(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster) {
  Json out;
  out["model"] = {{"name", model.name},
                  {"architecture", model.architecture},
                  {"layers", model.n_layers},
                  {"dim", model.dim},
                  {"heads", model.n_heads},
                  {"kv_heads", model.n_kv_heads},
                  {"ff", model.ff_dim},
                  {"vocab", model.vocab_size},
                  {"file_bytes", model.file_bytes}};
  out["title"] = plan_title(plan);
  out["fingerprint"] = plan_fingerprint(plan);
  out["kv"] = {{"type", kv_type_name(plan.kv.type)},
               {"context", plan.kv.context},
               {"page_tokens", plan.kv.page_tokens},
               {"pages", plan.kv.n_pages}};
  out["stages"] = Json::array();
  for (const StagePlan& stage : plan.stages) {
    out["stages"].push_back({{"layers", range_json(stage.layers)},
                             {"ranks", stage.ranks},
                             {"shares", stage.shares},
                             {"achieved", stage.achieved}});
  }
  out["ranks"] = Json::array();
  for (const RankPart& part : plan.parts) {
    out["ranks"].push_back(rank_json(plan, part, cluster.ranks[static_cast<size_t>(part.rank)]));
  }
  const Prediction& p = plan.prediction;
  out["prediction"] = {{"decode_tok_per_s", p.decode_tok_per_s},
                       {"prefill_tok_per_s", p.prefill_tok_per_s},
                       {"sequences_tok_per_s", p.sequences_tok_per_s},
                       {"matrix_ms", p.matrix_ms},
                       {"attention_ms", p.attention_ms},
                       {"launch_ms", p.launch_ms},
                       {"collective_ms", p.collective_ms},
                       {"hop_ms", p.hop_ms},
                       {"cpu_ms", p.cpu_ms},
                       {"bus_ms", p.bus_ms},
                       {"disk_ms", p.disk_ms},
                       {"total_ms", p.total_ms},
                       {"measured_cluster", p.measured_cluster}};
  out["limits"] = {{"max_rows", plan.limits.max_rows},
                   {"max_sequences", plan.limits.max_sequences},
                   {"max_cpu_rows", plan.limits.max_cpu_rows}};
  out["cut_budgets"] = cut_budgets(plan);
  out["spilled"] = spill_text(plan);
  out["flags"] = request_flags(pins_of(plan));
  out["ledger"] = Json::array();
  for (const LedgerLine& line : plan.ledger) {
    out["ledger"].push_back({{"rank", line.rank},
                             {"place", line.place},
                             {"name", line.name},
                             {"detail", line.detail},
                             {"bytes", line.bytes}});
  }
  return out;
}

Json explanation_json(const Explanation& explanation) {
  const Binding& b = explanation.binding;
  Json out;
  out["binding"] = {{"rank", b.rank},
                    {"place", b.place},
                    {"used_bytes", b.used_bytes},
                    {"budget_bytes", b.budget_bytes},
                    {"line", b.line},
                    {"line_bytes", b.line_bytes},
                    {"binds", b.binds},
                    {"budget_given", b.given},
                    {"unused", b.unused},
                    {"pins",
                     {{"flags", b.pins.flags},
                      {"off_bytes", b.pins.off_bytes},
                      {"kept_bytes", b.pins.kept_bytes},
                      {"all_spilled", b.pins.all_spilled}}}};
  out["without_pins"] = nullptr;
  if (explanation.without_pins) {
    out["without_pins"] = {{"decode_tok_per_s", explanation.without_pins->decode_tok_per_s},
                           {"prefill_tok_per_s", explanation.without_pins->prefill_tok_per_s},
                           {"times", explanation.without_pins->times}};
  }
  out["fewer_ranks"] = nullptr;
  if (explanation.fewer) {
    out["fewer_ranks"] = {{"ranks", explanation.fewer->ranks}, {"times", explanation.fewer->times}};
  }
  out["one_more_gib"] = Json::array();
  for (const OneMoreGib& more : explanation.more) {
    out["one_more_gib"].push_back({{"place", more.place},
                                   {"decode_tok_per_s", more.decode_tok_per_s},
                                   {"prefill_tok_per_s", more.prefill_tok_per_s},
                                   {"sequences_tok_per_s", more.sequences_tok_per_s},
                                   {"context", more.context}});
  }
  out["alternatives"] = Json::array();
  for (const Alternative& one : explanation.alternatives) {
    out["alternatives"].push_back({{"what", one.what},
                                   {"decode_tok_per_s", one.decode_tok_per_s},
                                   {"prefill_tok_per_s", one.prefill_tok_per_s},
                                   {"sequences_tok_per_s", one.sequences_tok_per_s},
                                   {"context", one.context},
                                   {"flags", one.flags}});
  }
  return out;
}

}  // namespace spillway
