// A large output is fresh memory, which the system hands out page by page when it is first written to.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dogs_accel {

// Asks for pages of 2 MiB instead of 4 KiB, of which a batch has thousands. It is a hint, and nothing fails without.
inline void prefer_huge_pages(void* memory, int64_t num_bytes) {
#if defined(__linux__)
  constexpr uintptr_t page_size = uintptr_t{1} << 21;
  const auto begin = (reinterpret_cast<uintptr_t>(memory) + page_size - 1) / page_size * page_size;
  const auto end = (reinterpret_cast<uintptr_t>(memory) + num_bytes) / page_size * page_size;
  if (begin < end) {
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#endif
}

}  // namespace dogs_accel
