// See fake_streams.h.
#include "tests/support/fake_streams.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <new>
#include <random>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "kernels/cuda/host_side.h"
#include "kernels/cuda/ops.h"

namespace {

struct Node {
  std::function<void()> run;
  std::set<size_t> after;
};
struct Capture {
  CUstream_st* origin = nullptr;
  std::vector<Node> nodes;
};
struct Operation {
  std::function<bool()> ready;  // none: at once
  std::function<void()> run;
};

std::mt19937 order(1);
std::shared_ptr<Capture> capture;   // at work
std::vector<CUstream_st*> streams;  // that live

}  // namespace

struct CUstream_st {
  std::deque<Operation> queue;
  std::shared_ptr<Capture> captured;  // that it takes part in
  std::set<size_t> last;              // nodes that its next one comes after
};
struct CUevent_st {
  int64_t recorded = 0;  // calls of record()
  int64_t reached = 0;
  std::shared_ptr<Capture> captured;  // of the last record()
  std::set<size_t> nodes;
};
struct CUgraphExec_st {
  std::vector<Node> nodes;
};

namespace spillway {
namespace {

bool capturing(const CUstream_st& stream) {
  return capture != nullptr && stream.captured == capture;
}

void add(CUstream_st* stream, Operation operation) {
  if (!capturing(*stream)) {
    stream->queue.push_back(std::move(operation));
    return;
  }
  capture->nodes.push_back({std::move(operation.run), stream->last});
  stream->last = {capture->nodes.size() - 1};
}

// One operation of any stream; false: none can run.
bool advance() {
  std::vector<CUstream_st*> able;
  for (CUstream_st* stream : streams) {
    if (stream->queue.empty()) continue;
    const Operation& head = stream->queue.front();
    if (!head.ready || head.ready()) able.push_back(stream);
  }
  if (able.empty()) return false;
  CUstream_st* stream = able[order() % able.size()];
  const Operation next = std::move(stream->queue.front());
  stream->queue.pop_front();
  if (next.run) next.run();
  return true;
}

void run_graph(const std::vector<Node>& nodes) {
  std::set<size_t> done;
  while (done.size() < nodes.size()) {
    std::vector<size_t> able;
    for (size_t i = 0; i < nodes.size(); ++i) {
      if (done.count(i) > 0) continue;
      if (std::includes(done.begin(), done.end(), nodes[i].after.begin(), nodes[i].after.end())) {
        able.push_back(i);
      }
    }
    const size_t next = able.at(order() % able.size());
    if (nodes[next].run) nodes[next].run();
    done.insert(next);
  }
}

void drain(const CUstream_st& stream) {
  while (!stream.queue.empty()) {
    if (!advance()) throw std::logic_error("streams wait for each other");
  }
}

}  // namespace

namespace fake_streams {

void enqueue(cuda::StreamHandle stream, std::function<void()> operation) {
  add(stream, {{}, std::move(operation)});
}
void seed(uint32_t value) { order.seed(value); }

}  // namespace fake_streams

namespace cuda {

Stream::Stream() : handle_(new CUstream_st) { streams.push_back(handle_); }
Stream::~Stream() {
  if (handle_ == nullptr) return;
  drain(*handle_);
  std::erase(streams, handle_);
  delete handle_;
}
Stream::Stream(Stream&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
void synchronize(StreamHandle stream) { drain(*stream); }

Event::Event() : handle_(new CUevent_st) {}
Event::~Event() { delete handle_; }
Event::Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
void Event::record(StreamHandle stream) {
  CUevent_st* event = handle_;
  event->captured = capturing(*stream) ? capture : nullptr;
  event->nodes = stream->last;
  if (event->captured != nullptr) return;
  const int64_t number = ++event->recorded;
  add(stream, {{}, [event, number] { event->reached = number; }});
}
void Event::wait_in(StreamHandle stream) const {
  CUevent_st* event = handle_;
  if (event->captured != nullptr) {
    if (event->captured != capture) throw std::logic_error("an event of a capture that has ended");
    if (!capturing(*stream)) stream->last.clear();
    stream->captured = capture;
    stream->last.insert(event->nodes.begin(), event->nodes.end());
    return;
  }
  if (capturing(*stream)) throw std::logic_error("a capture waits for what is not part of it");
  const int64_t number = event->recorded;
  add(stream, {[event, number] { return event->reached >= number; }, {}});
}

Graph::~Graph() { delete handle_; }
Graph::Graph(Graph&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
void Graph::begin(const Stream& stream) {
  capture = std::make_shared<Capture>();
  capture->origin = stream.handle();
  stream.handle()->captured = capture;
  stream.handle()->last.clear();
}
Graph Graph::end(const Stream& stream) {
  // What the stream's last nodes come after, all of it.
  std::set<size_t> joined = stream.handle()->last;
  for (size_t i = capture->nodes.size(); i-- > 0;) {
    if (joined.count(i) == 0) throw std::logic_error("a node is not joined to the captured stream");
    joined.insert(capture->nodes[i].after.begin(), capture->nodes[i].after.end());
  }
  Graph out;
  out.handle_ = new CUgraphExec_st{capture->nodes};
  for (CUstream_st* any : streams) any->captured = nullptr;
  capture = nullptr;
  return out;
}
void Graph::launch(const Stream& stream) const {
  const CUgraphExec_st* graph = handle_;
  add(stream.handle(), {{}, [graph] { run_graph(graph->nodes); }});
}

DeviceMemory::DeviceMemory(const std::string&, int64_t bytes)
    : data_(new (std::align_val_t{256}) std::byte[static_cast<size_t>(bytes)]), bytes_(bytes) {}
DeviceMemory::~DeviceMemory() { operator delete[](data_, std::align_val_t{256}); }
PinnedMemory::PinnedMemory(const std::string&, int64_t bytes)
    : data_(new (std::align_val_t{256}) std::byte[static_cast<size_t>(bytes)]), bytes_(bytes) {}
PinnedMemory::~PinnedMemory() { operator delete[](data_, std::align_val_t{256}); }

void copy_to_device(StreamHandle stream, void* to, const void* from, int64_t bytes) {
  add(stream, {{}, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); }});
}

PinnedRange::PinnedRange(const std::string&, std::byte* data, int64_t) : data_(data) {}
PinnedRange::~PinnedRange() = default;
PinnedRange& PinnedRange::operator=(PinnedRange&& other) noexcept {
  std::swap(data_, other.data_);
  return *this;
}

void call_host(StreamHandle stream, void (*call)(void*), void* context) {
  add(stream, {{}, [=] { call(context); }});
}

SleepingWait::SleepingWait() = default;
SleepingWait::~SleepingWait() = default;
void SleepingWait::wait_for(const Stream& stream) { stream.synchronize(); }

// As GpuSpill uses it: a copy.
void add_rms_norm(const Exec& exec, View2D<const float> y, View2D<float> x, bool, const float*,
                  float, unsigned, const Input&) {
  copy_to_device(exec.stream, x.data, y.data, y.rows * y.cols * int64_t{sizeof(float)});
}

}  // namespace cuda
}  // namespace spillway
