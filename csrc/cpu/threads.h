// How many threads share the images of a call.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

namespace dogs_accel {

// Calls body(begin, end) for ranges of images, one a thread: at most `num_threads` and never more than torch uses,
// which is also what 0 means. A loader whose decoder has threads of its own asks for fewer.
template <class Body>
void share_images(int64_t num_images, int64_t num_threads, const Body& body) {
  // Rounded up without a sum, which a very large number of threads would make overflow.
  const int64_t grain = num_threads > 0 ? num_images / num_threads + (num_images % num_threads != 0) : 1;
  torch::stable::parallel_for(0, num_images, std::max<int64_t>(1, grain), body);
}

}  // namespace dogs_accel
