// TcpRelay: stands between a worker and the coordinator so that a test can do what networks do:
// cut() resets every connection, freeze() loses everything without closing anything, as a host
// that lost its power. Used by the tests of rpc only.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace spillway::testing {

inline sockaddr_in loopback(int port, uint32_t host = INADDR_LOOPBACK) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(host);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// An address of loopback, all of 127.0.0.0/8, at which this process alone listens: a port that was
// free stays free, whatever other tests do meanwhile. Process numbers have 22 bits.
inline uint32_t own_loopback() {
  return (uint32_t{127} << 24) + (uint32_t{1} << 22) + static_cast<uint32_t>(::getpid());
}
inline std::string address_text(uint32_t host, int port) {
  const in_addr address{htonl(host)};
  char text[INET_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET, &address, text, sizeof text);
  return std::string(text) + ":" + std::to_string(port);
}

// A socket that listens at a free port of loopback; *port is set.
inline int listen_on_loopback(int* port, uint32_t host = INADDR_LOOPBACK) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0, host);
  socklen_t size = sizeof address;
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(fd, 64) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("cannot listen on loopback");
  }
  *port = ntohs(address.sin_port);
  return fd;
}

// "127.66.1.2:40000", where nobody listens.
inline std::string own_free_address() {
  int port = 0;
  ::close(listen_on_loopback(&port, own_loopback()));
  return address_text(own_loopback(), port);
}

inline int connect_to_loopback(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(port);
  if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (fd >= 0) ::close(fd);
    throw std::runtime_error("cannot connect to loopback");
  }
  return fd;
}

inline int port_of(const std::string& address) {
  return std::stoi(address.substr(address.rfind(':') + 1));
}

class TcpRelay {
 public:
  explicit TcpRelay(int target_port) : target_port_(target_port) {
    listening_ = listen_on_loopback(&port_);
    thread_ = std::thread([this] { run(); });
  }
  ~TcpRelay() {
    stop_ = true;
    thread_.join();
    close_all();
    ::close(listening_);
  }
  TcpRelay(const TcpRelay&) = delete;
  TcpRelay& operator=(const TcpRelay&) = delete;

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void cut() { cut_ = true; }
  void freeze() { frozen_ = true; }
  void thaw() { frozen_ = false; }

 private:
  void run() {
    while (!stop_) {
      if (cut_) close_all();
      if (frozen_ || cut_) {
        ::usleep(5000);
        continue;
      }
      std::vector<pollfd> polled = {{listening_, POLLIN, 0}};
      for (const auto& [a, b] : pairs_) {
        polled.push_back({a, POLLIN, 0});
        polled.push_back({b, POLLIN, 0});
      }
      if (::poll(polled.data(), polled.size(), 20) <= 0 || frozen_ || cut_) continue;
      for (size_t i = pairs_.size(); i-- > 0;) {
        const auto [a, b] = pairs_[i];
        const bool alive = (polled[1 + 2 * i].revents == 0 || forward(a, b)) &&
                           (polled[2 + 2 * i].revents == 0 || forward(b, a));
        if (alive) continue;
        ::close(a);
        ::close(b);
        pairs_.erase(pairs_.begin() + static_cast<std::ptrdiff_t>(i));
      }
      if (polled[0].revents != 0) accept_one();
    }
  }

  void accept_one() {
    const int a = ::accept(listening_, nullptr, nullptr);
    if (a < 0) return;
    try {
      pairs_.emplace_back(a, connect_to_loopback(target_port_));
    } catch (const std::runtime_error&) {
      ::close(a);
    }
  }

  static bool forward(int from, int to) {
    char buffer[1 << 16];
    const ssize_t n = ::recv(from, buffer, sizeof buffer, 0);
    for (ssize_t sent = 0; sent < n;) {
      const ssize_t m = ::send(to, buffer + sent, static_cast<size_t>(n - sent), MSG_NOSIGNAL);
      if (m <= 0) return false;
      sent += m;
    }
    return n > 0;
  }

  void close_all() {
    for (const auto& [a, b] : pairs_) {
      const linger now{1, 0};  // a reset, not an orderly end
      ::setsockopt(a, SOL_SOCKET, SO_LINGER, &now, sizeof now);
      ::setsockopt(b, SOL_SOCKET, SO_LINGER, &now, sizeof now);
      ::close(a);
      ::close(b);
    }
    pairs_.clear();
  }

  const int target_port_;
  int port_ = 0;
  int listening_ = -1;
  std::vector<std::pair<int, int>> pairs_;  // the thread's own while it runs
  std::atomic<bool> stop_{false};
  std::atomic<bool> cut_{false};
  std::atomic<bool> frozen_{false};
  std::thread thread_;
};

}  // namespace spillway::testing
