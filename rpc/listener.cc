// See listener.h.
#include "rpc/listener.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include "kernels/core/error.h"
#include "kernels/core/start_thread.h"
#include "rpc/channel.h"
#include "rpc/protocol.h"

namespace spillway {

std::unique_ptr<grpc::Server> listen_at(const std::string& listen, int n_ranks,
                                        grpc::Service* service, HostPort* bound) {
  // Tried with a socket of our own first, since gRPC does not hand out the system's reason.
  const HostPort wanted = resolve_for_listening(parse_host_port(listen, true));
  keep_grpc_up();
  // The server aborts the process when it cannot start its first thread, and turns ranks away
  // without one for each; four more are this rank's own, which come before theirs.
  check_threads("coordinator's server", 2 + n_ranks + 4);
  grpc::ResourceQuota quota("coordinator");
  quota.SetMaxThreads(2 * n_ranks + 16);  // a stream holds one; the rest for status and strangers
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  builder.SetMaxReceiveMessageSize(kMaxWorkerMessageBytes);
  builder.SetMaxSendMessageSize(kMaxAssignmentBytes);
  // Without this two coordinators could share a port and each get half of the ranks.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  int port = 0;
  builder.AddListeningPort(to_string(wanted), grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port <= 0) {
    throw Error("cannot listen at " + listen, "",
                "another program may have taken the port; give port 0 for any free one");
  }
  *bound = {wanted.host, port};
  return server;
}

}  // namespace spillway
