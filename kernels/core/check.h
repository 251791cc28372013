// CHECK: a condition that only a bug can break. Prints file, line, the expression and both values,
// then aborts. Always on. For the world's faults throw Error (error.h).
#pragma once

#include <sstream>
#include <string>

namespace spillway::internal {

[[noreturn]] void check_failed(const char* file, int line, const char* expression,
                               const std::string& values);

template <typename A, typename B>
std::string check_values(const A& a, const B& b) {
  std::ostringstream out;
  out << a << " vs " << b;
  return out.str();
}

}  // namespace spillway::internal

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) [[unlikely]]                                            \
      ::spillway::internal::check_failed(__FILE__, __LINE__, #condition, ""); \
  } while (false)

#define CHECK_OP_(a, op, b)                                                         \
  do {                                                                              \
    if (!((a)op(b))) [[unlikely]]                                                   \
      ::spillway::internal::check_failed(__FILE__, __LINE__, #a " " #op " " #b,     \
                                         ::spillway::internal::check_values(a, b)); \
  } while (false)

#define CHECK_EQ(a, b) CHECK_OP_(a, ==, b)
#define CHECK_NE(a, b) CHECK_OP_(a, !=, b)
#define CHECK_LT(a, b) CHECK_OP_(a, <, b)
#define CHECK_LE(a, b) CHECK_OP_(a, <=, b)
#define CHECK_GT(a, b) CHECK_OP_(a, >, b)
#define CHECK_GE(a, b) CHECK_OP_(a, >=, b)
