// Error: something in the world (a file, memory, a peer) is not as it must be. Thrown anywhere,
// caught in launch/main.cc and at the top of the engine loop; a bug is a CHECK (check.h) instead.
#pragma once

#include <stdexcept>
#include <string>

namespace spillway {

// what: what went wrong, with the values. where: file and offset, host, rank; may be empty.
// todo: what the user can do about it; may be empty. what() joins all three in one line: control
// characters become blanks, and a part that quotes megabytes of a file is cut.
class Error : public std::runtime_error {
 public:
  explicit Error(std::string what, std::string where = "", std::string todo = "");

  const std::string& message() const { return message_; }
  const std::string& where() const { return where_; }
  const std::string& todo() const { return todo_; }

 private:
  struct Parts {
    std::string what, where, todo;
  };
  explicit Error(Parts parts);

  std::string message_;
  std::string where_;
  std::string todo_;
};

}  // namespace spillway
