// kv_write: every value in its place, of every type, and nothing beside it.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/kernel_fixtures.h"

namespace spillway {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

class KvWriteTest : public testing::Test {
 protected:
  ThreadPool three_{3};
  std::mt19937 random_{4321};
};

TEST_F(KvWriteTest, PutsRowsInTheirSlots) {
  const int64_t pages = 3, heads = 2, page_tokens = 4, dim = 18;
  const std::vector<int64_t> slots = {11, 0, 6};
  const std::vector<float> k = kernel_test::random_floats(random_, 3 * heads * dim, 100.0f);
  std::vector<float> v = kernel_test::random_floats(random_, 3 * heads * dim, 1e-5f);
  v[0] = 1e6f;
  v[1] = kNan;
  for (const KvType type : {KvType::kF16, KvType::kF32}) {
    for (const cpu::Isa isa : kernel_test::available_isas()) {
      const auto size = static_cast<size_t>(pages * heads * page_tokens * dim * 4);
      std::vector<std::byte> k_pages(size, std::byte{0xee}), v_pages(size, std::byte{0xee});
      const KvView cache{k_pages.data(), v_pages.data(), type, pages, heads, page_tokens, dim};
      cpu::kv_write({&three_, isa}, {k.data(), 3, heads * dim}, {v.data(), 3, heads * dim}, slots,
                    cache);
      const auto bytes = static_cast<size_t>(kv_row_bytes(type, 1));
      std::vector<bool> written(size / bytes, false);
      for (size_t r = 0; r < slots.size(); ++r) {
        for (size_t c = 0; c < heads * dim; ++c) {
          const size_t page = static_cast<size_t>(slots[r]) / page_tokens;
          const size_t token =
              (page * heads + c / dim) * page_tokens + static_cast<size_t>(slots[r]) % page_tokens;
          const size_t at = token * dim + c % dim;
          written[at] = true;
          for (const auto& [from, to] : {std::pair{&k, &k_pages}, {&v, &v_pages}}) {
            const float value = (*from)[r * heads * dim + c];
            if (type == KvType::kF16) {
              uint16_t half;
              std::memcpy(&half, &(*to)[at * 2], 2);
              ASSERT_EQ(half, f32_to_f16(value)) << value;
            } else {
              float full;
              std::memcpy(&full, &(*to)[at * 4], 4);
              ASSERT_EQ(std::bit_cast<uint32_t>(full), std::bit_cast<uint32_t>(value));
            }
          }
        }
      }
      for (size_t i = 0; i < written.size(); ++i) {
        const bool untouched = k_pages[i * bytes] == std::byte{0xee};
        ASSERT_TRUE(written[i] || untouched) << i;
      }
    }
  }
}

// Blocks by their definition in kernels/core/kv_view.h, read back byte by byte: every value lies
// within half a step of its own, a step being the block's rounded scale; nothing else is written.
TEST_F(KvWriteTest, MakesBlocks) {
  const int64_t pages = 3, heads = 2, page_tokens = 4, dim = 96;
  const std::vector<int64_t> slots = {11, 0, 6};
  const auto n = static_cast<int64_t>(slots.size());
  for (const KvType type : {KvType::kQ8_0, KvType::kQ4_0}) {
    const bool bytes_a_code = type == KvType::kQ8_0;
    const size_t code_bytes = bytes_a_code ? 96 : 48;
    const size_t head_bytes = page_tokens * (code_bytes + 6);
    std::vector<float> x = kernel_test::random_floats(random_, n * heads * dim, 100.0f);
    for (int64_t i = 0; i < 32; ++i) x[static_cast<size_t>(i)] = 0.0f;
    for (int64_t i = 32; i < 64; ++i) x[static_cast<size_t>(i)] *= 1e-6f;
    x[64] = kInfinity;
    x[96] = kNan;
    x[128] = -1e9f;  // its scale is no half
    std::vector<std::byte> k(pages * heads * head_bytes, std::byte{0xee}), v = k;
    cpu::kv_write({&three_, cpu::best_isa()}, {x.data(), n, heads * dim},
                  {x.data(), n, heads * dim}, slots,
                  {k.data(), v.data(), type, pages, heads, page_tokens, dim});
    EXPECT_EQ(k, v);
    size_t written = 0;
    for (const std::byte b : k) written += b != std::byte{0xee} ? 1 : 0;
    EXPECT_LE(written, static_cast<size_t>(n * heads) * (code_bytes + 6));
    for (int64_t i = 0; i < n * heads * dim; ++i) {
      const auto slot = static_cast<size_t>(slots[static_cast<size_t>(i / (heads * dim))]);
      const auto head = static_cast<size_t>(i / dim % heads);
      const auto d = static_cast<size_t>(i % dim);
      const std::byte* page = k.data() + (slot / page_tokens * heads + head) * head_bytes;
      const std::byte* codes = page + slot % page_tokens * code_bytes;
      uint16_t half;
      std::memcpy(&half, page + page_tokens * code_bytes + slot % page_tokens * 6 + d / 32 * 2, 2);
      const float scale = f16_to_f32(half);
      const float value = x[static_cast<size_t>(i)];
      if (i >= 64 && i < 192 && i / 32 != 5) {
        ASSERT_FALSE(std::isfinite(scale)) << i;
        continue;
      }
      float code;
      if (bytes_a_code) {
        code = static_cast<float>(static_cast<int8_t>(codes[d]));
      } else {
        const auto pair = static_cast<int>(codes[d / 32 * 16 + d % 16]);
        code = static_cast<float>((d % 32 < 16 ? pair & 15 : pair >> 4) - 8);
      }
      // At the far end of a 4-bit block there is no +8: a value may be a whole step off.
      const bool cut = !bytes_a_code && code == 7;
      ASSERT_LE(std::abs(code * scale - value), std::abs(scale) * (cut ? 1.01f : 0.5001f) + 3e-8f)
          << kv_type_name(type) << " value " << i;
    }
  }
}

}  // namespace
}  // namespace spillway
