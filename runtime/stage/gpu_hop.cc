// See gpu_hop.h.
#include "runtime/stage/gpu_hop.h"

namespace spillway {

static_assert(kSendBuffers == 2);

GpuHop::GpuHop(const Plan& plan, Mesh& mesh, const cuda::Exec& exec, const cuda::Stream& stream,
               const GpuScratch& scratch, int64_t dim)
    : mesh_(mesh),
      exec_(exec),
      stream_(stream),
      scratch_(scratch),
      dim_(dim),
      posted_to_(mesh.sends_to),
      posts_{OpenPosts(mesh.sends_to.size()), OpenPosts(mesh.sends_to.size())} {
  const GpuNeighbours near = gpu_neighbours(plan, mesh.rank);
  if (!near.receives && !near.sends) return;
  HopOptions options;
  options.receives_from = mesh.receives_from;
  options.sends_to = mesh.sends_to;
  options.has_slots = near.receives;
  options.max_rows = device_comm_rows(plan.limits);
  options.dim = dim;
  peers_.emplace(*mesh.world, exec, stream, options);
}

void GpuHop::connect(const std::vector<HopSeat>& seats, CommChoice choice) {
  if (!peers_.has_value()) {
    reports_ = staged_hops(seats, mesh_.rank, mesh_.sends_to, choice);
    return;
  }
  peers_->connect(seats, choice, scratch_.x);
  reports_ = peers_->reports();
  std::erase_if(posted_to_, [this](int to) { return peers_->sends_to(to); });
}

void GpuHop::take(View2D<float> x) {
  if (receives() && !receives_on_host()) peers_->take(exec_, x);
}

void GpuHop::push(View2D<const float> x) {
  if (peers_.has_value() && peers_->sends()) peers_->push(exec_, x);
}

void GpuHop::receive(int64_t n) {
  if (!receives_on_host()) return;
  mesh_.world->recv({reinterpret_cast<std::byte*>(scratch_.host_recv), bytes_of(n)},
                    mesh_.receives_from);
}

void GpuHop::to_device(int64_t rows) {
  if (!receives_on_host()) return;
  cuda::copy_to_device(stream_, scratch_.x, scratch_.host_recv,
                       static_cast<int64_t>(bytes_of(rows)));
}

void GpuHop::to_host(int64_t n) {
  if (posted_to_.empty()) return;
  posts_[turn_].finish(*mesh_.world);
  cuda::copy_to_host(stream_, send_buffer(), scratch_.x, static_cast<int64_t>(bytes_of(n)));
}

void GpuHop::send(int64_t n) {
  if (posted_to_.empty()) return;
  const auto* rows = reinterpret_cast<const std::byte*>(send_buffer());
  for (const int to : posted_to_) posts_[turn_].post(*mesh_.world, {rows, bytes_of(n)}, to);
  turn_ = (turn_ + 1) % posts_.size();
}

void GpuHop::finish() {
  for (OpenPosts& posts : posts_) posts.finish(*mesh_.world);
}

int GpuHop::waits_for(bool& sending) const {
  const int rank = peers_.has_value() ? peers_->waits_for() : -1;
  sending = rank >= 0 && rank != mesh_.receives_from;
  return rank;
}

void GpuHop::abort() {
  if (peers_.has_value()) peers_->abort();
}

}  // namespace spillway
