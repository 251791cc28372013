// Fuzz target: any bytes as the JSON that becomes a template's variables.
// Findings, beside what the sanitizers see: an exception that is no Error; text that one of the two
// readers (this one, the JSON library's own) takes and the other refuses, limits aside; a value
// that tojson spells so that either of them reads another one; memory beyond the limit's multiple.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "kernels/core/error.h"
#include "runtime/token/jinja/interpreter.h"
#include "runtime/token/jinja/json_input.h"
#include "runtime/token/jinja/parser.h"
#include "tests/fuzz/oracle.h"

namespace spillway::fuzz {
namespace {

constexpr jinja::Limits kLimits = {200'000, int64_t{1} << 20, int64_t{1} << 20, 200};
// The heap counts what containers and texts hold; the allocator's rounding, a deque's first blocks
// and the parser's own token come on top, for any text.
constexpr int64_t kPeakBytes = 4 * kLimits.live_bytes;

bool is_limit(const Error& error) {
  const std::string& text = error.message();
  for (const char* word : {"more than", "nested deeper"}) {
    if (text.find(word) != std::string::npos) return true;
  }
  return false;
}

// The library's own == takes 2^63 for -2^63. Integers beyond 64 bits are doubles for both.
bool same(const nlohmann::json& a, const nlohmann::json& b) {
  if (a.is_number() && b.is_number()) return a.get<double>() == b.get<double>();
  if (a.type() != b.type() || a.size() != b.size()) return false;
  if (a.is_array()) return std::equal(a.begin(), a.end(), b.begin(), &same);
  if (!a.is_object()) return a == b;
  return std::equal(a.items().begin(), a.items().end(), b.items().begin(),
                    [](const auto& x, const auto& y) {
                      return x.key() == y.key() && same(x.value(), y.value());
                    });
}

void read_back(jinja::Heap& heap, const jinja::Value& value, std::string_view source) {
  static const jinja::Template kProgram = jinja::parse_template("{{ value | tojson }}");
  std::string text;
  try {
    text = jinja::interpret(heap, kProgram, {{"value", value}});
    const jinja::Value again = jinja::read_json(heap, "again", text);
    expect(jinja::equals(heap, value, again), "tojson gives another value");
    expect(same(nlohmann::json::parse(source), nlohmann::json::parse(text)),
           "the JSON library reads another value");
  } catch (const Error& error) {
    expect_spoken(error);
    if (!is_limit(error) && error.message().find("too deeply") == std::string::npos) {
      finding("tojson's own text is refused: " + std::string(error.what()));
    }
  }
}

void read(std::string_view text) {
  jinja::Heap heap{kLimits};
  try {
    const jinja::Value value = jinja::read_json(heap, "the input", text);
    expect(nlohmann::json::accept(text), "takes what is not JSON");
    expect(heap.live_bytes() <= kLimits.live_bytes, "more bytes than the limit");
    read_back(heap, value, text);
  } catch (const Error& error) {
    expect_spoken(error);
    if (!is_limit(error)) expect(!nlohmann::json::accept(text), "refuses what is JSON");
  }
}

}  // namespace
}  // namespace spillway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::fuzz;
  AllocationMeter& meter = AllocationMeter::of_process();
  meter.reset();
  read({reinterpret_cast<const char*>(data), size});
  if (meter.peak() > kPeakBytes) finding(std::to_string(meter.peak()) + " bytes");
  return 0;
}
