// Rows that go from one stream's memory to another's through two slots: both ends in one process on
// one GPU. What arrives is what was sent, hop for hop, by launches and by a graph that is replayed,
// however far one end is ahead of the other.
#include "kernels/cuda/hop.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <utility>

#include "tests/support/cuda_row_fixtures.h"

namespace spillway {
namespace {

using cuda_test::OnDevice;

constexpr int64_t kMostRows = 300;

class Hop : public testing::Test {
 protected:
  struct End {
    explicit End(bool receives, int64_t dim)
        : memory("test", cuda::hop_layout(receives, kMostRows, dim).bytes) {
      exec.stream = stream.handle();
      exec.major = cuda_test::device().major;
      exec.multiprocessors = cuda_test::device().multiprocessors;
    }
    cuda::Stream stream;
    cuda::Exec exec;
    cuda::DeviceMemory memory;
  };

  // A sender and two receivers.
  void connect(int64_t dim) {
    dim_ = dim;
    words_ = cuda::PinnedMemory("test", 256);
    std::memset(words_.data(), 0, 256);
    const cuda::HopHost host{word(0), word(128)};
    sender_ = std::make_unique<End>(false, dim);
    to_ = {};
    to_.n_links = 2;
    to_.slot_floats = kMostRows * dim;
    to_.host = host;
    for (int link = 0; link < 2; ++link) {
      receivers_[link] = std::make_unique<End>(true, dim);
      std::byte* own = sender_->memory.data();
      std::byte* other = receivers_[link]->memory.data();
      to_.to[link] = cuda::hop_to(own, other, link, kMostRows, dim);
      from_[link] = cuda::hop_from(other, own, link, kMostRows, dim, host);
    }
    load_kernels();
  }
  // CUDA loads a kernel at its first launch, and waits for those that run: which must not be one
  // that waits for the other.
  void load_kernels() {
    static bool loaded = false;
    if (std::exchange(loaded, true)) return;
    OnDevice<float> x(rows_of(0));
    push(x, 1);
    sender_->stream.synchronize();
    for (int link = 0; link < 2; ++link) take(link, x, 1);
    wait();
  }
  uint32_t* word(int64_t at) { return reinterpret_cast<uint32_t*>(words_.data() + at); }
  volatile uint32_t& abort_word() { return *word(0); }
  volatile uint32_t& waits_word() { return *word(128); }

  void push(OnDevice<float>& x, int64_t rows) {
    cuda::hop_push(sender_->exec, to_, View2D<const float>(x.data(), rows, dim_));
  }
  void take(int link, OnDevice<float>& x, int64_t rows) {
    cuda::hop_take(receivers_[link]->exec, from_[link], View2D<float>(x.data(), rows, dim_));
  }
  void wait() {
    sender_->stream.synchronize();
    for (const auto& receiver : receivers_) receiver->stream.synchronize();
  }
  std::vector<float> rows_of(int hop) const {
    std::vector<float> x(static_cast<size_t>(kMostRows * dim_));
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = static_cast<float>((i * 7 + static_cast<size_t>(hop) * 1009) % 65536);
    }
    return x;
  }
  static std::vector<float> head(const std::vector<float>& x, int64_t n) {
    return {x.begin(), x.begin() + n};
  }

