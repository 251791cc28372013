// PageTable: which pages of the KV cache belong to which sequence. Lives on the front; followers
// get page lists with every step. Thread: the engine's. Allocates nothing after construction.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spillway {

class PageTable {
 public:
  PageTable(int64_t n_pages, int64_t page_tokens, int64_t max_sequences);

  // Makes room for `tokens` tokens of the sequence in `slot`. False, and nothing taken, when there
  // are not enough free pages.
  bool reserve(int64_t slot, int64_t tokens);
  // Gives back all pages of the slot.
  void release(int64_t slot);

  std::span<const int32_t> pages(int64_t slot) const;
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  int64_t page_tokens() const { return page_tokens_; }
  int64_t n_pages() const { return n_pages_; }

 private:
  int64_t n_pages_;
  int64_t page_tokens_;
  std::vector<int32_t> free_;                // last one is taken first
  std::vector<std::vector<int32_t>> slots_;  // pages of each sequence, in order of positions
};

}  // namespace spillway
