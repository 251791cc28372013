// The CUDA ops along rows against their CPU twins: norms, quantisation, activation, sums,
// gathering. Where an op only moves values or rounds once the bits must be equal; tolerances stand
// beside each comparison.
#include <gtest/gtest.h>

#include <limits>

#include "tests/support/cuda_row_fixtures.h"

namespace spillway {
namespace {

using cuda_test::Forms;
using cuda_test::OnDevice;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");
constexpr unsigned kAllForms = cuda::kFloatForm | cuda::kInt8Form | cuda::kBf16Form;

// Rows further apart than they are long; what lies between them is 7 and must stay so.
struct Strided {
  Strided(const std::vector<float>& values, int64_t rows_in, int64_t cols_in, int64_t stride_in)
      : rows(rows_in),
        cols(cols_in),
        stride(stride_in),
        device(spread(values, rows_in, cols_in, stride_in)) {}
  static std::vector<float> spread(const std::vector<float>& values, int64_t rows, int64_t cols,
                                   int64_t stride) {
    std::vector<float> out(static_cast<size_t>(rows * stride), 7.0f);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        out[static_cast<size_t>(r * stride + c)] = values[static_cast<size_t>(r * cols + c)];
      }
    }
    return out;
  }
  View2D<float> view() const { return {device.data(), rows, cols, stride}; }
  std::vector<float> values() const {
    const std::vector<float> all = device.values();
    std::vector<float> out;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < stride; ++c) {
        const float value = all[static_cast<size_t>(r * stride + c)];
        if (c < cols) {
          out.push_back(value);
        } else {
          EXPECT_EQ(value, 7.0f) << "between the rows, row " << r;
        }
      }
    }
    return out;
  }
  int64_t rows, cols, stride;
  OnDevice<float> device;
};

class CudaRowOps : public testing::Test {
 protected:
  std::vector<float> floats(int64_t n, float spread = 1.0f) {
    return kernel_test::random_floats(random_, n, spread);
  }

  ThreadPool pool_{2};
  cpu::Exec cpu_{&pool_, cpu::best_isa()};
  cuda_test::FreshRandom random_;
  cuda_test::Runner gpu_;
};

// |found - expected| <= relative * |expected|, NaN and infinities alike in both. Results below
// 2^-126 may differ by their last bits.
void expect_close(const std::vector<float>& found, const std::vector<float>& expected,
                  double relative) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(expected[i])) {
      ASSERT_TRUE(std::isnan(found[i])) << "value " << i << ": " << found[i];
    } else if (std::isinf(expected[i])) {
      ASSERT_EQ(found[i], expected[i]) << "value " << i;
    } else {
      const double bound = relative * std::abs(static_cast<double>(expected[i])) + 1e-44;
      ASSERT_NEAR(found[i], expected[i], bound) << "value " << i;
    }
  }
}

struct Shape {
  int64_t rows, cols, stride;
};

TEST_F(CudaRowOps, RmsNormInEveryForm) {
  // One, two and four quads a thread, and rows that are read twice.
  for (const Shape& s : {Shape{1, 32, 32},
                         {3, 576, 576},
                         {1, 4096, 4096},
                         {5, 2048, 2080},
                         {2, 4128, 4131},
                         {9, 8192, 8192},
                         {2, 16384, 16384},
                         {3, 16416, 16416},
                         {70, 96, 101}}) {
    SCOPED_TRACE(testing::Message() << s.rows << " x " << s.cols << " / " << s.stride);
    const Strided x(floats(s.rows * s.cols, 3.0f), s.rows, s.cols, s.stride);
    const std::vector<float> weight = floats(s.cols);
    const OnDevice<float> device_weight(weight);
    const std::vector<float> values = x.values();
    std::vector<float> expected(values.size());
    cpu::rms_norm(cpu_, {values.data(), s.rows, s.cols}, weight, 1e-5f,
                  {expected.data(), s.rows, s.cols});
    Forms all(s.rows, s.cols);
    cuda::rms_norm(gpu_.exec, x.view(), device_weight.data(), 1e-5f, kAllForms, all.input());
    gpu_.wait();
    const std::vector<float> found = all.x.values();
    expect_close(found, expected, 1e-6);
    all.expect_forms_of(found, kAllForms);
    // Each form alone, with the same bits; the others are not touched.
    for (const unsigned forms : {cuda::kInt8Form, cuda::kBf16Form}) {
      Forms one(s.rows, s.cols);
      cuda::rms_norm(gpu_.exec, x.view(), device_weight.data(), 1e-5f, forms, one.input());
      gpu_.wait();
      one.expect_forms_of(found, forms);
      EXPECT_TRUE(cuda_test::is_poison(one.x.values()));
    }
    EXPECT_EQ(kernel_test::bits(x.values()), kernel_test::bits(values));
  }
}

