// NCCL for the dry GPU, opened by the program under that name (parallel/nccl_communicator.cc):
// ranks connect at once, and sums have no effect, so that none proves itself. DRY_NCCL="hangs":
// nobody comes back from connecting; "rank 1 fails": it does.
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <string>

// As nccl.h has them, whose version may be any.
struct UniqueId {
  char bytes[128];
};
using Handle = void*;

extern "C" {

const char* ncclGetErrorString(int) { return "refused by the dry NCCL"; }
int ncclGetUniqueId(UniqueId* out) {
  *out = {};
  return 0;
}
int ncclCommInitRank(Handle* out, int, UniqueId, int rank) {
  const char* told = std::getenv("DRY_NCCL");
  const std::string what = told == nullptr ? "" : told;
  if (what == "hangs") {
    while (true) pause();
  }
  if (what == "rank " + std::to_string(rank) + " fails") return 1;
  *out = std::malloc(1);
  return 0;
}
int ncclCommDestroy(Handle made) {
  std::free(made);
  return 0;
}
int ncclCommAbort(Handle made) { return ncclCommDestroy(made); }
int ncclAllReduce(const void*, void*, size_t, int, int, Handle, void*) { return 0; }

}  // extern "C"
