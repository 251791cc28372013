// add_rms_norm against the ops that it joins: the sum on the host, rms_norm of the result. Both are
// the same arithmetic in the same order, so bits are equal.
#include <gtest/gtest.h>

#include "tests/support/cuda_row_fixtures.h"

namespace spillway {
namespace {

using cuda_test::Forms;
using cuda_test::OnDevice;

constexpr unsigned kAllForms = cuda::kFloatForm | cuda::kInt8Form | cuda::kBf16Form;
constexpr float kEps = 1e-6f;

class AddNorm : public testing::Test {
 protected:
  std::vector<float> floats(int64_t n) { return kernel_test::random_floats(random_, n, 2.0f); }

  // Rows of x are further apart than they are long, those of y are not.
  template <typename T>
  void check(const std::vector<T>& y_in, const std::vector<float>& y_floats, int64_t rows,
             int64_t cols, bool add, unsigned forms) {
    SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", add " << add << ", forms "
                                    << forms << ", bytes " << sizeof(T));
    const int64_t stride = cols + 8;
    std::vector<float> x = floats(rows * stride);
    const std::vector<float> weight = floats(cols);
    const OnDevice<T> y(y_in);
    const OnDevice<float> device_x(x);
    const OnDevice<float> device_weight(weight);
    Forms found(rows, cols);
    cuda::add_rms_norm(gpu_.exec, View2D<const T>(y.data(), rows, cols),
                       View2D<float>(device_x.data(), rows, cols, stride), add,
                       forms != 0 ? device_weight.data() : nullptr, kEps, forms, found.input());
    gpu_.wait();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        float& to = x[static_cast<size_t>(r * stride + c)];
        const float value = y_floats[static_cast<size_t>(r * cols + c)];
        to = add ? to + value : value;
      }
    }
    ASSERT_EQ(kernel_test::bits(device_x.values()), kernel_test::bits(x));
    const OnDevice<float> expected_x(x);
    Forms expected(rows, cols);
    if (forms != 0) {
      cuda::rms_norm(gpu_.exec, View2D<const float>(expected_x.data(), rows, cols, stride),
                     device_weight.data(), kEps, forms, expected.input());
    }
    gpu_.wait();
    EXPECT_EQ(kernel_test::bits(found.x.values()), kernel_test::bits(expected.x.values()));
    EXPECT_EQ(found.q8.values(), expected.q8.values());
    EXPECT_EQ(found.bf16.values(), expected.bf16.values());
    const std::vector<cuda::ActivationBlock> a = found.blocks.values();
    const std::vector<cuda::ActivationBlock> b = expected.blocks.values();
    EXPECT_TRUE(a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0);
  }

  void check_both(int64_t rows, int64_t cols, bool add, unsigned forms) {
    const std::vector<float> y = floats(rows * cols);
    check(y, y, rows, cols, add, forms);
    std::vector<uint16_t> halves;
    std::vector<float> rounded;
    for (const float value : y) {
      halves.push_back(cuda_test::bf16_of(value));
      rounded.push_back(bf16_to_f32(halves.back()));
    }
    check(halves, rounded, rows, cols, add, forms);
  }

  cuda_test::FreshRandom random_;
  cuda_test::Runner gpu_;
};

TEST_F(AddNorm, HasTheBitsOfItsParts) {
  // One, two and four quads a thread, and rows that registers do not hold.
  for (const int64_t cols : {32, 576, 2080, 4096, 8192, 16384, 16416}) {
    for (const int64_t rows : {1, 3, 70}) {
      for (const bool add : {true, false}) check_both(rows, cols, add, kAllForms);
    }
  }
}

TEST_F(AddNorm, OfOddWidthsAndWithoutNorm) {
  for (const int64_t cols : {1, 2, 3, 5, 31, 33, 127, 2049, 20001}) {
    for (const unsigned forms : {0u, 1u, 4u, 5u}) check_both(5, cols, cols % 2 == 1, forms);
  }
}

// x = y where y already lies in x's place.
TEST_F(AddNorm, InPlace) {
  for (const int64_t cols : {33, 576, 4096, 16416}) {
    const std::vector<float> values = floats(3 * cols);
    const OnDevice<float> x(values);
    const OnDevice<float> weight(floats(cols));
    Forms found(3, cols);
    Forms expected(3, cols);
    const View2D<float> view(x.data(), 3, cols);
    cuda::add_rms_norm(gpu_.exec, View2D<const float>(view), view, false, weight.data(), kEps,
                       cuda::kFloatForm, found.input());
    cuda::rms_norm(gpu_.exec, view, weight.data(), kEps, cuda::kFloatForm, expected.input());
    gpu_.wait();
    EXPECT_EQ(kernel_test::bits(x.values()), kernel_test::bits(values)) << cols;
    EXPECT_EQ(kernel_test::bits(found.x.values()), kernel_test::bits(expected.x.values())) << cols;
  }
}

TEST_F(AddNorm, NoRowsAreLegal) {
  Forms out(0, 64);
  cuda::add_rms_norm(gpu_.exec, View2D<const float>(nullptr, 0, 64), View2D<float>(nullptr, 0, 64),
                     true, nullptr, kEps, kAllForms, out.input());
  gpu_.wait();
}

}  // namespace
}  // namespace spillway