TEST_F(CudaRowOps, RmsNormOfOddWidthsInPlace) {
  for (const int64_t cols : {1, 2, 3, 5, 31, 33, 127, 2049, 4099, 20001}) {
    for (const int64_t rows : {1, 7}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << cols);
      const std::vector<float> values = floats(rows * cols);
      const std::vector<float> weight = floats(cols);
      const OnDevice<float> device_weight(weight);
      std::vector<float> expected(values.size());
      cpu::rms_norm(cpu_, {values.data(), rows, cols}, weight, 1e-6f,
                    {expected.data(), rows, cols});
      const OnDevice<float> x(values);
      const cuda::Input in_place{rows, cols, x.data(), nullptr, nullptr, nullptr};
      cuda::rms_norm(gpu_.exec, View2D<const float>(x.data(), rows, cols), device_weight.data(),
                     1e-6f, cuda::kFloatForm, in_place);
      gpu_.wait();
      expect_close(x.values(), expected, 1e-6);
    }
  }
}

TEST_F(CudaRowOps, RmsNormOfHugeTinyAndBrokenRows) {
  const int64_t rows = 8;
  for (const int64_t cols : {32, 4096, 32768}) {
    SCOPED_TRACE(cols);
    std::vector<float> values = floats(rows * cols);
    const auto at = [&](int64_t r, int64_t c) -> float& {
      return values[static_cast<size_t>(r * cols + c)];
    };
    for (int64_t c = 0; c < cols; ++c) {
      at(0, c) *= 1e30f;   // squares overflow a float
      at(1, c) *= 1e-30f;  // and vanish
      at(2, c) *= 1e-40f;  // subnormal
      at(3, c) = 0.0f;
      at(4, c) = -0.0f;
    }
    at(5, cols / 2) = kNan;
    at(6, cols - 1) = kInfinity;
    const std::vector<float> weight = floats(cols);
    const OnDevice<float> device_weight(weight);
    const OnDevice<float> x(values);
    for (const float eps : {1e-5f, 1e-30f}) {
      std::vector<float> expected(values.size());
      cpu::rms_norm(cpu_, {values.data(), rows, cols}, weight, eps, {expected.data(), rows, cols});
      Forms out(rows, cols);
      cuda::rms_norm(gpu_.exec, View2D<const float>(x.data(), rows, cols), device_weight.data(),
                     eps, kAllForms, out.input());
      gpu_.wait();
      expect_close(out.x.values(), expected, 1e-6);
      out.expect_forms_of(out.x.values(), kAllForms);
    }
  }
}

