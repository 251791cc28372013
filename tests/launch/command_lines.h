// Command lines of tests: read, and refused with words. Used by tests/launch/options*_test.cc.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "launch/options.h"

namespace spillway::testing {

using Args = std::vector<std::string>;

// Of `spillway` and these words.
inline Options parse(Args args) {
  args.insert(args.begin(), "spillway");
  std::vector<const char*> argv;
  for (const std::string& arg : args) argv.push_back(arg.c_str());
  return parse_options(static_cast<int>(argv.size()), argv.data());
}

// The Error's text must have all the parts.
inline void refused(const Args& args, const Args& parts) {
  std::string line;
  for (const std::string& arg : args) line += " " + arg;
  SCOPED_TRACE("spillway" + line);
  try {
    parse(args);
    ADD_FAILURE() << "was taken";
  } catch (const Error& error) {
    const std::string text = error.what();
    for (const std::string& part : parts) {
      EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
    }
  }
}

}  // namespace spillway::testing
