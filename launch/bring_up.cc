// See bring_up.h.
#include "launch/bring_up.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <vector>

#include "parallel/mpi_communicator.h"
#include "parallel/solo_communicator.h"

namespace spillway {
namespace {

constexpr size_t kTextBytes = 1024;
using TextSlot = std::array<char, kTextBytes>;

TextSlot to_slot(const std::string& text) {
  TextSlot slot{};
  std::copy_n(text.begin(), std::min(text.size(), kTextBytes - 1), slot.begin());
  return slot;
}

}  // namespace

World bring_up(int launched_size) {
  World world;
  char host[256] = "localhost";
  gethostname(host, sizeof(host) - 1);
  world.host = host;
  if (launched_size == 0) {
    world.communicator = make_solo_communicator();
    return world;
  }
  int provided = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS ||
      provided < MPI_THREAD_FUNNELED) {
    throw RankError("MPI did not start with MPI_THREAD_FUNNELED", world.host);
  }
  world.mpi = true;
  MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world.size);
  MPI_Comm here = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &here);
  MPI_Comm_rank(here, &world.local_rank);
  MPI_Comm_size(here, &world.local_size);
  int leader = world.local_rank == 0 ? 1 : 0;
  MPI_Allreduce(&leader, &world.n_hosts, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  int first_here = world.rank;
  MPI_Bcast(&first_here, 1, MPI_INT, 0, here);
  world.hosts.resize(static_cast<size_t>(world.size));
  MPI_Allgather(&first_here, 1, MPI_INT, world.hosts.data(), 1, MPI_INT, MPI_COMM_WORLD);
  MPI_Comm_free(&here);
  world.communicator = make_mpi_communicator();
  return world;
}

void finish(World& world) {
  if (!world.mpi) return;
  world.communicator->barrier();
  world.communicator.reset();
  MPI_Finalize();
}

std::vector<std::string> gather_texts(World& world, const std::string& mine) {
  const TextSlot slot = to_slot(mine);
  std::vector<TextSlot> all(static_cast<size_t>(world.size));
  world.communicator->all_gather(std::as_bytes(std::span(slot)),
                                 std::as_writable_bytes(std::span(all)));
  std::vector<std::string> texts;
  texts.reserve(all.size());
  for (const TextSlot& text : all) texts.emplace_back(text.data());
  return texts;
}

void agree(World& world, const std::string& error) {
  if (world.size == 1) {
    if (!error.empty()) throw SharedError(error);
    return;
  }
  const std::vector<std::string> errors = gather_texts(world, error);
  for (size_t rank = 0; rank < errors.size(); ++rank) {
    if (errors[rank].empty()) continue;
    // The same fault on all ranks (a missing file) needs no rank.
    const bool everywhere = std::all_of(errors.begin(), errors.end(),
                                        [&](const std::string& e) { return e == errors[rank]; });
    throw SharedError(everywhere ? errors[rank]
                                 : "rank " + std::to_string(rank) + ": " + errors[rank]);
  }
}

std::string share_text(World& world, const std::string& text) {
  TextSlot slot = to_slot(text);
  world.communicator->broadcast(std::as_writable_bytes(std::span(slot)), 0);
  return slot.data();
}

std::string share_from(World& world, int rank, const std::string& text) {
  uint64_t size = text.size();
  world.communicator->broadcast(std::as_writable_bytes(std::span(&size, 1)), rank);
  std::string out = text;
  out.resize(size);
  if (size > 0) world.communicator->broadcast(std::as_writable_bytes(std::span(out)), rank);
  return out;
}

}  // namespace spillway
