// spillway inspect: a GGUF file's metadata and tensors, as a table or JSON. Opens any sound file,
// also those whose architecture cannot be run.
#include <cstdio>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "launch/gpu_probe.h"
#include "launch/terminal.h"
#include "launch/verbs.h"
#include "parallel/size_text.h"
#include "runtime/io/gguf.h"

namespace spillway {
namespace {

using Json = nlohmann::ordered_json;

Json value_json(const GgufValue& value) {
  if (const auto text = value.as_string()) return std::string(*text);
  if (const auto flag = value.as_bool()) return *flag;
  if (const auto number = value.as_uint()) return *number;
  if (const auto number = value.as_int()) return *number;
  if (const auto number = value.as_double()) return *number;
  if (const auto texts = value.as_strings()) {
    Json array = Json::array();
    for (const std::string_view text : *texts) array.push_back(std::string(text));
    return array;
  }
  if (const auto numbers = value.as_ints()) return *numbers;
  if (const auto numbers = value.as_doubles()) return *numbers;
  return value.to_text();
}

std::string shape_text(const GgufTensor& tensor) {
  std::string text;
  for (const int64_t dim : tensor.dims) text += (text.empty() ? "" : " x ") + std::to_string(dim);
  return text;
}

void print_json(const Gguf& gguf) {
  Json out;
  out["files"] = gguf.paths();
  out["version"] = gguf.version();
  out["alignment"] = gguf.alignment();
  out["bytes"] = gguf.file_bytes();
  for (const auto& [key, value] : gguf.metadata()) out["metadata"][key] = value_json(value);
  out["tensors"] = Json::array();
  for (const GgufTensor& tensor : gguf.tensors()) {
    out["tensors"].push_back({{"name", tensor.name},
                              {"type", quant_info(tensor.type).name},
                              {"dims", tensor.dims},
                              {"bytes", tensor.bytes},
                              {"file", tensor.file},
                              {"offset", tensor.offset}});
  }
  // Text in a file need not be UTF-8; a reader of JSON needs it.
  std::cout << out.dump(1, ' ', false, Json::error_handler_t::replace) << "\n";
}

void print_tables(const Gguf& gguf) {
  for (const std::string& path : gguf.paths()) std::printf("file       %s\n", path.c_str());
  std::printf("format     GGUF version %u, alignment %lld, %s in all\n\n", gguf.version(),
              static_cast<long long>(gguf.alignment()), size_text(gguf.file_bytes()).c_str());
  std::printf("METADATA\n");
  for (const auto& [key, value] : gguf.metadata()) {
    const std::string type = value.is_array()
                                 ? std::string(gguf_value_type_name(value.element_type())) + "[]"
                                 : gguf_value_type_name(value.type());
    std::printf("  %-44s %-9s %s\n", one_line(key, 120).c_str(), type.c_str(),
                one_line(value.to_text(), 120).c_str());
  }
  std::printf("\nTENSORS\n  %-36s %-8s %18s %12s\n", "name", "type", "shape", "bytes");
  std::map<std::string, std::pair<int64_t, int64_t>> by_type;
  for (const GgufTensor& tensor : gguf.tensors()) {
    const char* type = quant_info(tensor.type).name;
    std::printf("  %-36s %-8s %18s %12lld\n", one_line(tensor.name, 120).c_str(), type,
                shape_text(tensor).c_str(), static_cast<long long>(tensor.bytes));
    ++by_type[type].first;
    by_type[type].second += tensor.bytes;
  }
  std::printf("\n%s:", count_text(static_cast<int64_t>(gguf.tensors().size()), "tensor").c_str());
  for (const auto& [type, count] : by_type) {
    std::printf(" %lld %s (%s)", static_cast<long long>(count.first), type.c_str(),
                size_text(count.second).c_str());
  }
  std::printf("\n");
}

}  // namespace

int verb_inspect(const Options& options) {
  const Gguf gguf = Gguf::open(options.model, GgufNeed::kHeader);
  if (!gguf.complete()) print_warning(options.model + " ends before its weights do");
  if (options.json) {
    print_json(gguf);
  } else {
    print_tables(gguf);
  }
  return 0;
}

}  // namespace spillway
