// make_device_communicator in a build without the CUDA kernels: a clear error instead of a link
// failure. And probe_pairs, for which there are no GPUs.
#include "kernels/core/error.h"
#include "parallel/device_communicator.h"
#include "parallel/pair_probe.h"

namespace spillway {

std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator&, const cuda::Stream&,
                                                             const DeviceCommOptions&) {
  throw Error("this program was built without CUDA", "",
              "build the preset `release` where nvcc is, or use --device cpu");
}

std::vector<PairSpec> probe_pairs(Communicator&, const GpuSpec&, const std::string&) { return {}; }

}  // namespace spillway
