// See shipped_file.h.
#include "launch/shipped_file.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/near_word.h"

namespace spillway {
namespace {

namespace fs = std::filesystem;

// configs/FOLDER as it lies near the program or here; "" when there is none.
fs::path shipped_folder(const std::string& folder) {
  std::error_code ignored;
  const fs::path below = fs::path("configs") / folder;
  fs::path at = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  while (!at.empty()) {
    if (fs::is_directory(at / below, ignored)) return at / below;
    if (at == at.root_path()) break;
    at = at.parent_path();
  }
  return fs::is_directory(below, ignored) ? below : fs::path();
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".toml") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::string shipped_file(const std::string& folder, const std::string& name, const char* what) {
  std::error_code ignored;
  if (fs::is_regular_file(name, ignored)) return name;
  const fs::path shipped = shipped_folder(folder);
  if (!shipped.empty() && name.find('/') == std::string::npos) {
    const fs::path file = shipped / (name + ".toml");
    if (fs::is_regular_file(file, ignored)) return file.string();
  }
  const std::vector<std::string> names = names_in(shipped);
  std::string todo = "give the path of a file";
  const std::string near = near_word(name, names);
  if (!near.empty()) {
    todo = "did you mean " + near + "?";
  } else if (!names.empty()) {
    todo += ", or one of";
    for (const std::string& one : names) todo += " " + one;
  }
  throw Error(std::string("there is no ") + what + " \"" + name + "\"", "", todo);
}

}  // namespace spillway
