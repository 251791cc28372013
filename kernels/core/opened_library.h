// A library that is opened at run time, since a machine without it runs the rest: NCCL, cuBLASLt,
// CUPTI. It stays open until the process ends; libraries have threads of their own.
//   Thread: any. Errors: Error with what the loader said.
#pragma once

#include <string>
#include <vector>

namespace spillway {

class OpenedLibrary {
 public:
  // What a user is told of it.
  struct Words {
    const char* name;     // "NCCL"
    const char* where;    // what it is for: "sums by NCCL"
    const char* install;  // what to do when there is none
    const char* version;  // and when the one that is there is too old
  };

  // Opens the first of `files` that the loader can: names, for which it looks where it was told to,
  // or paths.
  OpenedLibrary(const Words& words, const std::vector<std::string>& files);

  // The function of that name, of the type that `out` has.
  template <typename Function>
  void find(const char* name, Function& out) const {
    out = reinterpret_cast<Function>(address(name));
  }
  const std::string& file() const { return file_; }

 private:
  void* address(const char* name) const;

  Words words_;
  std::string file_;
  void* library_ = nullptr;
};

}  // namespace spillway
