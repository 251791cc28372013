// Addresses of the control plane, "HOST:PORT" as users type them. Called by coordinator.cc,
// worker_agent.cc and job_status.cc. Asks the resolver and tries a bind; never keeps a socket.
//   Thread: pure, but for the resolver; any thread.
#pragma once

#include <string>

namespace spillway {

struct HostPort {
  std::string host;  // without brackets
  int port = 0;      // 0: any free one, where that makes sense
};

// "127.0.0.1:7000", "node-a:7000", "[::1]:7000". Throws Error: no port, a port beyond 65535, an
// IPv6 address without brackets, an empty host. allow_any_port: port 0 is legal.
HostPort parse_host_port(const std::string& text, bool allow_any_port);
// The inverse; brackets around IPv6.
std::string to_string(const HostPort& address);

// The numeric form of an address of this host that can be listened at (IPv4 first). Throws Error
// with the system's reason: unknown host, not an address of this host, port taken, no permission.
HostPort resolve_for_listening(const HostPort& address);
// What others must connect to: for a wildcard ("0.0.0.0", "::") the first address of this host that
// is not loopback, else the address itself.
HostPort reachable(const HostPort& listening);

// What gRPC connects to. Numeric addresses bypass its resolver.
std::string grpc_target(const HostPort& address);
// Whether gRPC's name of a peer ("ipv4:127.0.0.1:4711", "ipv6:%5B::1%5D:4711") is this host's
// loopback.
bool peer_is_loopback(const std::string& peer);

}  // namespace spillway
