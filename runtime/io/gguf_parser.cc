// See gguf_parser.h. This file: one GGUF file, front to back. gguf_split.cc: models of many files.
#include "runtime/io/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <unordered_set>

#include "kernels/core/check.h"
#include "kernels/core/int_math.h"

namespace spillway {
namespace {

constexpr int kMaxArrayDepth = 8;         // real files have 1; recursion must end somewhere
constexpr int64_t kMaxKeys = 1 << 16;     // real files have under 200
constexpr int64_t kMaxTensors = 1 << 20;  // 61 layers of 256 unmerged experts are 47 000
constexpr size_t kMaxKeyBytes = 65535;    // the format's own limit
constexpr size_t kMaxTensorNameBytes = 1024;
constexpr int64_t kMinAlignment = 8;
constexpr int64_t kDefaultAlignment = 32;
constexpr uint32_t kMaxDims = 4;
// The smallest entries that can be: a key of one byte with a one-byte value; a tensor of one
// dimension with a name of one byte.
constexpr uint64_t kMinMetadataBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

// Bytes of one scalar; 0 for strings and arrays.
uint64_t scalar_bytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::kU8:
    case GgufValueType::kI8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kU16:
    case GgufValueType::kI16:
      return 2;
    case GgufValueType::kU32:
    case GgufValueType::kI32:
    case GgufValueType::kF32:
      return 4;
    case GgufValueType::kU64:
    case GgufValueType::kI64:
    case GgufValueType::kF64:
      return 8;
    case GgufValueType::kString:
    case GgufValueType::kArray:
      return 0;
  }
  return 0;
}

constexpr uint32_t kValueTypes = 13;
// Of the data of a file that was cut: beyond it a header lies, and sums would overflow.
constexpr int64_t kMostCutBytes = int64_t{1} << 50;
constexpr const char* kDamaged = "the file is damaged; download it again";

}  // namespace

GgufPart GgufParser::parse_file(MappedFile file, int file_index, GgufNeed need) {
  const std::string path = file.path();
  GgufPart part{std::move(file), 0, 0, 0, 0, {}, {}};
  GgufCursor cursor(part.file.bytes(), path);
  GgufParser parser(cursor, part);
  parser.read_preamble();
  parser.read_metadata(parser.metadata_count_);
  parser.read_alignment();
  parser.read_tensors(parser.tensor_count_, file_index);
  part.header_bytes = cursor.offset();
  parser.place_tensors(need);
  return part;
}

void GgufParser::read_preamble() {
  std::span<const std::byte> magic = cursor_.take(4, "the magic");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) {
    cursor_.fail("not a GGUF file: it does not begin with 'GGUF'", 0, "give a .gguf model file");
  }
  int64_t at = cursor_.offset();
  part_.version = cursor_.read<uint32_t>("the version");
  if (part_.version != 0 && (part_.version & 0xffff) == 0) {
    cursor_.fail("a big-endian GGUF file (version " + std::to_string(part_.version >> 24) + ")", at,
                 "use the little-endian file of the model");
  }
  if (part_.version != 2 && part_.version != 3) {
    cursor_.fail("GGUF version " + std::to_string(part_.version) + ", supported are 2 and 3", at,
                 part_.version == 1 ? "convert the model again with a current converter" : "");
  }
  at = cursor_.offset();
  auto tensors = cursor_.read<uint64_t>("the tensor count");
  auto keys = cursor_.read<uint64_t>("the metadata count");
  if (keys > cursor_.remaining() / kMinMetadataBytes || keys > kMaxKeys) {
    cursor_.fail("the header claims " + std::to_string(keys) + " metadata entries, more than " +
                     (keys > kMaxKeys ? "the limit of " + std::to_string(kMaxKeys)
                                      : std::to_string(cursor_.remaining()) + " bytes can hold"),
                 at + 8, kDamaged);
  }
  if (tensors > cursor_.remaining() / kMinTensorBytes || tensors > kMaxTensors) {
    cursor_.fail(
        "the header claims " + std::to_string(tensors) + " tensors, more than " +
            (tensors > kMaxTensors ? "the limit of " + std::to_string(kMaxTensors)
                                   : std::to_string(cursor_.remaining()) + " bytes can hold"),
        at, kDamaged);
  }
  tensor_count_ = static_cast<int64_t>(tensors);
  metadata_count_ = static_cast<int64_t>(keys);
}