TEST_F(CudaRowOps, RmsNormHeads) {
  struct Heads {
    int64_t rows, heads, head_dim, gap;
  };
  for (const Heads& s : {Heads{1, 32, 128, 0},
                         {5, 8, 64, 64},
                         {3, 5, 80, 3},
                         {2, 3, 96, 0},
                         {17, 2, 256, 8},
                         {2, 3, 260, 0},
                         {3, 7, 1, 0},
                         {4, 3, 33, 1},
                         {2, 2, 1001, 0}}) {
    SCOPED_TRACE(testing::Message() << s.rows << " x " << s.heads << " x " << s.head_dim);
    const int64_t cols = s.heads * s.head_dim;
    std::vector<float> values = floats(s.rows * cols, 2.0f);
    values.front() = 1e25f;
    const Strided x(values, s.rows, cols, cols + s.gap);
    const std::vector<float> weight = floats(s.head_dim);
    const OnDevice<float> device_weight(weight);
    std::vector<float> expected = values;
    cpu::rms_norm_heads(cpu_, weight, 1e-6f, {expected.data(), s.rows, cols});
    cuda::rms_norm_heads(gpu_.exec, device_weight.data(), 1e-6f, s.head_dim, x.view());
    gpu_.wait();
    expect_close(x.values(), expected, 1e-6);
  }
}

TEST_F(CudaRowOps, QuantizeHasTheCpusBits) {
  for (const Shape& s : {Shape{1, 32, 32},
                         {1, 4096, 4096},
                         {2, 64, 64},
                         {3, 96, 97},
                         {4, 576, 580},
                         {5, 1024, 1024},
                         {33, 160, 160},
                         {100, 2048, 2051}}) {
    SCOPED_TRACE(testing::Message() << s.rows << " x " << s.cols << " / " << s.stride);
    const Strided x(floats(s.rows * s.cols, 30.0f), s.rows, s.cols, s.stride);
    Forms out(s.rows, s.cols);
    cuda::quantize_rows(gpu_.exec, x.view(), kAllForms, out.input());
    gpu_.wait();
    EXPECT_EQ(kernel_test::bits(out.x.values()), kernel_test::bits(x.values()));
    out.expect_forms_of(x.values(), kAllForms);
  }
}

TEST_F(CudaRowOps, QuantizeOfHostileBlocks) {
  // Every block of 32 a case of its own, among ordinary ones; and ties between two codes.
  const std::vector<float> hostile = {
      kNan,      -kNan,     kInfinity,        -kInfinity,
      0.0f,      -0.0f,     1e-45f,           -1e-45f,
      0x1p-126f, 0x1p-100f, 0x1.fffffep-101f, std::numeric_limits<float>::max(),
      -0x1p-99f, 1e38f};
  const int64_t rows = 5;
  const int64_t cols = 32 * 64;
  std::vector<float> values = floats(rows * cols);
  for (size_t block = 0; block < values.size() / 32; ++block) {
    float* at = &values[32 * block];
    const float value = hostile[block % hostile.size()];
    switch (block / hostile.size() % 4) {
      case 0:  // one among ordinary ones, at any place
        at[random_() % 32] = value;
        break;
      case 1:  // all of them
        std::fill(at, at + 32, value);
        break;
      case 2:  // one among zeros
        std::fill(at, at + 32, 0.0f);
        at[random_() % 32] = value;
        break;
      default:  // maximum 127: halves are ties
        for (int i = 0; i < 32; ++i) {
          at[i] = static_cast<float>(static_cast<int>(random_() % 254) - 127) + 0.5f;
        }
        at[random_() % 32] = 127.0f;
    }
  }
  const OnDevice<float> x(values);
  Forms out(rows, cols);
  cuda::quantize_rows(gpu_.exec, View2D<const float>(x.data(), rows, cols), kAllForms, out.input());
  gpu_.wait();
  EXPECT_EQ(kernel_test::bits(out.x.values()), kernel_test::bits(values));
  out.expect_forms_of(values, kAllForms);
}

