// See error.h.
#include "kernels/core/error.h"

#include <utility>

namespace spillway {
namespace {

// Longer than any sentence of ours; names and texts out of a file may be megabytes.
constexpr size_t kMaxPartBytes = 4000;

// Messages quote what files say: no line breaks, no escape sequences for the terminal, no end.
std::string one_line(std::string text) {
  if (text.size() > kMaxPartBytes) {
    size_t end = kMaxPartBytes;
    while (end > kMaxPartBytes - 4 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text.resize(end);
    text += "…";
  }
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  return text;
}

std::string join(const std::string& what, const std::string& where, const std::string& todo) {
  std::string line;
  if (!where.empty()) line += where + ": ";
  line += what;
  if (!todo.empty()) line += " (" + todo + ")";
  return line;
}

}  // namespace

Error::Error(std::string what, std::string where, std::string todo)
    : Error(Parts{one_line(std::move(what)), one_line(std::move(where)),
                  one_line(std::move(todo))}) {}

Error::Error(Parts parts)
    : std::runtime_error(join(parts.what, parts.where, parts.todo)),
      message_(std::move(parts.what)),
      where_(std::move(parts.where)),
      todo_(std::move(parts.todo)) {}

}  // namespace spillway
