// See address.h.
#include "rpc/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "kernels/core/error.h"

namespace spillway {
namespace {

constexpr char kExample[] = "give HOST:PORT, for example 127.0.0.1:7000 or [::1]:7000";

bool is_ipv4(const std::string& host) {
  in_addr address{};
  return ::inet_pton(AF_INET, host.c_str(), &address) == 1;
}

bool is_ipv6(const std::string& host) {
  in6_addr address{};
  return ::inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

// Numeric text of a resolved address, "" when the family is neither.
std::string numeric_host(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    ::inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
  } else if (address->sa_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
    ::inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
  }
  return text;
}

// 0, or the errno of a bind and listen at this address. SO_REUSEADDR as gRPC sets it, so that a
// port in TIME_WAIT counts as free.
int try_to_listen(const addrinfo& candidate) {
  const int fd = ::socket(candidate.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  int failure = 0;
  if (::bind(fd, candidate.ai_addr, candidate.ai_addrlen) != 0 || ::listen(fd, 1) != 0) {
    failure = errno;
  }
  ::close(fd);
  return failure;
}

Error cannot_listen(const HostPort& address, int failure) {
  const std::string what = "cannot listen at " + to_string(address) + ": " + std::strerror(failure);
  switch (failure) {
    case EADDRINUSE:
      return Error(what, "", "another program has this port; give port 0 for any free one");
    case EADDRNOTAVAIL:
      return Error(what, "", "the address must belong to the host of rank 0");
    case EACCES:
      return Error(what, "", "ports below 1024 need privileges; give a higher one");
    default:
      return Error(what);
  }
}

}  // namespace

HostPort parse_host_port(const std::string& text, bool allow_any_port) {
  const auto bad = [&](const std::string& why) {
    return Error("\"" + text + "\" is no address: " + why, "", kExample);
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) throw bad("there is no port");
  HostPort result;
  result.host = text.substr(0, colon);
  const std::string port = text.substr(colon + 1);
  if (result.host.size() >= 2 && result.host.front() == '[' && result.host.back() == ']') {
    result.host = result.host.substr(1, result.host.size() - 2);
    if (!is_ipv6(result.host)) throw bad("what is in brackets is no IPv6 address");
  } else if (result.host.find(':') != std::string::npos) {
    throw bad("an IPv6 address needs brackets and a port");
  }
  if (result.host.empty()) throw bad("there is no host");
  for (const char c : result.host) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= ' ' || byte == 127 || c == '/' || c == '[' || c == ']') {
      throw bad("the host has a character that hosts do not have");
    }
  }
  if (port.empty()) throw bad("there is no port");
  if (port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos) {
    throw bad("the port is no number from 1 to 65535");
  }
  result.port = std::stoi(port);
  if (result.port > 65535 || (result.port == 0 && !allow_any_port)) {
    throw bad("the port is no number from 1 to 65535");
  }
  return result;
}

std::string to_string(const HostPort& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  return (v6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

HostPort resolve_for_listening(const HostPort& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const std::string port = std::to_string(address.port);
  // RFC 6761: localhost is loopback, also on a bare machine without /etc/hosts.
  const std::string host = address.host == "localhost" ? "127.0.0.1" : address.host;
  const int failure = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &list);
  if (failure != 0) {
    throw Error("cannot listen at " + to_string(address) + ": " + ::gai_strerror(failure), "",
                kExample);
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, ::freeaddrinfo);
  int first_failure = 0;
  for (const int family : {AF_INET, AF_INET6}) {
    for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
      if (entry->ai_family != family) continue;
      const int result = try_to_listen(*entry);
      if (result == 0) return {numeric_host(entry->ai_addr), address.port};
      if (first_failure == 0) first_failure = result;
    }
  }
  throw cannot_listen(address, first_failure != 0 ? first_failure : EADDRNOTAVAIL);
}

HostPort reachable(const HostPort& listening) {
  const bool any_v4 = listening.host == "0.0.0.0";
  const bool any_v6 = listening.host == "::";
  if (!any_v4 && !any_v6) return listening;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return listening;
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, ::freeifaddrs);
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
    const std::string host = numeric_host(entry->ifa_addr);
    if (!host.starts_with("127.")) return {host, listening.port};
  }
  return {any_v4 ? "127.0.0.1" : "::1", listening.port};
}

std::string grpc_target(const HostPort& address) {
  if (is_ipv4(address.host)) return "ipv4:" + to_string(address);
  if (is_ipv6(address.host)) return "ipv6:" + to_string(address);
  return "dns:///" + to_string(address);
}

bool peer_is_loopback(const std::string& peer) {
  std::string host = peer;
  const size_t port = host.rfind(':');
  if (port == std::string::npos) return false;
  host.resize(port);
  if (host.starts_with("ipv4:")) {
    host = host.substr(5);
    return is_ipv4(host) && host.starts_with("127.");
  }
  if (!host.starts_with("ipv6:")) return false;
  host = host.substr(5);
  for (const std::string& open : {std::string("["), std::string("%5B")}) {
    if (host.starts_with(open)) host = host.substr(open.size());
  }
  for (const std::string& close : {std::string("]"), std::string("%5D")}) {
    if (host.ends_with(close)) host.resize(host.size() - close.size());
  }
  in6_addr address{};
  if (::inet_pton(AF_INET6, host.c_str(), &address) != 1) return false;
  if (IN6_IS_ADDR_LOOPBACK(&address)) return true;
  return IN6_IS_ADDR_V4MAPPED(&address) && address.s6_addr[12] == 127;
}

}  // namespace spillway