TEST_F(CudaRowOps, QuantizeOfItsOwnFloatsAndOddWidths) {
  const std::vector<float> values = floats(6 * 64);
  const OnDevice<float> x(values);
  Forms out(6, 64);
  cuda::Input input = out.input();
  input.x = x.data();
  cuda::quantize_rows(gpu_.exec, View2D<const float>(x.data(), 6, 64), kAllForms, input);
  gpu_.wait();
  EXPECT_EQ(kernel_test::bits(x.values()), kernel_test::bits(values));
  out.expect_forms_of(values, kAllForms);
  // Without codes any width.
  for (const int64_t cols : {1, 2, 7, 63, 513}) {
    const std::vector<float> odd = floats(3 * cols);
    const OnDevice<float> device(odd);
    Forms floats_alone(3, cols);
    cuda::quantize_rows(gpu_.exec, View2D<const float>(device.data(), 3, cols),
                        cuda::kFloatForm | cuda::kBf16Form, floats_alone.input());
    gpu_.wait();
    EXPECT_EQ(kernel_test::bits(floats_alone.x.values()), kernel_test::bits(odd));
    floats_alone.expect_forms_of(odd, cuda::kBf16Form);
  }
}

TEST_F(CudaRowOps, GatedActivationHasTheCpusBits) {
  const std::vector<float> edges = {kNan,   kInfinity, -kInfinity, 0.0f,  -0.0f,  88.0f, -88.0f,
                                    -89.5f, -103.0f,   -1e30f,     1e30f, 1e-40f, 5.0f,  -10.0f};
  for (const bool gelu : {false, true}) {
    for (const Shape& s :
         {Shape{1, 14336, 28672}, {3, 32, 64}, {7, 1536, 3100}, {2, 96, 193}, {65, 64, 128}}) {
      SCOPED_TRACE(testing::Message() << s.rows << " x " << s.cols << " gelu " << gelu);
      std::vector<float> values = floats(s.rows * 2 * s.cols, 4.0f);
      for (size_t i = 0; i < edges.size(); ++i) values[i] = edges[i];
      const Strided gate_up(values, s.rows, 2 * s.cols, s.stride);
      std::vector<float> expected(static_cast<size_t>(s.rows * s.cols));
      (gelu ? cpu::geglu : cpu::swiglu)(cpu_, {values.data(), s.rows, 2 * s.cols},
                                        {expected.data(), s.rows, s.cols});
      Forms out(s.rows, s.cols);
      cuda::gated_activation(gpu_.exec, gate_up.view(), gelu, kAllForms, out.input());
      gpu_.wait();
      const std::vector<float> found = out.x.values();
      for (size_t i = 0; i < found.size(); ++i) {
        if (std::isnan(expected[i])) {
          ASSERT_TRUE(std::isnan(found[i])) << i;
        } else {
          ASSERT_EQ(std::bit_cast<uint32_t>(found[i]), std::bit_cast<uint32_t>(expected[i]))
              << i << ": " << found[i] << " not " << expected[i];
        }
      }
      out.expect_forms_of(found, kAllForms);
    }
  }
  // Any width without codes.
  const std::vector<float> values = floats(3 * 2 * 37);
  const OnDevice<float> gate_up(values);
  std::vector<float> expected(3 * 37);
  cpu::swiglu(cpu_, {values.data(), 3, 74}, {expected.data(), 3, 37});
  Forms out(3, 37);
  cuda::gated_activation(gpu_.exec, View2D<const float>(gate_up.data(), 3, 74), false,
                         cuda::kFloatForm, out.input());
  gpu_.wait();
  EXPECT_EQ(kernel_test::bits(out.x.values()), kernel_test::bits(expected));
}

