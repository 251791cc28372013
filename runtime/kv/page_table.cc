// See page_table.h.
#include "runtime/kv/page_table.h"

#include "kernels/core/check.h"
#include "kernels/core/int_math.h"

namespace spillway {

PageTable::PageTable(int64_t n_pages, int64_t page_tokens, int64_t max_sequences)
    : n_pages_(n_pages), page_tokens_(page_tokens), slots_(static_cast<size_t>(max_sequences)) {
  free_.reserve(static_cast<size_t>(n_pages));
  for (int64_t page = n_pages - 1; page >= 0; --page) free_.push_back(static_cast<int32_t>(page));
  for (std::vector<int32_t>& slot : slots_) slot.reserve(static_cast<size_t>(n_pages));
}

bool PageTable::reserve(int64_t slot, int64_t tokens) {
  std::vector<int32_t>& pages = slots_.at(static_cast<size_t>(slot));
  const int64_t wanted = div_up(tokens, page_tokens_) - static_cast<int64_t>(pages.size());
  if (wanted > free_pages()) return false;
  for (int64_t i = 0; i < wanted; ++i) {
    pages.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void PageTable::release(int64_t slot) {
  std::vector<int32_t>& pages = slots_.at(static_cast<size_t>(slot));
  // Backwards, so that the next sequence gets the same pages in the same order.
  while (!pages.empty()) {
    free_.push_back(pages.back());
    pages.pop_back();
  }
}

std::span<const int32_t> PageTable::pages(int64_t slot) const {
  return slots_.at(static_cast<size_t>(slot));
}

}  // namespace spillway
