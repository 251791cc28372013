// Reads the ModelSpec of a TinyModel, or the Error that it brings: what the tests of model/spec.*
// share.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/model/spec.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace spillway::testing {

inline ModelSpec read_spec(const TinyOptions& options) {
  const TempDir dir;
  return read_model_spec(Gguf::open(TinyModel(options).write(dir.file("m.gguf"))));
}

// What the Error says; "" when there was none.
inline std::string spec_error(const TinyOptions& options) {
  try {
    read_spec(options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline void expect_spec_error(const std::function<void(TinyOptions&)>& change,
                              const std::vector<std::string>& parts) {
  TinyOptions options;
  options.n_layers = 1;
  change(options);
  const std::string text = spec_error(options);
  ASSERT_NE(text, "") << "nothing was thrown; wanted: " << parts.front();
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
  }
  EXPECT_NE(text.find("m.gguf"), std::string::npos) << "no file in: " << text;
}

}  // namespace spillway::testing
