// Gguf: a GGUF model file, or the parts of one, opened read-only. Parses versions 2 and 3; every
// field is checked before it is used: an Error names file, byte offset and reason. Never copies
// tensor data, never allocates by a number in the file that the file's size does not cover.
// Format: github.com/ggml-org/ggml, docs/gguf.md.
// Thread: immutable after open(), read by any thread. Owns the mappings; views die with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/quant.h"
#include "runtime/io/mapped_file.h"

namespace spillway {

enum class GgufValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
const char* gguf_value_type_name(GgufValueType type);

// A metadata value: a view into the mapped file, decoded when asked. Arrays of arrays are legal.
class GgufValue {
 public:
  GgufValueType type() const { return type_; }
  bool is_array() const { return type_ == GgufValueType::kArray; }
  GgufValueType element_type() const { return element_type_; }  // of an array
  int64_t size() const { return size_; }                        // elements of an array, else 1

  // Scalars; nothing when the value has another kind or does not fit. as_uint takes every
  // non-negative integer type, as_double every number.
  std::optional<uint64_t> as_uint() const;
  std::optional<int64_t> as_int() const;
  std::optional<double> as_double() const;
  std::optional<bool> as_bool() const;
  std::optional<std::string_view> as_string() const;

  // Arrays, copied out; nothing when the elements have another kind.
  std::optional<std::vector<std::string_view>> as_strings() const;
  std::optional<std::vector<double>> as_doubles() const;  // any numeric element type
  std::optional<std::vector<int64_t>> as_ints() const;    // any integer or bool element type

  // The value as it lies in the file: a string's text, an array's elements, a number's bytes.
  std::span<const std::byte> encoded() const { return bytes_; }

  // For tables: a string as it is, an array as "[a, b, c, … 49152 strings]" with at most
  // max_elements written out.
  std::string to_text(int max_elements = 4) const;

 private:
  friend class GgufParser;
  GgufValueType type_ = GgufValueType::kU8;
  GgufValueType element_type_ = GgufValueType::kU8;
  int64_t size_ = 1;
  std::span<const std::byte> bytes_;  // the encoded value (elements of an array), bounds-checked
};

struct GgufTensor {
  std::string name;
  QuantType type = QuantType::kF32;
  std::vector<int64_t> dims;        // dims[0] is the fastest: columns; 1 to 4 of them, each >= 1
  const std::byte* data = nullptr;  // nullptr: the file was opened with kHeader and ends before it
  int64_t bytes = 0;
  int file = 0;        // index of the part it lies in
  int64_t offset = 0;  // from the part's beginning

  int64_t cols() const { return dims[0]; }
  int64_t rows() const;  // product of the other dims
  int64_t elements() const { return cols() * rows(); }
};

// What of a model must be there: with kHeader a file may end anywhere after its tensor table.
enum class GgufNeed { kAll, kHeader };

class Gguf {
 public:
  // Opens `path`; when it is one part of several (…-00002-of-00003.gguf) opens all of them, from
  // whichever part was named. Throws Error.
  static Gguf open(const std::string& path, GgufNeed need = GgufNeed::kAll);
  // A header that lies in memory, as gguf_header() makes it; `name` stands for its path.
  static Gguf of_header(std::span<const std::byte> bytes, const std::string& name);

  // Whether every tensor's data is there; else that of some is nullptr.
  bool complete() const;

  uint32_t version() const;
  int64_t alignment() const;
  int64_t file_bytes() const;                     // of all parts, when they are complete
  const std::vector<std::string>& paths() const;  // of all parts
  // Metadata in file order (of the first part).
  std::span<const std::pair<std::string, GgufValue>> metadata() const;
  const GgufValue* find(std::string_view key) const;  // nullptr when absent
  // Tensors in file order, over all parts.
  std::span<const GgufTensor> tensors() const;
  const GgufTensor* tensor(std::string_view name) const;  // nullptr when absent

  // Typed look-ups. require_*: Error naming key, file and what was found. *_or: the default when
  // the key is absent, Error when it has another kind.
  uint64_t require_uint(std::string_view key) const;
  double require_double(std::string_view key) const;
  std::string_view require_string(std::string_view key) const;
  uint64_t uint_or(std::string_view key, uint64_t fallback) const;
  double double_or(std::string_view key, double fallback) const;
  bool bool_or(std::string_view key, bool fallback) const;
  std::string_view string_or(std::string_view key, std::string_view fallback) const;

  // FNV-1a over the headers of all parts (metadata and tensor table, no data): equal on all ranks
  // when they opened the same model.
  uint64_t header_hash() const;

  // Tells the kernel that these bytes of the mappings are not needed any more (they were packed).
  void drop_pages() const;

 private:
  friend class GgufParser;
  struct Content;
  std::shared_ptr<const Content> content_;
};

}  // namespace spillway
