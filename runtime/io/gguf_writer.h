// GgufWriter: writes one GGUF file (version 3) front to back: header and tensor table at once, then
// every tensor's data in pieces of any size. The file has a temporary name beside the final one
// until finish(); a writer that is destroyed before leaves nothing behind.
// Format: github.com/ggml-org/ggml, docs/gguf.md.
// Thread: one. Owns the file. Throws Error with path, offset and errno's text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/io/gguf.h"

namespace spillway {

// Metadata as it will lie in the file: the encoded type and value of each key, in order.
class GgufMetadataText {
 public:
  // As another file has it, byte by byte: any type, arrays of arrays, strings that are not UTF-8.
  void copy(std::string_view key, const GgufValue& value);
  // Replaces the key where it stands, or adds it at the end.
  void set_u32(std::string_view key, uint32_t value);
  void set_f32(std::string_view key, float value);
  void set_text(std::string_view key, std::string_view value);

  size_t size() const { return entries_.size(); }
  const std::vector<std::pair<std::string, std::string>>& entries() const { return entries_; }

 private:
  void set(std::string_view key, std::string text);

  std::vector<std::pair<std::string, std::string>> entries_;  // key, encoded type and value
};

struct GgufTensorPlan {
  std::string name;
  std::vector<int64_t> dims;  // dims[0] is the fastest
  QuantType type = QuantType::kF32;
  int64_t bytes() const;
};

// Everything of a file before the tensors' data, without padding.
std::string gguf_header(const GgufMetadataText& metadata, std::span<const GgufTensorPlan> tensors,
                        int64_t alignment);

class GgufWriter {
 public:
  // Where the data lies while it is written: in the same folder, so that the rename at the end is
  // one step. A killed run may leave it; the next one of the same target replaces it. Links are not
  // followed, and a file that has a second name keeps its content.
  static std::string temporary_path(const std::string& path);

  // Bytes of the whole file, padding included.
  static int64_t file_bytes(const GgufMetadataText& metadata,
                            std::span<const GgufTensorPlan> tensors, int64_t alignment);

  // Writes all but the data. alignment: the file's general.alignment, 32 when it has none.
  GgufWriter(const std::string& path, const GgufMetadataText& metadata,
             std::vector<GgufTensorPlan> tensors, int64_t alignment);
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  // The next piece of the current tensor's data; tensors in the order of the plan. A piece may not
  // reach into the next tensor.
  void write(std::span<const std::byte> data);

  // After the last tensor: to the disk, and to the final name, replacing what is there only if
  // `replace`.
  void finish(bool replace);

 private:
  bool open_temporary();
  void put(std::span<const std::byte> data);
  void pad();
  [[noreturn]] void fail_busy() const;
  [[noreturn]] void fail(const std::string& what, int error_number) const;

  std::string path_;
  std::string temporary_;
  std::vector<GgufTensorPlan> tensors_;
  int64_t alignment_;
  int fd_ = -1;
  bool finished_ = false;
  int64_t offset_ = 0;   // bytes written
  size_t current_ = 0;   // tensor that the next piece belongs to
  int64_t written_ = 0;  // of its bytes
};

}  // namespace spillway
