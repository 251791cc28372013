// pack: a thread block takes a run of blocks of the 16 rows of a group. It copies their bytes to
// shared memory (rows begin on any byte: words where they are whole, bytes at the ends), then every
// thread makes words of one lane. Reads the file's bytes once, writes as many; rows of a group lie
// apart in the file, so a run is 640 bytes of each. Not timed on a device yet.
#include <algorithm>
#include <type_traits>

#include "kernels/core/file_block.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"

namespace spillway::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = static_cast<int>(kRowGroup);
constexpr int kLaneThreads = kThreads / kLanes;  // threads that share a lane
constexpr int kRunBytes = 640;

// Lanes beyond the matrix get 0 in every plane. Where the scale cannot be 0 (MXFP4: an exponent)
// code 0 must have the value 0.
static_assert(kFp4Values[0] == 0);

struct PackJob {
  const std::byte* data;  // the first row's first byte of the columns
  int64_t row_bytes;
  int64_t rows;
  int64_t blocks;  // of a row; plain floats: columns
  int64_t runs;
  int64_t out_row;
  int64_t out_rows;  // of the matrix
  std::byte* out;
  GroupLayout layout;
};

// The lanes of a group that a call writes: [begin, end) from rows, [end, fill_end) with zeros.
struct Lanes {
  int begin, end, fill_end;
};
__device__ __forceinline__ Lanes lanes_of(const PackJob& job, int64_t group) {
  const int64_t base = group * kRowGroup;
  const int64_t last = job.out_row + job.rows;
  Lanes lanes;
  lanes.begin = job.out_row > base ? static_cast<int>(job.out_row - base) : 0;
  lanes.end = last - base < kRowGroup ? static_cast<int>(last - base) : kLanes;
  lanes.fill_end = base + lanes.end == job.out_rows ? kLanes : lanes.end;
  return lanes;
}

// What a type keeps in shared memory: kRun blocks of every lane, as words, with up to 3 bytes of
// others before them. An odd stride: lanes then lie in different banks.
template <int kBlockBytes>
struct Staging {
  static constexpr int kRun = std::max(1, kRunBytes / kBlockBytes);
  static constexpr int kWords = (kRun * kBlockBytes + 3 + 3) / 4;
  static constexpr int kStride = kWords | 1;
};

// Bytes [from, from + n) of device memory to `to`, at the same place modulo 4: word w of it.
__device__ __forceinline__ void stage_word(const std::byte* from, int n, int w, uint32_t* to) {
  const int before = static_cast<int>(reinterpret_cast<uintptr_t>(from) % 4);
  const int begin = 4 * w - before;  // the word's first byte, from `from` on
  if (begin >= n) return;
  if (begin >= 0 && begin + 4 <= n) {
    to[w] = *reinterpret_cast<const uint32_t*>(from + begin);
    return;
  }
  auto* bytes = reinterpret_cast<std::byte*>(to + w);
  for (int i = 0; i < 4; ++i) {
    if (begin + i >= 0 && begin + i < n) bytes[i] = from[begin + i];
  }
}

// One lane's part of the n_blocks from first_block on; its threads go through the words in turns.
// zero: a lane beyond the matrix.
template <QuantType Q>
__device__ __forceinline__ void put_blocks(const PackJob& job, std::byte* group,
                                           const uint8_t* bytes, int64_t first_block, int n_blocks,
                                           int lane, int turn, bool zero) {
  using Block = FileBlock<Q>;
  constexpr int kBytes = static_cast<int>(sizeof(typename QuantTraits<Q>::Block));
  // Item i of `each` a block, by make(block, i within the block), to its place in a plane of
  // values of `sample`'s type.
  const auto plane = [&](int64_t offset, auto each, auto sample, auto make) {
    using T = decltype(sample);
    constexpr int kEach = decltype(each)::value;
    if constexpr (kEach > 0) {
      T* to = reinterpret_cast<T*>(group + offset) + first_block * kEach * kRowGroup + lane;
      for (int i = turn; i < n_blocks * kEach; i += kLaneThreads) {
        to[i * kLanes] = zero ? T{0} : make(bytes + i / kEach * kBytes, i % kEach);
      }
    }
  };

  plane(job.layout.codes, std::integral_constant<int, Block::kCodeWords>{}, uint32_t{},
        [](const uint8_t* block, int i) { return Block::code_word(block, i); });
  plane(job.layout.high, std::integral_constant<int, Block::kHighWords>{}, uint32_t{},
        [](const uint8_t* block, int i) { return Block::high_word(block, i); });
  plane(job.layout.sub, std::integral_constant<int, Block::kSubBytes>{}, uint8_t{},
        [](const uint8_t* block, int i) { return Block::sub_byte(block, i); });
  plane(job.layout.scales, std::integral_constant < int, Block::kHasScale ? 1 : 0 > {}, uint16_t{},
        [](const uint8_t* block, int) { return Block::scale(block); });
  plane(job.layout.mins, std::integral_constant < int, Block::kHasMin ? 1 : 0 > {}, uint16_t{},
        [](const uint8_t* block, int) { return Block::minimum(block); });
}

