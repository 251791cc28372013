// See plan_request_check.h.
#include "parallel/plan_request_check.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"
#include "parallel/gpu_ledger.h"
#include "parallel/shard.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

constexpr int64_t kDefaultContext = 4096;

// With `who`: "attention.q of layer 3".
void check_matrix(const MatrixSpec& matrix, int64_t rows, int64_t cols, const std::string& who) {
  const QuantInfo& info = quant_info(matrix.type);
  if (!info.computable) {
    throw Error("the kernels have no product for type " + std::string(info.name), who,
                "use a file with F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0 weights");
  }
  if (matrix.rows != rows || matrix.cols != cols || cols % info.block_elements != 0) {
    throw Error("the matrix is " + std::to_string(matrix.rows) + " x " +
                    std::to_string(matrix.cols) + ", the model's sizes want " +
                    std::to_string(rows) + " x " + std::to_string(cols) + " in blocks of " +
                    std::to_string(info.block_elements),
                who, "the file is damaged or of another architecture");
  }
}

void check_layer(const ModelSpec& model, const LayerSpec& layer, int64_t index) {
  const int64_t q_rows = model.n_heads * model.head_dim;
  const int64_t kv_rows = model.n_kv_heads * model.head_dim;
  const std::string of = " of layer " + std::to_string(index);
  check_matrix(layer.q, q_rows, model.dim, "attention.q" + of);
  check_matrix(layer.k, kv_rows, model.dim, "attention.k" + of);
  check_matrix(layer.v, kv_rows, model.dim, "attention.v" + of);
  check_matrix(layer.o, model.dim, q_rows, "attention.o" + of);
  check_matrix(layer.gate, model.ff_dim, model.dim, "feed-forward.gate" + of);
  check_matrix(layer.up, model.ff_dim, model.dim, "feed-forward.up" + of);
  check_matrix(layer.down, model.dim, model.ff_dim, "feed-forward.down" + of);
}

void check_context(const ModelSpec& model, const PlanRequest& request) {
  if (request.context < 0) {
    throw Error("a context of " + count_text(request.context, "token"), "-c",
                "leave it out for the model's own, at most " + std::to_string(kDefaultContext));
  }
  const int64_t covered = most_context(model);
  if (covered == 0 || request.context <= covered) return;
  const bool scaled = covered > model.context_length;
  throw Error("a context of " + count_text(request.context, "token") + ", but the model " +
                  (scaled ? "with its rope scaling reaches " : "was trained with ") +
                  std::to_string(covered),
              "-c", "use -c " + std::to_string(covered) + " or less");
}

void check_limits(const StepLimits& limits) {
  const auto positive = [](int64_t value, const char* name) {
    if (value >= 1) return;
    throw Error(std::string(name) + " is " + std::to_string(value), "limits of a step",
                "it must be 1 or more");
  };
  positive(limits.max_rows, "tokens a step");
  positive(limits.max_sequences, "sequences at once");
  positive(limits.max_logit_rows, "rows with logits");
  positive(limits.max_candidates, "candidates a row");
}

// "--device gpu" or "--device gpu,gpu,cpu".
std::string device_flag(const PlanRequest& request) {
  return "--device " +
         device_list_text(request.devices.empty() ? std::vector{request.device} : request.devices);
}

// "0, 1 and 3"
std::string ranks_text(const std::vector<int>& ranks) {
  std::string text;
  for (size_t i = 0; i < ranks.size(); ++i) {
    append_item(text, i + 1 == ranks.size() ? " and " : ", ", std::to_string(ranks[i]));
  }
  return text;
}

