// GgufCursor: reads a GGUF header front to back and never beyond its end. Called by gguf_parser.cc
// alone. Every refusal is an Error with "path, offset N", N being where the bad field begins.
// Thread: one. Owns nothing: the bytes must outlive it and the views it hands out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "kernels/core/error.h"

namespace spillway {

class GgufCursor {
 public:
  GgufCursor(std::span<const std::byte> bytes, const std::string& path)
      : bytes_(bytes), path_(&path) {}

  int64_t offset() const { return static_cast<int64_t>(at_); }
  uint64_t remaining() const { return bytes_.size() - at_; }

  // what: the field's name, for the Error.
  template <typename T>
  T read(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::span<const std::byte> take(uint64_t count, const char* what) {
    if (count > remaining()) {
      fail("the file ends inside of " + std::string(what) + ": " + std::to_string(count) +
               " bytes needed, " + std::to_string(remaining()) + " left",
           offset(), "the file is cut short or damaged; download it again");
    }
    std::span<const std::byte> taken = bytes_.subspan(at_, count);
    at_ += count;
    return taken;
  }

  // A length (u64) and that many bytes.
  std::string_view read_string(const char* what) {
    uint64_t length = read<uint64_t>(what);
    std::span<const std::byte> text = take(length, what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  [[noreturn]] void fail(const std::string& what, int64_t offset, const std::string& todo = "") {
    throw Error(what, *path_ + ", offset " + std::to_string(offset), todo);
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string* path_;
  size_t at_ = 0;
};

// A name from the file, fit for a message: quoted, control bytes replaced, at most 80 bytes of it.
inline std::string quote_name(std::string_view name) {
  std::string out = "'";
  for (char c : name.substr(0, 80)) out += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return out + (name.size() > 80 ? "…'" : "'");
}

}  // namespace spillway
