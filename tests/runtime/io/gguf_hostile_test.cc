// Tests of runtime/io/gguf.h on bad files: each is an Error that names file, offset and reason.
// The last tests cut a file at every length and damage every byte of its header.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>

#include "kernels/core/error.h"
#include "runtime/io/gguf.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_dir.h"

namespace spillway {
namespace {

using testing::GgufArray;
using testing::GgufBuilder;
using testing::TempDir;

// The file must be refused, for this reason, with path and offset.
void expect_refused(const std::string& bytes, const std::string& reason) {
  TempDir dir;
  std::string path = dir.write("bad.gguf", bytes);
  try {
    Gguf::open(path);
    ADD_FAILURE() << "opened; expected: " << reason;
  } catch (const Error& error) {
    EXPECT_NE(error.message().find(reason), std::string::npos) << error.what();
    EXPECT_EQ(error.where().rfind(path + ", offset ", 0), 0u) << error.what();
  }
}

// bytes with sizeof(value) of them replaced.
template <typename T>
std::string patched(std::string bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
  return bytes;
}

GgufBuilder small() {
  return GgufBuilder().set_u32("a", 1).add_f32("t", {4, 2}, std::vector<float>(8, 1.0f));
}

TEST(GgufHostile, Preamble) {
  expect_refused("GGUX0000000000000000000000000000", "not a GGUF file");
  expect_refused("GG", "ends inside of the magic");
  expect_refused(small().version(1).bytes(), "GGUF version 1, supported are 2 and 3");
  expect_refused(small().version(4).bytes(), "GGUF version 4");
  expect_refused(small().version(0).bytes(), "GGUF version 0");
  expect_refused(small().version(0x03000000).bytes(), "big-endian GGUF file (version 3)");
}

TEST(GgufHostile, CountsBeyondTheFile) {
  std::string good = small().bytes();
  for (uint64_t lie : {uint64_t{1} << 20, uint64_t{1} << 62, ~uint64_t{0}}) {
    expect_refused(patched(good, 8, lie), "tensors, more than");
    expect_refused(patched(good, 16, lie), "metadata entries, more than");
  }
}

TEST(GgufHostile, Metadata) {
  expect_refused(GgufBuilder().set_u32("a", 1).set_u32("a", 2).bytes(), "'a' is there twice");
  expect_refused(GgufBuilder().set_raw("a", 13, "xxxxxxxx").bytes(), "unknown type 13");
  expect_refused(GgufBuilder().set_raw("", 0, "x").set_u64("b", 1).bytes(), "key of 0 bytes");
  expect_refused(GgufBuilder().set_raw("a", 7, "\x02").bytes(), "a bool is 2");
  expect_refused(GgufBuilder().set_array<uint8_t>("a", {}).set_raw("b", 8, "abcdefgh").bytes(),
                 "ends inside of a string");
  std::string bools = GgufArray::of<bool>({true, true}).bytes;
  bools.back() = 7;
  expect_refused(GgufBuilder().set_raw("a", 9, bools).bytes(), "a bool is 7");
}

TEST(GgufHostile, Arrays) {
  for (uint32_t element : {0u, 5u, 8u, 9u, 12u}) {
    for (uint64_t count : {uint64_t{1} << 32, uint64_t{1} << 61, ~uint64_t{0}}) {
      std::string array;
      testing::internal::put<uint32_t>(array, element);
      testing::internal::put<uint64_t>(array, count);
      expect_refused(GgufBuilder().set_raw("a", 9, array).bytes(), "elements, more than");
    }
  }
  std::string array;
  testing::internal::put<uint32_t>(array, 99);
  testing::internal::put<uint64_t>(array, 0);
  expect_refused(GgufBuilder().set_raw("a", 9, array).bytes(), "array of unknown type 99");
  GgufArray deep = GgufArray::of<uint8_t>({1});
  for (int i = 0; i < 1000; ++i) {
    std::string outer;
    testing::internal::put<uint32_t>(outer, 9);
    testing::internal::put<uint64_t>(outer, 1);
    deep.bytes.insert(0, outer);
  }
  expect_refused(GgufBuilder().set_array("a", deep).bytes(), "nested deeper");
}

TEST(GgufHostile, Alignment) {
  for (uint32_t bytes : {1u, 4u, 24u, 0u, 0x80000000u}) {
    expect_refused(GgufBuilder().set_u32("general.alignment", bytes).bytes(),
                   "general.alignment is");
  }
  expect_refused(GgufBuilder().set_string("general.alignment", "32").bytes(),
                 "general.alignment is");
}

TEST(GgufHostile, TensorShapes) {
  auto raw = [](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    return GgufBuilder().add_raw_tensor("t", dims, type, offset).bytes() + std::string(64, 'x');
  };
  expect_refused(raw({}, 0, 0), "0 dimensions");
  expect_refused(raw({1, 1, 1, 1, 1}, 0, 0), "5 dimensions");
  expect_refused(raw({4, 0}, 0, 0), "dimension 1 of 0");
  expect_refused(raw({~uint64_t{0}}, 0, 0), "dimension 0 of -1");
  expect_refused(raw({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0), "too large");
  expect_refused(raw({uint64_t{1} << 62}, 0, 0), "larger than 2^63 bytes");
  expect_refused(raw({33}, 8, 0), "not a multiple of the 32");
  expect_refused(raw({32}, 4, 0), "unknown type 4");
  expect_refused(raw({32}, 1000, 0), "unknown type 1000");
  expect_refused(raw({4}, 0, 8), "not a multiple of 32");
  expect_refused(raw({4}, 0, uint64_t{1} << 63), "too large");
  expect_refused(raw({4}, 0, uint64_t{1} << 62), "needs 16 bytes");
  expect_refused(raw({1024}, 0, 0), "needs 4096 bytes");
  expect_refused(GgufBuilder().add_raw_tensor("", {4}, 0, 0).set_string("pad", "0123").bytes(),
                 "tensor name of 0 bytes");
}

TEST(GgufHostile, TensorsThatMeet) {
  std::vector<float> two(16, 1.0f);
  expect_refused(GgufBuilder().add_f32("t", {16}, two).add_f32("t", {16}, two).bytes(),
                 "'t' is there twice");
  expect_refused(GgufBuilder().add_f32("t", {16}, two).add_raw_tensor("u", {16}, 0, 0).bytes(),
                 "'t' and 'u' overlap");
  expect_refused(GgufBuilder().add_f32("t", {16}, two).add_raw_tensor("u", {8}, 0, 32).bytes(),
                 "'t' and 'u' overlap");
}

// Changes made to the parts of a three-part model, and why they are refused.
void expect_split_refused(const std::function<std::string(const std::vector<std::string>&)>& change,
                          const std::string& reason) {
  TempDir dir;
  GgufBuilder builder = small();
  builder.add_f32("u", {2}, {1, 2}).add_f32("v", {2}, {1, 2});
  std::string path = change(builder.write_split(dir.file("m"), 3));
  try {
    Gguf::open(path);
    ADD_FAILURE() << "opened; expected: " << reason;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    EXPECT_FALSE(error.where().empty());
  }
}

TEST(GgufHostile, Parts) {
  using Paths = const std::vector<std::string>&;
  auto copy = [](const std::string& from, const std::string& to) {
    std::filesystem::copy_file(from, to, std::filesystem::copy_options::overwrite_existing);
  };
  expect_split_refused(
      [&](Paths paths) {
        std::remove(paths[1].c_str());
        return paths[0];
      },
      "part 2 of 3: cannot open");
  expect_split_refused(
      [&](Paths paths) {
        copy(paths[0], paths[1]);
        return paths[2];
      },
      "says part 1 of 3, expected part 2 of 3");
  expect_split_refused(
      [&](Paths paths) {
        std::string renamed = paths[0] + ".gguf";
        copy(paths[0], renamed);
        return renamed;
      },
      "does not end like -00001-of-00003.gguf");
  auto other = [](uint16_t no, uint16_t count, int32_t tensors, const char* name) {
    return GgufBuilder()
        .set_u16("split.no", no)
        .set_u16("split.count", count)
        .set_i32("split.tensors.count", tensors)
        .add_f32(name, {2}, {1, 2});
  };
  expect_split_refused(
      [&](Paths paths) {
        other(1, 2, 3, "u").write(paths[1]);
        return paths[0];
      },
      "says part 2 of 2, expected part 2 of 3");
  expect_split_refused(
      [&](Paths paths) {
        other(1, 3, 3, "t").write(paths[1]);
        return paths[0];
      },
      "'t' is in two parts");
  expect_split_refused(
      [&](Paths paths) {
        other(1, 3, 3, "u").add_f32("extra", {1}, {1}).write(paths[1]);
        return paths[0];
      },
      "split.tensors.count is 3, the parts have 4");
}

// Opens what may be damaged and reads all of it; an Error is the only other way out.
bool read_everything(const std::string& path) {
  try {
    Gguf gguf = Gguf::open(path);
    uint64_t sum = gguf.header_hash();
    for (const auto& [key, value] : gguf.metadata()) {
      sum += value.to_text(1000).size() + value.as_uint().value_or(1) + value.as_bool().value_or(1);
      if (auto words = value.as_strings()) {
        for (std::string_view word : *words) sum += word.empty() ? 0 : word.back();
      }
      if (auto numbers = value.as_doubles()) sum += numbers->size();
      if (auto numbers = value.as_ints()) sum += numbers->size();
    }
    for (const GgufTensor& tensor : gguf.tensors()) {
      for (int64_t i = 0; i < tensor.bytes; ++i) sum += static_cast<uint64_t>(tensor.data[i]);
    }
    return sum != 1;
  } catch (const Error&) {
    return false;
  }
}

GgufBuilder various() {
  return GgufBuilder()
      .set_string("general.architecture", "llama")
      .set_u32("general.alignment", 32)
      .set_bool("b", true)
      .set_f64("d", 2.5)
      .set_strings("words", {"a", "bc"})
      .set_array<int16_t>("shorts", {1, 2, 3})
      .set_array("nested",
                 GgufArray::arrays({GgufArray::of<float>({1}), GgufArray::strings({"z"})}))
      .add_f32("t", {4, 2}, std::vector<float>(8, 1.0f))
      .add_tensor("q", {32, 2}, QuantType::kQ4_0, std::string(36, 'q'));
}

TEST(GgufHostile, CutAtEveryLength) {
  TempDir dir;
  std::string good = various().bytes();
  std::string path = dir.write("whole.gguf", good);
  ASSERT_TRUE(read_everything(path));
  // Only padding after the last tensor's 36 bytes may be missing.
  for (size_t length = 1; length < good.size(); ++length) {
    bool opened = read_everything(dir.write("cut.gguf", good.substr(0, length)));
    EXPECT_EQ(opened, length >= good.size() - 28) << "cut at " << length << " of " << good.size();
  }
}

TEST(GgufHostile, EveryHeaderByteDamaged) {
  TempDir dir;
  GgufBuilder builder = various();
  std::string good = builder.bytes();
  int refused = 0;
  for (size_t at = 0; at < builder.header_bytes(); ++at) {
    for (int flip : {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      refused += read_everything(dir.write("bad.gguf", bad)) ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 500);  // most of the header is counts, types and lengths
}

}  // namespace
}  // namespace spillway