// Every rank on a GPU of its own, or the user knows.
void check_sharing(const ClusterSpec& cluster, const PlanRequest& request) {
  if (request.share_gpus) return;
  for (const RankSpec& spec : cluster.ranks) {
    if (request.device_of(spec.rank) == DeviceChoice::kCpu) continue;
    const std::vector<int> ranks = ranks_on_gpu(cluster, spec.rank);
    if (ranks.size() < 2) continue;
    int here = 0;
    int gpus = 0;
    for (const RankSpec& other : cluster.ranks) {
      const bool counts = other.host == spec.host && other.gpu.present();
      here += counts ? 1 : 0;
      gpus += counts && ranks_on_gpu(cluster, other.rank).front() == other.rank ? 1 : 0;
    }
    const std::string wanted = count_text(gpus, "rank");
    throw Error(count_text(here, "rank") + " for " + count_text(gpus, "GPU") + ": ranks " +
                    ranks_text(ranks) + " would share " + spec.gpu.text(),
                "host " + spec.host + ", " + device_flag(request),
                "start " + wanted + " there, pass --share-gpus to share all the same, or use " +
                    "--device cpu");
  }
}

void check_device(const ModelSpec& model, const ClusterSpec& cluster, const PlanRequest& request) {
  check_device_list(request.devices, cluster.size());
  const std::string obstacle = gpu_obstacle(model);
  for (const RankSpec& spec : cluster.ranks) {
    if (request.device_of(spec.rank) != DeviceChoice::kGpu) continue;
    if (!spec.gpu.present()) {
      throw Error("rank " + std::to_string(spec.rank) + " has no GPU",
                  "host " + spec.host + ", " + device_flag(request),
                  "use --device cpu, or start on a machine with an NVIDIA GPU and its driver");
    }
    if (!obstacle.empty()) throw Error(obstacle, device_flag(request), "use --device cpu");
  }
  if (obstacle.empty()) check_sharing(cluster, request);
}

std::string divisors_of(int n) {
  std::string text;
  for (int d = 1; d <= n; ++d) {
    if (n % d == 0) append_item(text, ", ", std::to_string(d));
  }
  return text;
}

// "1:1+1" for 3 ranks: stages of two, the last of what is left.
std::string example_split(int n_ranks) {
  std::vector<StagePin> stages;
  for (int left = n_ranks; left > 0; left -= 2) {
    stages.push_back({0, std::vector<double>(static_cast<size_t>(std::min(left, 2)), 1.0)});
  }
  return split_text(stages);
}

void check_degrees(int n, const PlanRequest& request) {
  const std::string ranks = count_text(n, "rank");
  for (const auto& [value, name] : {std::pair{request.tp, "--tp"}, std::pair{request.pp, "--pp"}}) {
    const std::string flag = std::string(name) + " " + std::to_string(value);
    if (value < 0) throw Error(flag + " is below 1", "", "leave it out to let the planner choose");
    if (value == 0 || n % value == 0 || (request.tp > 0 && request.pp > 0)) continue;
    throw Error(flag + " does not divide " + ranks, "",
                "use " + std::string(name) + " " + divisors_of(n) +
                    ", stages of different width as in --split " + example_split(n) +
                    ", or another mpirun -np");
  }
  if (request.tp > 0 && request.pp > 0) {
    const int64_t wanted = int64_t{request.tp} * request.pp;
    if (wanted == n) return;
    throw Error("--tp " + std::to_string(request.tp) + " with --pp " + std::to_string(request.pp) +
                    " needs " + count_text(wanted, "rank") + ", the job has " + ranks,
                "", "start mpirun -np " + std::to_string(wanted) + ", or give only one of the two");
  }
}

// Ranks beyond these would hold nothing of any layer: of a layer there are as many parts as heads
// or as blocks of feed-forward columns.
int64_t ranks_with_weights(const ModelSpec& model) {
  int64_t parts = 0;
  for (const LayerSpec& layer : model.layers) {
    parts += std::max(model.n_heads, div_up(model.ff_dim, ff_unit(layer)));
  }
  return parts;
}

