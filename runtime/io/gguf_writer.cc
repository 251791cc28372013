// See gguf_writer.h.
#include "runtime/io/gguf_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/core/int_math.h"

namespace spillway {
namespace {

// Of opening the temporary: each one more needs another run that ends in between.
constexpr int kMostTries = 100;

template <typename T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void append_string(std::string& out, std::string_view text) {
  append<uint64_t>(out, text.size());
  out.append(text);
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// The directory entry itself must reach the disk. Best effort: some file systems refuse.
void sync_folder(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

std::string gguf_header(const GgufMetadataText& metadata, std::span<const GgufTensorPlan> tensors,
                        int64_t alignment) {
  std::string out = "GGUF";
  append<uint32_t>(out, 3);
  append<uint64_t>(out, tensors.size());
  append<uint64_t>(out, metadata.size());
  for (const auto& [key, value] : metadata.entries()) {
    append_string(out, key);
    out += value;
  }
  int64_t offset = 0;
  for (const GgufTensorPlan& tensor : tensors) {
    append_string(out, tensor.name);
    append<uint32_t>(out, static_cast<uint32_t>(tensor.dims.size()));
    for (const int64_t dim : tensor.dims) append<uint64_t>(out, static_cast<uint64_t>(dim));
    append<uint32_t>(out, static_cast<uint32_t>(tensor.type));
    append<uint64_t>(out, static_cast<uint64_t>(offset));
    offset += round_up(tensor.bytes(), alignment);
  }
  return out;
}

void GgufMetadataText::copy(std::string_view key, const GgufValue& value) {
  std::string text;
  append<uint32_t>(text, static_cast<uint32_t>(value.type()));
  if (value.is_array()) {
    append<uint32_t>(text, static_cast<uint32_t>(value.element_type()));
    append<uint64_t>(text, static_cast<uint64_t>(value.size()));
  } else if (value.type() == GgufValueType::kString) {
    append<uint64_t>(text, value.encoded().size());
  }
  text.append(reinterpret_cast<const char*>(value.encoded().data()), value.encoded().size());
  entries_.emplace_back(std::string(key), std::move(text));
}

void GgufMetadataText::set_u32(std::string_view key, uint32_t value) {
  std::string text;
  append<uint32_t>(text, static_cast<uint32_t>(GgufValueType::kU32));
  append<uint32_t>(text, value);
  set(key, std::move(text));
}

void GgufMetadataText::set_f32(std::string_view key, float value) {
  std::string text;
  append<uint32_t>(text, static_cast<uint32_t>(GgufValueType::kF32));
  append<float>(text, value);
  set(key, std::move(text));
}

void GgufMetadataText::set_text(std::string_view key, std::string_view value) {
  std::string text;
  append<uint32_t>(text, static_cast<uint32_t>(GgufValueType::kString));
  append_string(text, value);
  set(key, std::move(text));
}

void GgufMetadataText::set(std::string_view key, std::string text) {
  for (auto& [name, encoded] : entries_) {
    if (name != key) continue;
    encoded = std::move(text);
    return;
  }
  entries_.emplace_back(std::string(key), std::move(text));
}

int64_t GgufTensorPlan::bytes() const {
  int64_t elements = 1;
  for (const int64_t dim : dims) elements *= dim;
  return quant_bytes(type, elements);
}

std::string GgufWriter::temporary_path(const std::string& path) { return path + ".unfinished"; }

int64_t GgufWriter::file_bytes(const GgufMetadataText& metadata,
                               std::span<const GgufTensorPlan> tensors, int64_t alignment) {
  const std::string head = gguf_header(metadata, tensors, alignment);
  int64_t bytes = round_up(static_cast<int64_t>(head.size()), alignment);
  for (const GgufTensorPlan& tensor : tensors) bytes += round_up(tensor.bytes(), alignment);
  return bytes;
}

GgufWriter::GgufWriter(const std::string& path, const GgufMetadataText& metadata,
                       std::vector<GgufTensorPlan> tensors, int64_t alignment)
    : path_(path),
      temporary_(temporary_path(path)),
      tensors_(std::move(tensors)),
      alignment_(alignment) {
  int tries = 0;
  while (!open_temporary()) {
    if (++tries == kMostTries) fail_busy();
  }
  try {
    if (::ftruncate(fd_, 0) != 0) fail("cannot empty the file of an earlier run", errno);
    const std::string head = gguf_header(metadata, tensors_, alignment_);
    put(bytes_of(head));
    pad();
  } catch (...) {
    ::unlink(temporary_.c_str());
    ::close(fd_);
    throw;
  }
}

// False when what was opened is not what lies under the name any more: try again.
bool GgufWriter::open_temporary() {
  // O_NOFOLLOW: a link would empty the file that it points to. O_NONBLOCK: a pipe is an error.
  constexpr int kFlags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  fd_ = ::open(temporary_.c_str(), kFlags, 0666);
  if (fd_ < 0 && errno == ELOOP) {
    throw Error("a symbolic link is in the way of the new file", temporary_, "remove it");
  }
  if (fd_ < 0) fail("cannot create the file", errno);
  // Whoever holds the lock is still writing; a file without one was left by a killed run.
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    ::close(std::exchange(fd_, -1));
    fail_busy();
  }
  // Before the lock was had, its owner may have finished and given the file its final name, or
  // removed it.
  struct stat mine {};
  struct stat named {};
  const bool same = ::fstat(fd_, &mine) == 0 && ::lstat(temporary_.c_str(), &named) == 0 &&
                    mine.st_dev == named.st_dev && mine.st_ino == named.st_ino;
  if (same && mine.st_nlink == 1) return true;
  // A run that was killed while it gave the final name: that name keeps the file.
  if (same) ::unlink(temporary_.c_str());
  ::close(std::exchange(fd_, -1));
  return false;
}

GgufWriter::~GgufWriter() {
  if (!finished_) ::unlink(temporary_.c_str());
  if (fd_ >= 0) ::close(fd_);
}

void GgufWriter::write(std::span<const std::byte> data) {
  CHECK_LT(current_, tensors_.size());
  const int64_t whole = tensors_[current_].bytes();
  CHECK_LE(written_ + static_cast<int64_t>(data.size()), whole);
  put(data);
  written_ += static_cast<int64_t>(data.size());
  if (written_ < whole) return;
  pad();
  ++current_;
  written_ = 0;
}

void GgufWriter::finish(bool replace) {
  CHECK_EQ(current_, tensors_.size());
  if (::fsync(fd_) != 0) fail("cannot bring the file to the disk", errno);
  if (replace) {
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot rename", errno);
  } else if (::link(temporary_.c_str(), path_.c_str()) == 0) {
    // A link, unlike a rename, never replaces a file that came to be meanwhile.
    ::unlink(temporary_.c_str());
  } else if (errno == EEXIST) {
    throw Error("the file was created meanwhile", path_, "remove it, or give --force");
  } else if (::rename(temporary_.c_str(), path_.c_str()) != 0) {  // no links on this file system
    fail("cannot rename", errno);
  }
  finished_ = true;
  sync_folder(path_);
}

void GgufWriter::put(std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t n = ::write(fd_, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot write " + std::to_string(data.size()) + " bytes", errno);
    if (n == 0) fail("cannot write " + std::to_string(data.size()) + " bytes", ENOSPC);
    data = data.subspan(static_cast<size_t>(n));
    offset_ += n;
  }
}

void GgufWriter::pad() {
  const std::string zeros(static_cast<size_t>(round_up(offset_, alignment_) - offset_), '\0');
  put(bytes_of(zeros));
}

void GgufWriter::fail_busy() const {
  throw Error("another run is writing this file", temporary_, "wait for it, or give another name");
}

void GgufWriter::fail(const std::string& what, int error_number) const {
  const bool full = error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
  throw Error(what + ": " + std::strerror(error_number),
              temporary_ + ", offset " + std::to_string(offset_),
              full ? "make room, or choose a smaller type" : "check the path and its rights");
}

}  // namespace spillway
