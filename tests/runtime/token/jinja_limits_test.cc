// Hostile templates: whatever a template does, it ends soon with an Error that names a line, inside
// of its steps, bytes and levels. Also that the bounds leave honest templates alone.
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "runtime/token/jinja/interpreter.h"
#include "runtime/token/jinja/parser.h"
#include "tests/support/cpu_seconds.h"

namespace spillway::jinja {
namespace {

constexpr int64_t kMega = int64_t{1} << 20;

Limits small() {
  Limits limits;
  limits.steps = 1'000'000;
  limits.live_bytes = 16 * kMega;
  limits.output_bytes = kMega;
  return limits;
}

// The Error's words, or "" when the template renders.
std::string fault_of(const std::string& source, const Limits& limits = small()) {
  try {
    Heap heap(limits);
    interpret(heap, parse_template(source), {});
  } catch (const Error& e) {
    return e.message();
  }
  return "";
}

#define EXPECT_FAULT(source, words)                                      \
  do {                                                                   \
    const std::string fault = fault_of(source);                          \
    EXPECT_NE(fault.find(words), std::string::npos) << "got: " << fault; \
  } while (false)

std::string repeated(const std::string& s, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += s;
  return out;
}

TEST(JinjaLimits, EndlessLoops) {
  EXPECT_FAULT("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
               "line 1: the template uses more than 16777216 bytes");
  EXPECT_FAULT("{% set l = [1] %}\n{% for x in l %}{% set _ = l.append(1) %}{% endfor %}",
               "line 2");
  EXPECT_NE(fault_of("{{ range(9223372036854775807) }}"), "");
  EXPECT_NE(fault_of("{% for x in range(0, -9223372036854775807, -1) %}{% endfor %}"), "");
}

TEST(JinjaLimits, LongLoopsWithoutMemory) {
  EXPECT_FAULT("{% set r = range(10000) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
               "line 1: the template does not end: more than 1000000 steps");
}

TEST(JinjaLimits, RecursiveLoopsAndCallBlocks) {
  EXPECT_FAULT("{% set l = [1] %}{% for x in l recursive %}{{ loop(l) }}{% endfor %}", "line 1");
  EXPECT_FAULT(
      "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{{ caller }}{% endmacro %}{{ m() }}",
      "nests deeper than 600");
  EXPECT_FAULT(
      "{% set ns = namespace() %}{% for x in [1] recursive %}{% set ns.l = loop %}"
      "{% endfor %}{{ ns.l([1]) }}",
      "loop() needs");
}

TEST(JinjaLimits, PaddingAndFormats) {
  EXPECT_FAULT("{{ 'x'.center(10**12) }}", "padded beyond");
  EXPECT_FAULT("{{ 'x'.zfill(10**12) }}", "padded beyond");
  EXPECT_FAULT("{{ 'x'|center(10**12) }}", "padded beyond");
  EXPECT_FAULT("{{ '{:999999999}'.format(1) }}", "limited to 4096");
  EXPECT_FAULT("{{ '%999999999d' % 1 }}", "limited to 4096");
  EXPECT_FAULT("{{ '%.999999999f' % 1 }}", "limited to 4096");
  EXPECT_FAULT("{{ [1]|slice(10**12)|list }}", "line 1");
  EXPECT_FAULT("{{ [1]|batch(10**12, 'x')|list }}", "line 1");
  EXPECT_FAULT("{% set l = [1] %}{% for i in range(60) %}{% set _ = l.extend(l) %}{% endfor %}",
               "line 1");
  EXPECT_FAULT(
      "{% set d = namespace(s='{0}{0}') %}{% for i in range(60) %}"
      "{% set d.s = '{0}{0}'.format(d.s) %}{% endfor %}",
      "line 1");
  EXPECT_NE(fault_of("{{ '%.4096f' % 1e308 }}{{ 'é'|truncate(-1) }}"), "");
}

TEST(JinjaLimits, EndlessRecursion) {
  EXPECT_FAULT("{% macro m(x) %}{{ m(x) }}{% endmacro %}\n{{ m(1) }}", "nests deeper than 600");
  EXPECT_FAULT(
      "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
      "nests deeper");
}

TEST(JinjaLimits, TextThatGrows) {
  EXPECT_FAULT("{{ 'a' * 999999999999 }}", "memory limit");
  EXPECT_FAULT("{{ 'a' * 9223372036854775807 * 2 }}", "memory limit");
  EXPECT_FAULT(
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}"
      "{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "bytes");
  EXPECT_FAULT(
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}"
      "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      "line 1");
  EXPECT_NE(fault_of("{{ ('a' * 100000)|replace('', 'b' * 1000) }}"), "");
  EXPECT_NE(fault_of("{{ (['a' * 1000000] * 1000)|join }}"), "");
  EXPECT_NE(fault_of("{{ ('\\n' * 100000)|indent('x' * 10000, blank=true) }}"), "");
  EXPECT_NE(fault_of("{{ ('x' * 1000000)|list|length }}"), "");
  EXPECT_FAULT("{{ 'x'|indent(100000) }}", "4096");
  EXPECT_FAULT("{{ [1]|tojson(indent=100000000) }}", "4096");
}

TEST(JinjaLimits, OutputThatGrows) {
  EXPECT_FAULT("{% for i in range(2000) %}" + std::string(1000, 'x') + "{% endfor %}",
               "writes more than 1048576 bytes");
  EXPECT_FAULT(
      "{% set x %}{% for i in range(2000) %}" + std::string(1000, 'x') + "{% endfor %}{% endset %}",
      "writes more");
}

TEST(JinjaLimits, ContainersThatGrow) {
  EXPECT_NE(fault_of("{{ [1] * 1000000000 }}"), "");
  EXPECT_FAULT(
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}"
      "{% set ns.l = ns.l + ns.l %}{% endfor %}",
      "line 1");
  EXPECT_NE(fault_of("{{ ((' ' * 900000) ~ 'a').split(' ')|length }}"), "");
}

TEST(JinjaLimits, ValuesInThemselves) {
  EXPECT_FAULT("{% set l = [] %}{% set _ = l.append(l) %}{{ l }}", "nested too deeply");
  EXPECT_FAULT("{% set l = [] %}{% set _ = l.append(l) %}{{ l|tojson }}", "nested too deeply");
  EXPECT_FAULT(
      "{% set a = [] %}{% set _ = a.append(a) %}{% set b = [] %}{% set _ = b.append(b) %}"
      "{{ a == b }}",
      "nested too deeply");
  // One list twice at each of 60 levels: 2^60 leaves.
  const std::string twice =
      "{% set ns = namespace(a=[], b=[]) %}{% for i in range(60) %}"
      "{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}";
  EXPECT_NE(fault_of(twice + "{{ ns.a }}"), "");
  EXPECT_NE(fault_of(twice + "{{ ns.a|tojson }}"), "");
  EXPECT_NE(fault_of(twice + "{{ ns.a == ns.b }}"), "");
  EXPECT_NE(fault_of(twice + "{{ ns.a < ns.b }}"), "");
  const std::string tuples =
      "{% set ns = namespace(a=()) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}"
      "{% endfor %}";
  EXPECT_NE(fault_of(tuples + "{{ {ns.a: 1} }}"), "");
}

TEST(JinjaLimits, SlowOperationsCountTheirWork) {
  EXPECT_FAULT(
      "{% set s = 'a' * 900000 %}{% for i in range(100000) %}{% set _ = 'b' in s %}"
      "{% endfor %}",
      "does not end");
  EXPECT_FAULT(
      "{% set s = 'a' * 900000 %}{% for i in range(100000) %}{% set _ = s[5] %}{% endfor %}",
      "does not end");
  EXPECT_FAULT(
      "{% set s = 'a' * 900000 %}{% for i in range(100000) %}{% set _ = s|length %}"
      "{% endfor %}",
      "does not end");
  EXPECT_FAULT(
      "{% set d = dict() %}{% set s = 'a' * 900000 %}{% for i in range(100000) %}"
      "{% set _ = (s ~ 'b') == (s ~ 'c') %}{% endfor %}",
      "does not end");
  // A needle that makes naive search quadratic.
  EXPECT_EQ(fault_of("{{ ('a' * 400000 ~ 'b') in ('a' * 900000) }}"), "");
}

TEST(JinjaLimits, SearchesFromTheRightAreLinear) {
  // rfind() of the library compares 10^12 bytes for each of these: minutes. Here: tenths of a
  // second.
  const std::string text =
      "{% set s = 'a' * 2000000 %}{% set m = 'b' ~ 'a' * 1000000 %}"
      "{% set n = 'a' * 1000000 ~ 'b' %}";
  const double began = testing::cpu_seconds();
  for (const char* one : {"s.rfind(m)", "s.rfind(n)", "s.rpartition(n)[0]", "s.rsplit(n)|length"}) {
    EXPECT_EQ(fault_of(text + "{{ " + one + " }}", Limits{}), "") << one;
  }
  EXPECT_NE(fault_of(text + "{{ s.rindex(n) }}", Limits{}).find("not there"), std::string::npos);
  EXPECT_LT(testing::cpu_seconds() - began, 20);
}

TEST(JinjaLimits, TestsOfCharactersCountTheirWork) {
  for (const char* one : {"s.isascii()", "s.isupper()", "s.islower()", "s is upper", "s is lower",
                          "''.find(s)", "s.startswith(s)", "s.endswith((s,))", "s|truncate(900000)",
                          "s|float", "s|int", "s|trim(t)", "'%.1s' % s"}) {
    SCOPED_TRACE(one);
    EXPECT_FAULT(
        "{% set s = 'a' * 900000 %}{% set t = 'b' * 900000 ~ 'a' %}"
        "{% for i in range(10000) %}{% set _ = " +
            std::string(one) + " %}{% endfor %}",
        "does not end");
  }
  EXPECT_FAULT("{% set s = 'a' * 9000000 %}{{ {1: s, 2: s, 3: s}|urlencode }}", "bytes");
}

TEST(JinjaLimits, DeepSyntax) {
  EXPECT_FAULT("{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}", "deeper than 150");
  EXPECT_FAULT("{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}", "deeper than 150");
  EXPECT_FAULT("{{ " + repeated("{1:", 5000) + "1" + repeated("}", 5000) + " }}",
               "deeper than 150");
  EXPECT_FAULT("{{ " + repeated("not ", 5000) + "1 }}", "deeper than 150");
  EXPECT_FAULT("{{ " + repeated("-", 5000) + "1 }}", "deeper than 150");
  EXPECT_FAULT("{{ " + repeated("1 if 1 else ", 5000) + "1 }}", "deeper than 150");
  EXPECT_FAULT(repeated("{% if 1 %}", 5000), "deeper than 150");
  EXPECT_FAULT(repeated("{% for x in y %}", 5000), "deeper than 150");
  EXPECT_FAULT("{% set " + repeated("(", 5000) + "x" + repeated(")", 5000) + " = 1 %}",
               "deeper than 150");
  EXPECT_FAULT("{{ 1" + repeated(" + 1", 5000) + " }}", "more than 500 links");
  EXPECT_FAULT("{{ x" + repeated(".y", 5000) + " }}", "more than 500 links");
  EXPECT_FAULT("{{ x" + repeated("|trim", 5000) + " }}", "more than 500 links");
  EXPECT_FAULT("{{ 1" + repeated(" and 1", 5000) + " }}", "more than 500 links");
  EXPECT_EQ(fault_of("{{ 1" + repeated(" + 1", 400) + " }}"), "");
  EXPECT_EQ(fault_of("{{ [1" + repeated(", 1", 5000) + "]|length }}"), "");
  EXPECT_EQ(fault_of("{% if 0 %}" + repeated("{% elif 0 %}", 5000) + "{% endif %}"), "");
}

TEST(JinjaLimits, LiveBytesComeBack) {
  Limits limits = small();
  limits.steps = 10'000'000;
  Heap heap(limits);
  const Template program = parse_template(
      "{% for i in range(100) %}{% set s = 'x' * 1000000 %}{% endfor %}{{ 'done' }}");
  EXPECT_EQ(interpret(heap, program, {}), "done");
  EXPECT_LT(heap.live_bytes(), kMega);
}

TEST(JinjaLimits, LongConversationsFit) {
  // 4000 messages of 200 bytes, in the manner of real templates.
  Heap heap{Limits{}};
  List* messages = heap.list();
  for (int i = 0; i < 4000; ++i) {
    Dict* message = heap.dict();
    heap.set(*message, heap.text("role"), heap.text(i % 2 == 0 ? "user" : "assistant"));
    heap.set(*message, heap.text("content"), heap.text(std::string(200, 'x')));
    heap.append(*messages, message);
  }
  const Template program = parse_template(
      "{% set ns = namespace(last=0) %}{% for m in messages[::-1] %}{% if m.role == 'user' %}"
      "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
      "{% set c = m.content %}{% if '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% "
      "endif %}"
      "{{ '<|im_start|>' + m.role + '\\n' + c|trim + '<|im_end|>\\n' }}{% endfor %}");
  EXPECT_GT(interpret(heap, program, {{"messages", messages}}).size(), 800'000u);
}

TEST(JinjaLimits, InvalidBytes) {
  EXPECT_FAULT("abc\xff{{ 1 }}", "byte 3 is not UTF-8");
  EXPECT_FAULT("{{ '\xc3' }}", "is not UTF-8");
  EXPECT_FAULT("\xed\xa0\x80", "byte 0 is not UTF-8");
  EXPECT_EQ(fault_of(std::string("a\0b{{ '\0' }}", 12)), "");
}

}  // namespace
}  // namespace spillway::jinja
