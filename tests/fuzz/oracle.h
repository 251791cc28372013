// What the fuzz targets share: a finding ends the process with a sentence, so that libFuzzer keeps
// the input; a meter counts the heap's bytes. Called by the *_fuzz.cc files beside it only.
#pragma once

#include <sanitizer/allocator_interface.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/core/error.h"

namespace spillway::fuzz {

[[noreturn]] inline void finding(const std::string& what) {
  std::fprintf(stderr, "finding: %s\n", what.c_str());
  std::abort();
}

inline void expect(bool holds, const char* what) {
  if (!holds) finding(what);
}

// The compiler may not leave out what made this number.
inline void keep(uint64_t number) { asm volatile("" : : "g"(number)); }

// An Error is a legal answer when it says something, in one line of a length that can be read.
inline void expect_spoken(const Error& error) {
  const std::string text = error.what();
  expect(!error.message().empty(), "an Error without a text");
  if (text.size() > 3 * 4100) finding("an Error of " + std::to_string(text.size()) + " bytes");
  for (const char c : text) {
    expect(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F, "an Error of several lines");
  }
}

// The most bytes that were live at once since reset(), as the sanitizer's allocator counts them.
// One a process: the allocator's hooks cannot be taken out again.
class AllocationMeter {
 public:
  static AllocationMeter& of_process() {
    static AllocationMeter meter;
    return meter;
  }
  void reset() {
    if (!installed_) __sanitizer_install_malloc_and_free_hooks(&on_malloc, &on_free);
    installed_ = true;
    live_ = peak_ = 0;
  }
  int64_t peak() const { return peak_; }

 private:
  AllocationMeter() = default;

  static void on_malloc(const volatile void*, size_t bytes) {
    AllocationMeter& meter = of_process();
    meter.live_ += static_cast<int64_t>(bytes);
    if (meter.live_ > meter.peak_) meter.peak_ = meter.live_;
  }
  static void on_free(const volatile void* memory) {
    if (memory == nullptr) return;
    of_process().live_ -=
        static_cast<int64_t>(__sanitizer_get_allocated_size(const_cast<const void*>(memory)));
  }

  bool installed_ = false;
  int64_t live_ = 0;  // the targets have one thread
  int64_t peak_ = 0;
};

}  // namespace spillway::fuzz