TEST_F(CudaRowOps, SumsAndProductsOfRows) {
  for (const Shape& s : {Shape{1, 4096, 4096},
                         {3, 1, 1},
                         {5, 33, 40},
                         {2, 1027, 1027},
                         {6, 64, 68},
                         {70000, 4, 4}}) {
    SCOPED_TRACE(testing::Message() << s.rows << " x " << s.cols << " / " << s.stride);
    const std::vector<float> values = floats(s.rows * s.cols);
    const std::vector<float> others = floats(s.rows * s.cols);
    const std::vector<float> bias = floats(s.cols);
    const Strided x(values, s.rows, s.cols, s.stride);
    const Strided y(others, s.rows, s.cols, s.stride + 4);
    const OnDevice<float> device_bias(bias);
    cuda::add_bias(gpu_.exec, device_bias.data(), x.view());
    cuda::add_rows(gpu_.exec, y.view(), x.view());
    cuda::scale_rows(gpu_.exec, -1.7f, x.view());
    gpu_.wait();
    std::vector<float> expected = values;
    const View2D<float> view(expected.data(), s.rows, s.cols);
    cpu::add_bias(cpu_, bias, view);
    cpu::add_rows(cpu_, {others.data(), s.rows, s.cols}, view);
    cpu::scale_rows(cpu_, -1.7f, view);
    EXPECT_EQ(kernel_test::bits(x.values()), kernel_test::bits(expected));
  }
}

TEST_F(CudaRowOps, GatherRows) {
  for (const int64_t cols : {1, 30, 64, 4096}) {
    const std::vector<float> values = floats(11 * cols);
    const Strided x(values, 11, cols, cols + 5);
    const std::vector<int32_t> rows = {10, 0, 3, 3, 7};
    const OnDevice<int32_t> device_rows(rows);
    const Strided out(std::vector<float>(static_cast<size_t>(5 * cols), kNan), 5, cols, cols + 3);
    cuda::gather_rows(gpu_.exec, x.view(), device_rows.data(), out.view());
    gpu_.wait();
    const std::vector<float> found = out.values();
    for (size_t i = 0; i < found.size(); ++i) {
      const auto from = static_cast<size_t>(rows[i / static_cast<size_t>(cols)] * cols);
      ASSERT_EQ(found[i], values[from + i % static_cast<size_t>(cols)]) << i;
    }
  }
}

TEST_F(CudaRowOps, HashOfRows) {
  for (const int64_t cols : {1, 30, 64, 4099}) {
    const std::vector<float> values = floats(11 * cols);
    const Strided x(values, 11, cols, cols + 5);
    const std::vector<int64_t> slots = {0, 7, -1, 3, 9, 1, 2, -1, 4, 5, -1};
    const OnDevice<int64_t> device_slots(slots);
    const OnDevice<uint64_t> sums(std::vector<uint64_t>{0, 5});
    cuda::hash_rows(gpu_.exec, x.view(), nullptr, sums.data());
    cuda::hash_rows(gpu_.exec, x.view(), device_slots.data(), sums.data() + 1);
    gpu_.wait();
    const View2D<const float> rows(values.data(), 11, cols);
    EXPECT_EQ(sums.values()[0], cpu::hash_rows(cpu_, rows)) << cols;
    EXPECT_EQ(sums.values()[1], 5 + cpu::hash_rows(cpu_, rows, slots)) << "adds, " << cols;
  }
}

TEST_F(CudaRowOps, NoRowsAreLegal) {
  Forms out(0, 64);
  const View2D<float> none(nullptr, 0, 64);
  cuda::rms_norm(gpu_.exec, none, nullptr, 1e-5f, kAllForms, out.input());
  cuda::rms_norm_heads(gpu_.exec, nullptr, 1e-5f, 32, none);
  cuda::quantize_rows(gpu_.exec, none, kAllForms, out.input());
  cuda::gated_activation(gpu_.exec, View2D<const float>(nullptr, 0, 128), true, kAllForms,
                         out.input());
  cuda::add_bias(gpu_.exec, nullptr, none);
  cuda::hash_rows(gpu_.exec, none, nullptr, nullptr);
  cuda::add_rows(gpu_.exec, none, none);
  cuda::scale_rows(gpu_.exec, 2.0f, none);
  cuda::gather_rows(gpu_.exec, none, nullptr, none);
  gpu_.wait();
}

}  // namespace
}  // namespace spillway
