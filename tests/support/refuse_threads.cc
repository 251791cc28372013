// For LD_PRELOAD: a process may have SPILLWAY_MOST_THREADS threads at a time beside its first; what
// wants one more hears what `ulimit -u` would say. Unlike that limit it holds for root, and counts
// nobody else's. Used by tests/e2e/threads_e2e.py.
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>

namespace {

using Body = void* (*)(void*);
using Create = int (*)(pthread_t*, const pthread_attr_t*, Body, void*);

struct Call {
  Body body;
  void* argument;
};

std::atomic<int> living{0};

void* run(void* given) {
  const Call call = *std::unique_ptr<Call>(static_cast<Call*>(given));
  void* result = call.body(call.argument);
  --living;
  return result;
}

}  // namespace

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, Body body,
                              void* argument) noexcept {
  const char* most = std::getenv("SPILLWAY_MOST_THREADS");
  if (most == nullptr) return EAGAIN;
  if (++living > std::atoi(most)) {
    --living;
    return EAGAIN;
  }
  auto call = std::make_unique<Call>(Call{body, argument});
  const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  const int code = create(thread, attributes, run, call.get());
  if (code == 0) {
    (void)call.release();  // the thread has it
  } else {
    --living;
  }
  return code;
}
