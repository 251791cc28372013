// See gpu_hop.h.
#include "runtime/stage/gpu_hop.h"

namespace spillway {

GpuHop::GpuHop(Mesh& mesh, const GpuScratch& scratch, int64_t dim)
    : mesh_(mesh), scratch_(scratch), dim_(dim), posts_(mesh.sends_to.size()) {}

void GpuHop::receive(int64_t n) {
  mesh_.world->recv({reinterpret_cast<std::byte*>(scratch_.host_recv), bytes_of(n)},
                    mesh_.receives_from);
}

void GpuHop::to_device(const cuda::Stream& stream, int64_t rows) {
  cuda::copy_to_device(stream, scratch_.x, scratch_.host_recv,
                       static_cast<int64_t>(bytes_of(rows)));
}

void GpuHop::to_host(const cuda::Stream& stream, int64_t rows) {
  cuda::copy_to_host(stream, scratch_.host_send, scratch_.x, static_cast<int64_t>(bytes_of(rows)));
}

void GpuHop::send(int64_t n) {
  for (const int to : mesh_.sends_to) {
    const auto* rows = reinterpret_cast<const std::byte*>(scratch_.host_send);
    posts_.post(*mesh_.world, {rows, bytes_of(n)}, to);
  }
}

}  // namespace spillway
