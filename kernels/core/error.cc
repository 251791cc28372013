// See error.h.
#include "kernels/core/error.h"

#include <utility>

namespace spillway {
namespace {

std::string join(const std::string& what, const std::string& where, const std::string& todo) {
  std::string line;
  if (!where.empty()) line += where + ": ";
  line += what;
  if (!todo.empty()) line += " (" + todo + ")";
  return line;
}

}  // namespace

Error::Error(std::string what, std::string where, std::string todo)
    : std::runtime_error(join(what, where, todo)),
      message_(std::move(what)),
      where_(std::move(where)),
      todo_(std::move(todo)) {}

}  // namespace spillway
