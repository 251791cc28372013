// See cluster_report.h.
#include "launch/cluster_report.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "parallel/cluster_file.h"
#include "parallel/size_text.h"
#include "parallel/toml.h"

namespace spillway {
namespace {

using Json = nlohmann::ordered_json;

// Three digits at least: "9.0", "86.2", "3095".
std::string rate(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), value < 100 ? "%.1f" : "%.0f", value);
  return text.data();
}

std::string line(const char* name, const std::string& text) {
  std::array<char, 32> head{};
  std::snprintf(head.data(), head.size(), "    %-14s ", name);
  return head.data() + text + "\n";
}

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : ", ") + part;
  return out;
}

std::string threads_text(int n) { return count_text(n, "thread"); }

// What a layer's ops reach, with the types of weights from the quickest to the slowest of one row.
std::string cpu_lines(const CpuRates& rates, const char* name) {
  if (rates.threads == 0 || rates.products.empty()) return "";
  const auto [least, most] = std::minmax_element(
      rates.products.begin(), rates.products.end(),
      [](const ProductRate& a, const ProductRate& b) { return a.row_gb_per_s < b.row_gb_per_s; });
  const auto of = [](const ProductRate& product) {
    return std::string(quant_info(product.type).name) + " " + rate(product.row_gb_per_s) +
           " GB/s a row, " + rate(product.gop_per_s) + " Gop/s";
  };
  std::string out =
      line(name, "products " + of(*most) + (least == most ? "" : " to " + of(*least)));
  return out + line("", "attention " + rate(rates.attend_gb_per_s) + " GB/s, " +
                            rate(rates.attend_gop_per_s) + " Gop/s; other ops of a layer " +
                            rate(rates.layer_us) + " us");
}

std::string host_lines(const RankSpec& rank) {
  std::string out;
  std::vector<std::string> reads;
  std::vector<std::string> beside;
  for (const HostRead& read : rank.host_reads) {
    reads.push_back(threads_text(read.threads) + " " + rate(read.gb_per_s));
    if (read.beside_bus_gb_per_s > 0) {
      beside.push_back(threads_text(read.threads) + " " + rate(read.beside_bus_gb_per_s) + " + " +
                       rate(read.bus_gb_per_s));
    }
  }
  if (reads.empty() && rank.read_gb_per_s > 0) {
    reads.push_back(threads_text(rank.threads) + " " + rate(rank.read_gb_per_s));
  }
  if (!reads.empty()) out += line("memory read", joined(reads) + " GB/s");
  if (!beside.empty()) out += line("beside the bus", joined(beside) + " GB/s: the reads + the bus");
  if (rank.together.threads > 0) {
    std::string text =
        threads_text(rank.together.threads) + ", its own " + rate(rank.together.gb_per_s) + " GB/s";
    if (rank.together.bus_gb_per_s > 0) {
      text += ", beside the bus " + rate(rank.together.beside_bus_gb_per_s) + " + " +
              rate(rank.together.bus_gb_per_s);
    }
    out += line("all ranks read", text);
  }
  if (rank.matrix_gop_per_s > 0) {
    out += line("products", rate(rank.matrix_gop_per_s) + " Gop/s, int8");
  }
  out += cpu_lines(rank.cpu_alone, "layers, alone") + cpu_lines(rank.cpu_together, "all ranks'");
  if (rank.pin_gb_per_s > 0) out += line("pinning", rate(rank.pin_gb_per_s) + " GB/s");
  std::vector<std::string> disk;
  if (rank.disk_gb_per_s > 0) disk.push_back(rate(rank.disk_gb_per_s) + " GB/s");
  if (rank.page_cache_gb_per_s > 0) {
    disk.push_back("out of the page cache " + rate(rank.page_cache_gb_per_s) + " GB/s");
  }
  if (!disk.empty()) out += line("disk read", joined(disk));
  return out;
}

