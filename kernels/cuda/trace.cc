// See trace.h. Fields are read through the oldest versions of CUPTI's structs that have them: later
// ones only append, so that a libcupti of another version than the header's serves as well.
#include "kernels/cuda/trace.h"

#include "kernels/core/check.h"
#include "kernels/core/error.h"

#if __has_include(<cupti.h>)

#include <cupti.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/core/opened_library.h"
#include "kernels/cuda/cublas_lt.h"

namespace spillway::cuda {
namespace {

constexpr const char* kWhere = "tracing the GPU";
constexpr size_t kBufferBytes = size_t{4} << 20;  // about 20000 records
constexpr size_t kBufferAlignment = 8;
constexpr OpenedLibrary::Words kWords = {
    "CUPTI", kWhere,
    "install it (Debian: libcupti-dev, PyPI: nvidia-cuda-cupti, or the CUDA toolkit's "
    "extras/CUPTI), or put its folder into LD_LIBRARY_PATH",
    "install CUDA's, 11.8 or later"};
constexpr std::array kKinds = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                               CUPTI_ACTIVITY_KIND_MEMSET};

struct Cupti {
  decltype(&::cuptiGetResultString) result_string = nullptr;
  decltype(&::cuptiActivityRegisterCallbacks) register_callbacks = nullptr;
  decltype(&::cuptiActivityEnable) enable = nullptr;
  decltype(&::cuptiActivityDisable) disable = nullptr;
  decltype(&::cuptiActivityFlushAll) flush_all = nullptr;
  decltype(&::cuptiActivityGetNextRecord) next_record = nullptr;
  decltype(&::cuptiActivityGetNumDroppedRecords) dropped = nullptr;
  decltype(&::cuptiGetTimestamp) timestamp = nullptr;

  void open() {
    const OpenedLibrary library = open_library();
    library.find("cuptiGetResultString", result_string);
    library.find("cuptiActivityRegisterCallbacks", register_callbacks);
    library.find("cuptiActivityEnable", enable);
    library.find("cuptiActivityDisable", disable);
    library.find("cuptiActivityFlushAll", flush_all);
    library.find("cuptiActivityGetNextRecord", next_record);
    library.find("cuptiActivityGetNumDroppedRecords", dropped);
    library.find("cuptiGetTimestamp", timestamp);
  }

  void check(CUptiResult status, const char* what) const {
    if (status == CUPTI_SUCCESS) return;
    const char* why = "no reason given";
    (void)result_string(status, &why);
    throw Error(std::string("CUPTI: ") + what + ": " + why, kWhere,
                "use the libcupti of the driver's CUDA version, and no other profiler beside it");
  }

 private:
  // Where the loader looks, then where toolkits and PyPI's packages put it.
  static OpenedLibrary open_library() {
    const std::string beside = CublasLt().folder();
    std::vector<std::string> files;
    for (const std::string& folder :
         {std::string(), beside, beside + "../extras/CUPTI/lib64/",
          beside + "../../cuda_cupti/lib/", std::string("/usr/local/cuda/extras/CUPTI/lib64/"),
          std::string("/usr/local/cuda/lib64/")}) {
      for (const char* name : {"libcupti.so.13", "libcupti.so.12", "libcupti.so"}) {
        files.push_back(folder + name);
      }
    }
    return OpenedLibrary(kWords, files);
  }
};

}  // namespace

struct Trace::State {
  // CUPTI's callbacks get no argument of ours: the one trace of this process.
  inline static std::atomic<State*> tracing{nullptr};
  Cupti cupti;
  std::mutex mutex;  // guards what follows between the owner and CUPTI's threads
  DeviceTrace found;
  std::map<std::string, int32_t> names;

  int32_t index_of(const char* name) {
    const auto next = static_cast<int32_t>(found.names.size());
    const auto [at, added] = names.emplace(name != nullptr ? name : "", next);
    if (added) found.names.push_back(at->first);
    return at->second;
  }

