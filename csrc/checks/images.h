// Lists of images: what image_sums and squash have in common.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common.h"

namespace dogs_accel {

inline void check_images(const std::vector<torch::stable::Tensor>& images) {
  using torch::headeronly::ScalarType;
  constexpr int64_t limit = int64_t{1} << 40;  // sums of 2^23 a pixel fit in 64 bits

  for (size_t i = 0; i < images.size(); ++i) {
    const torch::stable::Tensor& image = images[i];
    check(image.scalar_type() == ScalarType::Byte, "images[", i, "]: got dtype ",
          torch::headeronly::toString(image.scalar_type()), ", expected uint8");
    check(image.dim() == 3 && image.size(2) == 3 && image.size(0) >= 1 && image.size(1) >= 1, "images[", i,
          "]: got shape ", shape_of(image), ", expected (H, W, 3) with H, W >= 1");
    check(image.size(0) <= (limit - 1) / image.size(1), "images[", i, "]: got shape ", shape_of(image),
          ", expected fewer than ", limit, " pixels");
    check(device_of(image) == device_of(images[0]), "images[", i, "]: got device ", device_of(image), ", expected ",
          device_of(images[0]), " as images[0] has");
  }
}

// Of an operator on images that is called without an image, or on a device whose kernels are not loaded.
inline void check_has_kernel(const std::vector<torch::stable::Tensor>& images) {
  if (!images.empty()) {
    check(false, "images[0]: got device ", device_of(images[0]), ", expected one whose kernels are loaded");
  }
}

}  // namespace dogs_accel
