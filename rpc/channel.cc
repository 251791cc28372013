// See channel.h.
#include "rpc/channel.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <thread>

#include "kernels/core/start_thread.h"
#include "rpc/protocol.h"

namespace spillway {
namespace {

// gRPC 1.51 starts a pool of as many as there are cores, from 2 to 32, and six for timers,
// resolvers and what is to be done; 1.30 starts fewer.
int most_threads_of_grpc() {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(cores, 2, 32) + 6;
}

bool start_grpc() {
  check_threads("gRPC", most_threads_of_grpc());
  grpc_init();
  return true;
}

}  // namespace

void keep_grpc_up() { [[maybe_unused]] static const bool kept = start_grpc(); }

std::shared_ptr<grpc::Channel> open_channel(const HostPort& address) {
  keep_grpc_up();
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 300);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 300);
  arguments.SetMaxReceiveMessageSize(kMaxAssignmentBytes);
  arguments.SetMaxSendMessageSize(kMaxWorkerMessageBytes);
  return grpc::CreateCustomChannel(grpc_target(address), grpc::InsecureChannelCredentials(),
                                   arguments);
}

bool wait_for_server(grpc::Channel& channel, std::chrono::milliseconds timeout) {
  return channel.WaitForConnected(std::chrono::system_clock::now() + timeout);
}

}  // namespace spillway