  void take(const CUpti_Activity& record) {
    if (record.kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      const auto& kernel = reinterpret_cast<const CUpti_ActivityKernel4&>(record);
      found.records.push_back({DeviceRecord::Kind::kKernel, index_of(kernel.name), 0,
                               static_cast<int64_t>(kernel.start),
                               static_cast<int64_t>(kernel.end)});
    } else if (record.kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      const auto& copy = reinterpret_cast<const CUpti_ActivityMemcpy4&>(record);
      const auto kind =
          copy.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_HTOD   ? DeviceRecord::Kind::kToDevice
          : copy.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_DTOH ? DeviceRecord::Kind::kToHost
                                                             : DeviceRecord::Kind::kOther;
      found.records.push_back({kind, -1, static_cast<int64_t>(copy.bytes),
                               static_cast<int64_t>(copy.start), static_cast<int64_t>(copy.end)});
    } else if (record.kind == CUPTI_ACTIVITY_KIND_MEMSET) {
      const auto& set = reinterpret_cast<const CUpti_ActivityMemset4&>(record);
      found.records.push_back({DeviceRecord::Kind::kOther, -1, static_cast<int64_t>(set.bytes),
                               static_cast<int64_t>(set.start), static_cast<int64_t>(set.end)});
    }
  }

  void take_all(uint8_t* buffer, size_t bytes) {
    const std::lock_guard lock(mutex);
    CUpti_Activity* record = nullptr;
    while (cupti.next_record(buffer, bytes, &record) == CUPTI_SUCCESS) take(*record);
    size_t dropped = 0;
    if (cupti.dropped(nullptr, 0, &dropped) == CUPTI_SUCCESS) {
      found.dropped += static_cast<int64_t>(dropped);
    }
  }

  static void CUPTIAPI give_buffer(uint8_t** buffer, size_t* bytes, size_t* most_records) {
    *buffer = static_cast<uint8_t*>(std::aligned_alloc(kBufferAlignment, kBufferBytes));
    *bytes = *buffer == nullptr ? 0 : kBufferBytes;
    *most_records = 0;  // as many as fit
  }
  static void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t used) {
    State* const state = tracing.load();
    if (state != nullptr && used > 0) state->take_all(buffer, used);
    std::free(buffer);
  }
};

Trace::Trace() : state_(std::make_unique<State>()) {
  CHECK(State::tracing.load() == nullptr);
  const Cupti& cupti = state_->cupti;
  state_->cupti.open();
  cupti.check(cupti.register_callbacks(State::give_buffer, State::take_buffer), "callbacks");
  State::tracing = state_.get();
  try {
    start();  // whether CUPTI may: no driver of its version, no permission
    for (const CUpti_ActivityKind kind : kKinds) cupti.check(cupti.disable(kind), "disable");
  } catch (...) {
    State::tracing = nullptr;
    throw;
  }
}

// Also of a trace that nobody stopped: nothing may come when the state is gone.
Trace::~Trace() {
  for (const CUpti_ActivityKind kind : kKinds) (void)state_->cupti.disable(kind);
  (void)state_->cupti.flush_all(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  State::tracing = nullptr;
}

void Trace::start() {
  for (const CUpti_ActivityKind kind : kKinds) {
    state_->cupti.check(state_->cupti.enable(kind), "cuptiActivityEnable");
  }
}

DeviceTrace Trace::stop() {
  const Cupti& cupti = state_->cupti;
  for (const CUpti_ActivityKind kind : kKinds) cupti.check(cupti.disable(kind), "disable");
  cupti.check(cupti.flush_all(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED), "cuptiActivityFlushAll");
  const std::lock_guard lock(state_->mutex);
  DeviceTrace out;
  std::swap(out, state_->found);
  state_->names.clear();
  return out;
}

int64_t Trace::now_ns() const {
  uint64_t now = 0;
  state_->cupti.check(state_->cupti.timestamp(&now), "cuptiGetTimestamp");
  return static_cast<int64_t>(now);
}

}  // namespace spillway::cuda

#else  // no cupti.h

namespace spillway::cuda {

struct Trace::State {};

Trace::Trace() {
  throw Error("this program was built without CUPTI's header", "tracing the GPU",
              "install it (Debian: libcupti-dev, or the CUDA toolkit's extras/CUPTI), configure "
              "and build again");
}
Trace::~Trace() = default;
void Trace::start() { CHECK(false); }
DeviceTrace Trace::stop() { CHECK(false); }
int64_t Trace::now_ns() const { CHECK(false); }

}  // namespace spillway::cuda

#endif
