// A file's block read word by word, as the device's pack does: every plane of a packed row group
// has the bytes of the CPU's pack, which takes blocks apart.
#include "kernels/core/file_block.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/kernel_fixtures.h"

namespace spillway {
namespace {

std::vector<QuantType> block_types() {
  std::vector<QuantType> types;
  for (const QuantType type : kernel_test::computable_types()) {
    if (quant_info(type).block_elements > 1) types.push_back(type);
  }
  return types;
}

class FileBlockTest : public testing::TestWithParam<QuantType> {};

// Item i of the n that each block has in a plane: value(block, i), found in the packed group.
template <typename T, typename Value>
void expect_plane(const kernel_test::Weights& w, int64_t offset, int n, const char* name,
                  Value value) {
  const int64_t block_bytes = quant_info(w.type).block_bytes;
  const int64_t blocks = w.cols / quant_info(w.type).block_elements;
  for (int64_t lane = 0; lane < kRowGroup; ++lane) {
    for (int64_t b = 0; b < blocks; ++b) {
      const auto* block =
          reinterpret_cast<const uint8_t*>(w.file.data()) + (lane * blocks + b) * block_bytes;
      for (int i = 0; i < n; ++i) {
        T packed;
        const int64_t at = ((b * n + i) * kRowGroup + lane) * static_cast<int64_t>(sizeof(T));
        std::memcpy(&packed, w.packed.data + offset + at, sizeof(packed));
        ASSERT_EQ(value(block, i), packed)
            << name << " " << i << " of block " << b << ", lane " << lane;
      }
    }
  }
}

TEST_P(FileBlockTest, GivesTheWordsOfPack) {
  ThreadPool pool(1);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  std::mt19937 random(31);
  const int64_t cols = 3 * quant_info(GetParam()).block_elements;
  const kernel_test::Weights w =
      kernel_test::random_weights(exec, random, GetParam(), kRowGroup, cols);
  const GroupLayout layout = group_layout(w.type, cols);
  dispatch(w.type, [&](auto tag) {
    using Traits = typename decltype(tag)::Traits;
    if constexpr (Traits::kBits != 0) {
      using Block = FileBlock<decltype(tag)::kType>;
      expect_plane<uint32_t>(w, layout.codes, Block::kCodeWords, "codes", Block::code_word);
      expect_plane<uint32_t>(w, layout.high, Block::kHighWords, "high bits", Block::high_word);
      expect_plane<uint8_t>(w, layout.sub, Block::kSubBytes, "sub-scales", Block::sub_byte);
      expect_plane<uint16_t>(w, layout.scales, Block::kHasScale ? 1 : 0, "scales",
                             [](const uint8_t* block, int) { return Block::scale(block); });
      if constexpr (Block::kHasMin) {
        expect_plane<uint16_t>(w, layout.mins, 1, "minimums",
                               [](const uint8_t* block, int) { return Block::minimum(block); });
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Types, FileBlockTest, testing::ValuesIn(block_types()),
                         [](const auto& type) -> std::string {
                           return quant_info(type.param).name;
                         });

}  // namespace
}  // namespace spillway
