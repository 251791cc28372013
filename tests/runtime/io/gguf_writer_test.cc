// GgufWriter: what it writes reads back equal, appears under its name complete or not at all, and
// leaves nothing behind. The files it is compared with come from GgufBuilder, the second opinion on
// the format.
#include "runtime/io/gguf_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/error.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_dir.h"

namespace spillway::testing {
namespace {

namespace fs = std::filesystem;

GgufBuilder every_kind_of_value() {
  GgufBuilder builder;
  builder.set_string("general.architecture", "llama")
      .set_u8("a.u8", 200)
      .set_i8("a.i8", -100)
      .set_u16("a.u16", 60000)
      .set_i16("a.i16", -30000)
      .set_u32("a.u32", 4000000000u)
      .set_i32("a.i32", -2000000000)
      .set_f32("a.f32", 1.5f)
      .set_bool("a.bool", true)
      .set_string("a.empty", "")
      .set_string("a.bytes", std::string("\xff\0\x80", 3))
      .set_u64("a.u64", ~uint64_t{0})
      .set_i64("a.i64", -5)
      .set_f64("a.f64", 0.1)
      .set_strings("a.strings", {"x", "", std::string("y\0z", 3)})
      .set_array<float>("a.floats", {1, 2, 3})
      .set_array<uint8_t>("a.none", {})
      .set_array("a.nested", GgufArray::arrays({GgufArray::of<int32_t>({1, 2}),
                                                GgufArray::strings({"deep", "er"})}));
  return builder;
}

GgufMetadataText metadata_of(const Gguf& gguf) {
  GgufMetadataText metadata;
  for (const auto& [key, value] : gguf.metadata()) metadata.copy(key, value);
  return metadata;
}

std::vector<GgufTensorPlan> plans_of(const Gguf& gguf) {
  std::vector<GgufTensorPlan> plans;
  for (const GgufTensor& tensor : gguf.tensors()) {
    plans.push_back({tensor.name, tensor.dims, tensor.type});
  }
  return plans;
}

// A copy of all of it, data in pieces of at most `piece` bytes.
void copy(const Gguf& gguf, const std::string& path, size_t piece, bool replace = false) {
  GgufWriter writer(path, metadata_of(gguf), plans_of(gguf), gguf.alignment());
  for (const GgufTensor& tensor : gguf.tensors()) {
    std::span<const std::byte> data(tensor.data, static_cast<size_t>(tensor.bytes));
    while (!data.empty()) {
      const size_t n = std::min(piece, data.size());
      writer.write(data.first(n));
      data = data.subspan(n);
    }
  }
  writer.finish(replace);
}

GgufBuilder with_tensors(uint32_t alignment) {
  GgufBuilder builder = every_kind_of_value();
  if (alignment != 32) builder.alignment(alignment);
  builder.add_f32("one", {3}, {1, 2, 3});
  builder.add_tensor("blocks", {64, 5}, QuantType::kQ4_0, std::string(180, 'q'));
  builder.add_f32("four", {2, 2, 1, 2}, {0, 1, 2, 3, 4, 5, 6, 7});
  return builder;
}

TEST(GgufWriterTest, ACopyIsEqualByteForByte) {
  const TempDir dir;
  for (const uint32_t alignment : {32u, 8u, 64u, 4096u}) {
    for (const size_t piece : {size_t{1}, size_t{7}, size_t{1} << 20}) {
      const std::string from = with_tensors(alignment).write(dir.file("from.gguf"));
      const std::string to = dir.file("to.gguf");
      const Gguf source = Gguf::open(from);
      copy(source, to, piece, true);
      EXPECT_EQ(read_file(to), read_file(from)) << alignment << " " << piece;
      EXPECT_EQ(GgufWriter::file_bytes(metadata_of(source), plans_of(source), alignment),
                static_cast<int64_t>(fs::file_size(to)));
    }
  }
}

TEST(GgufWriterTest, ValuesAreReplacedWhereTheyStandOrAdded) {
  const TempDir dir;
  const Gguf source = Gguf::open(every_kind_of_value().write(dir.file("from.gguf")));
  GgufMetadataText metadata = metadata_of(source);
  metadata.set_u32("a.strings", 7);
  metadata.set_u32("general.file_type", 15);
  GgufWriter(dir.file("to.gguf"), metadata, {}, 32).finish(false);
  const Gguf copied = Gguf::open(dir.file("to.gguf"));
  ASSERT_EQ(copied.metadata().size(), source.metadata().size() + 1);
  EXPECT_EQ(copied.metadata()[14].first, "a.strings");
  EXPECT_EQ(copied.require_uint("a.strings"), 7u);
  EXPECT_EQ(copied.metadata().back().first, "general.file_type");
  EXPECT_EQ(copied.require_uint("general.file_type"), 15u);
}

TEST(GgufWriterTest, AnUnfinishedFileIsGone) {
  const TempDir dir;
  const std::string to = dir.file("to.gguf");
  const Gguf source = Gguf::open(with_tensors(32).write(dir.file("from.gguf")));
  {
    GgufWriter writer(to, metadata_of(source), plans_of(source), 32);
    EXPECT_TRUE(fs::exists(GgufWriter::temporary_path(to)));
    EXPECT_FALSE(fs::exists(to));
    writer.write(std::as_bytes(std::span("ab", 2)));
  }
  EXPECT_FALSE(fs::exists(GgufWriter::temporary_path(to)));
  EXPECT_FALSE(fs::exists(to));
}

TEST(GgufWriterTest, WhatAKilledRunLeftIsReplaced) {
  const TempDir dir;
  const std::string to = dir.file("to.gguf");
  const std::string from = with_tensors(32).write(dir.file("from.gguf"));
  dir.write("to.gguf.unfinished", std::string(100'000, 'x'));
  copy(Gguf::open(from), to, 100);
  EXPECT_EQ(read_file(to), read_file(from));
  EXPECT_FALSE(fs::exists(GgufWriter::temporary_path(to)));
}

TEST(GgufWriterTest, TwoRunsDoNotWriteTheSameFile) {
  const TempDir dir;
  const std::string to = dir.file("to.gguf");
  GgufWriter first(to, {}, {}, 32);
  EXPECT_THROW(GgufWriter(to, {}, {}, 32), Error);
  first.finish(false);  // the second one has not taken the first one's file away
  EXPECT_TRUE(fs::exists(to));
}

// Between opening and locking it the temporary may have become the finished file of another run:
// who writes on then empties it.
TEST(GgufWriterTest, RunsOfTheSameFileNeverEmptyWhatOneHasFinished) {
  const TempDir dir;
  const std::string to = dir.file("to.gguf");
  const auto whole = static_cast<uintmax_t>(GgufWriter::file_bytes({}, {}, 32));
  copy(Gguf::open(GgufBuilder().write(dir.file("from.gguf"))), to, 1);
  std::atomic<bool> done{false};
  const auto begin_and_give_up = [&] {
    while (!done) {
      try {
        GgufWriter(to, {}, {}, 32);
      } catch (const Error&) {
        // another one is at it
      }
    }
  };
  std::vector<std::jthread> others;
  for (int i = 0; i < 3; ++i) others.emplace_back(begin_and_give_up);
  int damaged = 0;
  for (int finished = 0; finished < 300;) {
    try {
      GgufWriter(to, {}, {}, 32).finish(true);
      ++finished;
    } catch (const Error&) {
      continue;
    }
    if (fs::file_size(to) != whole) ++damaged;
  }
  done = true;
  others.clear();
  EXPECT_EQ(damaged, 0);
  EXPECT_EQ(read_file(to), read_file(dir.file("from.gguf")));
}

TEST(GgufWriterTest, ATemporaryThatIsAnotherFileLosesNothing) {
  const TempDir dir;
  const std::string to = dir.file("to.gguf");
  const std::string temporary = GgufWriter::temporary_path(to);
  const std::string precious = dir.write("precious", "precious");
  fs::create_symlink(precious, temporary);
  EXPECT_THROW(GgufWriter(to, {}, {}, 32), Error);
  EXPECT_TRUE(fs::is_symlink(temporary));
  fs::remove(temporary);
  // A run that was killed between the link and the unlink of its end leaves a second name.
  fs::create_hard_link(precious, temporary);
  GgufWriter(to, {}, {}, 32).finish(false);
  EXPECT_EQ(read_file(precious), "precious");
  EXPECT_EQ(static_cast<int64_t>(fs::file_size(to)), GgufWriter::file_bytes({}, {}, 32));
  ASSERT_EQ(::mkfifo(GgufWriter::temporary_path(dir.file("b.gguf")).c_str(), 0600), 0);
  EXPECT_THROW(GgufWriter(dir.file("b.gguf"), {}, {}, 32), Error);  // and does not wait
}

TEST(GgufWriterTest, OnlyReplacesWhenAsked) {
  const TempDir dir;
  const std::string to = dir.write("to.gguf", "precious");
  const std::string from = with_tensors(32).write(dir.file("from.gguf"));
  EXPECT_THROW(copy(Gguf::open(from), to, 100, false), Error);
  EXPECT_EQ(read_file(to), "precious");
  EXPECT_FALSE(fs::exists(GgufWriter::temporary_path(to)));
  copy(Gguf::open(from), to, 100, true);
  EXPECT_EQ(read_file(to), read_file(from));
}

// A limit on the size of files is what a test can have for a full disk.
TEST(GgufWriterTest, AFullDiskIsAnErrorThatLeavesNothing) {
  const TempDir dir;
  const std::string to = dir.file("to.gguf");
  const Gguf source = Gguf::open(with_tensors(4096).write(dir.file("from.gguf")));
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  for (const rlim_t limit : {rlim_t{0}, rlim_t{100}, rlim_t{4096}, rlim_t{4100}, rlim_t{9000}}) {
    const rlimit small{limit, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    std::string said;
    try {
      copy(source, to, 100);
    } catch (const Error& error) {
      said = error.what();
    }
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_NE(said.find("to.gguf"), std::string::npos) << limit << ": " << said;
    EXPECT_NE(said.find("make room"), std::string::npos) << limit << ": " << said;
    EXPECT_FALSE(fs::exists(to));
    EXPECT_FALSE(fs::exists(GgufWriter::temporary_path(to)));
  }
  std::signal(SIGXFSZ, handler);
}

TEST(GgufWriterTest, AFolderThatIsNotThereIsAnError) {
  EXPECT_THROW(GgufWriter("/nonexistent/to.gguf", {}, {}, 32), Error);
}

TEST(GgufWriterDeathTest, MoreOrLessDataThanPlannedIsABug) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const TempDir dir;
  const std::vector<GgufTensorPlan> plan = {{"a", {4}, QuantType::kF32}};
  const std::string data(17, 'x');
  EXPECT_DEATH(
      GgufWriter(dir.file("a.gguf"), {}, plan, 32).write(std::as_bytes(std::span(data.data(), 17))),
      "CHECK failed");
  EXPECT_DEATH(GgufWriter(dir.file("b.gguf"), {}, plan, 32).finish(false), "CHECK failed");
}

}  // namespace
}  // namespace spillway::testing