void GgufParser::read_metadata(int64_t count) {
  std::unordered_set<std::string_view> seen;
  part_.metadata.reserve(count);
  for (int64_t i = 0; i < count; ++i) {
    int64_t at = cursor_.offset();
    std::string_view key = cursor_.read_string("a metadata key");
    if (key.empty() || key.size() > kMaxKeyBytes) {
      cursor_.fail("metadata key of " + std::to_string(key.size()) + " bytes, 1 to 65535 are legal",
                   at, kDamaged);
    }
    if (!seen.insert(key).second) {
      cursor_.fail("metadata key " + quote_name(key) + " is there twice", at);
    }
    auto type = cursor_.read<uint32_t>("a metadata type");
    part_.metadata.emplace_back(std::string(key), read_value(type, 0));
  }
}

GgufValue GgufParser::read_value(uint32_t type_number, int depth) {
  int64_t at = cursor_.offset();
  if (type_number >= kValueTypes) {
    cursor_.fail("metadata value of unknown type " + std::to_string(type_number), at - 4, kDamaged);
  }
  auto type = static_cast<GgufValueType>(type_number);
  if (type == GgufValueType::kArray) return read_array(depth);
  GgufValue value;
  value.type_ = type;
  value.element_type_ = type;
  if (type == GgufValueType::kString) {
    std::string_view text = cursor_.read_string("a string");
    value.bytes_ = std::as_bytes(std::span(text.data(), text.size()));
    return value;
  }
  value.bytes_ = cursor_.take(scalar_bytes(type), "a metadata value");
  check_bools(value);
  return value;
}

// The elements stay encoded in the mapping; here they are only walked, so that later reads of them
// need no checks.
GgufValue GgufParser::read_array(int depth) {
  int64_t at = cursor_.offset();
  if (depth >= kMaxArrayDepth) {
    cursor_.fail("arrays nested deeper than " + std::to_string(kMaxArrayDepth), at);
  }
  auto element_number = cursor_.read<uint32_t>("an array's type");
  if (element_number >= kValueTypes) {
    cursor_.fail("array of unknown type " + std::to_string(element_number), at, kDamaged);
  }
  GgufValue value;
  value.type_ = GgufValueType::kArray;
  value.element_type_ = static_cast<GgufValueType>(element_number);
  auto count = cursor_.read<uint64_t>("an array's length");
  uint64_t element_bytes = scalar_bytes(value.element_type_);
  bool nested = value.element_type_ == GgufValueType::kArray;
  uint64_t least = nested ? 12 : element_bytes == 0 ? 8 : element_bytes;
  if (count > cursor_.remaining() / least) {
    cursor_.fail("an array claims " + std::to_string(count) + " elements, more than " +
                     std::to_string(cursor_.remaining()) + " bytes can hold",
                 at + 4, kDamaged);
  }
  value.size_ = static_cast<int64_t>(count);
  int64_t begin = cursor_.offset();
  if (element_bytes > 0) {
    cursor_.take(count * element_bytes, "an array");
  } else {
    for (uint64_t i = 0; i < count; ++i) {
      if (nested) {
        read_array(depth + 1);
      } else {
        cursor_.read_string("a string in an array");
      }
    }
  }
  value.bytes_ = part_.file.bytes().subspan(begin, cursor_.offset() - begin);
  check_bools(value);
  return value;
}

void GgufParser::check_bools(const GgufValue& value) {
  if (value.element_type_ != GgufValueType::kBool) return;
  for (std::byte b : value.bytes_) {
    if (static_cast<uint8_t>(b) <= 1) continue;
    cursor_.fail("a bool is " + std::to_string(static_cast<int>(b)) + ", 0 and 1 are legal",
                 &b - part_.file.bytes().data(), kDamaged);
  }
}

void GgufParser::read_alignment() {
  part_.alignment = kDefaultAlignment;
  for (const auto& [key, value] : part_.metadata) {
    if (key != "general.alignment") continue;
    std::optional<uint64_t> bytes = value.as_uint();
    if (!bytes || *bytes < kMinAlignment || !std::has_single_bit(*bytes) || *bytes > (1u << 30)) {
      cursor_.fail(
          "general.alignment is " + value.to_text() + ", not a power of two from 8 to 2^30",
          value.bytes_.data() - part_.file.bytes().data(), kDamaged);
    }
    part_.alignment = static_cast<int64_t>(*bytes);
  }
}

void GgufParser::read_tensors(int64_t count, int file_index) {
  std::unordered_set<std::string> seen;
  part_.tensors.reserve(count);
  table_offsets_.reserve(count);
  for (int64_t i = 0; i < count; ++i) {
    int64_t at = cursor_.offset();
    GgufTensor tensor = read_tensor(at);
    tensor.file = file_index;
    if (!seen.insert(tensor.name).second) {
      cursor_.fail("tensor " + quote_name(tensor.name) + " is there twice", at);
    }
    part_.tensors.push_back(std::move(tensor));
    table_offsets_.push_back(at);
  }
}