template <typename Element>
__device__ __forceinline__ void put_floats(std::byte* group, const uint8_t* bytes,
                                           int64_t first_col, int n_cols, int lane, int turn,
                                           bool zero) {
  Element* to = reinterpret_cast<Element*>(group) + first_col * kRowGroup + lane;
  for (int i = turn; i < n_cols; i += kLaneThreads) {
    Element value = 0;
    for (int b = 0; b < static_cast<int>(sizeof(Element)) && !zero; ++b) {
      value |=
          static_cast<Element>(static_cast<Element>(bytes[i * sizeof(Element) + b]) << (8 * b));
    }
    to[i * kLanes] = value;
  }
}

template <QuantType Q>
constexpr int file_block_bytes() {
  if constexpr (QuantTraits<Q>::kBits == 0) {
    return QuantTraits<Q>::kElementBytes;
  } else {
    return static_cast<int>(sizeof(typename QuantTraits<Q>::Block));
  }
}

template <QuantType Q>
__global__ void __launch_bounds__(kThreads) pack_kernel(PackJob job) {
  constexpr int kBlockBytes = file_block_bytes<Q>();
  using Stage = Staging<kBlockBytes>;
  __shared__ uint32_t staged[kLanes * Stage::kStride];
  let_next_start();
  wait_for_previous();
  const int64_t group = job.out_row / kRowGroup + blockIdx.x / job.runs;
  const int64_t first_block = blockIdx.x % job.runs * Stage::kRun;
  const auto n_blocks =
      static_cast<int>(min(static_cast<int64_t>(Stage::kRun), job.blocks - first_block));
  const Lanes lanes = lanes_of(job, group);
  const auto run_of = [&](int lane) {
    const int64_t row = group * kRowGroup + lane - job.out_row;
    return job.data + row * job.row_bytes + first_block * kBlockBytes;
  };
  const int n_words = (lanes.end - lanes.begin) * Stage::kWords;
  for (int i = static_cast<int>(threadIdx.x); i < n_words; i += kThreads) {
    const int lane = lanes.begin + i / Stage::kWords;
    stage_word(run_of(lane), n_blocks * kBlockBytes, i % Stage::kWords,
               staged + lane * Stage::kStride);
  }
  __syncthreads();
  const auto lane = static_cast<int>(threadIdx.x) % kLanes;
  const auto turn = static_cast<int>(threadIdx.x) / kLanes;
  if (lane < lanes.begin || lane >= lanes.fill_end) return;
  const bool zero = lane >= lanes.end;
  const auto before = zero ? 0 : reinterpret_cast<uintptr_t>(run_of(lane)) % 4;
  const auto* bytes = reinterpret_cast<const uint8_t*>(staged + lane * Stage::kStride) + before;
  std::byte* to = job.out + group * job.layout.bytes;
  if constexpr (QuantTraits<Q>::kBits != 0) {
    put_blocks<Q>(job, to, bytes, first_block, n_blocks, lane, turn, zero);
  } else if constexpr (kBlockBytes == 4) {
    put_floats<uint32_t>(to, bytes, first_block, n_blocks, lane, turn, zero);
  } else {
    put_floats<uint16_t>(to, bytes, first_block, n_blocks, lane, turn, zero);
  }
}

}  // namespace

void pack(const Exec& exec, QuantType type, const std::byte* data, int64_t rows,
          int64_t source_cols, Range cols, const PackedMatrix& out, int64_t out_row) {
  CHECK(type == out.type);
  CHECK(cols.begin >= 0 && cols.begin <= cols.end && cols.end <= source_cols);
  CHECK_EQ(cols.size(), out.cols);
  CHECK_GE(out_row, 0);
  CHECK_LE(out_row + rows, out.rows);
  if (rows == 0 || cols.empty()) return;
  CHECK_EQ(reinterpret_cast<uintptr_t>(out.data) % kPackedAlignment, 0u);
  dispatch(type, [&](auto tag) {
    constexpr QuantType kType = decltype(tag)::kType;
    constexpr int64_t kBlock = QuantTraits<kType>::kBlock;
    CHECK_EQ(cols.begin % kBlock, 0);
    PackJob job{};
    job.data = data + quant_bytes(type, cols.begin);
    job.row_bytes = quant_bytes(type, source_cols);
    job.rows = rows;
    job.blocks = cols.size() / kBlock;
    job.runs = div_up(job.blocks, Staging<file_block_bytes<kType>()>::kRun);
    job.out_row = out_row;
    job.out_rows = out.rows;
    job.out = out.data;
    job.layout = group_layout(type, out.cols);
    const int64_t groups = div_up(out_row + rows, kRowGroup) - out_row / kRowGroup;
    CHECK_LE(groups * job.runs, int64_t{0x7fffffff});
    launch(exec, pack_kernel<kType>, dim3(static_cast<unsigned>(groups * job.runs)), dim3(kThreads),
           0, job);
  });
}

}  // namespace spillway::cuda
