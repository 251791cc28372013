// CommChoice: which fabric carries the sums between the GPUs of a stage (device_communicator.h), as
// `--comm` asks for it. Apart, so that the command line can name it without CUDA's types.
#pragma once

namespace spillway {

// kAuto: by size, from the probe at start.
enum class CommChoice { kAuto, kNccl, kPeer, kStaged };

}  // namespace spillway
