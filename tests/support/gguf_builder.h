// GgufBuilder: makes small GGUF files for tests, well-formed by default, with doors for bad ones.
//
//   std::string path = GgufBuilder()
//                          .set_string("general.architecture", "llama")
//                          .set_u32("llama.block_count", 2)
//                          .add_f32("output_norm.weight", {64}, std::vector<float>(64, 1.0f))
//                          .write(dir.file("tiny.gguf"));
//
// Called by tests only. Independent of runtime/io on purpose: it is the second opinion on the
// format (github.com/ggml-org/ggml, docs/gguf.md). Little-endian hosts only, as the program.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/core/quant.h"

namespace spillway::testing {

namespace internal {

// The number that stands for a C++ type in the file.
template <typename T>
constexpr uint32_t gguf_type_number() {
  if constexpr (std::is_same_v<T, uint8_t>) return 0;
  if constexpr (std::is_same_v<T, int8_t>) return 1;
  if constexpr (std::is_same_v<T, uint16_t>) return 2;
  if constexpr (std::is_same_v<T, int16_t>) return 3;
  if constexpr (std::is_same_v<T, uint32_t>) return 4;
  if constexpr (std::is_same_v<T, int32_t>) return 5;
  if constexpr (std::is_same_v<T, float>) return 6;
  if constexpr (std::is_same_v<T, bool>) return 7;
  if constexpr (std::is_same_v<T, uint64_t>) return 10;
  if constexpr (std::is_same_v<T, int64_t>) return 11;
  if constexpr (std::is_same_v<T, double>) return 12;
}

template <typename T>
void put(std::string& out, T value) {
  static_assert(std::is_trivially_copyable_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

inline void put_string(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out.append(text);
}

}  // namespace internal

// An array's encoding (element type, count, elements), to be set as a value or nested in another.
struct GgufArray {
  std::string bytes;

  template <typename T>
  static GgufArray of(const std::vector<T>& values) {
    GgufArray array;
    internal::put<uint32_t>(array.bytes, internal::gguf_type_number<T>());
    internal::put<uint64_t>(array.bytes, values.size());
    for (T value : values) internal::put<T>(array.bytes, value);
    return array;
  }
  static GgufArray strings(const std::vector<std::string>& values) {
    GgufArray array;
    internal::put<uint32_t>(array.bytes, 8);
    internal::put<uint64_t>(array.bytes, values.size());
    for (const std::string& value : values) internal::put_string(array.bytes, value);
    return array;
  }
  static GgufArray arrays(const std::vector<GgufArray>& values) {
    GgufArray array;
    internal::put<uint32_t>(array.bytes, 9);
    internal::put<uint64_t>(array.bytes, values.size());
    for (const GgufArray& value : values) array.bytes += value.bytes;
    return array;
  }
};

class GgufBuilder {
 public:
  GgufBuilder& version(uint32_t number) {
    version_ = number;
    return *this;
  }
  // Lays tensors out by this multiple and says so in general.alignment.
  GgufBuilder& alignment(uint32_t bytes) {
    alignment_ = bytes;
    return set_u32("general.alignment", bytes);
  }

  GgufBuilder& set_u8(std::string_view key, uint8_t v) { return scalar(key, v); }
  GgufBuilder& set_i8(std::string_view key, int8_t v) { return scalar(key, v); }
  GgufBuilder& set_u16(std::string_view key, uint16_t v) { return scalar(key, v); }
  GgufBuilder& set_i16(std::string_view key, int16_t v) { return scalar(key, v); }
  GgufBuilder& set_u32(std::string_view key, uint32_t v) { return scalar(key, v); }
  GgufBuilder& set_i32(std::string_view key, int32_t v) { return scalar(key, v); }
  GgufBuilder& set_u64(std::string_view key, uint64_t v) { return scalar(key, v); }
  GgufBuilder& set_i64(std::string_view key, int64_t v) { return scalar(key, v); }
  GgufBuilder& set_f32(std::string_view key, float v) { return scalar(key, v); }
  GgufBuilder& set_f64(std::string_view key, double v) { return scalar(key, v); }
  GgufBuilder& set_bool(std::string_view key, bool v) { return scalar(key, v); }
  GgufBuilder& set_string(std::string_view key, std::string_view text) {
    std::string bytes;
    internal::put_string(bytes, text);
    return set_raw(key, 8, bytes);
  }
  GgufBuilder& set_strings(std::string_view key, const std::vector<std::string>& values) {
    return set_array(key, GgufArray::strings(values));
  }
  // T is the element type in the file: uint8_t … double, bool.
  template <typename T>
  GgufBuilder& set_array(std::string_view key, const std::vector<T>& values) {
    return set_array(key, GgufArray::of<T>(values));
  }
  GgufBuilder& set_array(std::string_view key, const GgufArray& array) {
    return set_raw(key, 9, array.bytes);
  }
  // Any type number and encoding, legal or not. The same key may be set twice.
  GgufBuilder& set_raw(std::string_view key, uint32_t type, std::string_view bytes) {
    metadata_.push_back({std::string(key), type, std::string(bytes)});
    return *this;
  }

  // dims[0] is the fastest (columns). bytes: the data as it lies in the file.
  GgufBuilder& add_tensor(std::string_view name, const std::vector<int64_t>& dims, QuantType type,
                          std::string_view bytes) {
    Tensor tensor{std::string(name), {}, static_cast<uint32_t>(type), std::string(bytes), false, 0};
    for (int64_t dim : dims) tensor.dims.push_back(static_cast<uint64_t>(dim));
    tensors_.push_back(std::move(tensor));
    return *this;
  }
  GgufBuilder& add_tensor(std::string_view name, const std::vector<int64_t>& dims, QuantType type,
                          std::span<const std::byte> bytes) {
    return add_tensor(name, dims, type,
                      std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  GgufBuilder& add_f32(std::string_view name, const std::vector<int64_t>& dims,
                       const std::vector<float>& values) {
    return add_tensor(name, dims, QuantType::kF32, std::as_bytes(std::span(values)));
  }
  // A tensor's table entry as given, legal or not, with no data of its own.
  GgufBuilder& add_raw_tensor(std::string_view name, const std::vector<uint64_t>& dims,
                              uint32_t type, uint64_t offset) {
    tensors_.push_back({std::string(name), dims, type, "", true, offset});
    return *this;
  }

  // The whole file. header_bytes(): the part before the tensors' data.
  std::string bytes() const {
    std::string data;
    std::string out = header(metadata_, tensors_, data);
    pad(out);
    return out + data;
  }
  size_t header_bytes() const {
    std::string data;
    return header(metadata_, tensors_, data).size();
  }
  // Writes one file; returns path.
  std::string write(const std::string& path) const {
    write_file(path, bytes());
    return path;
  }
  // Writes stem-00001-of-0000N.gguf …; the tensors in order, as evenly as can be, all metadata in
  // the first part. Returns the paths.
  std::vector<std::string> write_split(const std::string& stem, int parts) const {
    std::vector<std::string> paths;
    size_t begin = 0;
    for (int part = 0; part < parts; ++part) {
      size_t end = tensors_.size() * (part + 1) / parts;
      GgufBuilder piece;
      piece.version_ = version_;
      piece.alignment_ = alignment_;
      if (part == 0) piece.metadata_ = metadata_;
      if (part > 0 && alignment_ != 32) piece.set_u32("general.alignment", alignment_);
      piece.set_u16("split.no", static_cast<uint16_t>(part));
      piece.set_u16("split.count", static_cast<uint16_t>(parts));
      piece.set_i32("split.tensors.count", static_cast<int32_t>(tensors_.size()));
      piece.tensors_.assign(tensors_.begin() + begin, tensors_.begin() + end);
      begin = end;
      char suffix[40];
      std::snprintf(suffix, sizeof(suffix), "-%05d-of-%05d.gguf", part + 1, parts);
      paths.push_back(piece.write(stem + suffix));
    }
    return paths;
  }

 private:
  struct Value {
    std::string key;
    uint32_t type;
    std::string bytes;
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;
    uint32_t type;
    std::string bytes;
    bool raw;
    uint64_t offset;  // raw ones only
  };

  template <typename T>
  GgufBuilder& scalar(std::string_view key, T value) {
    std::string bytes;
    internal::put<T>(bytes, value);
    return set_raw(key, internal::gguf_type_number<T>(), bytes);
  }

  void pad(std::string& out) const {
    size_t step = alignment_ == 0 ? 1 : alignment_;
    while (out.size() % step != 0) out.push_back('\0');
  }

  std::string header(const std::vector<Value>& values, const std::vector<Tensor>& tensors,
                     std::string& data) const {
    std::string out = "GGUF";
    internal::put<uint32_t>(out, version_);
    internal::put<uint64_t>(out, tensors.size());
    internal::put<uint64_t>(out, values.size());
    for (const Value& value : values) {
      internal::put_string(out, value.key);
      internal::put<uint32_t>(out, value.type);
      out += value.bytes;
    }
    for (const Tensor& tensor : tensors) {
      internal::put_string(out, tensor.name);
      internal::put<uint32_t>(out, static_cast<uint32_t>(tensor.dims.size()));
      for (uint64_t dim : tensor.dims) internal::put<uint64_t>(out, dim);
      internal::put<uint32_t>(out, tensor.type);
      internal::put<uint64_t>(out, tensor.raw ? tensor.offset : data.size());
      if (tensor.raw) continue;
      data += tensor.bytes;
      pad(data);
    }
    return out;
  }

  static void write_file(const std::string& path, const std::string& content) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(content.data(), static_cast<std::streamsize>(content.size()));
    out.close();
    if (!out) throw std::runtime_error("cannot write " + path);
  }

  uint32_t version_ = 3;
  uint32_t alignment_ = 32;
  std::vector<Value> metadata_;
  std::vector<Tensor> tensors_;
};

}  // namespace spillway::testing
