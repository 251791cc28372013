// Models of several files, as llama.cpp's gguf-split writes them: every part is a GGUF file of its
// own with split.no (from 0), split.count and split.tensors.count (of the whole model), named
// STEM-00001-of-0000N.gguf. Metadata is the first part's. See gguf_parser.h.
#include <cctype>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "kernels/core/error.h"
#include "runtime/io/gguf_parser.h"

namespace spillway {
namespace {

const GgufValue* find_key(const GgufMetadata& metadata, std::string_view key) {
  for (const auto& [name, value] : metadata) {
    if (name == key) return &value;
  }
  return nullptr;
}

// The key's number, or fallback when it is absent.
uint64_t split_number(const GgufPart& part, std::string_view key, uint64_t fallback) {
  const GgufValue* value = find_key(part.metadata, key);
  if (value == nullptr) return fallback;
  std::optional<uint64_t> number = value->as_uint();
  if (!number) {
    throw Error(std::string(key) + " is " + value->to_text() + ", not a count", part.file.path());
  }
  return *number;
}

struct SplitName {
  std::string stem;
  uint64_t number = 0;  // from 1
  uint64_t count = 0;
};

// "m-00002-of-00003.gguf" → {m, 2, 3}; nothing for other names.
std::optional<SplitName> parse_split_name(const std::string& path) {
  constexpr std::string_view kShape = "-ddddd-of-ddddd.gguf";
  if (path.size() < kShape.size()) return std::nullopt;
  std::string_view tail = std::string_view(path).substr(path.size() - kShape.size());
  for (size_t i = 0; i < kShape.size(); ++i) {
    bool digit = std::isdigit(static_cast<unsigned char>(tail[i])) != 0;
    if (kShape[i] == 'd' ? !digit : tail[i] != kShape[i]) return std::nullopt;
  }
  return SplitName{path.substr(0, path.size() - kShape.size()),
                   std::stoull(std::string(tail.substr(1, 5))),
                   std::stoull(std::string(tail.substr(10, 5)))};
}

std::string split_path(const SplitName& name, uint64_t number) {
  char suffix[64];
  std::snprintf(suffix, sizeof(suffix), "-%05llu-of-%05llu.gguf",
                static_cast<unsigned long long>(number),
                static_cast<unsigned long long>(name.count));
  return name.stem + suffix;
}

// The part says of itself what its name says, and what the named part said.
void check_part(const GgufPart& part, uint64_t index, uint64_t count) {
  uint64_t says_count = split_number(part, "split.count", 1);
  uint64_t says_index = split_number(part, "split.no", 0);
  if (says_count != count || says_index != index) {
    throw Error("its metadata says part " + std::to_string(says_index + 1) + " of " +
                    std::to_string(says_count) + ", expected part " + std::to_string(index + 1) +
                    " of " + std::to_string(count),
                part.file.path(), "do not rename the parts; download them again");
  }
}

std::vector<GgufPart> open_parts(const std::string& path, GgufNeed need) {
  std::vector<GgufPart> parts;
  parts.push_back(GgufParser::parse_file(MappedFile(path), 0, need));
  uint64_t count = split_number(parts[0], "split.count", 1);
  if (count <= 1) return parts;
  std::optional<SplitName> name = parse_split_name(path);
  if (!name || name->count != count || name->number < 1 || name->number > count) {
    throw Error("its metadata says it is one of " + std::to_string(count) +
                    " parts, but its name does not end like " + split_path({"", 0, count}, 1),
                path, "give the parts the names they were published with");
  }
  GgufPart named = std::move(parts[0]);
  parts.clear();
  for (uint64_t i = 0; i < count; ++i) {
    if (i + 1 == name->number) {
      // One turn of the loop gets here. NOLINTNEXTLINE(bugprone-use-after-move)
      for (GgufTensor& tensor : named.tensors) tensor.file = static_cast<int>(i);
      parts.push_back(std::move(named));
    } else {
      std::string part_path = split_path(*name, i + 1);
      try {
        parts.push_back(GgufParser::parse_file(MappedFile(part_path), static_cast<int>(i), need));
      } catch (const Error& error) {
        throw Error("part " + std::to_string(i + 1) + " of " + std::to_string(count) + ": " +
                        error.message(),
                    error.where(), error.todo());
      }
    }
    check_part(parts.back(), i, count);
  }
  return parts;
}

}  // namespace

Gguf GgufParser::open(const std::string& path, GgufNeed need) {
  return put_together(open_parts(path, need));
}

Gguf GgufParser::of_header(std::span<const std::byte> bytes, const std::string& name) {
  std::vector<GgufPart> parts;
  parts.push_back(parse_file(MappedFile(bytes, name), 0, GgufNeed::kHeader));
  return put_together(std::move(parts));
}

Gguf GgufParser::put_together(std::vector<GgufPart> parts) {
  auto content = std::make_shared<Gguf::Content>();
  content->parts = std::move(parts);
  content->metadata = std::move(content->parts[0].metadata);
  for (size_t i = 0; i < content->metadata.size(); ++i) {
    content->key_index.emplace(content->metadata[i].first, i);
  }
  for (GgufPart& part : content->parts) {
    content->paths.push_back(part.file.path());
    content->file_bytes += part.whole_bytes;
    for (GgufTensor& tensor : part.tensors) content->tensors.push_back(std::move(tensor));
    part.tensors.clear();
  }
  for (size_t i = 0; i < content->tensors.size(); ++i) {
    const GgufTensor& tensor = content->tensors[i];
    if (content->tensor_index.emplace(tensor.name, i).second) continue;
    throw Error("tensor " + quote_name(tensor.name) + " is in two parts",
                content->paths[tensor.file], "download the parts again");
  }
  auto declared = content->key_index.find("split.tensors.count");
  if (content->parts.size() > 1 && declared != content->key_index.end()) {
    std::optional<uint64_t> count = content->metadata[declared->second].second.as_uint();
    if (!count || *count != content->tensors.size()) {
      throw Error("split.tensors.count is " + content->metadata[declared->second].second.to_text() +
                      ", the parts have " + std::to_string(content->tensors.size()) + " tensors",
                  content->paths[0], "parts of different models were mixed; download them again");
    }
  }
  Gguf gguf;
  gguf.content_ = std::move(content);
  return gguf;
}

}  // namespace spillway