void check_number_of_ranks(const ModelSpec& model, int n, const PlanRequest& request) {
  const bool free = request.split.empty() && request.tp == 0 && request.pp == 0;
  if (!free || n <= kMostFreeRanks) return;
  const std::string most = std::to_string(kMostFreeRanks);
  std::string todo = "use " + most + " ranks or fewer, or give the stages with --tp or --pp";
  const int64_t useful = ranks_with_weights(model);
  if (useful < n) {
    todo += "; of this model, with " + std::to_string(model.n_layers) + " layers, at most " +
            std::to_string(useful) + " ranks can hold a part";
  }
  throw Error(std::to_string(n) + " ranks are more than the " + most +
                  " whose stages are searched for: that takes seconds for those, and the square of "
                  "the ranks",
              "", todo);
}

void check_split(const ModelSpec& model, int n, const PlanRequest& request) {
  const std::string flag = "--split " + split_text(request.split);
  int64_t ranks = 0;
  int64_t layers = 0;
  int64_t open = 0;
  for (size_t s = 0; s < request.split.size(); ++s) {
    const StagePin& pin = request.split[s];
    const std::string stage = "stage " + std::to_string(s);
    if (pin.shares.empty()) throw Error(stage + " has no ranks", flag, "give it a share a rank");
    for (const double share : pin.shares) {
      if (std::isfinite(share) && share > 0) continue;
      throw Error(stage + " has a share that is not above 0", flag, "leave the rank out");
    }
    if (pin.n_layers < 0) throw Error(stage + " has a negative number of layers", flag);
    if (request.tp > 0 && static_cast<int>(pin.shares.size()) != request.tp) {
      throw Error("--tp " + std::to_string(request.tp) + " contradicts " + stage + " of " +
                      count_text(static_cast<int64_t>(pin.shares.size()), "rank"),
                  flag, "leave --tp out");
    }
    ranks += static_cast<int64_t>(pin.shares.size());
    layers += pin.n_layers;
    open += pin.n_layers == 0 ? 1 : 0;
  }
  const auto stages = static_cast<int64_t>(request.split.size());
  if (request.pp > 0 && stages != request.pp) {
    throw Error("--pp " + std::to_string(request.pp) + " contradicts a split into " +
                    count_text(stages, "stage"),
                flag, "leave --pp out");
  }
  if (ranks != n) {
    throw Error(
        "the split needs " + count_text(ranks, "rank") + ", the job has " + std::to_string(n), flag,
        "start mpirun -np " + std::to_string(ranks) + ", or give " + count_text(n, "share"));
  }
  const bool fits = open == 0 ? layers == model.n_layers : layers + open <= model.n_layers;
  if (fits || stages > model.n_layers) return;
  throw Error("the stages' layers add up to " + std::to_string(layers) +
                  (open > 0 ? " and " + count_text(open, "stage") +
                                  (open == 1 ? " wants" : " want") + " one at least"
                            : "") +
                  ", the model has " + std::to_string(model.n_layers),
              flag, "let the last stage's number of layers follow: write its shares only");
}

void check_kv_type(const ModelSpec& model, const PlanRequest& request) {
  if (kv_type_fits(request.kv_type, model.head_dim)) return;
  throw Error("--kv-type " + std::string(kv_type_name(request.kv_type)) + " holds blocks of " +
                  std::to_string(kKvBlock) + " values, but the model's heads have " +
                  std::to_string(model.head_dim),
              "", "use --kv-type f16");
}

}  // namespace

void check_model(const ModelSpec& model) {
  const std::string where = model.name.empty() ? "model" : model.name;
  const std::string todo = "the file is damaged or of another architecture";
  CHECK_EQ(static_cast<int64_t>(model.layers.size()), model.n_layers);
  for (const int64_t size : {model.n_layers, model.dim, model.n_heads, model.n_kv_heads,
                             model.head_dim, model.ff_dim, model.vocab_size}) {
    if (size < 1) throw Error("the model has a size of " + std::to_string(size), where, todo);
  }
  if (model.n_heads % model.n_kv_heads != 0) {
    throw Error(count_text(model.n_heads, "head") + " cannot share " +
                    count_text(model.n_kv_heads, "KV head") + " evenly",
                where, todo);
  }
  for (int64_t i = 0; i < model.n_layers; ++i) check_layer(model, model.layers[i], i);
  check_matrix(model.embedding, model.vocab_size, model.dim, "embedding");
  if (!model.tied_output()) check_matrix(model.output, model.vocab_size, model.dim, "output");
}

