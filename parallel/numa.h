// NUMA: a host whose processors each have memory of their own reads the near part fastest, and a
// GPU hangs on one of them. Ranks that keep to a node find their memory there, since pages lie
// where they are touched first. Facts from Linux's /sys/devices/system/node
// (Documentation/ABI/stable/sysfs-devices-node). Any thread.
#pragma once

#include <string>
#include <vector>

namespace spillway {

struct NumaNode {
  int id = 0;
  std::vector<int> cpus;  // rising
};

// "0-3,8" of /sys: the numbers in it, rising; what cannot be read ends the list.
std::vector<int> parse_number_list(const std::string& text);

// The nodes with processors, by rising id (a GPU's memory can be a node without). Empty when the
// folder says nothing.
std::vector<NumaNode> read_numa_nodes(const std::string& folder = "/sys/devices/system/node");

// Which node each of a host's ranks keeps to, by index into `nodes`; empty: none keeps to one.
// gpu_nodes: by local rank, the id of the node that its GPU hangs on; -1: no GPU, or unknown. Those
// go to the nodes with the fewest ranks. None keeps to a node when one would be left without a
// rank: its memory's rate is worth more than nearness.
std::vector<int> deal_numa_nodes(const std::vector<NumaNode>& nodes,
                                 const std::vector<int>& gpu_nodes);

// Of the node's processors, those that the calling thread may run on.
std::vector<int> allowed_cpus_of(const NumaNode& node);
// Keeps the calling thread, and what it starts from then on, to these. False: the system refused,
// and nothing changed.
bool keep_to_cpus(const std::vector<int>& cpus);

}  // namespace spillway
