// CUDA kernel of squash.

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../checks/squash.h"
#include "launch.h"
#include "resize.h"

namespace dogs_accel {
namespace {

using torch::stable::Tensor;

// (N, height, width, 3) uint8.
Tensor squash(const std::vector<Tensor>& images, int64_t height, int64_t width, const std::string& interpolation_name,
              int64_t num_threads) {
  check_squash(images, height, width, num_threads);
  const Interpolation interpolation = checked_interpolation(interpolation_name);
  const torch::stable::accelerator::DeviceGuard guard(images[0].get_device_index());
  const Tensor out = torch::stable::new_empty(images[0], {static_cast<int64_t>(images.size()), height, width, 3});
  auto* const bytes = static_cast<uint8_t*>(out.mutable_data_ptr());
  std::vector<Resize> resizes;
  for (size_t i = 0; i < images.size(); ++i) {
    resizes.push_back({image_of(images[i]), bytes + static_cast<int64_t>(i) * height * width * 3,
                       static_cast<int32_t>(height), static_cast<int32_t>(width), 0});
  }
  resize_images(resizes, interpolation, images[0], current_stream(images[0]));
  return out;
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CUDA, m) { m.impl("squash", TORCH_BOX(&dogs_accel::squash)); }
