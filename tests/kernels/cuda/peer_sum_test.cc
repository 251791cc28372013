// Sums over ranks by kernels that push into each other's mailboxes: all ranks in one process, on
// one GPU or, where there are two, across both. Expected sums are added on the host in rank order,
// from bf16 values where those travel; norms and forms are rms_norm's of the same x. All bit for
// bit.
#include <gtest/gtest.h>

#include <chrono>

#include "tests/support/peer_fixtures.h"

namespace spillway {
namespace {

using cuda_test::Forms;
using cuda_test::OnDevice;
using cuda_test::PeerRanks;

constexpr unsigned kAllForms = cuda::kFloatForm | cuda::kInt8Form | cuda::kBf16Form;
constexpr float kEps = 1e-5f;

template <typename T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

struct Case {
  int64_t rows, dim;
  bool add = true;
  unsigned forms = kAllForms;
  bool in_place = false;  // x is the partial's memory; not with add
};

// What a rank's sums read and write.
struct Buffers {
  Buffers(const Case& c, const std::vector<float>& partial_in, const std::vector<float>& x_in,
          const std::vector<float>& weight_in)
      : partial(partial_in),
        x(x_in),
        weight(weight_in),
        forms(c.rows, c.dim),
        sum(c.in_place ? partial : x) {}
  OnDevice<float> partial, x, weight;
  Forms forms;
  const OnDevice<float>& sum;  // where it goes
};

class PeerSum : public testing::Test {
 protected:
  std::vector<float> floats(int64_t n) { return kernel_test::random_floats(random_, n, 2.0f); }

  // Random inputs of one sum, on every rank. x is equal on all.
  void fill(PeerRanks& ranks, const Case& c) {
    ranks_ = &ranks;
    case_ = c;
    x_ = floats(c.rows * c.dim);
    weight_ = floats(c.dim);
    partials_.clear();
    buffers_.clear();
    buffers_.resize(static_cast<size_t>(ranks.size()));
    for (int r = 0; r < ranks.size(); ++r) partials_.push_back(floats(c.rows * c.dim));
    ranks.each([&](int r) {
      const auto i = static_cast<size_t>(r);
      buffers_[i] = std::make_unique<Buffers>(c, partials_[i], x_, weight_);
    });
  }

  // The first `rows` rows of what fill() made.
  void launch(int rank, int64_t rows) {
    Buffers& b = *buffers_[static_cast<size_t>(rank)];
    PeerRanks::Rank& r = ranks_->at(rank);
    cuda::Input out = b.forms.input();
    out.n = rows;
    cuda::peer_sum(r.exec, r.group, View2D<const float>(b.partial.data(), rows, case_.dim),
                   View2D<float>(b.sum.data(), rows, case_.dim), case_.add,
                   case_.forms != 0 ? b.weight.data() : nullptr, kEps, case_.forms, out);
  }
  void launch_all(int64_t rows) {
    ranks_->each([&](int r) { launch(r, rows); });
  }

  // x after one more sum of the first `rows` rows.
  void add_on_host(std::vector<float>& x, int64_t rows) const {
    const bool rounded = rows > cuda::kPeerSmallRows;
    for (size_t i = 0; i < static_cast<size_t>(rows * case_.dim); ++i) {
      const auto value = [&](const std::vector<float>& partial) {
        return rounded ? bf16_to_f32(cuda_test::bf16_of(partial[i])) : partial[i];
      };
      float sum = value(partials_[0]);
      for (size_t r = 1; r < partials_.size(); ++r) sum += value(partials_[r]);
      x[i] = case_.add ? x[i] + sum : sum;
    }
  }

  // Every rank's x is `expected`, its forms are rms_norm's of that.
  void expect_all(const std::vector<float>& expected) {
    Forms normed(case_.rows, case_.dim);
    const OnDevice<float> x(expected);
    const OnDevice<float> weight(weight_);
    const cuda_test::Runner runner;
    if (case_.forms != 0) {
      cuda::rms_norm(runner.exec, View2D<const float>(x.data(), case_.rows, case_.dim),
                     weight.data(), kEps, case_.forms, normed.input());
    }
    runner.wait();
    for (int r = 0; r < ranks_->size(); ++r) {
      const Buffers& b = *buffers_[static_cast<size_t>(r)];
      ASSERT_TRUE(same_bytes(b.sum.values(), expected)) << "x of rank " << r;
      EXPECT_TRUE(same_bytes(b.forms.x.values(), normed.x.values())) << "rank " << r;
      EXPECT_TRUE(same_bytes(b.forms.q8.values(), normed.q8.values())) << "rank " << r;
      EXPECT_TRUE(same_bytes(b.forms.blocks.values(), normed.blocks.values())) << "rank " << r;
      EXPECT_TRUE(same_bytes(b.forms.bf16.values(), normed.bf16.values())) << "rank " << r;
    }
  }