std::string gpu_lines(const GpuSpec& gpu) {
  if (!gpu.present()) return line("GPU", "none");
  std::string facts = gpu.text().substr(4) + ", " + size_text(gpu.free_bytes) + " of " +
                      size_text(gpu.total_bytes) + " free";
  if (gpu.numa_node >= 0) facts += ", NUMA node " + std::to_string(gpu.numa_node);
  std::string out = line("GPU", facts);
  std::vector<std::string> rates;
  if (gpu.read_gb_per_s > 0) rates.push_back("reads " + rate(gpu.read_gb_per_s) + " GB/s");
  if (gpu.matrix_tflops > 0) rates.push_back(rate(gpu.matrix_tflops) + " TFLOP/s bf16");
  if (gpu.launch_gap_us > 0) {
    rates.push_back("a kernel in a graph " + rate(gpu.launch_gap_us) + " us");
  }
  if (!rates.empty()) out += line("", joined(rates));
  if (gpu.h2d_gb_per_s > 0) {
    out += line("bus", rate(gpu.h2d_gb_per_s) + " GB/s to the GPU, " + rate(gpu.d2h_gb_per_s) +
                           " back, pinned");
  }
  return out;
}

Json value_json(const TomlValue& value) {
  switch (value.kind) {
    case TomlValue::Kind::kText:
      return value.text;
    case TomlValue::Kind::kInteger:
      return value.integer;
    case TomlValue::Kind::kNumber:
      return value.number;
    case TomlValue::Kind::kFlag:
      return value.flag;
    case TomlValue::Kind::kList:
      break;
  }
  Json list = Json::array();
  for (const TomlValue& element : value.list) list.push_back(value_json(element));
  return list;
}

Json table_json(const TomlTable& table) {
  Json out = Json::object();
  for (const auto& [key, value] : table.values) out[key] = value_json(value);
  for (const TomlTable& child : table.tables) {
    const std::string name = child.name.substr(child.name.rfind('.') + 1);
    if (child.element) {
      out[name].push_back(table_json(child));
    } else {
      out[name] = table_json(child);
    }
  }
  return out;
}

}  // namespace

std::string cluster_report(const ClusterSpec& cluster) {
  std::string out;
  for (size_t i = 0; i < cluster.ranks.size(); ++i) {
    const RankSpec& rank = cluster.ranks[i];
    if (i == 0 || rank.host != cluster.ranks[i - 1].host) {
      out += rank.host + ": " + rank.cpu + ", " + rank.isa + ", " +
             std::to_string(rank.numa_nodes) +
             (rank.numa_nodes == 1 ? " NUMA node" : " NUMA nodes") + "\n";
    }
    out += "  rank " + std::to_string(rank.rank) + ": " + threads_text(rank.threads) + ", " +
           size_text(rank.memory_free_bytes) + " free\n";
    out += host_lines(rank) + gpu_lines(rank.gpu);
  }
  if (cluster.size() < 2) return out;
  out +=
      "between all ranks' host memories: a sum takes " + rate(cluster.link.latency_us) + " us, " +
      (cluster.link.row_sum_us > 0 ? "of 8 KiB " + rate(cluster.link.row_sum_us) + " us, " : "") +
      "and " + rate(cluster.link.gb_per_s) + " GB/s\n";
  for (const PairSpec& pair : cluster.pairs) {
    out += "between the GPUs of ranks " + std::to_string(pair.from) + " and " +
           std::to_string(pair.to) + ": " + pair.fabric + ", " + rate(pair.gb_per_s) +
           " GB/s, a sum of 16 KiB takes " + rate(pair.small_sum_us) + " us\n";
  }
  return out;
}

nlohmann::ordered_json cluster_json(const ClusterSpec& cluster) {
  Json out = table_json(parse_toml(cluster_text(cluster, {}), "the cluster"));
  out.erase("origin");
  return out;
}

}  // namespace spillway
