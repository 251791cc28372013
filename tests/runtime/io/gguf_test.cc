// Tests of runtime/io/gguf.h on well-formed files: every metadata type, tensors, many parts.
// Bad files are in gguf_hostile_test.cc.
#include "runtime/io/gguf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "kernels/core/error.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_dir.h"

namespace spillway {
namespace {

using testing::GgufArray;
using testing::GgufBuilder;
using testing::TempDir;

std::vector<float> ramp(int count) {
  std::vector<float> values(count);
  for (int i = 0; i < count; ++i) values[i] = static_cast<float>(i);
  return values;
}

GgufBuilder typical() {
  GgufBuilder builder;
  builder.set_string("general.architecture", "llama")
      .set_u8("u8", 200)
      .set_i8("i8", -5)
      .set_u16("u16", 60000)
      .set_i16("i16", -300)
      .set_u32("u32", 4000000000u)
      .set_i32("i32", -70000)
      .set_u64("u64", 18446744073709551615ull)
      .set_i64("i64", -5000000000ll)
      .set_f32("f32", 0.5f)
      .set_f64("f64", 0.25)
      .set_bool("yes", true)
      .set_bool("no", false)
      .set_strings("words", {"a", "", "ccc", "dd", "e", "f"})
      .set_array<float>("floats", {1.5f, -2.0f})
      .set_array<int32_t>("ints", {1, -2, 3})
      .set_array<bool>("bools", {true, false})
      .set_array("nested",
                 GgufArray::arrays({GgufArray::of<uint8_t>({1, 2}), GgufArray::strings({"x"})}))
      .set_array<uint64_t>("empty", {})
      .add_f32("first", {4, 3}, ramp(12))
      .add_f32("second", {5}, ramp(5))
      .add_tensor("third", {32, 2, 2, 1}, QuantType::kQ8_0, std::string(4 * 34, 'q'));
  return builder;
}

TEST(Gguf, ReadsEveryScalarType) {
  for (uint32_t version : {2u, 3u}) {
    TempDir dir;
    Gguf gguf = Gguf::open(typical().version(version).write(dir.file("m.gguf")));
    EXPECT_EQ(gguf.version(), version);
    EXPECT_EQ(gguf.require_string("general.architecture"), "llama");
    EXPECT_EQ(gguf.require_uint("u8"), 200u);
    EXPECT_EQ(gguf.find("i8")->as_int(), -5);
    EXPECT_EQ(gguf.require_uint("u16"), 60000u);
    EXPECT_EQ(gguf.find("i16")->as_int(), -300);
    EXPECT_EQ(gguf.require_uint("u32"), 4000000000u);
    EXPECT_EQ(gguf.find("i32")->as_int(), -70000);
    EXPECT_EQ(gguf.require_uint("u64"), 18446744073709551615ull);
    EXPECT_EQ(gguf.find("i64")->as_int(), -5000000000ll);
    EXPECT_EQ(gguf.require_double("f32"), 0.5);
    EXPECT_EQ(gguf.require_double("f64"), 0.25);
    EXPECT_EQ(gguf.require_double("i8"), -5.0);
    EXPECT_TRUE(gguf.bool_or("yes", false));
    EXPECT_FALSE(gguf.bool_or("no", true));
    EXPECT_EQ(gguf.metadata().size(), 19u);
    EXPECT_EQ(gguf.metadata()[1].first, "u8");
  }
}

TEST(Gguf, ValuesThatDoNotFitAreNothing) {
  TempDir dir;
  Gguf gguf = Gguf::open(typical().write(dir.file("m.gguf")));
  EXPECT_FALSE(gguf.find("i8")->as_uint());
  EXPECT_FALSE(gguf.find("u64")->as_int());
  EXPECT_FALSE(gguf.find("f32")->as_uint());
  EXPECT_FALSE(gguf.find("yes")->as_uint());
  EXPECT_FALSE(gguf.find("u8")->as_bool());
  EXPECT_FALSE(gguf.find("u8")->as_string());
  EXPECT_FALSE(gguf.find("words")->as_string());
  EXPECT_FALSE(gguf.find("words")->as_doubles());
  EXPECT_FALSE(gguf.find("words")->as_ints());
  EXPECT_FALSE(gguf.find("floats")->as_ints());
  EXPECT_FALSE(gguf.find("ints")->as_strings());
  EXPECT_FALSE(gguf.find("ints")->as_uint());
  EXPECT_FALSE(gguf.find("nested")->as_ints());
  GgufValue blank;
  EXPECT_FALSE(blank.as_uint() || blank.as_double() || blank.as_bool() || blank.as_string());
  EXPECT_EQ(blank.to_text(), "");
}

TEST(Gguf, ReadsArrays) {
  TempDir dir;
  Gguf gguf = Gguf::open(typical().write(dir.file("m.gguf")));
  const GgufValue* words = gguf.find("words");
  ASSERT_NE(words, nullptr);
  EXPECT_TRUE(words->is_array());
  EXPECT_EQ(words->element_type(), GgufValueType::kString);
  EXPECT_EQ(words->size(), 6);
  EXPECT_EQ(*words->as_strings(), (std::vector<std::string_view>{"a", "", "ccc", "dd", "e", "f"}));
  EXPECT_EQ(*gguf.find("floats")->as_doubles(), (std::vector<double>{1.5, -2.0}));
  EXPECT_EQ(*gguf.find("ints")->as_ints(), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(*gguf.find("ints")->as_doubles(), (std::vector<double>{1, -2, 3}));
  EXPECT_EQ(*gguf.find("bools")->as_ints(), (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(gguf.find("nested")->element_type(), GgufValueType::kArray);
  EXPECT_EQ(gguf.find("nested")->size(), 2);
  EXPECT_TRUE(gguf.find("empty")->as_ints()->empty());
}

TEST(Gguf, WritesValuesAsText) {
  TempDir dir;
  Gguf gguf = Gguf::open(typical().write(dir.file("m.gguf")));
  EXPECT_EQ(gguf.find("general.architecture")->to_text(), "llama");
  EXPECT_EQ(gguf.find("f32")->to_text(), "0.5");
  EXPECT_EQ(gguf.find("yes")->to_text(), "true");
  EXPECT_EQ(gguf.find("i64")->to_text(), "-5000000000");
  EXPECT_EQ(gguf.find("ints")->to_text(), "[1, -2, 3]");
  EXPECT_EQ(gguf.find("words")->to_text(), "[a, , ccc, dd, … 6 strings]");
  EXPECT_EQ(gguf.find("words")->to_text(0), "[6 strings]");
  EXPECT_EQ(gguf.find("nested")->to_text(), "[2 arrays]");
  EXPECT_EQ(gguf.find("empty")->to_text(), "[]");
}

TEST(Gguf, LookUpsNameKeyAndKind) {
  TempDir dir;
  std::string path = typical().write(dir.file("m.gguf"));
  Gguf gguf = Gguf::open(path);
  EXPECT_EQ(gguf.find("absent"), nullptr);
  EXPECT_EQ(gguf.uint_or("absent", 7), 7u);
  EXPECT_EQ(gguf.double_or("absent", 1.5), 1.5);
  EXPECT_EQ(gguf.string_or("absent", "x"), "x");
  EXPECT_TRUE(gguf.bool_or("absent", true));
  auto message = [&](auto&& look_up) -> std::string {
    try {
      look_up();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_NE(message([&] { gguf.require_uint("absent"); }).find("'absent'"), std::string::npos);
  EXPECT_NE(message([&] { gguf.require_string("absent"); }).find(path), std::string::npos);
  EXPECT_NE(message([&] { gguf.require_double("absent"); }).find("missing"), std::string::npos);
  EXPECT_NE(message([&] { gguf.uint_or("i8", 1); }).find("i8 '-5'"), std::string::npos);
  EXPECT_NE(message([&] { gguf.double_or("words", 1); }).find("a number"), std::string::npos);
  EXPECT_NE(message([&] { gguf.string_or("u8", ""); }).find("a string"), std::string::npos);
  EXPECT_NE(message([&] { gguf.bool_or("u8", true); }).find("a bool"), std::string::npos);
}

TEST(Gguf, ShowsTensorsInPlace) {
  for (uint32_t alignment : {8u, 32u, 4096u}) {
    TempDir dir;
    GgufBuilder builder = typical();
    if (alignment != 32) {
      builder = GgufBuilder().alignment(alignment);
      builder.add_f32("first", {4, 3}, ramp(12)).add_f32("second", {5}, ramp(5));
      builder.add_tensor("third", {32, 2, 2, 1}, QuantType::kQ8_0, std::string(4 * 34, 'q'));
    }
    Gguf gguf = Gguf::open(builder.write(dir.file("m.gguf")));
    EXPECT_EQ(gguf.alignment(), alignment);
    ASSERT_EQ(gguf.tensors().size(), 3u);
    const GgufTensor* second = gguf.tensor("second");
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(second->dims, (std::vector<int64_t>{5}));
    EXPECT_EQ(second->rows(), 1);
    EXPECT_EQ(second->bytes, 20);
    EXPECT_EQ(second->offset % alignment, 0);
    float values[5];
    std::memcpy(values, second->data, sizeof(values));
    EXPECT_EQ(values[4], 4.0f);
    const GgufTensor* third = gguf.tensor("third");
    EXPECT_EQ(third->type, QuantType::kQ8_0);
    EXPECT_EQ(third->cols(), 32);
    EXPECT_EQ(third->rows(), 4);
    EXPECT_EQ(third->elements(), 128);
    EXPECT_EQ(third->bytes, 136);
    EXPECT_EQ(static_cast<char>(third->data[135]), 'q');
    EXPECT_EQ(gguf.tensor("absent"), nullptr);
    gguf.drop_pages();
    EXPECT_EQ(static_cast<char>(third->data[135]), 'q');
  }
}

TEST(Gguf, VocabularyOnlyFileNeedsNoDataSection) {
  TempDir dir;
  std::string bytes = GgufBuilder().set_string("general.architecture", "llama").bytes();
  while (bytes.back() == '\0') bytes.pop_back();
  Gguf gguf = Gguf::open(dir.write("v.gguf", bytes));
  EXPECT_TRUE(gguf.tensors().empty());
  EXPECT_EQ(gguf.file_bytes(), static_cast<int64_t>(bytes.size()));
}

TEST(Gguf, AHeaderAloneIsEnoughWhereItIsAskedFor) {
  TempDir dir;
  const GgufBuilder builder = typical();
  const std::string whole = builder.bytes();
  const Gguf complete = Gguf::open(builder.write(dir.file("whole.gguf")), GgufNeed::kHeader);
  EXPECT_TRUE(complete.complete());
  for (const size_t size :
       {builder.header_bytes(), builder.header_bytes() + 40, whole.size() - 64}) {
    SCOPED_TRACE(size);
    const std::string path = dir.write("cut.gguf", whole.substr(0, size));
    EXPECT_THROW(Gguf::open(path), Error);
    const Gguf cut = Gguf::open(path, GgufNeed::kHeader);
    EXPECT_FALSE(cut.complete());
    EXPECT_EQ(cut.header_hash(), complete.header_hash());
    EXPECT_NEAR(static_cast<double>(cut.file_bytes()), static_cast<double>(whole.size()), 32);
    EXPECT_EQ(cut.tensor("third")->data, nullptr);
    EXPECT_EQ(cut.tensor("third")->offset, complete.tensor("third")->offset);
    EXPECT_EQ(cut.tensor("third")->bytes, 136);
  }
  const std::string short_path =
      dir.write("short.gguf", whole.substr(0, builder.header_bytes() - 1));
  EXPECT_THROW(Gguf::open(short_path, GgufNeed::kHeader), Error);
  // In memory; the bytes given need not stay.
  std::string header = whole.substr(0, builder.header_bytes());
  const Gguf made = Gguf::of_header(std::as_bytes(std::span(header.data(), header.size())), "made");
  header.assign(header.size(), 'x');
  EXPECT_EQ(made.header_hash(), complete.header_hash());
  made.drop_pages();
  EXPECT_EQ(made.require_string("general.architecture"), "llama");
  EXPECT_EQ(made.paths().front(), "made");
}

TEST(Gguf, AHeaderAloneMayNotLieAboutItsData) {
  TempDir dir;
  const auto opens = [&](const GgufBuilder& builder) {
    return Gguf::open(builder.write(dir.file("lie.gguf")), GgufNeed::kHeader);
  };
  EXPECT_NO_THROW(opens(GgufBuilder().add_raw_tensor("t", {64, 1 << 20}, 0, 0)));
  EXPECT_THROW(opens(GgufBuilder().add_raw_tensor("t", {64, 1ULL << 50}, 0, 0)), Error);
  EXPECT_THROW(opens(GgufBuilder().add_raw_tensor("t", {64, 2}, 0, 1ULL << 62)), Error);
  EXPECT_THROW(opens(GgufBuilder()
                         .add_raw_tensor("t", {64, 1 << 20}, 0, 0)
                         .add_raw_tensor("u", {64, 1 << 20}, 0, 64)),
               Error)
      << "they overlap";
}

TEST(Gguf, HashFollowsTheHeaderOnly) {
  TempDir dir;
  Gguf a = Gguf::open(GgufBuilder().set_u32("k", 1).add_f32("t", {2}, {1, 2}).write(dir.file("a")));
  Gguf b = Gguf::open(GgufBuilder().set_u32("k", 1).add_f32("t", {2}, {3, 4}).write(dir.file("b")));
  Gguf c = Gguf::open(GgufBuilder().set_u32("k", 2).add_f32("t", {2}, {1, 2}).write(dir.file("c")));
  EXPECT_EQ(a.header_hash(), b.header_hash());
  EXPECT_NE(a.header_hash(), c.header_hash());
}

TEST(Gguf, OpensAllPartsFromAnyOfThem) {
  TempDir dir;
  std::vector<std::string> paths = typical().write_split(dir.file("m"), 3);
  std::set<uint64_t> hashes;
  for (const std::string& path : paths) {
    Gguf gguf = Gguf::open(path);
    EXPECT_EQ(gguf.paths(), paths);
    ASSERT_EQ(gguf.tensors().size(), 3u);
    EXPECT_EQ(gguf.tensors()[0].name, "first");
    EXPECT_EQ(gguf.tensor("first")->file, 0);
    EXPECT_EQ(gguf.tensor("third")->file, 2);
    EXPECT_EQ(static_cast<char>(gguf.tensor("third")->data[0]), 'q');
    EXPECT_EQ(gguf.require_string("general.architecture"), "llama");
    hashes.insert(gguf.header_hash());
  }
  EXPECT_EQ(hashes.size(), 1u);
}

TEST(Gguf, OutlivesTheHandleItWasCopiedFrom) {
  TempDir dir;
  std::optional<Gguf> original = Gguf::open(typical().write(dir.file("m.gguf")));
  Gguf copy = *original;
  original.reset();
  EXPECT_EQ(copy.require_string("general.architecture"), "llama");
}

}  // namespace
}  // namespace spillway
