// fetch_status: see job_status.h. The table is in status_table.cc.
#include "rpc/job_status.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "coordinator.grpc.pb.h"
#include "kernels/core/error.h"
#include "rpc/channel.h"
#include "rpc/status_wire.h"

namespace spillway {

JobStatus fetch_status(const std::string& address, const std::string& secret, double timeout_s) {
  const HostPort where = parse_host_port(address, false);
  const double sane_s = std::isfinite(timeout_s) ? std::clamp(timeout_s, 0.01, 3600.0) : 3600.0;
  const std::chrono::milliseconds timeout(static_cast<int64_t>(sane_s * 1000));
  const auto deadline = std::chrono::system_clock::now() + timeout;
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%.1f s", sane_s);
  const Error silence("no Spillway coordinator answers at " + address + " within " + seconds, "",
                      "a job prints the line \"coordinator at HOST:PORT\" when it starts");

  const std::shared_ptr<grpc::Channel> channel = open_channel(where);
  if (!wait_for_server(*channel, timeout)) throw silence;
  const auto stub = rpc::CoordinatorService::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(deadline);
  rpc::StatusRequest request;
  request.set_secret(secret);
  rpc::StatusReply reply;
  const grpc::Status status = stub->Status(&context, request, &reply);
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return from_wire(reply);
    case grpc::StatusCode::PERMISSION_DENIED:
      throw Error("the coordinator at " + address + " wants the job's secret", "",
                  "ask from the host of rank 0 at its loopback address, or give the secret");
    case grpc::StatusCode::UNIMPLEMENTED:
      throw Error(address + " answers, but is not a Spillway coordinator");
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::UNAVAILABLE:
      throw silence;
    default:
      throw Error("the coordinator at " + address +
                  " answers with an error: " + status.error_message());
  }
}

}  // namespace spillway
