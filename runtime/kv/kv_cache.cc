// See kv_cache.h.
#include "runtime/kv/kv_cache.h"

#include <string>

#include "kernels/core/check.h"
#include "parallel/ledger.h"

namespace spillway {
namespace {

BufferList buffers_of(const ModelSpec& model, const Plan& plan, int rank) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  return kv_buffers(model, part, plan.stages[static_cast<size_t>(part.stage)].layers, plan.kv);
}

}  // namespace

std::vector<KvView> take_kv_views(const ModelSpec& model, const Plan& plan, int rank,
                                  Arena& arena) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  const Range layers = plan.stages[static_cast<size_t>(part.stage)].layers;
  BufferTaker taker(buffers_of(model, plan, rank), arena);
  std::vector<KvView> views;
  for (int64_t i = 0; i < layers.size(); ++i) {
    const std::string index = std::to_string(layers.begin + i);
    KvView view;
    view.k = taker.take("k" + index);
    view.v = taker.take("v" + index);
    view.type = plan.kv.type;
    view.n_pages = plan.kv.n_pages;
    view.n_kv_heads = part.layers[static_cast<size_t>(i)].kv_heads.size();
    view.page_tokens = plan.kv.page_tokens;
    view.head_dim = model.head_dim;
    views.push_back(view);
  }
  CHECK(taker.done());
  return views;
}

KvCache::KvCache(const ModelSpec& model, const Plan& plan, int rank)
    : arena_("kv", buffers_of(model, plan, rank).total()),
      layers_(take_kv_views(model, plan, rank, arena_)) {}

}  // namespace spillway
