// Gguf: look-ups over what gguf_parser.cc has read. See gguf.h.
#include "runtime/io/gguf.h"

#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "runtime/io/gguf_parser.h"

namespace spillway {
namespace {

[[noreturn]] void fail_missing(const Gguf& gguf, std::string_view key, const char* kind) {
  throw Error("metadata key '" + std::string(key) + "' (" + kind + ") is missing",
              gguf.paths().front(), "the file is not a complete model; convert it again");
}

[[noreturn]] void fail_kind(const Gguf& gguf, std::string_view key, const GgufValue& value,
                            const char* kind) {
  std::string type = gguf_value_type_name(value.type());
  throw Error("metadata key '" + std::string(key) + "' must be " + kind + ", found " + type + " " +
                  quote_name(value.to_text()),
              gguf.paths().front(), "the file is damaged; convert or download it again");
}

// The value decoded by `as`; the fallback when the key is absent.
template <typename T, typename As>
T value_or(const Gguf& gguf, std::string_view key, T fallback, const char* kind, As as) {
  const GgufValue* value = gguf.find(key);
  if (value == nullptr) return fallback;
  std::optional<T> decoded = as(*value);
  if (!decoded) fail_kind(gguf, key, *value, kind);
  return *decoded;
}

constexpr const char* kUint = "a non-negative integer";
constexpr const char* kNumber = "a number";
constexpr const char* kText = "a string";

}  // namespace

int64_t GgufTensor::rows() const {
  int64_t product = 1;
  for (size_t i = 1; i < dims.size(); ++i) product *= dims[i];
  return product;
}

Gguf Gguf::open(const std::string& path, GgufNeed need) { return GgufParser::open(path, need); }

Gguf Gguf::of_header(std::span<const std::byte> bytes, const std::string& name) {
  return GgufParser::of_header(bytes, name);
}

bool Gguf::complete() const {
  return std::all_of(content_->tensors.begin(), content_->tensors.end(),
                     [](const GgufTensor& tensor) { return tensor.data != nullptr; });
}

uint32_t Gguf::version() const { return content_->parts[0].version; }
int64_t Gguf::alignment() const { return content_->parts[0].alignment; }
int64_t Gguf::file_bytes() const { return content_->file_bytes; }
const std::vector<std::string>& Gguf::paths() const { return content_->paths; }

std::span<const std::pair<std::string, GgufValue>> Gguf::metadata() const {
  return content_->metadata;
}

const GgufValue* Gguf::find(std::string_view key) const {
  auto found = content_->key_index.find(key);
  return found == content_->key_index.end() ? nullptr : &content_->metadata[found->second].second;
}

std::span<const GgufTensor> Gguf::tensors() const { return content_->tensors; }

const GgufTensor* Gguf::tensor(std::string_view name) const {
  auto found = content_->tensor_index.find(name);
  return found == content_->tensor_index.end() ? nullptr : &content_->tensors[found->second];
}

uint64_t Gguf::require_uint(std::string_view key) const {
  if (find(key) == nullptr) fail_missing(*this, key, kUint);
  return uint_or(key, 0);
}

double Gguf::require_double(std::string_view key) const {
  if (find(key) == nullptr) fail_missing(*this, key, kNumber);
  return double_or(key, 0);
}

std::string_view Gguf::require_string(std::string_view key) const {
  if (find(key) == nullptr) fail_missing(*this, key, kText);
  return string_or(key, "");
}

uint64_t Gguf::uint_or(std::string_view key, uint64_t fallback) const {
  return value_or<uint64_t>(*this, key, fallback, kUint,
                            [](const GgufValue& value) { return value.as_uint(); });
}

double Gguf::double_or(std::string_view key, double fallback) const {
  return value_or<double>(*this, key, fallback, kNumber,
                          [](const GgufValue& value) { return value.as_double(); });
}

bool Gguf::bool_or(std::string_view key, bool fallback) const {
  return value_or<bool>(*this, key, fallback, "a bool",
                        [](const GgufValue& value) { return value.as_bool(); });
}

std::string_view Gguf::string_or(std::string_view key, std::string_view fallback) const {
  return value_or<std::string_view>(*this, key, fallback, kText,
                                    [](const GgufValue& value) { return value.as_string(); });
}

uint64_t Gguf::header_hash() const {
  // Basis and prime of the 64-bit FNV-1a: isthe.com/chongo/tech/comp/fnv.
  uint64_t hash = 14695981039346656037ull;
  for (const GgufPart& part : content_->parts) {
    for (std::byte b : part.file.bytes().first(part.header_bytes)) {
      hash = (hash ^ static_cast<uint8_t>(b)) * 1099511628211ull;
    }
  }
  return hash;
}

void Gguf::drop_pages() const {
  for (const GgufPart& part : content_->parts) part.file.drop_pages();
}

}  // namespace spillway
