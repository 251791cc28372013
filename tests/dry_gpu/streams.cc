// Streams and events of the dry GPU: at once, or with a thread a stream. See dry_gpu.h.
#include "tests/dry_gpu/streams.h"

#include <chrono>
#include <utility>

namespace dry_gpu {
namespace {

using Lock = std::unique_lock<std::mutex>;

bool idle(const CUstream_st& stream) { return stream.queue.empty() && !stream.at_work; }

// Most of the time none, else up to a fifth of a millisecond.
void delay(std::mt19937& random) {
  const unsigned drawn = random();
  if (drawn % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(drawn / 4 % 200));
}

void work(CUstream_st& stream) {
  Lock lock(all().mutex);
  while (true) {
    all().moved.wait(lock, [&] {
      if (stream.queue.empty()) return stream.ends;
      const Operation& head = stream.queue.front();
      return !head.ready || head.ready();
    });
    if (stream.queue.empty()) return;
    const Operation next = std::move(stream.queue.front());
    stream.queue.pop_front();
    stream.at_work = true;
    lock.unlock();
    delay(stream.random);
    if (next.run) next.run();
    lock.lock();
    stream.at_work = false;
    all().moved.notify_all();
  }
}

// With the lock held, which is given back for what runs at once.
void add(Lock& lock, CUstream_st& stream, Operation operation) {
  if (settings().threads) {
    stream.queue.push_back(std::move(operation));
    all().moved.notify_all();
    return;
  }
  if (operation.ready && !operation.ready()) breach("a stream waits for what never comes");
  if (!operation.run) return;
  lock.unlock();
  operation.run();
  lock.lock();
}

CUevent_st& known(cudaEvent_t event) {
  if (event == nullptr) breach("an event that is no event");
  return *event;
}

// The event is one that the host can ask about.
CUevent_st& outside_of_captures(cudaEvent_t event) {
  CUevent_st& used = known(event);
  if (used.capture != nullptr) breach("the host asks about an event that was captured");
  return used;
}

}  // namespace

Streams& all() {
  static auto& streams = *new Streams;
  return streams;
}

CUstream_st& use(cudaStream_t stream) {
  if (stream == nullptr) breach("work on the default stream");
  if (all().live.count(stream) == 0) breach("a stream that does not live");
  if (stream->device != current_device()) {
    breach("a stream of GPU " + std::to_string(stream->device) + " in a thread of GPU " +
           std::to_string(current_device()));
  }
  return *stream;
}

void enqueue(cudaStream_t handle, std::function<void()> run) {
  Lock lock(all().mutex);
  CUstream_st& stream = use(handle);
  if (stream.capture == nullptr) {
    add(lock, stream, {{}, std::move(run)});
    return;
  }
  if (!thread_captures()) breach("a stream that another thread captures is given work");
  auto& nodes = stream.capture->nodes;
  nodes.push_back({std::move(run), stream.last});
  stream.last = {nodes.size() - 1};
}

bool is_capturing(cudaStream_t stream) {
  const Lock lock(all().mutex);
  return use(stream).capture != nullptr;
}

void wait_for_all_streams() {
  Lock lock(all().mutex);
  all().moved.wait(lock, [] {
    for (const cudaStream_t stream : all().live) {
      if (!idle(*stream)) return false;
    }
    return true;
  });
}

}  // namespace dry_gpu

