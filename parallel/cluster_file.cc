// See cluster_file.h. A structure's keys stand in one function each, which reads and writes: `Io`
// is TomlFields or TomlText. Structured bindings make a field that is forgotten here an error.
#include "parallel/cluster_file.h"

#include <algorithm>
#include <map>
#include <type_traits>

#include "kernels/core/error.h"
#include "parallel/toml.h"

namespace spillway {
namespace {

constexpr int64_t kMostBytes = int64_t{1} << 46;
constexpr int kMostRanks = 1 << 12;

template <typename Io>
constexpr bool kReads = std::is_same_v<Io, TomlFields>;

// What a file must say of a rank, and what it may leave to the defaults. TomlText takes no Need.
template <typename Io, typename T>
void needed_text(Io& io, const char* key, T& value) {
  if constexpr (kReads<Io>) {
    io.text(key, value, TomlFields::kNeeded);
  } else {
    io.text(key, value);
  }
}

template <typename Io, typename T>
void count(Io& io, const char* key, T& value, int64_t least, bool needed = false) {
  if constexpr (kReads<Io>) {
    io.integer(key, value, least, needed ? TomlFields::kNeeded : TomlFields::kOptional);
  } else {
    io.integer(key, value);
  }
}

template <typename Io, typename Gpu>
void gpu_fields(Io& io, Gpu& gpu) {
  auto& [name, uuid, ordinal, major, minor, multiprocessors, total_bytes, free_bytes, read_gb_per_s,
         matrix_tflops, h2d_gb_per_s, d2h_gb_per_s, launch_gap_us, numa_node] = gpu;
  needed_text(io, "name", name);
  io.text("uuid", uuid);
  count(io, "ordinal", ordinal, -1);
  count(io, "major", major, 0, true);
  count(io, "minor", minor, 0, true);
  count(io, "multiprocessors", multiprocessors, 0);
  count(io, "total_bytes", total_bytes, 0, true);
  count(io, "free_bytes", free_bytes, 0, true);
  io.number("read_gb_per_s", read_gb_per_s);
  io.number("matrix_tflops", matrix_tflops);
  io.number("h2d_gb_per_s", h2d_gb_per_s);
  io.number("d2h_gb_per_s", d2h_gb_per_s);
  io.number("launch_gap_us", launch_gap_us);
  count(io, "numa_node", numa_node, -1);
}

// Four lists side by side in the file.
struct HostReadLists {
  std::vector<int64_t> threads;
  std::vector<double> gb_per_s, beside_bus, bus;
};

template <typename Io, typename Lists>
void host_read_fields(Io& io, Lists& lists) {
  if constexpr (kReads<Io>) {
    io.integers("host_read_threads", lists.threads, 1);
  } else {
    io.integers("host_read_threads", lists.threads);
  }
  io.numbers("host_read_gb_per_s", lists.gb_per_s);
  io.numbers("host_read_beside_bus_gb_per_s", lists.beside_bus);
  io.numbers("bus_beside_host_read_gb_per_s", lists.bus);
}

HostReadLists lists_of(const std::vector<HostRead>& reads) {
  HostReadLists lists;
  for (const HostRead& read : reads) {
    const auto& [threads, gb_per_s, beside_bus, bus] = read;
    lists.threads.push_back(threads);
    lists.gb_per_s.push_back(gb_per_s);
    lists.beside_bus.push_back(beside_bus);
    lists.bus.push_back(bus);
  }
  return lists;
}

std::vector<HostRead> reads_of(const TomlFields& io, HostReadLists lists) {
  const size_t n = lists.threads.size();
  for (std::vector<double>* list : {&lists.beside_bus, &lists.bus}) {
    if (list->empty()) list->resize(n);  // not known
  }
  if (lists.gb_per_s.size() != n || lists.beside_bus.size() != n || lists.bus.size() != n) {
    io.fail("the lists of host reads have " + std::to_string(n) + ", " +
                std::to_string(lists.gb_per_s.size()) + ", " +
                std::to_string(lists.beside_bus.size()) + " and " +
                std::to_string(lists.bus.size()) + " values, they must have as many",
            "host_read_gb_per_s");
  }
  std::vector<HostRead> reads;
  for (size_t i = 0; i < n; ++i) {
    if (lists.threads[i] > (1 << 20) || (i > 0 && lists.threads[i] <= lists.threads[i - 1])) {
      io.fail("host_read_threads must rise", "host_read_threads");
    }
    reads.push_back(
        {static_cast<int>(lists.threads[i]), lists.gb_per_s[i], lists.beside_bus[i], lists.bus[i]});
  }
  return reads;
}

// Three lists side by side in the file.
struct ProductLists {
  std::vector<std::string> types;
  std::vector<double> row_gb_per_s, gop_per_s;
};

ProductLists lists_of(const std::vector<ProductRate>& products) {
  ProductLists lists;
  for (const auto& [type, row_gb_per_s, gop_per_s] : products) {
    lists.types.push_back(quant_info(type).name);
    lists.row_gb_per_s.push_back(row_gb_per_s);
    lists.gop_per_s.push_back(gop_per_s);
  }
  return lists;
}

std::vector<ProductRate> products_of(const TomlFields& io, const std::string& prefix,
                                     const ProductLists& lists) {
  const std::string key = prefix + "product_types";
  const size_t n = lists.types.size();
  if (lists.row_gb_per_s.size() != n || lists.gop_per_s.size() != n) {
    io.fail("the lists of products have " + std::to_string(n) + ", " +
                std::to_string(lists.row_gb_per_s.size()) + " and " +
                std::to_string(lists.gop_per_s.size()) + " values, they must have as many",
            key.c_str());
  }
  std::vector<ProductRate> products;
  for (size_t i = 0; i < n; ++i) {
    const auto type = quant_type_from_name(lists.types[i]);
    if (!type || !quant_info(*type).computable) {
      io.fail(key + " has \"" + lists.types[i] + "\", which is no type of weights", key.c_str());
    }
    if (i > 0 && *type <= products.back().type) {
      io.fail(key + " must be in the order of GGUF's numbers", key.c_str());
    }
    if (lists.row_gb_per_s[i] <= 0 || lists.gop_per_s[i] <= 0) {
      io.fail("products of " + lists.types[i] + " have no rate", key.c_str());
    }
    products.push_back({*type, lists.row_gb_per_s[i], lists.gop_per_s[i]});
  }
  return products;
}

// What a prediction divides by, and all or nothing.
void check_whole(const TomlFields& io, const std::string& prefix, const CpuRates& rates) {
  const bool some = rates.threads > 0 || !rates.products.empty();
  if (!some) return;
  if (rates.threads > 0 && !rates.products.empty() && rates.attend_gb_per_s > 0 &&
      rates.attend_gop_per_s > 0) {
    return;
  }
  io.fail("rates of products need " + prefix + "threads, " + prefix + "product_types, " + prefix +
              "attend_gb_per_s and " + prefix + "attend_gop_per_s",
          (prefix + "threads").c_str());
}

// Keys of one of a rank's CpuRates, all with one prefix.
template <typename Io, typename Rates>
void cpu_rate_fields(Io& io, const std::string& prefix, Rates& rates) {
  auto& [threads, products, attend_gb_per_s, attend_gop_per_s, row_value_ns, value_ns, layer_us] =
      rates;
  const auto key = [&](const char* name) { return prefix + name; };
  count(io, key("threads").c_str(), threads, 0);
  ProductLists lists = lists_of(products);
  io.texts(key("product_types").c_str(), lists.types);
  io.numbers(key("product_row_gb_per_s").c_str(), lists.row_gb_per_s);
  io.numbers(key("product_gop_per_s").c_str(), lists.gop_per_s);
  if constexpr (kReads<Io>) products = products_of(io, prefix, lists);
  io.number(key("attend_gb_per_s").c_str(), attend_gb_per_s);
  io.number(key("attend_gop_per_s").c_str(), attend_gop_per_s);
  io.number(key("row_value_ns").c_str(), row_value_ns);
  io.number(key("value_ns").c_str(), value_ns);
  io.number(key("layer_us").c_str(), layer_us);
  if constexpr (kReads<Io>) check_whole(io, prefix, rates);
}

template <typename Io, typename Rank>
void rank_fields(Io& io, Rank& spec) {
  // pid: of a process, not of a machine. gpu: a table of its own.
  auto& [rank, host, local_rank, local_size, pid, cpu, isa, threads, memory_free_bytes,
         read_gb_per_s, matrix_gop_per_s, measured, gpu, host_reads, pin_gb_per_s, numa_nodes,
         disk_gb_per_s, page_cache_gb_per_s, together, cpu_alone, cpu_together, busy_share] = spec;
  count(io, "rank", rank, 0, true);
  needed_text(io, "host", host);
  count(io, "local_rank", local_rank, 0);
  count(io, "local_size", local_size, 1);
  io.text("cpu", cpu);
  io.text("isa", isa);
  count(io, "threads", threads, 1, true);
  count(io, "memory_free_bytes", memory_free_bytes, 0, true);
  io.number("read_gb_per_s", read_gb_per_s);
  io.number("matrix_gop_per_s", matrix_gop_per_s);
  io.flag("measured", measured);
  io.number("pin_gb_per_s", pin_gb_per_s);
  count(io, "numa_nodes", numa_nodes, 1);
  io.number("disk_gb_per_s", disk_gb_per_s);
  io.number("page_cache_gb_per_s", page_cache_gb_per_s);
  if (kReads<Io> || together.threads > 0) {
    count(io, "together_threads", together.threads, 0);
    io.number("together_read_gb_per_s", together.gb_per_s);
    io.number("together_read_beside_bus_gb_per_s", together.beside_bus_gb_per_s);
    io.number("together_bus_gb_per_s", together.bus_gb_per_s);
  }
  if constexpr (kReads<Io>) {
    HostReadLists lists;
    host_read_fields(io, lists);
    host_reads = reads_of(io, lists);
  } else if (!host_reads.empty()) {
    const HostReadLists lists = lists_of(host_reads);
    host_read_fields(io, lists);
  }
  if (kReads<Io> || cpu_alone.threads > 0) cpu_rate_fields(io, "cpu_", cpu_alone);
  if (kReads<Io> || cpu_together.threads > 0) cpu_rate_fields(io, "cpu_together_", cpu_together);
  if (kReads<Io> || busy_share > 0) io.number("busy_share", busy_share);
}

template <typename Io, typename Pair>
void pair_fields(Io& io, Pair& pair) {
  auto& [from, to, fabric, gb_per_s, small_sum_us] = pair;
  count(io, "from", from, 0, true);
  count(io, "to", to, 0, true);
  needed_text(io, "fabric", fabric);
  io.number("gb_per_s", gb_per_s);
  io.number("small_sum_us", small_sum_us);
}

template <typename Io, typename Link>
void link_fields(Io& io, Link& link) {
  auto& [latency_us, gb_per_s, measured, row_sum_us] = link;
  io.number("latency_us", latency_us);
  io.number("gb_per_s", gb_per_s);
  io.flag("measured", measured);
  if (kReads<Io> || row_sum_us > 0) io.number("row_sum_us", row_sum_us);
}

template <typename Io, typename Origin>
void origin_fields(Io& io, Origin& origin) {
  auto& [program, made, fingerprint] = origin;
  io.text("program", program);
  io.text("made", made);
  io.text("fingerprint", fingerprint);
}

// The one table of this name; nullptr when there is none.
const TomlTable* only(TomlFields& root, const char* name) {
  const std::vector<const TomlTable*> found = root.tables(name, false);
  return found.empty() ? nullptr : found.front();
}

RankSpec read_rank(const TomlTable& table, int expected, const std::string& path) {
  RankSpec spec;
  spec.local_rank = -1;
  spec.local_size = 0;
  TomlFields fields(&table, path);
  rank_fields(fields, spec);
  // Beyond these no machine exists, and products of them would overflow.
  if (spec.memory_free_bytes > kMostBytes) fields.fail("no host has so much", "memory_free_bytes");
  if (spec.local_size > kMostRanks) fields.fail("no host has so many ranks", "local_size");
  if (spec.rank != expected) {
    fields.fail("rank " + std::to_string(expected) + " is missing: this is rank " +
                    std::to_string(spec.rank) + ", and ranks are numbered 0, 1, 2, ...",
                "rank");
  }
  if (const TomlTable* gpu = only(fields, "gpu")) {
    TomlFields gpu_table(gpu, path);
    gpu_fields(gpu_table, spec.gpu);
    if (spec.gpu.name.empty()) gpu_table.fail("a GPU without a name", "name");
    if (spec.gpu.total_bytes > kMostBytes) gpu_table.fail("no GPU has so much", "total_bytes");
    if (spec.gpu.free_bytes > spec.gpu.total_bytes) {
      gpu_table.fail("the GPU has more bytes free than in all", "free_bytes");
    }
    gpu_table.finish();
  }
  fields.finish();
  return spec;
}

// Local numbers that the file left out: in the order of the ranks.
void settle_places(ClusterSpec& cluster) {
  std::map<std::string, int> on_host;
  for (const RankSpec& rank : cluster.ranks) ++on_host[rank.host];
  std::map<std::string, int> seen;
  for (RankSpec& rank : cluster.ranks) {
    const int place = seen[rank.host]++;
    if (rank.local_rank < 0) rank.local_rank = place;
    if (rank.local_size == 0) rank.local_size = on_host[rank.host];
  }
}

PairSpec read_pair(const TomlTable& table, const ClusterSpec& cluster, const std::string& path) {
  PairSpec pair;
  TomlFields fields(&table, path);
  pair_fields(fields, pair);
  if (pair.from >= pair.to || pair.to >= cluster.size()) {
    fields.fail("a pair from rank " + std::to_string(pair.from) + " to " + std::to_string(pair.to) +
                    ": they are two of the " + std::to_string(cluster.size()) +
                    " ranks, the lower first",
                "from");
  }
  if (cluster.pair(pair.from, pair.to) != nullptr) fields.fail("the pair is there twice", "from");
  if (pair.fabric != "peer" && pair.fabric != "nccl" && pair.fabric != "staged") {
    fields.fail("fabric is \"" + pair.fabric + "\", must be peer, nccl or staged", "fabric");
  }
  fields.finish();
  return pair;
}

ClusterFile from_table(const TomlTable& root, const std::string& path) {
  ClusterFile file;
  ClusterSpec& cluster = file.cluster;
  TomlFields fields(&root, path);
  if (const TomlTable* table = only(fields, "origin")) {
    TomlFields origin(table, path);
    origin_fields(origin, file.origin);
    origin.finish();
  }
  if (const TomlTable* table = only(fields, "link")) {
    TomlFields link(table, path);
    link_fields(link, cluster.link);
    link.finish();
  }
  for (const TomlTable* table : fields.tables("ranks", true)) {
    cluster.ranks.push_back(read_rank(*table, cluster.size(), path));
    if (cluster.size() > kMostRanks) {
      throw Error("more than " + std::to_string(kMostRanks) + " ranks",
                  path + ", line " + std::to_string(table->line));
    }
  }
  if (cluster.ranks.empty()) fields.fail("there is no [[ranks]]");
  settle_places(cluster);
  for (const TomlTable* table : fields.tables("pairs", true)) {
    cluster.pairs.push_back(read_pair(*table, cluster, path));
  }
  std::sort(cluster.pairs.begin(), cluster.pairs.end(), [](const PairSpec& a, const PairSpec& b) {
    return std::pair(a.from, a.to) < std::pair(b.from, b.to);
  });
  fields.finish();
  return file;
}

}  // namespace

ClusterFile read_cluster_file(const std::string& path) { return from_table(read_toml(path), path); }

ClusterFile parse_cluster(const std::string& text, const std::string& path) {
  return from_table(parse_toml(text, path), path);
}

std::string cluster_text(const ClusterSpec& cluster, const ClusterOrigin& origin) {
  TomlText out;
  out.comment("A cluster as `spillway probe` found it, for `spillway plan --cluster`.");
  out.comment("docs/config.md explains the keys.");
  out.table("origin");
  origin_fields(out, origin);
  out.table("link");
  link_fields(out, cluster.link);
  for (const RankSpec& rank : cluster.ranks) {
    out.element("ranks");
    rank_fields(out, rank);
    if (!rank.gpu.present()) continue;
    out.table("ranks.gpu");
    gpu_fields(out, rank.gpu);
  }
  for (const PairSpec& pair : cluster.pairs) {
    out.element("pairs");
    pair_fields(out, pair);
  }
  return out.str();
}

ClusterSpec first_ranks(const ClusterSpec& cluster, int n, const std::string& path) {
  if (n > cluster.size()) {
    throw Error(
        "has " + std::to_string(cluster.size()) + " ranks, " + std::to_string(n) + " are asked for",
        path, "plan with fewer, or add [[ranks]]");
  }
  ClusterSpec out = cluster;
  out.ranks.resize(static_cast<size_t>(n));
  std::erase_if(out.pairs, [&](const PairSpec& pair) { return pair.to >= n; });
  for (RankSpec& rank : out.ranks) {
    const auto here = std::count_if(out.ranks.begin(), out.ranks.end(),
                                    [&](const RankSpec& of) { return of.host == rank.host; });
    // Its part of the host's memory grows when fewer share it.
    rank.memory_free_bytes = rank.memory_free_bytes / here * rank.local_size;
    rank.local_size = static_cast<int>(here);
  }
  return out;
}

}  // namespace spillway
