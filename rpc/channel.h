// The client's end of a connection to the coordinator. Called by worker_agent.cc and job_status.cc.
//   Thread: any. Errors: keep_grpc_up()'s; connecting is lazy.
#pragma once

#include <grpcpp/channel.h>

#include <chrono>
#include <memory>

#include "rpc/address.h"

namespace spillway {

// A connection of its own (nothing shared within the process): no proxy whatever the environment
// says, no retries of calls, reconnects tried every 50 to 300 ms since a job starts in seconds.
std::shared_ptr<grpc::Channel> open_channel(const HostPort& address);

// gRPC stays up until the process ends. Left to count its users it shuts down with the last one,
// and in a process that is out of memory waits there for ever for threads that it could not start.
// Throws Error when the system has not the threads that gRPC starts with: gRPC would do without
// some and never answer, or abort the process.
void keep_grpc_up();

// Blocks until an HTTP/2 server answers there; false at the deadline.
bool wait_for_server(grpc::Channel& channel, std::chrono::milliseconds timeout);

}  // namespace spillway
