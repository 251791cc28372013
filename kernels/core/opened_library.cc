// See opened_library.h.
#include "kernels/core/opened_library.h"

#include <dlfcn.h>

#include "kernels/core/check.h"
#include "kernels/core/error.h"

namespace spillway {

OpenedLibrary::OpenedLibrary(const Words& words, const std::vector<std::string>& files)
    : words_(words) {
  CHECK(!files.empty());
  std::string why;  // of the first: the others are guesses
  for (const std::string& file : files) {
    library_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library_ != nullptr) {
      file_ = file;
      return;
    }
    const char* said = dlerror();
    if (why.empty()) why = said != nullptr ? said : file;
  }
  throw Error(std::string(words_.name) + " cannot be opened: " + why, words_.where, words_.install);
}

void* OpenedLibrary::address(const char* name) const {
  void* found = dlsym(library_, name);
  if (found != nullptr) return found;
  throw Error(file_ + " has no " + name, words_.where, words_.version);
}

}  // namespace spillway
