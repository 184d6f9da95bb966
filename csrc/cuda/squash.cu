// CUDA kernel of squash: up to 64 images a launch, whose addresses and sizes are kernel parameters, so that nothing is
// copied and nothing waits.

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "../checks/squash.h"
#include "launch.h"
#include "resample.h"

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int images_per_launch = 64;
constexpr size_t max_parameter_bytes = 4096;

// An image and where in `words` its tables are, the horizontal one before the vertical one.
struct Image {
  const uint8_t* pixels;
  int64_t row_stride, column_stride, channel_stride;
  int64_t tables;
  int32_t height, width;
};

// The images of one launch, and what they become.
struct Images {
  Image image[images_per_launch];
  int32_t* words;
  uint8_t* out;
  int32_t height, width;
  Interpolation interpolation;
  int blocks_per_image;

  DOGS_ACCEL_HOST_DEVICE Axis horizontal(int i) const { return axis_of(image[i].width, width, interpolation); }
  DOGS_ACCEL_HOST_DEVICE Axis vertical(int i) const { return axis_of(image[i].height, height, interpolation); }

  DOGS_ACCEL_HOST_DEVICE WeightTable horizontal_table(int i) const { return {words + image[i].tables, width}; }
  DOGS_ACCEL_HOST_DEVICE WeightTable vertical_table(int i) const {
    return {words + image[i].tables + table_size(horizontal(i)), height};
  }
};
static_assert(sizeof(Images) <= max_parameter_bytes);

// A block for each axis of each image.
__global__ void __launch_bounds__(threads_per_block) fill_tables(const __grid_constant__ Images images) {
  const int i = static_cast<int>(blockIdx.x) / 2;
  if (blockIdx.x % 2 == 0) {
    fill_table(images.horizontal(i), images.horizontal_table(i));
  } else {
    fill_table(images.vertical(i), images.vertical_table(i));
  }
}

__global__ void __launch_bounds__(threads_per_block) resample_images(const __grid_constant__ Images images) {
  const int i = static_cast<int>(blockIdx.x) / images.blocks_per_image;
  const int first_pixel = (static_cast<int>(blockIdx.x) % images.blocks_per_image) * threads_per_block;
  const int num_pixels = images.height * images.width, pixel = first_pixel + static_cast<int>(threadIdx.x);
  const Image& image = images.image[i];
  const ResampledImage resampled{
      image.pixels,
      image.channel_stride,
      {images.horizontal_table(i), image.column_stride},
      {images.vertical_table(i), image.row_stride},
      is_vertical_first(image.height, image.width, images.height, images.width),
  };
  Channels channels{};
  if (pixel < num_pixels) {
    channels = resampled.pixel(pixel % images.width, pixel / images.width);
  }
  store_pixels(static_cast<uint8_t>(channels.r), static_cast<uint8_t>(channels.g), static_cast<uint8_t>(channels.b),
               min(threads_per_block, num_pixels - first_pixel),
               images.out + (static_cast<int64_t>(i) * num_pixels + first_pixel) * 3);
}

Image view_of(const Tensor& tensor) {
  return {static_cast<const uint8_t*>(tensor.const_data_ptr()),
          tensor.stride(0),
          tensor.stride(1),
          tensor.stride(2),
          0,
          static_cast<int32_t>(tensor.size(0)),
          static_cast<int32_t>(tensor.size(1))};
}

// (N, height, width, 3) uint8.
Tensor squash(const std::vector<Tensor>& tensors, int64_t height, int64_t width, const std::string& interpolation_name,
              int64_t num_threads) {
  check_squash(tensors, height, width, num_threads);
  const Interpolation interpolation = checked_interpolation(interpolation_name);
  const torch::stable::accelerator::DeviceGuard guard(tensors[0].get_device_index());
  const cudaStream_t stream = current_stream(tensors[0]);
  const auto num_images = static_cast<int64_t>(tensors.size());
  const Tensor out = torch::stable::new_empty(tensors[0], {num_images, height, width, 3});
  const int64_t num_pixels = height * width;
  for (int64_t begin = 0; begin < num_images; begin += images_per_launch) {
    const int size = static_cast<int>(std::min<int64_t>(images_per_launch, num_images - begin));
    Images images{};
    images.out = static_cast<uint8_t*>(out.mutable_data_ptr()) + begin * num_pixels * 3;
    images.height = static_cast<int32_t>(height);
    images.width = static_cast<int32_t>(width);
    images.interpolation = interpolation;
    images.blocks_per_image = static_cast<int>(ceil_div(num_pixels, threads_per_block));
    int64_t num_words = 0;
    for (int i = 0; i < size; ++i) {
      images.image[i] = view_of(tensors[begin + i]);
      images.image[i].tables = num_words;
      num_words += table_size(images.horizontal(i)) + table_size(images.vertical(i));
    }
    const Tensor words = torch::stable::new_empty(tensors[0], {num_words}, ScalarType::Int);
    images.words = static_cast<int32_t*>(words.mutable_data_ptr());
    fill_tables<<<2 * size, threads_per_block, 0, stream>>>(images);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    resample_images<<<size * images.blocks_per_image, threads_per_block, 0, stream>>>(images);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return out;
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CUDA, m) { m.impl("squash", TORCH_BOX(&dogs_accel::squash)); }