  int64_t dim_ = 0;
  cuda::PinnedMemory words_;
  std::unique_ptr<End> sender_;
  std::unique_ptr<End> receivers_[2];
  cuda::HopSender to_;
  cuda::HopReceiver from_[2];
};

TEST_F(Hop, RowsArriveInOrderWithTwoSlots) {
  for (const int64_t dim : {4, 96, 4096}) {
    connect(dim);
    const std::vector<int64_t> sizes = {1, kMostRows, 7, kMostRows, kMostRows, 1, 64};
    std::vector<std::unique_ptr<OnDevice<float>>> sent;
    std::vector<std::unique_ptr<OnDevice<float>>> got;
    const std::vector<float> poison(static_cast<size_t>(kMostRows * dim), -7.0f);
    for (size_t hop = 0; hop < sizes.size(); ++hop) {
      sent.push_back(std::make_unique<OnDevice<float>>(rows_of(static_cast<int>(hop))));
      for (int link = 0; link < 2; ++link) {
        got.push_back(std::make_unique<OnDevice<float>>(poison));
      }
    }
    // The sender gets two hops ahead and waits there; the first receiver waits for the second.
    for (size_t hop = 0; hop < sizes.size(); ++hop) push(*sent[hop], sizes[hop]);
    for (int link = 0; link < 2; ++link) {
      for (size_t hop = 0; hop < sizes.size(); ++hop) {
        take(link, *got[2 * hop + static_cast<size_t>(link)], sizes[hop]);
      }
    }
    wait();
    for (size_t hop = 0; hop < sizes.size(); ++hop) {
      const std::vector<float> expected = rows_of(static_cast<int>(hop));
      const int64_t n = sizes[hop] * dim;
      for (size_t link = 0; link < 2; ++link) {
        const std::vector<float> x = got[2 * hop + link]->values();
        EXPECT_EQ(head(x, n), head(expected, n)) << "hop " << hop << " dim " << dim;
        for (size_t i = static_cast<size_t>(n); i < x.size(); ++i) ASSERT_EQ(x[i], -7.0f);
      }
    }
  }
}

TEST_F(Hop, ATakeWaitsForItsRowsAndSaysSo) {
  connect(96);
  OnDevice<float> x(rows_of(3));
  OnDevice<float> first(rows_of(0));
  OnDevice<float> second(rows_of(0));
  take(0, first, kMostRows);
  take(1, second, kMostRows);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (waits_word() == 0 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_EQ(waits_word(), cuda::kWaitsForRows);
  push(x, kMostRows);
  wait();
  EXPECT_EQ(first.values(), rows_of(3));
  EXPECT_EQ(second.values(), rows_of(3));
  EXPECT_EQ(waits_word(), 0u);
}

TEST_F(Hop, ReplaysOfAGraphGoOnCounting) {
  connect(96);
  OnDevice<float> x(rows_of(0));
  OnDevice<float> first(rows_of(0));
  OnDevice<float> second(rows_of(0));
  std::vector<cuda::Graph> graphs;
  cuda::Graph::begin(sender_->stream);
  push(x, 5);
  graphs.push_back(cuda::Graph::end(sender_->stream));
  cuda::Graph::begin(receivers_[0]->stream);
  take(0, first, 5);
  graphs.push_back(cuda::Graph::end(receivers_[0]->stream));
  cuda::Graph::begin(receivers_[1]->stream);
  take(1, second, 5);
  graphs.push_back(cuda::Graph::end(receivers_[1]->stream));
  for (int replay = 0; replay < 1000; ++replay) {
    const std::vector<float> now = rows_of(replay);
    cuda::copy_to_device(sender_->stream, x.data(), now.data(), 5 * 96 * 4);
    sender_->stream.synchronize();
    graphs[0].launch(sender_->stream);
    for (int link = 0; link < 2; ++link) {
      graphs[static_cast<size_t>(link) + 1].launch(receivers_[link]->stream);
    }
    if (replay % 100 != 0 && replay < 990) continue;
    wait();
    ASSERT_EQ(head(first.values(), 5 * 96), head(now, 5 * 96)) << replay;
    ASSERT_EQ(head(second.values(), 5 * 96), head(now, 5 * 96)) << replay;
  }
}

TEST_F(Hop, EndsWhenItIsTold) {
  connect(96);
  OnDevice<float> x(rows_of(0));
  take(0, x, 1);
  for (int i = 0; i < 3; ++i) push(x, 1);  // the third finds no slot
  take(0, x, 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(waits_word(), cuda::kWaitsForSlot + 1);  // the second receiver takes none
  abort_word() = 1;
  const auto start = std::chrono::steady_clock::now();
  wait();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

}  // namespace
}  // namespace spillway
