// Captures, graphs and host functions of the dry GPU. See dry_gpu.h.
#include <algorithm>
#include <utility>

#include "tests/dry_gpu/streams.h"

struct CUgraph_st {
  std::vector<dry_gpu::Node> nodes;
};
// Launched a second time, it waits for the first: what a captured copy moves is moved in order.
struct CUgraphExec_st {
  std::vector<dry_gpu::Node> nodes;
  std::mutex running;
};

namespace dry_gpu {
namespace {

using Lock = std::unique_lock<std::mutex>;

thread_local std::shared_ptr<Capture> ongoing;  // begun by this thread

// With threads in any order that the edges allow.
void run_nodes(const std::vector<Node>& nodes, std::mt19937* random) {
  std::set<size_t> done;
  while (done.size() < nodes.size()) {
    std::vector<size_t> able;
    for (size_t i = 0; i < nodes.size() && (random != nullptr || able.empty()); ++i) {
      const std::set<size_t>& after = nodes[i].after;
      if (done.count(i) == 0 &&
          std::includes(done.begin(), done.end(), after.begin(), after.end())) {
        able.push_back(i);
      }
    }
    const size_t next = able.at(random == nullptr ? 0 : (*random)() % able.size());
    nodes[next].run();
    done.insert(next);
  }
}

// Every node is one that the origin's next one would come after.
void check_joined(const Capture& capture) {
  std::set<size_t> joined = capture.origin->last;
  for (size_t i = capture.nodes.size(); i-- > 0;) {
    if (joined.count(i) == 0) breach("a capture ends with work that its stream does not wait for");
    joined.insert(capture.nodes[i].after.begin(), capture.nodes[i].after.end());
  }
}

}  // namespace

bool thread_captures() { return ongoing != nullptr; }

}  // namespace dry_gpu

using dry_gpu::all;
using dry_gpu::breach;
using dry_gpu::enter;
using dry_gpu::Lock;
using dry_gpu::ongoing;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  enter("cudaStreamBeginCapture");
  const Lock lock(all().mutex);
  CUstream_st& stream = dry_gpu::use(handle);
  if (mode != cudaStreamCaptureModeThreadLocal) breach("a capture that forbids others' calls");
  if (ongoing != nullptr || stream.capture != nullptr) breach("a capture begins within another");
  ongoing = std::make_shared<dry_gpu::Capture>();
  ongoing->origin = handle;
  stream.capture = ongoing;
  stream.last.clear();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* out) {
  enter("cudaStreamEndCapture");
  const Lock lock(all().mutex);
  if (ongoing == nullptr || ongoing->origin != handle) breach("a capture ends that never began");
  dry_gpu::check_joined(*ongoing);
  for (const cudaStream_t stream : all().live) {
    if (stream->capture == ongoing) stream->capture = nullptr;
  }
  *out = new CUgraph_st{std::move(ongoing->nodes)};
  dry_gpu::count_alive("graphs", 1);
  ongoing->ended = true;
  ongoing = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  enter("cudaGraphDestroy");
  dry_gpu::count_alive("graphs", -1);
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long) {
  enter("cudaGraphInstantiate");
  *out = new CUgraphExec_st{graph->nodes, {}};
  dry_gpu::count_alive("graphs that can be launched", 1);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  enter("cudaGraphExecDestroy");
  dry_gpu::wait_for_all_streams();
  dry_gpu::count_alive("graphs that can be launched", -1);
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  enter("cudaGraphLaunch");
  if (dry_gpu::is_capturing(stream)) breach("a graph is launched in a capture");
  std::mt19937* random = dry_gpu::settings().threads ? &stream->random : nullptr;
  dry_gpu::enqueue(stream, [graph, random] {
    const std::lock_guard running(graph->running);
    dry_gpu::run_nodes(graph->nodes, random);
  });
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* context) {
  enter("cudaLaunchHostFunc");
  dry_gpu::enqueue(stream, [=] { dry_gpu::call_host_function(function, context); });
  return cudaSuccess;
}

}  // extern "C"