void check_request(const ModelSpec& model, const ClusterSpec& cluster, const PlanRequest& request) {
  const int n = cluster.size();
  CHECK_GE(n, 1);
  for (int i = 0; i < n; ++i) CHECK_EQ(cluster.ranks[i].rank, i);
  check_limits(request.limits);
  check_context(model, request);
  check_device(model, cluster, request);
  check_kv_type(model, request);
  if (request.split.empty()) {
    check_degrees(n, request);
    check_number_of_ranks(model, n, request);
  } else {
    check_split(model, n, request);
  }
  int64_t stages = static_cast<int64_t>(request.split.size());
  if (request.split.empty()) {
    stages = request.pp > 0 ? request.pp : request.tp > 0 ? n / request.tp : 1;
  }
  if (stages > model.n_layers) {
    throw Error(
        count_text(stages, "stage") + ", but the model has " + count_text(model.n_layers, "layer"),
        "", "use --pp " + std::to_string(model.n_layers) + " or less, or more --tp");
  }
}

void refuse_mixture(const ClusterSpec& cluster, const PlanRequest& request) {
  std::vector<int> gpus;
  std::vector<int> others;
  for (const RankSpec& spec : cluster.ranks) {
    const bool forced = request.device_of(spec.rank) == DeviceChoice::kGpu;
    (forced ? gpus : others).push_back(spec.rank);
  }
  CHECK(!gpus.empty() && !others.empty());
  throw Error("ranks " + ranks_text(gpus) + " compute on GPUs and " + ranks_text(others) +
                  " may not, but some share a stage",
              device_flag(request),
              "a stage's ranks are all of one kind: give each kind stages of its own, as " +
                  std::string("--split 1:1+1 does for --device gpu,gpu,cpu"));
}

void check_device_list(const std::vector<DeviceChoice>& devices, int n_ranks) {
  const auto n_devices = static_cast<int>(devices.size());
  if (n_devices == 0 || n_devices == n_ranks) return;
  throw Error(
      "--device " + device_list_text(devices) + " names " + count_text(n_devices, "device") +
          ", the job has " + count_text(n_ranks, "rank"),
      "", "name one a rank, or one for all; or start mpirun -np " + std::to_string(devices.size()));
}

std::string device_list_text(const std::vector<DeviceChoice>& devices) {
  std::string text;
  for (const DeviceChoice device : devices) {
    append_item(text, ",",
                device == DeviceChoice::kCpu   ? "cpu"
                : device == DeviceChoice::kGpu ? "gpu"
                                               : "auto");
  }
  return text;
}

bool mixes_devices(const std::vector<StagePin>& split, const PlanRequest& request) {
  int rank = 0;
  for (const StagePin& stage : split) {
    bool cpu = false;
    bool gpu = false;
    for (size_t i = 0; i < stage.shares.size(); ++i, ++rank) {
      cpu = cpu || request.device_of(rank) == DeviceChoice::kCpu;
      gpu = gpu || request.device_of(rank) == DeviceChoice::kGpu;
    }
    if (cpu && gpu) return true;
  }
  return false;
}

int64_t most_context(const ModelSpec& model) {
  if (model.rope.scaling == RopeScaling::kNone) return model.context_length;
  const int64_t base =
      model.rope.original_context > 0 ? model.rope.original_context : model.context_length;
  const double scaled = static_cast<double>(base) * std::max(1.0, model.rope.factor);
  return std::max(model.context_length, static_cast<int64_t>(scaled));
}

int64_t planned_context(const ModelSpec& model, const PlanRequest& request) {
  if (request.context > 0) return request.context;
  if (model.context_length <= 0) return kDefaultContext;
  return std::min(model.context_length, kDefaultContext);
}

}  // namespace spillway
