// Libraries that are opened at run time: the first that is there, what is called by name, and the
// words for one that is missing or too old. The C library's mathematics stand for NCCL.
#include "kernels/core/opened_library.h"

#include <gtest/gtest.h>

#include <string>

#include "kernels/core/error.h"

namespace spillway {
namespace {

constexpr OpenedLibrary::Words kWords = {"Maths", "cosines", "install it", "install a later one"};
constexpr char kMissing[] = "libspillway-is-not-there.so.7";
constexpr char kMaths[] = "libm.so.6";

TEST(OpenedLibrary, TakesTheFirstThatIsThere) {
  const OpenedLibrary library(kWords, {kMissing, kMaths, "libc.so.6"});
  EXPECT_EQ(library.file(), kMaths);
  double (*cosine)(double) = nullptr;
  library.find("cos", cosine);
  EXPECT_EQ(cosine(0.0), 1.0);
}

TEST(OpenedLibrary, SaysWhyThereIsNone) {
  try {
    const OpenedLibrary library(kWords, {kMissing, "/nowhere/libm.so"});
    FAIL() << "opened " << library.file();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what())
                  .find("cosines: Maths cannot be opened: " + std::string(kMissing) + ": "),
              0u)
        << error.what();
    EXPECT_EQ(error.todo(), "install it");
  }
}

TEST(OpenedLibrary, NamesTheFunctionThatIsMissing) {
  const OpenedLibrary library(kWords, {kMaths});
  void (*none)() = nullptr;
  try {
    library.find("spillway_cosine", none);
    FAIL() << "found it";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "cosines: libm.so.6 has no spillway_cosine (install a later one)");
  }
}

}  // namespace
}  // namespace spillway
