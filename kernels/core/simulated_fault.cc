// See simulated_fault.h.
#include "kernels/core/simulated_fault.h"

#include <array>
#include <atomic>
#include <charconv>
#include <memory>
#include <utility>

#include "kernels/core/error.h"

namespace spillway {
namespace {

struct Wanted {
  std::string text;  // deed and name
  int64_t from = 1;  // the first time that is refused
  std::atomic<int64_t> asked{0};
  std::unique_ptr<Wanted> before;  // the last one, which a thread may still be asking
};

// Never freed: a thread may ask while the process ends.
std::atomic<Wanted*> wanted{nullptr};

constexpr std::array<std::string_view, 8> kDeeds = {
    "allocate host", "allocate gpu", "allocate disk", "pin",
    "read disk",     "write disk",   "map",           "start"};

bool has_deed(std::string_view text) {
  for (const std::string_view deed : kDeeds) {
    if (text.substr(0, deed.size()) == deed && text.size() > deed.size() + 1 &&
        text[deed.size()] == ' ') {
      return true;
    }
  }
  return false;
}

// From one thread at a time.
void want(std::unique_ptr<Wanted> fault) {
  fault->before.reset(wanted.load());
  wanted.store(fault.release());
}

}  // namespace

void simulate_fault(const std::string& text) {
  if (text.empty()) return want(std::make_unique<Wanted>());
  auto fault = std::make_unique<Wanted>();
  fault->text = text;
  if (const size_t mark = text.rfind(" #"); mark != std::string::npos) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + mark + 2, end, fault->from);
    if (error != std::errc() || stop != end || fault->from < 1) {
      throw Error("\"" + text.substr(mark + 1) + "\" is no time to fail", "simulated fault",
                  "give a number from 1 on, such as #3");
    }
    fault->text.resize(mark);
  }
  if (!has_deed(fault->text)) {
    throw Error("\"" + text + "\" is no deed on a line of the ledger", "simulated fault",
                "such as \"allocate host kv\": docs/failure.md");
  }
  want(std::move(fault));
}

bool fault_awaited(std::string_view deed, std::string_view name) {
  const Wanted* fault = wanted.load(std::memory_order_relaxed);
  if (fault == nullptr) return false;
  const std::string_view text = fault->text;
  return text.size() == deed.size() + 1 + name.size() && text.substr(0, deed.size()) == deed &&
         text.substr(deed.size() + 1) == name;
}

bool fault_simulated(std::string_view deed, std::string_view name) {
  if (!fault_awaited(deed, name)) return false;
  Wanted* fault = wanted.load(std::memory_order_relaxed);
  return ++fault->asked >= fault->from;
}

}  // namespace spillway
