// TempDir: a folder of its own for one test, removed with all that is in it when the test ends.
// Called by tests only; never reuses or removes a folder that it did not make.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace spillway::testing {

class TempDir {
 public:
  TempDir() {
    std::string pattern = ::testing::TempDir() + "spillway_test_XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) {
      throw std::runtime_error("cannot make a temporary folder like " + pattern);
    }
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  // The path of a file in the folder; the file need not exist.
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }

  // Writes a whole file and returns its path.
  std::string write(std::string_view name, std::string_view bytes) const {
    std::string where = file(name);
    std::ofstream out(where, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    out.close();
    if (!out) throw std::runtime_error("cannot write " + where);
    return where;
  }

 private:
  std::string path_;
};

// The whole file as a string; empty when it cannot be read.
inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace spillway::testing
