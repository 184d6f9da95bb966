// Images resized on the device, each to a size of its own: many a launch, whose addresses and sizes are kernel
// parameters, so that nothing is copied and nothing waits.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "launch.h"
#include "resample.h"

namespace dogs_accel {

constexpr size_t max_parameter_bytes = 4096;

// Of a tensor that check_images has accepted.
inline Image image_of(const torch::stable::Tensor& tensor) {
  return {static_cast<const uint8_t*>(tensor.const_data_ptr()),
          tensor.stride(0),
          tensor.stride(1),
          tensor.stride(2),
          static_cast<int32_t>(tensor.size(0)),
          static_cast<int32_t>(tensor.size(1))};
}

// An image and what it becomes: (height, width, 3) at `out`.
struct Resize {
  Image image;
  uint8_t* out;
  int32_t height, width;
  int64_t tables;  // where in `words` its tables are, the horizontal one before the vertical one
};

// Those of one launch.
struct Resizes {
  static constexpr int max_size = 60;

  Resize resize[max_size];
  int32_t* words;
  Interpolation interpolation;

  DOGS_ACCEL_HOST_DEVICE Axis horizontal(int i) const {
    return axis_of(resize[i].image.width, resize[i].width, interpolation);
  }
  DOGS_ACCEL_HOST_DEVICE Axis vertical(int i) const {
    return axis_of(resize[i].image.height, resize[i].height, interpolation);
  }
  DOGS_ACCEL_HOST_DEVICE WeightTable horizontal_table(int i) const {
    return {words + resize[i].tables, resize[i].width};
  }
  DOGS_ACCEL_HOST_DEVICE WeightTable vertical_table(int i) const {
    return {words + resize[i].tables + table_size(horizontal(i)), resize[i].height};
  }
};
static_assert(sizeof(Resizes) <= max_parameter_bytes);

// A block for each axis of each image.
static __global__ void __launch_bounds__(threads_per_block) fill_tables(const __grid_constant__ Resizes resizes) {
  const int i = static_cast<int>(blockIdx.x) / 2;
  if (blockIdx.x % 2 == 0) {
    fill_table(resizes.horizontal(i), resizes.horizontal_table(i));
  } else {
    fill_table(resizes.vertical(i), resizes.vertical_table(i));
  }
}

// Along y there is an image, along x its pixels.
static __global__ void __launch_bounds__(threads_per_block) resample_images(const __grid_constant__ Resizes resizes) {
  const int i = static_cast<int>(blockIdx.y);
  const Resize& resize = resizes.resize[i];
  const int num_pixels = resize.height * resize.width;
  const int first_pixel = static_cast<int>(blockIdx.x) * threads_per_block;
  const int pixel = first_pixel + static_cast<int>(threadIdx.x);
  if (first_pixel >= num_pixels) {
    return;
  }
  Channels channels{};
  if (pixel < num_pixels) {
    const Image& image = resize.image;
    channels =
        resampled_pixel(resizes.horizontal_table(i), resizes.vertical_table(i),
                        is_vertical_first(image.height, image.width, resize.height, resize.width), pixel % resize.width,
                        pixel / resize.width, [&](int32_t x, int32_t y) { return image.pixel(x, y); });
  }
  store_pixels(static_cast<uint8_t>(channels.r), static_cast<uint8_t>(channels.g), static_cast<uint8_t>(channels.b),
               min(threads_per_block, num_pixels - first_pixel), resize.out + static_cast<int64_t>(first_pixel) * 3);
}

// `like` is a tensor of the device, which is the current one. Tables are filled in here.
inline void resize_images(const std::vector<Resize>& all, Interpolation interpolation,
                          const torch::stable::Tensor& like, cudaStream_t stream) {
  for (size_t begin = 0; begin < all.size(); begin += Resizes::max_size) {
    const int size = static_cast<int>(std::min<size_t>(Resizes::max_size, all.size() - begin));
    Resizes resizes{};
    resizes.interpolation = interpolation;
    int64_t num_words = 0, most_blocks = 0;
    for (int i = 0; i < size; ++i) {
      resizes.resize[i] = all[begin + i];
      resizes.resize[i].tables = num_words;
      num_words += table_size(resizes.horizontal(i)) + table_size(resizes.vertical(i));
      const int64_t num_pixels = static_cast<int64_t>(all[begin + i].height) * all[begin + i].width;
      most_blocks = std::max(most_blocks, ceil_div(num_pixels, threads_per_block));
    }
    const torch::stable::Tensor words = torch::stable::new_empty(like, {num_words}, torch::headeronly::ScalarType::Int);
    resizes.words = static_cast<int32_t*>(words.mutable_data_ptr());
    fill_tables<<<2 * size, threads_per_block, 0, stream>>>(resizes);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    const dim3 blocks(static_cast<unsigned int>(most_blocks), static_cast<unsigned int>(size));
    resample_images<<<blocks, threads_per_block, 0, stream>>>(resizes);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

}  // namespace dogs_accel