  void check(PeerRanks& ranks, const Case& c) {
    SCOPED_TRACE(testing::Message()
                 << ranks.size() << " ranks, " << c.rows << " x " << c.dim << ", add " << c.add
                 << ", forms " << c.forms << ", parts " << ranks.at(0).group.parts);
    fill(ranks, c);
    launch_all(c.rows);
    ranks.wait();
    std::vector<float> expected = x_;
    add_on_host(expected, c.rows);
    expect_all(expected);
  }

  // A kernel whose peer never comes ends when it is told to.
  void expect_abort_ends(int64_t rows) {
    PeerRanks ranks({0, 0}, std::max<int64_t>(rows, 1), 576);
    fill(ranks, {rows, 576});
    launch(1, rows);
    cuda::Event end;
    end.record(ranks.at(1).stream);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(end.reached()) << "it did not wait for its peer";
    ranks.abort_word() = 1;
    const auto told = std::chrono::steady_clock::now();
    while (!end.reached() && std::chrono::steady_clock::now() - told < std::chrono::seconds(5)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ASSERT_TRUE(end.reached()) << "it does not end";
    ranks.wait();
  }

  cuda_test::FreshRandom random_;
  PeerRanks* ranks_ = nullptr;
  Case case_{};
  std::vector<float> x_, weight_;
  std::vector<std::vector<float>> partials_;
  std::vector<std::unique_ptr<Buffers>> buffers_;
};

const std::vector<std::vector<int>> kGroups = {{0, 0}, {0, 0, 0}, {0, 0, 0, 0}};

TEST_F(PeerSum, OfFewRowsInEveryForm) {
  int cases = 0;
  for (const std::vector<int>& group : kGroups) {
    for (const int64_t dim : {32, 64, 96, 576, 2080, 4096, 4128, 8192, 16384}) {
      // A row in one block as well, where one block can have it.
      for (const int parts : {0, 1}) {
        if (parts == 1 && (dim > 8192 || cuda::peer_parts(9, dim) == 1)) continue;
        if (cuda_test::device().major < 9 && dim > 8192) continue;
        PeerRanks ranks(group, 64, dim, parts);
        for (const int64_t rows : {1, 2, 5, 8, 17, 64}) {
          if (!ranks.fits(rows, dim)) continue;
          check(ranks, {rows, dim, rows % 2 == 1});
          ++cases;
        }
      }
    }
  }
  EXPECT_GT(cases, 100);
}

TEST_F(PeerSum, OfEightRanks) {
  PeerRanks ranks(std::vector<int>(8, 0), 8, 2048);
  for (const int64_t rows : {1, 3, 8}) check(ranks, {rows, 2048});
  PeerRanks wide(std::vector<int>(8, 0), 2, 8192);
  check(wide, {2, 8192});
  PeerRanks five(std::vector<int>(5, 0), 200, 576);
  check(five, {7, 576});
  check(five, {200, 576});
}

TEST_F(PeerSum, WithoutNormAndInSingleForms) {
  PeerRanks ranks({0, 0}, 128, 4096);
  for (const unsigned forms : {0u, 1u, 2u, 4u, 6u}) {
    for (const bool add : {true, false}) {
      check(ranks, {3, 4096, add, forms});
      check(ranks, {66, 4096, add, forms});
    }
  }
}

TEST_F(PeerSum, InThePartsPlace) {
  PeerRanks ranks({0, 0}, 128, 4096);
  for (const int64_t rows : {1, 3, 64, 66, 128}) {
    check(ranks, {rows, 4096, false, cuda::kFloatForm, true});
    check(ranks, {rows, 4096, false, 0, true});
  }
}

TEST_F(PeerSum, OfManyRowsAsBf16) {
  for (const std::vector<int>& group : kGroups) {
    // Several rounds through a mailbox of 512 rows; and through a smaller one, not a whole number
    // of times.
    for (const Case& c : {Case{1030, 64, true},
                          {600, 576, false},
                          {65, 4096, true},
                          {100, 8192, false},
                          {130, 2080, true}}) {
      PeerRanks ranks(group, c.rows, c.dim);
      if (ranks.fits(std::min<int64_t>(c.rows, 512), c.dim)) check(ranks, c);
    }
    PeerRanks ranks(group, 90, 96);
    check(ranks, {90, 96});
    check(ranks, {70, 96});
    check(ranks, {5, 96});
  }
}

TEST_F(PeerSum, HundredTimesWithRowsThatComeAndGo) {
  for (const std::vector<int>& group : kGroups) {
    for (const bool overlap : {false, true}) {
      SCOPED_TRACE(testing::Message() << group.size() << " ranks, overlap " << overlap);
      PeerRanks ranks(group, 80, 1024);
      ranks.set_overlap(overlap);
      fill(ranks, {80, 1024, true, kAllForms});
      std::vector<float> expected = x_;
      const int64_t kRows[] = {1, 4, 2, 8, 1, 66, 3, 1, 80, 7};
      for (int time = 0; time < 100; ++time) {
        const int64_t rows = kRows[time % 10];
        launch_all(rows);
        if (overlap && time % 4 == 3) ranks.wait();
        add_on_host(expected, rows);
      }
      launch_all(80);  // so that the forms are those of all rows
      ranks.wait();
      add_on_host(expected, 80);
      expect_all(expected);
    }
  }
}

TEST_F(PeerSum, InAGraphThatIsReplayed) {
  for (const std::vector<int>& group : kGroups) {
    for (const int64_t dim : {576, 4096}) {
      SCOPED_TRACE(testing::Message() << group.size() << " ranks, dim " << dim);
      PeerRanks ranks(group, 4, dim);
      ranks.set_overlap(true);
      fill(ranks, {2, dim});
      std::vector<cuda::Graph> graphs(group.size());
      ranks.each([&](int r) {
        cuda::Graph::begin(ranks.at(r).stream);
        for (int i = 0; i < 10; ++i) launch(r, 2);
        graphs[static_cast<size_t>(r)] = cuda::Graph::end(ranks.at(r).stream);
      });
      std::vector<float> expected = x_;
      for (int replay = 0; replay < 11; ++replay) {
        ranks.each([&](int r) { graphs[static_cast<size_t>(r)].launch(ranks.at(r).stream); });
        if (replay == 5) launch_all(2);  // between two replays
        for (int i = 0; i < (replay == 5 ? 11 : 10); ++i) add_on_host(expected, 2);
      }
      ranks.wait();
      expect_all(expected);
    }
  }
}

TEST_F(PeerSum, OfHugeTinyAndBrokenRows) {
  PeerRanks ranks({0, 0}, 8, 4096);
  fill(ranks, {6, 4096});
  for (size_t i = 0; i < 4096; ++i) {
    for (auto* values : {&partials_[0], &partials_[1], &x_}) {
      (*values)[i] *= 1e30f;          // squares overflow a float: they add up in double
      (*values)[4096 + i] *= 1e-30f;  // and vanish
      (*values)[3 * 4096 + i] = 0.0f;
    }
  }
  partials_[1][2 * 4096 + 77] = HUGE_VALF;
  for (size_t r = 0; r < 2; ++r) {
    buffers_[r] = std::make_unique<Buffers>(case_, partials_[r], x_, weight_);
  }
  launch_all(6);
  ranks.wait();
  std::vector<float> expected = x_;
  add_on_host(expected, 6);
  expect_all(expected);
}

TEST_F(PeerSum, AbortEndsAKernelWhosePeerNeverComes) {
  expect_abort_ends(1);
  expect_abort_ends(70);
}

TEST_F(PeerSum, NoRowsAreLegal) {
  PeerRanks ranks({0, 0}, 8, 64);
  fill(ranks, {1, 64});
  launch_all(0);
  ranks.wait();
  EXPECT_TRUE(same_bytes(buffers_[0]->x.values(), x_));
}

TEST_F(PeerSum, AcrossTwoGpus) {
  if (cuda::visible_devices().size() < 2) GTEST_SKIP() << "needs two GPUs";
  for (const int64_t dim : {576, 4096, 8192}) {
    PeerRanks ranks({0, 1}, 600, dim);
    ranks.set_overlap(true);
    for (const int64_t rows : {1, 5, 8, 64, 65, 512, 600}) check(ranks, {rows, dim, rows != 5});
    fill(ranks, {64, dim});
    std::vector<float> expected = x_;
    ranks.each([&](int r) {
      for (int time = 0; time < 300; ++time) launch(r, time % 3 == 0 ? 1 : 64);
      launch(r, 64);
    });
    ranks.wait();
    for (int time = 0; time < 300; ++time) add_on_host(expected, time % 3 == 0 ? 1 : 64);
    add_on_host(expected, 64);
    expect_all(expected);
  }
}

TEST(PeerPattern, CountsEveryWrongWord) {
  const cuda_test::Runner gpu;
  const int64_t n = 300001;
  const OnDevice<uint32_t> words(n);
  const OnDevice<uint32_t> wrong(std::vector<uint32_t>(1, 0));
  cuda::count_wrong(gpu.exec, words.data(), n, 7, wrong.data());
  gpu.wait();
  EXPECT_GE(wrong.values()[0], static_cast<uint32_t>(n - 1));  // poison is no pattern
  cuda::fill_zero(gpu.stream, wrong.data(), 4);
  cuda::write_pattern(gpu.exec, words.data(), n, 7);
  cuda::count_wrong(gpu.exec, words.data(), n, 7, wrong.data());
  gpu.wait();
  EXPECT_EQ(wrong.values()[0], 0u);
  cuda::fill_zero(gpu.stream, words.data() + n - 1, 4);
  cuda::copy_on_device(gpu.stream, words.data() + 5, words.data() + 6, 4);
  cuda::count_wrong(gpu.exec, words.data(), n, 7, wrong.data());
  gpu.wait();
  EXPECT_EQ(wrong.values()[0], 2u);
}

}  // namespace
}  // namespace spillway
