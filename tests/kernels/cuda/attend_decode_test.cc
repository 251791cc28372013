// attend_decode against rope_kv_write and attend: outputs in every form and the cache's bytes are
// equal, bit for bit; replays of captured steps, rows of nobody's, layers that share a workspace.
// Inputs are new every time, the seed is printed.
#include "tests/kernels/cuda/attend_cases.h"

namespace spillway {
namespace {

using cuda_test::AttendCase;
using cuda_test::AttendOnDevice;
using cuda_test::AttendShape;
using cuda_test::OnDevice;
using cuda_test::Tokens;

// The rows that a decode step's product of q, k and v makes, and where they belong.
struct NewRows {
  int64_t pairs;
  cuda::RopePairing pairing;
  std::vector<float> qkv;  // [rows, stride]
  std::vector<float> cos, sin;
  std::vector<int64_t> slots;

  NewRows(std::mt19937& random, const AttendCase& c, int64_t pairs_in, bool halves)
      : pairs(pairs_in),
        pairing(halves ? cuda::RopePairing::kHalves : cuda::RopePairing::kAdjacent) {
    renew(random, c);
  }
  static int64_t kv_cols(const AttendCase& c) { return c.shape.kv_heads * c.shape.dim; }
  static int64_t stride(const AttendCase& c) { return c.cols() + 2 * kv_cols(c); }

  void renew(std::mt19937& random, const AttendCase& c) {
    qkv = kernel_test::random_floats(random, c.rows * stride(c), 2.0f);
    cos.clear();
    sin.clear();
    for (int64_t i = 0; i < c.rows * pairs; ++i) {
      const double angle = static_cast<double>(random() % 100000) / 100;
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
    slots.clear();
    for (size_t s = 0; s < c.rows_of.size(); ++s) {
      const bool used = s < c.pages.size();  // others fill the step up
      slots.push_back(used ? c.slot(s, c.rows_of[s].first_position) : -1);
    }
  }
};

template <typename T>
void upload(const cuda_test::Runner& runner, const OnDevice<T>& to, const std::vector<T>& from) {
  cuda::copy_to_device(runner.stream, to.data(), from.data(),
                       static_cast<int64_t>(from.size() * sizeof(T)));
}

struct DecodeOnDevice {
  AttendOnDevice d;
  const AttendCase& c;
  int64_t pairs;
  cuda::RopePairing pairing;
  OnDevice<float> qkv, cos, sin;
  OnDevice<int64_t> slots;

  DecodeOnDevice(cuda_test::Runner& runner, const AttendCase& in, const NewRows& rows)
      : d(runner, in),
        c(in),
        pairs(rows.pairs),
        pairing(rows.pairing),
        qkv(rows.qkv),
        cos(rows.cos),
        sin(rows.sin),
        slots(rows.slots) {}

  View2D<float> columns(int64_t first, int64_t n) const {
    return View2D<float>(qkv.data() + first, c.rows, n, NewRows::stride(c));
  }
  View2D<float> q() const { return columns(0, c.cols()); }
  View2D<float> k() const { return columns(c.cols(), NewRows::kv_cols(c)); }
  View2D<float> v() const { return columns(c.cols() + NewRows::kv_cols(c), NewRows::kv_cols(c)); }
  cuda::RopeTable table() const {
    return {{cos.data(), c.rows, pairs}, {sin.data(), c.rows, pairs}};
  }
  unsigned forms() const {
    return cuda::kFloatForm | cuda::kBf16Form | (c.cols() % 32 == 0 ? cuda::kInt8Form : 0u);
  }

