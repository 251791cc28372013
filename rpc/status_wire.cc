// See status_wire.h. Structured bindings as in plan_wire.cc: a forgotten field does not compile.
#include "rpc/status_wire.h"

#include "coordinator.pb.h"

namespace spillway {

void to_wire(const RankProgress& progress, rpc::Progress* wire) {
  const auto& [state, loaded_bytes, load_total_bytes, step, waiting_for, memory_bytes,
               decode_tok_per_s, prefill_tok_per_s, tokens_done] = progress;
  wire->set_state(state);
  wire->set_loaded_bytes(loaded_bytes);
  wire->set_load_total_bytes(load_total_bytes);
  wire->set_step(step);
  wire->set_waiting_for(waiting_for);
  wire->set_memory_bytes(memory_bytes);
  wire->set_decode_tok_per_s(decode_tok_per_s);
  wire->set_prefill_tok_per_s(prefill_tok_per_s);
  wire->set_tokens_done(tokens_done);
}

RankProgress from_wire(const rpc::Progress& wire) {
  RankProgress progress;
  progress.state = wire.state();
  progress.loaded_bytes = wire.loaded_bytes();
  progress.load_total_bytes = wire.load_total_bytes();
  progress.step = wire.step();
  progress.waiting_for = wire.waiting_for();
  progress.memory_bytes = wire.memory_bytes();
  progress.decode_tok_per_s = wire.decode_tok_per_s();
  progress.prefill_tok_per_s = wire.prefill_tok_per_s();
  progress.tokens_done = wire.tokens_done();
  return progress;
}

void to_wire(const JobStatus& status, rpc::StatusReply* wire) {
  const auto& [model, plan_title, state, uptime_s, predicted_tok_per_s, ranks] = status;
  wire->set_model(model);
  wire->set_plan_title(plan_title);
  wire->set_state(state);
  wire->set_uptime_s(uptime_s);
  wire->set_predicted_tok_per_s(predicted_tok_per_s);
  for (const RankStatus& row : ranks) {
    const auto& [rank, host, pid, device, stage, tp_index, first_layer, n_layers, share,
                 planned_bytes, heartbeat_age_s, progress] = row;
    rpc::RankRow* out = wire->add_ranks();
    out->set_rank(rank);
    out->set_host(host);
    out->set_pid(pid);
    out->set_device(device);
    out->set_stage(stage);
    out->set_tp_index(tp_index);
    out->set_first_layer(first_layer);
    out->set_n_layers(n_layers);
    out->set_share(share);
    out->set_planned_bytes(planned_bytes);
    out->set_heartbeat_age_s(heartbeat_age_s);
    to_wire(progress, out->mutable_progress());
  }
}

JobStatus from_wire(const rpc::StatusReply& wire) {
  JobStatus status;
  status.model = wire.model();
  status.plan_title = wire.plan_title();
  status.state = wire.state();
  status.uptime_s = wire.uptime_s();
  status.predicted_tok_per_s = wire.predicted_tok_per_s();
  for (const rpc::RankRow& row : wire.ranks()) {
    RankStatus rank;
    rank.rank = row.rank();
    rank.host = row.host();
    rank.pid = row.pid();
    rank.device = row.device();
    rank.stage = row.stage();
    rank.tp_index = row.tp_index();
    rank.first_layer = row.first_layer();
    rank.n_layers = row.n_layers();
    rank.share = row.share();
    rank.planned_bytes = row.planned_bytes();
    rank.heartbeat_age_s = row.heartbeat_age_s();
    rank.progress = from_wire(row.progress());
    status.ranks.push_back(rank);
  }
  return status;
}

}  // namespace spillway
