// Rows of pixels of the images that a caller passes as a list.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

#include "resample.h"

namespace dogs_accel {

// The same images, those copied whose pixels are not R, G, B and then the next.
inline std::vector<torch::stable::Tensor> with_whole_pixels(const std::vector<torch::stable::Tensor>& images) {
  std::vector<torch::stable::Tensor> whole;
  for (const torch::stable::Tensor& image : images) {
    whole.push_back(image.stride(2) == 1 && image.stride(1) == 3 ? image : torch::stable::contiguous(image));
  }
  return whole;
}

inline Rows rows_of(const torch::stable::Tensor& image) {
  return {static_cast<const uint8_t*>(image.const_data_ptr()), image.stride(0), static_cast<int32_t>(image.size(0)),
          static_cast<int32_t>(image.size(1))};
}

}  // namespace dogs_accel
