// GgufParser: the bytes of one GGUF file, or of all the parts of a model, checked and turned into
// what gguf.h shows. Called by gguf.cc alone; knows the format, not what the keys mean (but for
// general.alignment and split.*).
// Thread: one. Never copies tensor data, never reserves more than the file's size justifies.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/io/gguf.h"
#include "runtime/io/gguf_cursor.h"
#include "runtime/io/mapped_file.h"

namespace spillway {

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

// One file of a model.
struct GgufPart {
  MappedFile file;
  uint32_t version = 0;
  int64_t alignment = 0;
  int64_t header_bytes = 0;  // from the magic to the end of the tensor table
  int64_t whole_bytes = 0;   // of the file, or what a file that was cut would have
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;
};

struct Gguf::Content {
  std::vector<GgufPart> parts;                             // metadata and tensors moved out of them
  std::vector<std::string> paths;                          // of the parts
  GgufMetadata metadata;                                   // of the first part
  std::vector<GgufTensor> tensors;                         // of all parts
  std::unordered_map<std::string_view, size_t> key_index;  // into metadata
  std::unordered_map<std::string_view, size_t> tensor_index;  // into tensors
  int64_t file_bytes = 0;
};

class GgufParser {
 public:
  // All parts of the model that `path` is (a part of), put together.
  static Gguf open(const std::string& path, GgufNeed need);
  static Gguf of_header(std::span<const std::byte> bytes, const std::string& name);
  // One file; file_index is written into its tensors.
  static GgufPart parse_file(MappedFile file, int file_index, GgufNeed need);

 private:
  GgufParser(GgufCursor& cursor, GgufPart& part) : cursor_(cursor), part_(part) {}

  void read_preamble();
  void read_metadata(int64_t count);
  GgufValue read_value(uint32_t type_number, int depth);
  GgufValue read_array(int depth);
  void check_bools(const GgufValue& value);
  void read_alignment();
  void read_tensors(int64_t count, int file_index);
  GgufTensor read_tensor(int64_t at);
  void place_tensors(GgufNeed need);
  static Gguf put_together(std::vector<GgufPart> parts);

  GgufCursor& cursor_;
  GgufPart& part_;
  int64_t tensor_count_ = 0;
  int64_t metadata_count_ = 0;
  std::vector<int64_t> table_offsets_;  // of each tensor's entry, for messages
};

}  // namespace spillway
