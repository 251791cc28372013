// Where ranks compute, how their GPUs sum, and whether that is checked: --device, --share-gpus,
// --comm, --check-hidden.
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

constexpr std::pair<const char*, HiddenCheck> kChecks[] = {
    {"off", HiddenCheck::kOff}, {"stage", HiddenCheck::kStage}, {"sums", HiddenCheck::kSums}};

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

void add_check_hidden(CLI::App* app, RawTexts& raw) {
  app->add_option("--check-hidden", raw.check_hidden,
                  "compare the bits of the residual stream between the ranks of a stage: off, "
                  "stage (at the end of its layers) or sums (after every sum) [verify: sums, "
                  "else off]")
      ->type_name("WHERE")
      ->check(CLI::IsMember({"off", "stage", "sums"}));
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
  if (o.verb == Verb::kVerify) o.check_hidden = HiddenCheck::kSums;
  for (const auto& [name, check] : kChecks) {
    if (raw.check_hidden == name) o.check_hidden = check;
  }
}

}  // namespace spillway
