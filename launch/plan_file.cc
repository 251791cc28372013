// See plan_file.h.
#include "launch/plan_file.h"

#include <algorithm>
#include <filesystem>

#include "kernels/core/error.h"
#include "launch/options_verbs.h"
#include "parallel/pins.h"
#include "parallel/planner.h"
#include "parallel/size_text.h"
#include "parallel/spill.h"
#include "parallel/toml.h"

namespace spillway {
namespace {

struct PinKey {
  const char* key;
  std::vector<std::string> flags;  // any of them on the command line wins over the file
};

const std::vector<PinKey>& pin_keys() {
  static const std::vector<PinKey> kKeys = {
      {"split", {"--split", "--tp", "--pp", "--layers", "--tensor-split"}},
      {"order", {"--order", "--split", "--tp", "--pp", "--layers", "--tensor-split"}},
      {"place", {"--place", "--gpu-layers"}},
      {"layers", {"--layers", "--split"}},
      {"gpu-layers", {"--gpu-layers", "--place"}},
      {"tensor-split", {"--tensor-split", "--split"}},
      {"tp", {"--tp", "--split"}},
      {"pp", {"--pp", "--split"}},
      {"ctx-size", {"--ctx-size", "-c"}},
      {"kv-type", {"--kv-type", "-k"}},
      {"kv-least", {"--kv-least"}},
      {"device", {"--device"}},
      {"ubatch-size", {"--ubatch-size"}},
      {"cpu-rows", {"--cpu-rows"}},
      {"gpu-memory", {"--gpu-memory"}},
      {"host-memory", {"--host-memory"}},
      {"objective", {"--objective"}},
  };
  return kKeys;
}

bool sets(const std::vector<std::string>& arguments, const std::string& flag) {
  const bool letter = flag.size() == 2;  // "-c", which may have its value behind it: "-c512"
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& argument) {
    return argument == flag || argument.rfind(letter ? flag : flag + "=", 0) == 0;
  });
}

// The FILE of --plan; "" when there is none.
std::string plan_file_of(const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].rfind("--plan=", 0) == 0) return arguments[i].substr(7);
    if (arguments[i] == "--plan" && i + 1 < arguments.size()) return arguments[i + 1];
  }
  return "";
}

std::string known_keys() {
  std::string text;
  for (const PinKey& key : pin_keys()) append_item(text, ", ", key.key);
  return text;
}

TomlTable read_pins(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    throw Error("the plan cannot be read", path, "write one with spillway plan --toml");
  }
  return read_toml(path);
}

// A value as a flag's word.
std::string word_of(const TomlValue& value, const std::string& key, const std::string& where) {
  switch (value.kind) {
    case TomlValue::Kind::kText:
      return value.text;
    case TomlValue::Kind::kInteger:
      return std::to_string(value.integer);
    case TomlValue::Kind::kNumber:
      return shortest_text(value.number);
    case TomlValue::Kind::kFlag:
    case TomlValue::Kind::kList:
      break;
  }
  throw Error("the plan sets " + key + " to " +
                  (value.kind == TomlValue::Kind::kList ? "a list" : "true or false"),
              where, "write one text: " + key + " = \"...\"");
}

[[noreturn]] void refuse_key(const std::string& key, const std::string& where) {
  throw Error("the plan sets " + key + ", which pins nothing", where,
              "its keys are " + known_keys());
}

std::vector<std::string> arguments_of(const std::string& path,
                                      const std::vector<std::string>& given) {
  const auto line = [&](int number) { return path + ", line " + std::to_string(number); };
  const TomlTable pins = read_pins(path);
  std::vector<std::string> out;
  for (const auto& [name, value] : pins.values) {
    const auto& keys = pin_keys();
    const auto key =
        std::find_if(keys.begin(), keys.end(), [&](const PinKey& pin) { return pin.key == name; });
    if (key == keys.end()) refuse_key(name, line(value.line));
    const std::string word = word_of(value, name, line(value.line));
    const bool won = std::any_of(key->flags.begin(), key->flags.end(),
                                 [&](const std::string& flag) { return sets(given, flag); });
    if (won) continue;
    out.push_back("--" + name);
    out.push_back(word);
  }
  if (!pins.tables.empty()) {
    refuse_key("[" + pins.tables[0].name + "]", line(pins.tables[0].line));
  }
  return out;
}

std::string in_quotes(const std::string& text) { return "\"" + text + "\""; }

}  // namespace

std::string plan_toml(const Plan& plan) {
  const PlanRequest pins = pins_of(plan);
  const Prediction& p = plan.prediction;
  std::string name;
  for (const char c : plan.model_name) name += c >= ' ' && c <= '~' ? c : '?';
  std::string out = "# Pins of a plan for " + name + ", for --plan FILE. Edit or leave out any.\n";
  out += "# " + plan_title(plan) + ": predicted " + fixed_text(p.decode_tok_per_s, 1) +
         " tok/s decode, " + fixed_text(p.prefill_tok_per_s, 0) + " prefill\n";
  out += "split = " + in_quotes(split_text(pins.split)) + "\n";
  if (!pins.order.empty()) {
    std::string order;
    for (const int rank : pins.order) append_item(order, ",", std::to_string(rank));
    out += "order = " + in_quotes(order) + "\n";
  }
  // What is not named here is resident: said too, so that the planner moves nothing.
  std::string places = "layers all = resident";
  append_item(places, "; ", places_text(pins.places));
  if (pins.places.empty()) places = "layers all = resident";
  out += "place = " + in_quotes(places) + "\n";
  out += "ctx-size = " + std::to_string(pins.context) + "\n";
  out += "kv-type = " + in_quotes(kv_type_name(pins.kv_type)) + "\n";
  out += "device = " + in_quotes(device_list_text(pins.devices)) + "\n";
  out += "ubatch-size = " + std::to_string(plan.limits.max_rows) + "\n";
  const bool beside = std::any_of(plan.parts.begin(), plan.parts.end(), [&](const RankPart& part) {
    return cpu_half_rows(part, plan.limits) > 0;
  });
  if (beside) out += "cpu-rows = " + std::to_string(plan.limits.max_cpu_rows) + "\n";
  return out;
}

std::vector<std::string> expanded_arguments(const std::vector<std::string>& arguments) {
  std::vector<std::string> out = own_words(arguments);
  const std::string path = plan_file_of(out);
  if (path.empty()) return out;
  const std::vector<std::string> pins = arguments_of(path, out);
  // At the end: --plan itself is known to come after its verb.
  out.insert(out.end(), pins.begin(), pins.end());
  return out;
}

}  // namespace spillway
