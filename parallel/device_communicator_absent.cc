// make_device_communicator in a build without the CUDA kernels: a clear error instead of a link
// failure.
#include "kernels/core/error.h"
#include "parallel/device_communicator.h"

namespace spillway {

std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator&, const cuda::Stream&,
                                                             const DeviceCommOptions&) {
  throw Error("this program was built without CUDA", "",
              "build the preset `release` where nvcc is, or use --device cpu");
}

}  // namespace spillway