// One entry of the table; offset is still relative to the data section.
GgufTensor GgufParser::read_tensor(int64_t at) {
  GgufTensor tensor;
  tensor.name = cursor_.read_string("a tensor's name");
  if (tensor.name.empty() || tensor.name.size() > kMaxTensorNameBytes) {
    cursor_.fail(
        "tensor name of " + std::to_string(tensor.name.size()) + " bytes, 1 to 1024 are legal", at,
        kDamaged);
  }
  std::string who = "tensor " + quote_name(tensor.name);
  auto n_dims = cursor_.read<uint32_t>("a tensor's number of dimensions");
  if (n_dims < 1 || n_dims > kMaxDims) {
    cursor_.fail(who + " has " + std::to_string(n_dims) + " dimensions, 1 to 4 are legal", at,
                 kDamaged);
  }
  int64_t elements = 1;
  for (uint32_t d = 0; d < n_dims; ++d) {
    auto dim = static_cast<int64_t>(cursor_.read<uint64_t>("a tensor's dimension"));
    if (dim < 1 || __builtin_mul_overflow(elements, dim, &elements)) {
      cursor_.fail(who + " has dimension " + std::to_string(d) + " of " + std::to_string(dim) +
                       ": zero, negative or too large",
                   at, kDamaged);
    }
    tensor.dims.push_back(dim);
  }
  auto number = cursor_.read<uint32_t>("a tensor's type");
  std::optional<QuantType> type = quant_type_from_file(number);
  if (!type) {
    cursor_.fail(who + " has the unknown type " + std::to_string(number), at,
                 "the file is damaged or its quantisation is not known to this version");
  }
  tensor.type = *type;
  const QuantInfo& info = quant_info(*type);
  if (tensor.cols() % info.block_elements != 0) {
    cursor_.fail(who + " has rows of " + std::to_string(tensor.cols()) +
                     " values, not a multiple of the " + std::to_string(info.block_elements) +
                     " of a block of " + info.name,
                 at, kDamaged);
  }
  if (__builtin_mul_overflow(elements / info.block_elements, info.block_bytes, &tensor.bytes)) {
    cursor_.fail(who + " is larger than 2^63 bytes", at, kDamaged);
  }
  auto offset = cursor_.read<uint64_t>("a tensor's offset");
  if (offset % part_.alignment != 0 || offset > static_cast<uint64_t>(INT64_MAX)) {
    cursor_.fail(who + " lies at " + std::to_string(offset) + " of the data, not a multiple of " +
                     std::to_string(part_.alignment) + " or too large",
                 at, kDamaged);
  }
  tensor.offset = static_cast<int64_t>(offset);
  return tensor;
}

// Turns offsets into addresses: inside of the file, and no byte in two tensors.
void GgufParser::place_tensors(GgufNeed need) {
  std::span<const std::byte> bytes = part_.file.bytes();
  auto size = static_cast<int64_t>(bytes.size());
  part_.whole_bytes = size;
  int64_t data_begin = round_up(part_.header_bytes, part_.alignment);
  std::vector<size_t> order(part_.tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i : order) {
    GgufTensor& tensor = part_.tensors[i];
    int64_t room = size - data_begin;  // may be negative: the data section is not there
    const bool there = tensor.offset <= room && tensor.bytes <= room - tensor.offset;
    if (!there && need == GgufNeed::kHeader && tensor.offset < kMostCutBytes &&
        tensor.bytes < kMostCutBytes) {
      tensor.offset += data_begin;
      part_.whole_bytes =
          std::max(part_.whole_bytes, tensor.offset + round_up(tensor.bytes, part_.alignment));
      continue;
    }
    if (!there) {
      cursor_.fail("tensor " + quote_name(tensor.name) + " needs " + std::to_string(tensor.bytes) +
                       " bytes at " + std::to_string(tensor.offset) +
                       " of the data section, which has " +
                       std::to_string(std::max<int64_t>(room, 0)),
                   table_offsets_[i], "the file is cut short; download it again");
    }
    tensor.offset += data_begin;
    tensor.data = bytes.data() + tensor.offset;
  }
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return part_.tensors[a].offset < part_.tensors[b].offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const GgufTensor& before = part_.tensors[order[i - 1]];
    const GgufTensor& after = part_.tensors[order[i]];
    if (before.offset + before.bytes > after.offset) {
      cursor_.fail("tensors " + quote_name(before.name) + " and " + quote_name(after.name) +
                       " overlap at byte " + std::to_string(after.offset) + " of the file",
                   table_offsets_[order[i]], kDamaged);
    }
  }
}

}  // namespace spillway
