// Tests of runtime/io/mapped_file.h: what is mapped, moves, and what is refused.
#include "runtime/io/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <utility>

#include "kernels/core/error.h"
#include "tests/support/temp_dir.h"

namespace spillway {
namespace {

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(MappedFile, ShowsTheBytes) {
  testing::TempDir dir;
  std::string path = dir.write("a", std::string("ab\0c", 4));
  MappedFile file(path);
  EXPECT_EQ(text_of(file), std::string("ab\0c", 4));
  EXPECT_EQ(file.path(), path);
  file.will_need();
  file.drop_pages();
  EXPECT_EQ(text_of(file), std::string("ab\0c", 4));
}

TEST(MappedFile, MovesWithoutACopy) {
  testing::TempDir dir;
  MappedFile a(dir.write("a", "first"));
  MappedFile b(dir.write("b", "second"));
  const std::byte* base = a.bytes().data();
  MappedFile c(std::move(a));
  EXPECT_EQ(c.bytes().data(), base);
  c = std::move(b);
  EXPECT_EQ(text_of(c), "second");
}

void expect_refused(const std::string& path, const std::string& reason) {
  try {
    MappedFile file(path);
    FAIL() << path << " was mapped";
  } catch (const Error& error) {
    EXPECT_NE(error.message().find(reason), std::string::npos) << error.what();
    EXPECT_EQ(error.where(), path);
  }
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  testing::TempDir dir;
  expect_refused(dir.file("absent"), "No such file");
  expect_refused("", "name is empty");
  expect_refused(dir.path(), "a folder, not a regular file");
  expect_refused(dir.write("empty", ""), "empty");
  ASSERT_EQ(::mkfifo(dir.file("pipe").c_str(), 0600), 0);
  expect_refused(dir.file("pipe"), "not a regular file");  // and does not wait for a writer
}

}  // namespace
}  // namespace spillway
