// Where ranks compute and how their GPUs sum: --device, --share-gpus, --comm.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "launch/options_verbs.h"

namespace spillway {
namespace {

constexpr std::pair<const char*, DeviceChoice> kDevices[] = {
    {"auto", DeviceChoice::kAuto}, {"cpu", DeviceChoice::kCpu}, {"gpu", DeviceChoice::kGpu}};

constexpr std::pair<const char*, CommChoice> kComms[] = {{"auto", CommChoice::kAuto},
                                                         {"nccl", CommChoice::kNccl},
                                                         {"peer", CommChoice::kPeer},
                                                         {"staged", CommChoice::kStaged}};

// One device for all, or one a rank. Throws what CLI11 prints.
std::vector<DeviceChoice> parse_devices(const std::string& text) {
  std::vector<DeviceChoice> devices;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string word = text.substr(at, comma - at);
    const size_t before = devices.size();
    for (const auto& [name, device] : kDevices) {
      if (word == name) devices.push_back(device);
    }
    if (devices.size() == before) {
      throw CLI::ValidationError("--device", "\"" + word +
                                                 "\" is not auto, cpu or gpu, nor a list of them "
                                                 "by rank, as gpu,gpu,cpu is");
    }
    at = comma + 1;
  }
  return devices;
}

std::string check_devices(const std::string& text) {
  parse_devices(text);
  return "";
}

}  // namespace

void add_device(CLI::App* app, RawTexts& raw) {
  app->add_option("--device", raw.device,
                  "where ranks compute: cpu, gpu, or auto, the GPUs when they hold the plan; or a "
                  "list by rank: gpu,gpu,cpu")
      ->type_name("D[,D...]")
      ->capture_default_str()
      ->check(CLI::Validator(check_devices, ""));
}

void add_devices(CLI::App* app, Options& o, RawTexts& raw) {
  add_device(app, raw);
  app->add_flag("--share-gpus", o.share_gpus,
                "let several ranks compute on one GPU, each with its share of the memory");
  app->add_option("--comm", raw.comm,
                  "what sums between GPUs go through: peer (each other's memory), nccl, staged "
                  "(the hosts' memory and MPI), or auto, the quickest that works")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "nccl", "peer", "staged"}));
}

void settle_devices(Options& o, const RawTexts& raw) {
  const std::vector<DeviceChoice> devices = parse_devices(raw.device);
  if (devices.size() == 1) {
    o.device = devices[0];
  } else {
    o.devices = devices;
  }
  for (const auto& [name, comm] : kComms) {
    if (raw.comm == name) o.comm = comm;
  }
}

}  // namespace spillway
