// Fuzz target: any bytes as a GGUF file: opened, every metadata value and tensor read, ModelSpec
// and Tokenizer made of it, a text encoded.
// Findings, beside what the sanitizers see: an exception that is no Error, an Error that does not
// name the file, a tensor outside of the file, and memory beyond kBytesPerFileByte.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/io/gguf.h"
#include "runtime/model/spec.h"
#include "runtime/token/tokenizer.h"
#include "tests/fuzz/oracle.h"

namespace spillway::fuzz {
namespace {

// The worst known: a metadata entry of 14 bytes takes about 230 in list, index and set; a token
// without a text, of 8 bytes in the file, about 90 with the name that is made up for it.
constexpr int64_t kBytesPerFileByte = 24;
// Patterns, error texts and the meter's own noise, for any file.
constexpr int64_t kBytesForAny = int64_t{1} << 20;

// A file in memory with a path, written anew for each input.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("fuzz.gguf", MFD_CLOEXEC)) {
    expect(descriptor_ >= 0, "no memory file");
    path_ = "/proc/self/fd/" + std::to_string(descriptor_);
  }
  void write(const uint8_t* data, size_t size) {
    expect(::ftruncate(descriptor_, 0) == 0, "ftruncate");
    expect(::pwrite(descriptor_, data, size, 0) == static_cast<ssize_t>(size), "pwrite");
  }
  const std::string& path() const { return path_; }

 private:
  int descriptor_;
  std::string path_;
};

void expect_named(const Error& error, const std::string& path) {
  expect_spoken(error);
  if (error.where().rfind(path, 0) != 0)
    finding("an Error names no file: " + std::string(error.what()));
}

void read_metadata(const Gguf& gguf) {
  size_t sum = 0;
  for (const auto& [key, value] : gguf.metadata()) {
    expect(gguf.find(key) == &value, "find() gives another value");
    sum += value.to_text().size() + value.to_text(1 << 20).size();
    sum += value.as_uint().value_or(0) + static_cast<size_t>(value.as_int().value_or(0));
    sum += value.as_bool().value_or(false) + (value.as_double().value_or(0) > 0);
    if (const auto text = value.as_string()) sum += text->size();
    if (const auto texts = value.as_strings()) {
      expect(static_cast<int64_t>(texts->size()) == value.size(), "an array of another size");
      for (const std::string_view text : *texts) sum += text.empty() ? 0 : text.back();
    }
    if (const auto numbers = value.as_ints()) sum += numbers->size();
    if (const auto numbers = value.as_doubles()) sum += numbers->size();
  }
  keep(sum);
}

void read_tensors(const Gguf& gguf) {
  unsigned sum = 0;
  for (const GgufTensor& tensor : gguf.tensors()) {
    expect(gguf.tensor(tensor.name) == &tensor, "tensor() gives another one");
    expect(tensor.elements() >= 1 && tensor.bytes >= 1, "an empty tensor");
    expect(tensor.offset % gguf.alignment() == 0, "a misaligned tensor");
    expect(tensor.offset + tensor.bytes <= gguf.file_bytes(), "a tensor outside of the file");
    for (int64_t i = 0; i < tensor.bytes; ++i) sum += static_cast<unsigned>(tensor.data[i]);
  }
  keep(sum);
}

void read_spec(const Gguf& gguf, const std::string& path) {
  try {
    const ModelSpec spec = read_model_spec(gguf);
    expect(static_cast<int64_t>(spec.layers.size()) == spec.n_layers, "layers are missing");
    expect(spec.n_heads % spec.n_kv_heads == 0, "KV heads do not divide the heads");
    expect(spec.embedding.rows == spec.vocab_size, "the embedding has other rows");
  } catch (const Error& error) {
    expect_named(error, path);
  }
}

void read_tokenizer(const Gguf& gguf, const std::string& path) {
  try {
    const Tokenizer tokenizer = Tokenizer::make(gguf);
    const std::vector<int32_t> ids = tokenizer.encode("Hello <s> w\xC3\xB6rld\xFF 12345\n");
    for (const int32_t id : ids)
      expect(id >= 0 && id < tokenizer.vocab_size(), "an id of no token");
    std::string text = tokenizer.decode(ids, true) + tokenizer.description();
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) text += tokenizer.piece(id);
    for (const auto id : {tokenizer.bos(), tokenizer.eos()}) {
      if (id) text += tokenizer.token_text(*id);
    }
  } catch (const Error& error) {
    expect_named(error, path);
  }
}

void read_all(const std::string& path) {
  try {
    const Gguf gguf = Gguf::open(path);
    gguf.header_hash();
    read_metadata(gguf);
    read_tensors(gguf);
    read_spec(gguf, path);
    read_tokenizer(gguf, path);
  } catch (const Error& error) {
    expect_named(error, path);
  }
}

}  // namespace
}  // namespace spillway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::fuzz;
  static MemoryFile file;
  file.write(data, size);
  AllocationMeter& meter = AllocationMeter::of_process();
  meter.reset();
  read_all(file.path());
  const int64_t allowed = kBytesForAny + kBytesPerFileByte * static_cast<int64_t>(size);
  if (meter.peak() > allowed) {
    finding(std::to_string(meter.peak()) + " bytes for a file of " + std::to_string(size) +
            ", allowed are " + std::to_string(allowed));
  }
  return 0;
}
