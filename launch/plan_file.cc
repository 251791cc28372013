// See plan_file.h. Reads TOML with CLI11, which reads the --config files as well.
#include "launch/plan_file.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>

#include "kernels/core/error.h"
#include "parallel/pins.h"
#include "parallel/planner.h"
#include "parallel/size_text.h"

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
      {"gpu-memory", {"--gpu-memory"}},
      {"host-memory", {"--host-memory"}},
      {"objective", {"--objective"}},
  };
  return kKeys;
}

std::string long_name(const std::string& argument) {
  if (argument == "-ngl") return "--gpu-layers";
  if (argument == "-ts") return "--tensor-split";
  return argument;
}

bool sets(const std::vector<std::string>& arguments, const std::string& flag) {
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& argument) {
    return argument == flag || argument.rfind(flag + "=", 0) == 0;
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

std::vector<CLI::ConfigItem> read_items(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error("the plan cannot be read", path, "write one with spillway plan --toml");
  try {
    return CLI::ConfigTOML().from_config(file);
  } catch (const CLI::Error& error) {
    throw Error(std::string("the plan is no TOML: ") + error.what(), path,
                "write one with spillway plan --toml");
  }
}

std::vector<std::string> arguments_of(const std::string& path,
                                      const std::vector<std::string>& given) {
  std::vector<std::string> out;
  for (const CLI::ConfigItem& item : read_items(path)) {
    if (item.name == "++" || item.name == "--") continue;  // CLI11's marks of a table
    const auto& keys = pin_keys();
    const auto key = std::find_if(keys.begin(), keys.end(),
                                  [&](const PinKey& pin) { return pin.key == item.name; });
    if (key == keys.end() || !item.parents.empty()) {
      throw Error("the plan sets " + item.fullname() + ", which pins nothing", path,
                  "its keys are " + known_keys());
    }
    if (item.inputs.size() != 1) {
      throw Error("the plan sets " + item.name + " to a list", path,
                  "write one string: " + item.name + " = \"...\"");
    }
    const bool won = std::any_of(key->flags.begin(), key->flags.end(),
                                 [&](const std::string& flag) { return sets(given, flag); });
    if (won) continue;
    out.push_back("--" + item.name);
    out.push_back(item.inputs[0]);
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
  return out;
}

std::vector<std::string> expanded_arguments(const std::vector<std::string>& arguments) {
  std::vector<std::string> out;
  for (const std::string& argument : arguments) out.push_back(long_name(argument));
  const std::string path = plan_file_of(out);
  if (path.empty()) return out;
  const std::vector<std::string> pins = arguments_of(path, out);
  // At the end: --plan itself is known to come after its verb.
  out.insert(out.end(), pins.begin(), pins.end());
  return out;
}

}  // namespace spillway
