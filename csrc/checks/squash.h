// What squash accepts.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../resample.h"
#include "common.h"
#include "images.h"
#include "resample.h"

namespace dogs_accel {

inline void check_squash(const std::vector<torch::stable::Tensor>& images, int64_t height, int64_t width,
                         int64_t num_threads) {
  check_num_threads(num_threads);
  check(height >= 1 && height <= max_size, "height: got ", height, ", expected 1 to ", max_size);
  check(width >= 1 && width <= max_size, "width: got ", width, ", expected 1 to ", max_size);
  check_images(images);
  for (size_t i = 0; i < images.size(); ++i) {
    check(images[i].size(0) <= max_side && images[i].size(1) <= max_side, "images[", i, "]: got shape ",
          shape_of(images[i]), ", expected sides of at most ", max_side);
  }
}

}  // namespace dogs_accel
