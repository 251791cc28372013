// Fuzz target: any bytes as a chat template, rendered over fixed conversations under small limits.
// Findings, beside what the sanitizers see: an exception that is no Error; an Error without a line;
// output or memory beyond the limits; a second rendering that differs from the first; ChatTemplate
// taking what the parser refuses.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/core/error.h"
#include "runtime/token/jinja/interpreter.h"
#include "runtime/token/jinja/json_input.h"
#include "runtime/token/jinja/parser.h"
#include "tests/fuzz/oracle.h"

namespace spillway::fuzz {
namespace {

// A five-hundredth of what a request may use: an input then takes milliseconds.
constexpr jinja::Limits kLimits = {40'000, int64_t{1} << 20, int64_t{1} << 18, 200};
// A token is about 80 bytes and a node of the tree some hundreds, in vectors that double.
constexpr int64_t kParseBytesPerByte = 1024;
// The limit counts text and containers; vectors that grow hold the old and the new for a moment.
constexpr int64_t kPeakBytes = 4 * kLimits.live_bytes;

constexpr const char* kMessages[] = {
    R"([{"role": "user", "content": "Hi"}])",
    R"([{"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4", "reasoning_content": null},
        {"role": "user", "content": [{"type": "text", "text": "Gr\u00fc\u00df <b>"}]}])",
    R"([{"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function",
         "function": {"name": "weather", "arguments": {"city": "Ulm", "days": 2, "f": 1.5e3}}}]},
        {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "{\"t\": 21}"}])",
};
constexpr const char* kTools =
    R"([{"type": "function", "function": {"name": "weather", "description": "d", "parameters":
        {"type": "object", "properties": {"city": {"type": "string", "enum": ["Ulm", "Bonn"]}},
         "required": ["city"]}}}])";

// Text that is not UTF-8 has a byte to name, everything else a line of the template.
void expect_line(const Error& error) {
  expect_spoken(error);
  const std::string& text = error.message();
  if (text.rfind("line ", 0) == 0 || text.rfind("byte ", 0) == 0) return;
  finding("an Error names no line: " + text);
}

std::optional<std::string> render(const jinja::Template& program, int conversation) {
  jinja::Heap heap{kLimits};
  const jinja::Value messages = jinja::read_json(heap, "messages", kMessages[conversation]);
  jinja::Value tools = jinja::None{};
  if (conversation == 2) tools = jinja::read_json(heap, "tools", kTools);
  const jinja::Variables variables = {
      {"messages", messages},          {"tools", tools},
      {"documents", jinja::None{}},    {"add_generation_prompt", conversation != 1},
      {"bos_token", heap.text("<s>")}, {"eos_token", heap.text("</s>")},
  };
  try {
    const std::string text = jinja::interpret(heap, program, variables);
    expect(static_cast<int64_t>(text.size()) <= kLimits.output_bytes, "too much output");
    return text;
  } catch (const Error& error) {
    expect_line(error);
    return std::nullopt;
  }
}

void run(std::string_view source) {
  AllocationMeter& meter = AllocationMeter::of_process();
  meter.reset();
  std::optional<jinja::Template> program;
  try {
    program = jinja::parse_template(source);
  } catch (const Error& error) {
    expect_line(error);
  }
  const int64_t size = static_cast<int64_t>(source.size());
  if (meter.peak() > (int64_t{1} << 16) + kParseBytesPerByte * size) {
    finding(std::to_string(meter.peak()) + " bytes to parse " + std::to_string(size));
  }
  if (!program) return;
  const bool clock = source.find("strftime_now") != std::string_view::npos;
  for (int i = 0; i < 3; ++i) {
    meter.reset();
    const std::optional<std::string> first = render(*program, i);
    if (meter.peak() > kPeakBytes) finding(std::to_string(meter.peak()) + " bytes to render");
    if (i == 0 && !clock) expect(render(*program, i) == first, "the second rendering differs");
  }
}

}  // namespace
}  // namespace spillway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  spillway::fuzz::run({reinterpret_cast<const char*>(data), size});
  return 0;
}