  void separate() const {
    cuda::rope_kv_write(d.runner.exec, table(), pairing, q(), k(), v(), slots.data(), d.cache());
    cuda::attend(d.runner.exec, q(), d.step(), c.heads, d.cache(), {c.scale, c.window},
                 d.workspace.data(), forms(), d.out());
  }
  void fused(std::byte* workspace = nullptr) const {
    cuda::attend_decode(d.runner.exec, table(), pairing, q(), k(), v(), slots.data(), d.step(),
                        c.heads, d.cache(), {c.scale, c.window},
                        workspace != nullptr ? workspace : d.workspace.data(), forms(), d.out());
  }
  void renew(const NewRows& rows) const {
    upload(d.runner, d.sequences, c.rows_of);
    upload(d.runner, qkv, rows.qkv);
    upload(d.runner, cos, rows.cos);
    upload(d.runner, sin, rows.sin);
    upload(d.runner, slots, rows.slots);
  }
};

template <typename T>
bool same_bytes(const OnDevice<T>& a, const OnDevice<T>& b) {
  const std::vector<T> x = a.values();
  const std::vector<T> y = b.values();
  return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0;
}

void expect_same(const DecodeOnDevice& a, const DecodeOnDevice& b, const std::string& what) {
  const std::string name = what + ": " + cuda_test::describe(a.c) + " " +
                           kv_type_name(a.c.shape.type) + " pairs " + std::to_string(a.pairs) +
                           (a.pairing == cuda::RopePairing::kHalves ? " halves" : " adjacent");
  EXPECT_EQ(kernel_test::bits(a.d.x.values()), kernel_test::bits(b.d.x.values())) << name;
  EXPECT_TRUE(same_bytes(a.d.q8, b.d.q8)) << name << ": q8";
  EXPECT_TRUE(same_bytes(a.d.blocks, b.d.blocks)) << name << ": blocks";
  EXPECT_TRUE(same_bytes(a.d.bf16, b.d.bf16)) << name << ": bf16";
  EXPECT_TRUE(same_bytes(a.d.k, b.d.k)) << name << ": keys in the cache";
  EXPECT_TRUE(same_bytes(a.d.v, b.d.v)) << name << ": values in the cache";
  EXPECT_TRUE(a.d.counters_are_zero() && b.d.counters_are_zero()) << name << ": counters";
}

class CudaAttendDecode : public testing::Test {
 protected:
  CudaAttendDecode() : seed_(std::random_device()()), random_(seed_) {}
  void SetUp() override { RecordProperty("seed", std::to_string(seed_)); }
  void TearDown() override {
    if (HasFailure()) std::printf("seed %u\n", seed_);
  }

  void expect_parity(const AttendCase& c, int64_t pairs, bool halves, const std::string& what) {
    const NewRows rows(random_, c, pairs, halves);
    const DecodeOnDevice fused(runner_, c, rows);
    const DecodeOnDevice separate(runner_, c, rows);
    fused.fused();
    separate.separate();
    runner_.wait();
    expect_same(fused, separate, what);
    for (const float x : fused.d.x.values()) ASSERT_TRUE(std::isfinite(x)) << what;
    const std::vector<float> q = fused.qkv.values();
    EXPECT_EQ(kernel_test::bits(q), kernel_test::bits(rows.qkv)) << what << ": q is written";
  }

