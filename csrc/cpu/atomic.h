// How threads put what they have found into one result.
#pragma once

#include <atomic>
#include <cstdint>

namespace dogs_accel {

inline void add_atomically(int64_t& target, int64_t value) {
  std::atomic_ref<int64_t>(target).fetch_add(value, std::memory_order_relaxed);
}

// Of -1, which stands for none, and values from 0 on.
inline void lower_atomically(int64_t& target, int64_t value) {
  std::atomic_ref<int64_t> current(target);
  int64_t seen = current.load(std::memory_order_relaxed);
  while ((seen < 0 || value < seen) && !current.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

}  // namespace dogs_accel
