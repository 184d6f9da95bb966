// Atomic additions of the threads' own sums to the output.
#pragma once

#include <atomic>
#include <cstdint>

namespace dogs_accel {

inline void add_atomically(int64_t& target, int64_t value) {
  std::atomic_ref<int64_t>(target).fetch_add(value, std::memory_order_relaxed);
}

}  // namespace dogs_accel
