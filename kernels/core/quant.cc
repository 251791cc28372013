// See quant.h. Block sizes: the GGUF specification and ggml's type table.
#include "kernels/core/quant.h"

#include <string>

#include "kernels/core/any_case.h"
#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace spillway {
namespace {

using enum QuantType;

constexpr QuantInfo kTable[] = {
    {kF32, "F32", 1, 4, true},
    {kF16, "F16", 1, 2, true},
    {kQ4_0, "Q4_0", 32, sizeof(BlockQ4_0), true},
    {kQ4_1, "Q4_1", 32, sizeof(BlockQ4_1), true},
    {kQ5_0, "Q5_0", 32, sizeof(BlockQ5_0), true},
    {kQ5_1, "Q5_1", 32, sizeof(BlockQ5_1), true},
    {kQ8_0, "Q8_0", 32, sizeof(BlockQ8_0), true},
    {kQ8_1, "Q8_1", 32, 36, false},
    {kQ2_K, "Q2_K", 256, sizeof(BlockQ2_K), true},
    {kQ3_K, "Q3_K", 256, sizeof(BlockQ3_K), true},
    {kQ4_K, "Q4_K", 256, sizeof(BlockQ4_K), true},
    {kQ5_K, "Q5_K", 256, sizeof(BlockQ5_K), true},
    {kQ6_K, "Q6_K", 256, sizeof(BlockQ6_K), true},
    {kQ8_K, "Q8_K", 256, 292, false},
    {kIQ2_XXS, "IQ2_XXS", 256, sizeof(BlockIQ2_XXS), true},
    {kIQ2_XS, "IQ2_XS", 256, sizeof(BlockIQ2_XS), true},
    {kIQ3_XXS, "IQ3_XXS", 256, sizeof(BlockIQ3_XXS), true},
    {kIQ1_S, "IQ1_S", 256, 50, false},
    {kIQ4_NL, "IQ4_NL", 32, sizeof(BlockIQ4_NL), true},
    {kIQ3_S, "IQ3_S", 256, sizeof(BlockIQ3_S), true},
    {kIQ2_S, "IQ2_S", 256, sizeof(BlockIQ2_S), true},
    {kIQ4_XS, "IQ4_XS", 256, sizeof(BlockIQ4_XS), true},
    {kI8, "I8", 1, 1, false},
    {kI16, "I16", 1, 2, false},
    {kI32, "I32", 1, 4, false},
    {kI64, "I64", 1, 8, false},
    {kF64, "F64", 1, 8, false},
    {kIQ1_M, "IQ1_M", 256, 56, false},
    {kBF16, "BF16", 1, 2, true},
    {kTQ1_0, "TQ1_0", 256, 54, false},
    {kTQ2_0, "TQ2_0", 256, 66, false},
    {kMXFP4, "MXFP4", 32, sizeof(BlockMXFP4), true},
};

const QuantInfo* find(uint32_t number) {
  for (const QuantInfo& info : kTable) {
    if (static_cast<uint32_t>(info.type) == number) return &info;
  }
  return nullptr;
}

}  // namespace

const QuantInfo& quant_info(QuantType type) {
  const QuantInfo* info = find(static_cast<uint32_t>(type));
  CHECK(info != nullptr);
  return *info;
}

std::optional<QuantType> quant_type_from_file(uint32_t number) {
  const QuantInfo* info = find(number);
  if (info == nullptr) return std::nullopt;
  return info->type;
}

std::optional<QuantType> quant_type_from_name(std::string_view name) {
  for (const QuantInfo& info : kTable) {
    if (same_in_any_case(info.name, name)) return info.type;
  }
  return std::nullopt;
}

int64_t quant_bytes(QuantType type, int64_t elements) {
  const QuantInfo& info = quant_info(type);
  CHECK_GE(elements, 0);
  CHECK_EQ(elements % info.block_elements, 0);
  return elements / info.block_elements * info.block_bytes;
}

namespace internal {

void type_not_computable(QuantType type) {
  const QuantInfo* info = find(static_cast<uint32_t>(type));
  const std::string name =
      info != nullptr ? info->name : std::to_string(static_cast<uint32_t>(type));
  check_failed(__FILE__, __LINE__, "type is computable", name);
}

}  // namespace internal
}  // namespace spillway