using dry_gpu::all;
using dry_gpu::breach;
using dry_gpu::enter;
using dry_gpu::enter_synchronous;
using dry_gpu::Lock;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  enter("cudaStreamCreateWithFlags");
  if (flags != cudaStreamNonBlocking) breach("a stream that waits for the default one");
  auto* stream = new CUstream_st;
  stream->device = dry_gpu::current_device();
  const Lock lock(all().mutex);
  stream->random.seed(dry_gpu::settings().seed * 1000 + all().created++);
  all().live.insert(stream);
  dry_gpu::count_alive("streams", 1);
  if (dry_gpu::settings().threads)
    stream->worker = std::thread([stream] { dry_gpu::work(*stream); });
  *out = stream;
  return cudaSuccess;
}
// CUDA returns at once and the stream goes when it has done its work; here the call waits for that.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  enter("cudaStreamDestroy");
  {
    const Lock lock(all().mutex);
    if (all().live.count(stream) == 0) breach("a stream is destroyed that does not live");
    if (stream->capture != nullptr) breach("a stream is destroyed while it is captured");
    stream->ends = true;
    all().moved.notify_all();
  }
  if (stream->worker.joinable()) stream->worker.join();
  const Lock lock(all().mutex);
  all().live.erase(stream);
  dry_gpu::count_alive("streams", -1);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  enter_synchronous("cudaStreamSynchronize");
  if (stream == nullptr) return cudaSuccess;  // has nothing but fills, which were waited for
  Lock lock(all().mutex);
  if (all().live.count(stream) == 0) breach("the host waits for a stream that does not live");
  if (stream->capture != nullptr) breach("the host waits for a stream that is captured");
  all().moved.wait(lock, [&] { return dry_gpu::idle(*stream); });
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned) {
  enter("cudaStreamWaitEvent");
  Lock lock(all().mutex);
  CUstream_st& stream = dry_gpu::use(handle);
  CUevent_st& event = dry_gpu::known(event_handle);
  if (event.capture != nullptr) {
    if (event.capture->ended) breach("a stream waits for an event of a capture that has ended");
    if (stream.capture != nullptr && stream.capture != event.capture) {
      breach("a captured stream waits for an event of another capture");
    }
    if (stream.capture == nullptr) stream.last.clear();
    stream.capture = event.capture;
    stream.last.insert(event.nodes.begin(), event.nodes.end());
    return cudaSuccess;
  }
  if (event.recorded == 0) breach("a stream waits for an event that nobody recorded");
  if (stream.capture != nullptr) breach("a captured stream waits for what is not captured");
  const int64_t number = event.recorded;
  dry_gpu::add(lock, stream, {[&event, number] { return event.reached >= number; }, {}});
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags) {
  enter("cudaEventCreate");
  *out = new CUevent_st;
  (*out)->timed = (flags & cudaEventDisableTiming) == 0;
  (*out)->device = dry_gpu::current_device();
  dry_gpu::count_alive("events", 1);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }
// CUDA frees it when it has been reached and nobody waits for it any more.
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  enter("cudaEventDestroy");
  dry_gpu::wait_for_all_streams();
  dry_gpu::count_alive("events", -1);
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event_handle, cudaStream_t handle) {
  enter("cudaEventRecord");
  Lock lock(all().mutex);
  CUstream_st& stream = dry_gpu::use(handle);
  CUevent_st& event = dry_gpu::known(event_handle);
  if (event.device != stream.device) breach("an event of one GPU is recorded on another");
  event.capture = stream.capture;
  event.nodes = stream.last;
  if (stream.capture != nullptr) return cudaSuccess;
  const int64_t number = ++event.recorded;
  dry_gpu::add(lock, stream, {{}, [&event, number] {
                                const Lock reached(all().mutex);
                                event.reached = number;
                                all().moved.notify_all();
                              }});
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t handle) {
  enter_synchronous("cudaEventQuery");
  const Lock lock(all().mutex);
  const CUevent_st& event = dry_gpu::outside_of_captures(handle);
  return event.reached == event.recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  enter_synchronous("cudaEventSynchronize");
  Lock lock(all().mutex);
  const CUevent_st& event = dry_gpu::outside_of_captures(handle);
  const int64_t number = event.recorded;
  all().moved.wait(lock, [&] { return event.reached >= number; });
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  enter("cudaEventElapsedTime");
  const Lock lock(all().mutex);
  for (const cudaEvent_t handle : {start, end}) {
    const CUevent_st& event = dry_gpu::outside_of_captures(handle);
    if (!event.timed) breach("time is asked of an event that has none");
    if (event.recorded == 0 || event.reached != event.recorded) {
      breach("time is asked of an event that has not been reached");
    }
  }
  *ms = 0.05f;
  return cudaSuccess;
}

}  // extern "C"
