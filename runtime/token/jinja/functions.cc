// The global functions. raise_exception is how a template refuses a conversation.
#include "runtime/token/jinja/functions.h"

#include <ctime>

#include "runtime/token/jinja/format.h"
#include "runtime/token/jinja/operators.h"

namespace spillway::jinja {
namespace {

Value raise_exception(Heap& heap, const Value&, const Arguments& arguments) {
  ArgumentReader reader(heap, "raise_exception", arguments);
  const Value message = reader.required("message");
  reader.finish();
  heap.fail("the template refuses: " + to_text(heap, message));
}

// datetime.now().strftime(format): local time, C locale.
Value strftime_now(Heap& heap, const Value&, const Arguments& arguments) {
  ArgumentReader reader(heap, "strftime_now", arguments);
  const Value format = reader.required("format");
  reader.finish();
  if (!format.is(Kind::kText)) heap.fail("strftime_now needs a str");
  if (format.text().size() > 1000) heap.fail("strftime_now: the format is too long");
  if (format.text().empty()) return format;
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::string out(16384, '\0');  // 1000 bytes of "%c" come to under 13 kB
  out.resize(std::strftime(out.data(), out.size(), format.text().c_str(), &local));
  return heap.text(std::move(out));
}

Value range(Heap& heap, const Value&, const Arguments& arguments) {
  ArgumentReader reader(heap, "range", arguments);
  int64_t start = 0;
  int64_t stop = expect_int(heap, "range", reader.required("stop"));
  int64_t step = 1;
  if (arguments.positional.size() > 1) {
    start = stop;
    stop = expect_int(heap, "range", reader.required("stop"));
    step = expect_int(heap, "range", reader.optional("step", int64_t{1}));
  }
  reader.finish();
  if (step == 0) heap.fail("range: the step cannot be zero");
  List* out = heap.list(ListKind::kRange);
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    heap.step();
    heap.append(*out, i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return out;
}

void fill(Heap& heap, Dict& out, const Arguments& arguments, std::string_view who) {
  if (arguments.positional.size() > 1) heap.fail(std::string(who) + " takes one dict at most");
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional.front();
    if (!from.is(Kind::kDict)) {
      heap.fail(std::string(who).append(" needs a dict, not ").append(type_name(from)));
    }
    for (const auto& [key, value] : from.dict().entries()) {
      heap.step();
      heap.set(out, key, value);
    }
  }
  for (const auto& [key, value] : arguments.named) heap.set(out, Value(key), value);
}

Value make_dict(Heap& heap, const Value&, const Arguments& arguments) {
  Dict* out = heap.dict();
  fill(heap, *out, arguments, "dict()");
  return out;
}

Value make_namespace(Heap& heap, const Value&, const Arguments& arguments) {
  Namespace* out = heap.space();
  fill(heap, out->fields, arguments, "namespace()");
  return out;
}

constexpr GlobalFunction kFunctions[] = {
    {"range", range},
    {"dict", make_dict},
    {"namespace", make_namespace},
    {"raise_exception", raise_exception},
    {"strftime_now", strftime_now},
};

}  // namespace

std::span<const GlobalFunction> global_functions() { return kFunctions; }

}  // namespace spillway::jinja