  unsigned seed_;
  std::mt19937 random_;
  cuda_test::Runner runner_;
};

// A case whose cache lacks the step's own tokens; contexts count them.
AttendCase decode_case(std::mt19937& random, const AttendShape& shape,
                       const std::vector<int64_t>& contexts, int64_t room = 0) {
  std::vector<Tokens> runs;
  for (const int64_t context : contexts) runs.push_back({context - 1, 1});
  return AttendCase(random, shape, runs, room, false);
}

TEST_F(CudaAttendDecode, EveryShape) {
  for (const AttendShape& shape : cuda_test::attend_shapes()) {
    for (const int64_t window : {0, 1, 33}) {
      AttendCase c = decode_case(random_, shape, {300, 1, 15, 16, 17, 100, 512});
      c.window = window;
      for (const int64_t pairs : {shape.dim / 2, shape.dim * 5 / 16, int64_t{0}}) {
        for (const bool halves : {false, true}) {
          ASSERT_NO_FATAL_FAILURE(expect_parity(c, pairs, halves, "mixed"));
          ASSERT_FALSE(HasFailure());
        }
      }
    }
  }
}

const std::vector<AttendShape>& single_shapes() {
  static const std::vector<AttendShape> all = [] {
    std::vector<AttendShape> made;
    for (const KvType type : {KvType::kF16, KvType::kF32, KvType::kQ8_0, KvType::kQ4_0}) {
      made.push_back({8, 4, 0, 2, 0, 128, 32, type});
      made.push_back({8, 8, 0, 1, 0, 64, 16, type});
      made.push_back({12, 12, 0, 1, 0, 128, 16, type});
      made.push_back({2, 2, 0, 1, 0, 256, 64, type});
    }
    return made;
  }();
  return all;
}

TEST_F(CudaAttendDecode, OneSequenceOfAnyLength) {
  for (const AttendShape& shape : single_shapes()) {
    for (const int64_t context : {1, 2, 15, 16, 17, 64, 65, 100, 512, 513}) {
      const AttendCase c = decode_case(random_, shape, {context});
      ASSERT_NO_FATAL_FAILURE(
          expect_parity(c, shape.dim / 2, true, "context " + std::to_string(context)));
      ASSERT_FALSE(HasFailure());
    }
  }
}

TEST_F(CudaAttendDecode, LongContexts) {
  for (const AttendShape& shape : single_shapes()) {
    for (const int64_t context : {3000, 10000}) {
      const AttendCase c = decode_case(random_, shape, {context});
      ASSERT_NO_FATAL_FAILURE(
          expect_parity(c, shape.dim / 2, true, "context " + std::to_string(context)));
      ASSERT_FALSE(HasFailure());
    }
  }
}

TEST_F(CudaAttendDecode, BatchesOfAnySize) {
  for (const AttendShape& shape :
       {AttendShape{8, 4, 0, 2, 0, 128, 16}, AttendShape{4, 3, 2, 2, 0, 48, 32},
        AttendShape{9, 3, 0, 3, 0, 64, 16, KvType::kQ8_0},
        AttendShape{2, 3, 4, 1, 1, 96, 48, KvType::kQ4_0}}) {
    for (const int64_t n : {1, 2, 3, 4, 5, 8, 16, 31, 32, 33, 48, 63, 64}) {
      std::vector<int64_t> contexts;
      for (int64_t i = 0; i < n; ++i) contexts.push_back(static_cast<int64_t>(random_() % 600) + 1);
      if (n % 2 == 1) contexts[static_cast<size_t>(n / 2)] = 5000;
      const AttendCase c = decode_case(random_, shape, contexts);
      ASSERT_NO_FATAL_FAILURE(expect_parity(c, shape.dim / 4, false, std::to_string(n) + " rows"));
      ASSERT_FALSE(HasFailure());
    }
  }
}

// The step's rows by the CPU: the cache's bytes afterwards.
void write_on_cpu(AttendCase& c, const NewRows& rows) {
  ThreadPool pool(1);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  std::vector<float> qkv = rows.qkv;
  std::vector<float> cos = rows.cos;
  std::vector<float> sin = rows.sin;
  const auto n = static_cast<int64_t>(c.pages.size());  // rows of somebody
  const int64_t kv_cols = NewRows::kv_cols(c);
  const auto columns = [&](int64_t first) {
    return View2D<float>(qkv.data() + first, n, kv_cols, NewRows::stride(c));
  };
  cpu::rope(exec, {{cos.data(), n, rows.pairs}, {sin.data(), n, rows.pairs}},
            rows.pairing == cuda::RopePairing::kHalves ? cpu::RopePairing::kHalves
                                                       : cpu::RopePairing::kAdjacent,
            c.shape.dim, columns(c.cols()));
  const std::vector<int64_t> slots(rows.slots.begin(), rows.slots.begin() + n);
  cpu::kv_write(exec, columns(c.cols()), columns(c.cols() + kv_cols), slots, c.cache);
}

// Rows that fill a graph's bucket up have slot -1: they write nowhere, and what they read, here a
// page of NaN, stays theirs.
TEST_F(CudaAttendDecode, RowsOfNobody) {
  for (const AttendShape& shape : cuda_test::attend_shapes()) {
    AttendCase c = decode_case(random_, shape, {70, 1, 33});
    const auto page = static_cast<int32_t>(c.page_list.size());
    std::vector<bool> owned(static_cast<size_t>(c.cache.n_pages));
    for (const int32_t p : c.page_list) owned[static_cast<size_t>(p)] = true;
    c.page_list.push_back(
        static_cast<int32_t>(std::find(owned.begin(), owned.end(), false) - owned.begin()));
    for (int i = 0; i < 5; ++i) c.rows_of.push_back({static_cast<int32_t>(c.rows++), 1, 0, page});
    c.q.resize(static_cast<size_t>(c.rows * c.cols()));
    const NewRows rows(random_, c, shape.dim / 2, true);
    const DecodeOnDevice fused(runner_, c, rows);
    const DecodeOnDevice separate(runner_, c, rows);
    fused.fused();
    separate.separate();
    runner_.wait();
    write_on_cpu(c, rows);
    EXPECT_EQ(fused.d.k.values(), c.k) << cuda_test::describe(c) << kv_type_name(shape.type);
    EXPECT_EQ(fused.d.v.values(), c.v) << cuda_test::describe(c) << kv_type_name(shape.type);
    EXPECT_EQ(separate.d.k.values(), c.k) << cuda_test::describe(c) << kv_type_name(shape.type);
    EXPECT_EQ(separate.d.v.values(), c.v) << cuda_test::describe(c) << kv_type_name(shape.type);
    std::vector<float> x = fused.d.x.values();
    std::vector<float> y = separate.d.x.values();
    x.resize(static_cast<size_t>(3 * c.cols()));
    y.resize(x.size());
    EXPECT_EQ(kernel_test::bits(x), kernel_test::bits(y)) << cuda_test::describe(c);
    for (const float value : x) ASSERT_TRUE(std::isfinite(value)) << cuda_test::describe(c);
    ASSERT_FALSE(HasFailure());
  }
}

// One graph for a conversation: the positions grow, and the number of splits with them.
TEST_F(CudaAttendDecode, ReplaysOfACapturedStep) {
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    AttendCase c = decode_case(random_, {8, 4, 0, 2, 0, 128, 16, type}, {3, 40, 1, 700}, 2100);
    // No NaN where positions jump.
    for (size_t s = 0; s < c.pages.size(); ++s) {
      c.write_tokens(random_, s, c.rows_of[s].first_position + 2100);
    }
    NewRows rows(random_, c, 64, true);
    const DecodeOnDevice fused(runner_, c, rows);
    const DecodeOnDevice separate(runner_, c, rows);
    cuda::Graph::begin(runner_.stream);
    fused.fused();
    const cuda::Graph graph = cuda::Graph::end(runner_.stream);
    for (int step = 0; step < 60; ++step) {
      fused.renew(rows);
      separate.renew(rows);
      graph.launch(runner_.stream);
      separate.separate();
      runner_.wait();
      expect_same(fused, separate, "step " + std::to_string(step));
      ASSERT_FALSE(HasFailure());
      for (cuda::SequenceRows& s : c.rows_of) s.first_position += step % 10 == 9 ? 200 : 1;
      rows.renew(random_, c);
    }
  }
}

// The same step again and again, without a pause: the same bits every time.
TEST_F(CudaAttendDecode, ALongRunOfReplays) {
  for (const AttendShape& shape :
       {AttendShape{8, 4, 0, 2, 0, 128, 16}, AttendShape{8, 8, 0, 1, 0, 128, 16}}) {
    const AttendCase c = decode_case(random_, shape, {6000, 17, 900});
    const NewRows rows(random_, c, 64, false);
    const DecodeOnDevice fused(runner_, c, rows);
    const DecodeOnDevice separate(runner_, c, rows);
    separate.separate();
    cuda::Graph::begin(runner_.stream);
    for (int i = 0; i < 20; ++i) fused.fused();
    const cuda::Graph graph = cuda::Graph::end(runner_.stream);
    for (int i = 0; i < 10; ++i) {
      for (int j = 0; j < 20; ++j) graph.launch(runner_.stream);
      runner_.wait();
      expect_same(fused, separate, "replays");
      ASSERT_FALSE(HasFailure());
    }
  }
}

// Layers with different heads, as an uneven split has, on one workspace, in one graph.
TEST_F(CudaAttendDecode, LayersShareAWorkspace) {
  const AttendShape shapes[] = {{8, 4, 0, 2, 0, 128, 16},
                                {4, 4, 0, 1, 0, 128, 16},
                                {12, 4, 0, 3, 0, 128, 16},
                                {20, 20, 0, 1, 0, 128, 16}};
  std::vector<std::unique_ptr<AttendCase>> cases;
  std::vector<std::unique_ptr<DecodeOnDevice>> fused, separate;
  int64_t bytes = 0;
  for (const AttendShape& shape : shapes) {
    cases.push_back(std::make_unique<AttendCase>(
        random_, shape, std::vector<Tokens>{{4000, 1}, {90, 1}, {1300, 1}}, 0, false));
    const NewRows rows(random_, *cases.back(), 64, true);
    fused.push_back(std::make_unique<DecodeOnDevice>(runner_, *cases.back(), rows));
    separate.push_back(std::make_unique<DecodeOnDevice>(runner_, *cases.back(), rows));
    bytes = std::max(bytes, cuda::attend_workspace_bytes(runner_.exec, 3, 3, shape.heads,
                                                         shape.kv_heads, shape.dim, 4001));
  }
  const OnDevice<std::byte> workspace(cuda_test::attend_workspace(bytes));
  cuda::Graph::begin(runner_.stream);
  for (const auto& layer : fused) layer->fused(workspace.data());
  const cuda::Graph graph = cuda::Graph::end(runner_.stream);
  for (int i = 0; i < 100; ++i) graph.launch(runner_.stream);
  for (const auto& layer : separate) layer->separate();
  runner_.wait();
  for (size_t i = 0; i < fused.size(); ++i) expect_same(*fused[i], *separate[i], "layer");
  const std::vector<std::byte> after = workspace.values();
  EXPECT_TRUE(std::all_of(after.begin(), after.begin() + cuda::kAttendCounterBytes,
                          [](std::byte b) { return b == std::byte{0}; }));
}

TEST_F(CudaAttendDecode, EmptyStepsDoNothing) {
  const AttendCase c(random_, {2, 1, 0, 2, 0, 64, 16}, {});
  const NewRows rows(random_, c, 32, true);
  DecodeOnDevice(runner_, c, rows).fused();
  runner_.wait();
}

}  // namespace
}  // namespace spillway
