// The server's end: a gRPC server with one service at one address. Called by coordinator.cc.
//   Thread: any.
#pragma once

#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "rpc/address.h"

namespace spillway {

// Serves `service`, which must outlive the server, at `listen` (port 0: any free one) with the
// threads that n_ranks open streams need. *bound: the numeric address. Throws Error: bad address,
// port taken, not an address of this host,
// no threads to be had for it.
std::unique_ptr<grpc::Server> listen_at(const std::string& listen, int n_ranks,
                                        grpc::Service* service, HostPort* bound);

}  // namespace spillway
