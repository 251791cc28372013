// See quantize_file.h.
#include "runtime/model/quantize_file.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>
#include <system_error>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/cpu/quantize.h"
#include "parallel/size_text.h"
#include "runtime/io/gguf_cursor.h"

namespace spillway {
namespace {

namespace fs = std::filesystem;

// Values that are in memory at a time: 8 MiB as floats, whole blocks of every type.
constexpr int64_t kSliceValues = int64_t{1} << 21;
// Values that a thread dequantises at a time.
constexpr int64_t kGrain = 4096;
// ggml's version of its block formats; 2 is the one in which they are as described in quant.h.
constexpr uint32_t kQuantizationVersion = 2;

std::string tensor_where(const Gguf& source, const GgufTensor& tensor) {
  return source.paths()[static_cast<size_t>(tensor.file)] + ", tensor " + quote_name(tensor.name);
}

GgufMetadataText new_metadata(const Gguf& source, const QuantMix& mix) {
  GgufMetadataText metadata;
  for (const auto& [key, value] : source.metadata()) {
    if (!key.starts_with("split.")) metadata.copy(key, value);
  }
  metadata.set_u32("general.quantization_version", kQuantizationVersion);
  metadata.set_u32("general.file_type", mix.file_type);
  return metadata;
}

void check_readable(const Gguf& source, const GgufTensor& tensor) {
  if (quant_info(tensor.type).computable) return;
  throw Error(std::string("cannot read tensors of type ") + quant_info(tensor.type).name,
              tensor_where(source, tensor), "quantise from the model's F16 or BF16 file");
}

void to_floats(const cpu::Exec& exec, const GgufTensor& tensor, int64_t begin,
               std::span<float> out) {
  const QuantInfo& info = quant_info(tensor.type);
  const auto n = static_cast<int64_t>(out.size());
  exec.pool->run([&](int worker) {
    const Range grains = exec.pool->part(worker, div_up(n, kGrain));
    const int64_t first = grains.begin * kGrain;
    const int64_t last = std::min(n, grains.end * kGrain);
    if (first >= last) return;
    const std::byte* from = tensor.data + (begin + first) / info.block_elements * info.block_bytes;
    cpu::dequantize(tensor.type, from,
                    out.subspan(static_cast<size_t>(first), static_cast<size_t>(last - first)));
  });
}

[[noreturn]] void fail_value(const Gguf& source, const GgufTensor& tensor, QuantType type,
                             int64_t at, float value) {
  const std::string place = "row " + std::to_string(at / tensor.cols()) + ", column " +
                            std::to_string(at % tensor.cols());
  if (!std::isfinite(value)) {
    throw Error(
        "a weight is " + std::string(std::isnan(value) ? "NaN" : "infinite") + " at " + place,
        tensor_where(source, tensor), "the file is damaged; convert or download it again");
  }
  throw Error("a weight of " + std::to_string(value) + " at " + place + " is too large for " +
                  quant_info(type).name,
              tensor_where(source, tensor), "choose BF16 or F32");
}

// Buffers of one slice, made once.
struct Slice {
  std::vector<float> values;
  std::vector<std::byte> blocks;
};

// Values [begin, begin + n) of the tensor, as they are to lie in the new file.
std::span<const std::byte> make_slice(const cpu::Exec& exec, const Gguf& source,
                                      const GgufTensor& tensor, QuantType type, int64_t begin,
                                      int64_t n, Slice& slice) {
  const QuantInfo& info = quant_info(tensor.type);
  slice.blocks.resize(static_cast<size_t>(quant_bytes(type, n)));
  if (tensor.type == type) {
    // Copied, not written from the mapping: a page that cannot be had is the source's fault, and
    // write(2) would say EFAULT of the new file.
    const int64_t at = begin / info.block_elements * info.block_bytes;
    std::memcpy(slice.blocks.data(), tensor.data + at, slice.blocks.size());
    return slice.blocks;
  }
  slice.values.resize(static_cast<size_t>(n));
  to_floats(exec, tensor, begin, slice.values);
  const int64_t unfit = cpu::first_unfit(exec, slice.values, cpu::largest_value(type));
  if (unfit >= 0) {
    fail_value(source, tensor, type, begin + unfit, slice.values[static_cast<size_t>(unfit)]);
  }
  cpu::quantize(exec, type, slice.values, slice.blocks.data());
  return slice.blocks;
}

}  // namespace

QuantizePlan plan_quantize(const Gguf& source, const QuantMix& mix,
                           const QuantMixOptions& options) {
  QuantizePlan plan;
  plan.metadata = new_metadata(source, mix);
  plan.alignment = source.alignment();
  const std::vector<QuantType> types = mixed_types(source, mix, options);
  for (size_t i = 0; i < types.size(); ++i) {
    const GgufTensor& tensor = source.tensors()[i];
    plan.tensors.push_back({tensor.name, tensor.dims, types[i]});
    plan.tensor_bytes += plan.tensors.back().bytes();
    plan.source_bytes += tensor.bytes;
    plan.elements += tensor.elements();
    if (types[i] == tensor.type) continue;
    check_readable(source, tensor);
    if (quant_info(tensor.type).block_elements > 1) plan.quantised_twice.push_back(tensor.name);
  }
  plan.file_bytes = GgufWriter::file_bytes(plan.metadata, plan.tensors, plan.alignment);
  return plan;
}

void check_target(const Gguf& source, const QuantizePlan& plan, const std::string& path,
                  bool replace) {
  std::error_code no_error;
  // The temporary is emptied before a byte of the source is read.
  for (const std::string& target : {path, GgufWriter::temporary_path(path)}) {
    for (const std::string& part : source.paths()) {
      if (!fs::equivalent(part, target, no_error)) continue;
      throw Error("the new file would replace the one it is made from", target,
                  "give another name");
    }
  }
  const fs::file_status status = fs::status(path, no_error);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    throw Error("not a regular file", path, "give the name of the new file");
  }
  if (fs::exists(status) && !replace) {
    throw Error("the file is there already", path, "give --force to replace it");
  }
  const fs::path folder = fs::path(path).parent_path();
  struct statvfs facts {};
  if (::statvfs(folder.empty() ? "." : folder.c_str(), &facts) != 0) {
    throw Error("there is no such folder", folder.string(), "make it first");
  }
  const auto free = static_cast<int64_t>(facts.f_bavail) * static_cast<int64_t>(facts.f_frsize);
  // File systems that cannot say report no blocks at all.
  if (facts.f_blocks == 0 || free >= plan.file_bytes) return;
  throw Error("the new file needs " + std::to_string(plan.file_bytes) + " bytes (" +
                  size_text(plan.file_bytes) + "), the file system has " + std::to_string(free),
              path, "make room, or choose a smaller type");
}

void quantize_file(const cpu::Exec& exec, const Gguf& source, const QuantizePlan& plan,
                   const std::string& path, bool replace,
                   const std::function<void(int64_t, int64_t)>& step) {
  GgufWriter writer(path, plan.metadata, plan.tensors, plan.alignment);
  Slice slice;
  int64_t done = 0;
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const GgufTensor& tensor = source.tensors()[i];
    const int64_t elements = tensor.elements();
    for (int64_t begin = 0; begin < elements; begin += kSliceValues) {
      const int64_t n = std::min(kSliceValues, elements - begin);
      writer.write(make_slice(exec, source, tensor, plan.tensors[i].type, begin, n, slice));
      done += quant_bytes(tensor.type, n);
      step(done, plan.source_bytes);
    }
    source.drop_pages();  // a mapping counts as memory as long as its pages are there
  }
  writer.finish(replace);
}

}  // namespace spillway
