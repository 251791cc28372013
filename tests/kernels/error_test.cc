// Error: one line, whatever a file put into its parts.
#include "kernels/core/error.h"

#include <gtest/gtest.h>

namespace spillway {
namespace {

TEST(ErrorTest, JoinsPlaceReasonAndAdvice) {
  const Error error("it is cut short", "m.gguf, offset 4", "download it again");
  EXPECT_STREQ(error.what(), "m.gguf, offset 4: it is cut short (download it again)");
  EXPECT_STREQ(Error("alone").what(), "alone");
}

TEST(ErrorTest, IsOneLineThatNoTerminalObeys) {
  const Error error("name 'a\nb\r\x1B[2J\x7F'", std::string("path\0x", 6), "\t");
  EXPECT_EQ(error.message(), "name 'a b  [2J '");
  EXPECT_EQ(error.where(), "path x");
  EXPECT_STREQ(error.what(), "path x: name 'a b  [2J ' ( )");
}

TEST(ErrorTest, CutsWhatIsEndlessBetweenCharacters) {
  EXPECT_EQ(Error(std::string(4000, 'x')).message(), std::string(4000, 'x'));
  EXPECT_EQ(Error(std::string(4001, 'x')).message(), std::string(4000, 'x') + "…");
  // A character of three bytes from 3999 to 4001 goes as a whole.
  const std::string text = std::string(3999, 'x') + "\u20AC" + std::string(1 << 20, 'y');
  EXPECT_EQ(Error(text).message(), std::string(3999, 'x') + "…");
  // What is not UTF-8 is cut somewhere near.
  EXPECT_GE(Error(std::string(5000, '\x80')).message().size(), 3990U);
}

}  // namespace
}  // namespace spillway
