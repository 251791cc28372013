// See standard_streams.h.
#include "launch/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "kernels/core/error.h"

namespace spillway {
namespace {

std::string read_all(int fd, const std::string& where) {
  constexpr size_t kPiece = 1 << 20;
  std::string bytes;
  while (true) {
    const size_t before = bytes.size();
    bytes.resize(before + kPiece);
    const ssize_t got = ::read(fd, bytes.data() + before, kPiece);
    const int error = errno;
    bytes.resize(before + (got > 0 ? static_cast<size_t>(got) : 0));
    if (got == 0) return bytes;
    if (got < 0 && error != EINTR)
      throw Error("cannot read: " + std::string(strerror(error)), where);
  }
}

}  // namespace

void say_what_is_awaited(const char* what) {
  if (isatty(STDIN_FILENO) != 1) return;
  std::fprintf(stderr, "%s comes from standard input: type it, then Ctrl-D\n", what);
}

std::string read_standard_input(const char* what) {
  say_what_is_awaited(what);
  return read_all(STDIN_FILENO, "standard input");
}

void write_standard_output(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      throw Error("cannot write: " + std::string(strerror(errno)), "standard output");
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

std::string read_file_bytes(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    throw Error("cannot open: " + std::string(strerror(errno)), path,
                "check the path and its rights");
  }
  try {
    std::string bytes = read_all(fd, path);
    ::close(fd);
    return bytes;
  } catch (...) {
    ::close(fd);
    throw;
  }
}

}  // namespace spillway
