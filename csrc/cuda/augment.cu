// CUDA kernel of augment, a thread an output pixel and no host synchronisation. The first of three launches reads the
// parameters and fills the tables of weights; the second goes from the stored bytes to the output, or as far as
// contrast, which needs the mean over an image; the third begins there. Between these two, the output holds bytes.

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "../augment.h"
#include "../checks/augment.h"
#include "../normalisation.h"
#include "launch.h"
#include "resample.h"

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// What a sample's index and row of params come to.
struct Sample {
  const uint8_t* pixels;  // of the crop; null where a value cannot be
  int32_t crop_height, crop_width;
  bool is_mirrored;
  FixedAffine affine;
  Steps steps;
  int32_t erase_top, erase_left, erase_bottom, erase_right;
  Counter grey_sum;

  __device__ bool erases(int32_t x, int32_t y) const {
    return y >= erase_top && y < erase_bottom && x >= erase_left && x < erase_right;
  }
};

// Of one call. Each sample has two tables of weights, the horizontal one before the vertical one.
struct Batch {
  const uint8_t* images;
  int64_t num_images, image_stride, row_stride;
  const int64_t* index;
  const AugmentParams* params;
  AugmentSettings settings;
  Sample* samples;
  int32_t* words;
  int64_t words_per_sample, vertical_table;
  int64_t blocks_per_sample;

  __device__ Axis horizontal(const Sample& sample) const {
    return axis_of(sample.crop_width, settings.size, settings.interpolation);
  }
  __device__ Axis vertical(const Sample& sample) const {
    return axis_of(sample.crop_height, settings.size, settings.interpolation);
  }
  __device__ WeightTable horizontal_table_of(int64_t i) const { return {words + i * words_per_sample, settings.size}; }
  __device__ WeightTable vertical_table_of(int64_t i) const {
    return {words + i * words_per_sample + vertical_table, settings.size};
  }
  __device__ int32_t num_pixels() const { return settings.size * settings.size; }
};

__device__ Sample sample_of(const Batch& batch, int64_t i) {
  Sample sample{};
  const AugmentParams params = batch.params[i];
  const int64_t index = batch.index[i];
  if (index < 0 || index >= batch.num_images || bad_params(params, batch.settings) != BadParams::none) {
    return sample;
  }
  sample.pixels = batch.images + index * batch.image_stride + static_cast<int64_t>(params.crop.top) * batch.row_stride +
                  static_cast<int64_t>(params.crop.left) * 3;
  sample.crop_height = static_cast<int32_t>(params.crop.height);
  sample.crop_width = static_cast<int32_t>(params.crop.width);
  sample.is_mirrored = params.flip != 0;
  sample.affine = fixed_affine(params.matrix);
  sample.steps = steps_of(params);
  sample.erase_top = static_cast<int32_t>(params.erase.top);
  sample.erase_left = static_cast<int32_t>(params.erase.left);
  sample.erase_bottom = sample.erase_top + static_cast<int32_t>(params.erase.height);
  sample.erase_right = sample.erase_left + static_cast<int32_t>(params.erase.width);
  return sample;
}

// A block a sample.
__global__ void __launch_bounds__(threads_per_block) read_params(const Batch batch) {
  const int64_t i = blockIdx.x;
  __shared__ Sample sample;
  if (threadIdx.x == 0) {
    sample = sample_of(batch, i);
    batch.samples[i] = sample;
  }
  __syncthreads();
  if (sample.pixels != nullptr) {
    fill_table(batch.horizontal(sample), batch.horizontal_table_of(i));
    fill_table(batch.vertical(sample), batch.vertical_table_of(i));
  }
}

// The pixels of one sample that a block has, a thread each.
struct Part {
  int64_t sample;
  int32_t first_pixel, num_pixels;  // num_pixels is a block's, except at the end of a sample
  int32_t pixel, x, y;

  __device__ explicit Part(const Batch& batch)
      : sample(blockIdx.x / batch.blocks_per_sample),
        first_pixel(static_cast<int32_t>(blockIdx.x % batch.blocks_per_sample) * threads_per_block),
        num_pixels(min(threads_per_block, batch.num_pixels() - first_pixel)),
        pixel(first_pixel + static_cast<int32_t>(threadIdx.x)),
        x(pixel % batch.settings.size),
        y(pixel / batch.settings.size) {}

  __device__ bool has_pixel() const { return static_cast<int32_t>(threadIdx.x) < num_pixels; }

  // Where in the output its pixels are, counted in values.
  __device__ int64_t first_value(const Batch& batch) const { return (sample * batch.num_pixels() + first_pixel) * 3; }
};

// Cropped, resized, flipped and rotated; black where it comes from outside.
__device__ uint32_t moved_pixel(const Batch& batch, const Sample& sample, const Part& part) {
  const int32_t size = batch.settings.size;
  const int32_t from_x = sample.affine.from_x(part.x, part.y), from_y = sample.affine.from_y(part.x, part.y);
  if (from_x < 0 || from_x >= size || from_y < 0 || from_y >= size) {
    return 0;
  }
  const ResampledImage resampled{
      sample.pixels,
      /*channel_stride=*/1,
      {batch.horizontal_table_of(part.sample), /*stride=*/3},
      {batch.vertical_table_of(part.sample), batch.row_stride},
      is_vertical_first(sample.crop_height, sample.crop_width, size, size),
  };
  const Channels channels = resampled.pixel(sample.is_mirrored ? size - 1 - from_x : from_x, from_y);
  return static_cast<uint32_t>(channels.r | channels.g << 8 | channels.b << 16);
}

__device__ uint32_t apply_steps(const Steps& steps, int begin, int end, int32_t mean, uint32_t pixel) {
  for (int i = begin; i < end; ++i) {
    pixel = jittered(steps.jitter[i], pixel, mean, steps.factor[i]);
  }
  return pixel;
}

// Adds what the threads of a block have; at most 2^24 of them all.
__device__ void add_of_block(uint32_t value, Counter* sum) {
  __shared__ unsigned int block_sum;
  if (threadIdx.x == 0) {
    block_sum = 0;
  }
  __syncthreads();
  for (int offset = warp_size / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(whole_warp, value, offset);
  }
  if (threadIdx.x % warp_size == 0) {
    atomicAdd(&block_sum, value);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicAdd(sum, static_cast<Counter>(block_sum));
  }
}

template <class Value>
__device__ void store_finished(uint32_t pixel, bool is_erased, const MeanAndStd& normalisation, int num_pixels,
                               typename BitsOf<Value>::type* out) {
  const auto bits = [&](int channel, uint32_t byte) {
    return bits_of<Value>(is_erased ? 0.0f : normalisation.normalised(channel, static_cast<int>(byte)));
  };
  store_pixels(bits(0, red(pixel)), bits(1, green(pixel)), bits(2, blue(pixel)), num_pixels, out);
}

template <class Value>
__global__ void __launch_bounds__(threads_per_block)
    augment_pixels(const Batch batch, const MeanAndStd normalisation, typename BitsOf<Value>::type* out) {
  using Bits = typename BitsOf<Value>::type;
  const Part part(batch);
  Sample& sample = batch.samples[part.sample];
  out += part.first_value(batch);
  if (sample.pixels == nullptr) {
    const Bits nan = bits_of<Value>(std::numeric_limits<float>::quiet_NaN());
    return store_pixels(nan, nan, nan, part.num_pixels, out);
  }
  const Steps& steps = sample.steps;
  uint32_t pixel = part.has_pixel() ? moved_pixel(batch, sample, part) : 0;
  pixel = apply_steps(steps, 0, steps.first_of_second_pass, 0, pixel);
  if (steps.need_mean()) {
    add_of_block(part.has_pixel() ? grey(pixel) : 0, &sample.grey_sum);
    store_pixels(static_cast<Bits>(red(pixel)), static_cast<Bits>(green(pixel)), static_cast<Bits>(blue(pixel)),
                 part.num_pixels, out);
  } else {
    store_finished<Value>(pixel, sample.erases(part.x, part.y), normalisation, part.num_pixels, out);
  }
}

template <class Value>
__global__ void __launch_bounds__(threads_per_block)
    finish_pixels(const Batch batch, const MeanAndStd normalisation, typename BitsOf<Value>::type* out) {
  const Part part(batch);
  const Sample& sample = batch.samples[part.sample];
  const Steps& steps = sample.steps;
  if (sample.pixels == nullptr || !steps.need_mean()) {
    return;
  }
  out += part.first_value(batch);
  uint32_t pixel = 0;
  if (part.has_pixel()) {
    const auto* bytes = out + 3 * threadIdx.x;
    pixel = bytes[0] | static_cast<uint32_t>(bytes[1]) << 8 | static_cast<uint32_t>(bytes[2]) << 16;
  }
  const int32_t mean = mean_of(static_cast<int64_t>(sample.grey_sum), batch.num_pixels());
  pixel = apply_steps(steps, steps.first_of_second_pass, steps.size, mean, pixel);
  store_finished<Value>(pixel, sample.erases(part.x, part.y), normalisation, part.num_pixels, out);
}

// A grid of 2^31 blocks would need more memory for its output than there is.
void launch(const Batch& batch, int64_t num_samples, const MeanAndStd& normalisation, const Tensor& out,
            cudaStream_t stream) {
  read_params<<<static_cast<unsigned int>(num_samples), threads_per_block, 0, stream>>>(batch);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  const auto blocks = static_cast<unsigned int>(num_samples * batch.blocks_per_sample);
  with_output_type(out.scalar_type(), [&](auto value) {
    using Value = decltype(value);
    auto* const bits = static_cast<typename BitsOf<Value>::type*>(out.mutable_data_ptr());
    augment_pixels<Value><<<blocks, threads_per_block, 0, stream>>>(batch, normalisation, bits);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    finish_pixels<Value><<<blocks, threads_per_block, 0, stream>>>(batch, normalisation, bits);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

// (B, 3, size, size), channels last.
Tensor augment(const Tensor& images, const Tensor& any_index, const Tensor& any_params, int64_t size,
               const std::vector<double>& mean, const std::vector<double>& std, const std::string& interpolation,
               ScalarType dtype, int64_t num_threads) {
  check_augment(images, any_index, any_params, size, mean, std, dtype, num_threads);
  const AugmentSettings settings{static_cast<int32_t>(images.size(1)), static_cast<int32_t>(images.size(2)),
                                 static_cast<int32_t>(size), checked_interpolation(interpolation)};
  const torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  const Tensor index = torch::stable::contiguous(any_index), params = torch::stable::contiguous(any_params);
  const int64_t num_samples = index.size(0);
  const Tensor out = torch::stable::new_empty(images, {num_samples, size, size, 3}, dtype);
  if (num_samples > 0) {  // a grid of no blocks is a launch error
    // No crop has more taps than the whole image.
    const int64_t vertical_table = table_size(axis_of(settings.width, settings.size, settings.interpolation));
    const int64_t words_per_sample =
        vertical_table + table_size(axis_of(settings.height, settings.size, settings.interpolation));
    const Tensor words = torch::stable::new_empty(images, {num_samples, words_per_sample}, ScalarType::Int);
    const Tensor samples = torch::stable::new_empty(images, {num_samples, sizeof(Sample)}, ScalarType::Byte);
    const Batch batch{static_cast<const uint8_t*>(images.const_data_ptr()),
                      images.size(0),
                      images.stride(0),
                      images.stride(1),
                      static_cast<const int64_t*>(index.const_data_ptr()),
                      static_cast<const AugmentParams*>(params.const_data_ptr()),
                      settings,
                      static_cast<Sample*>(samples.mutable_data_ptr()),
                      static_cast<int32_t*>(words.mutable_data_ptr()),
                      words_per_sample,
                      vertical_table,
                      ceil_div(size * size, threads_per_block)};
    launch(batch, num_samples, MeanAndStd(mean, std), out, current_stream(images));
  }
  return channels_last(out);
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CUDA, m) { m.impl("augment", TORCH_BOX(&dogs_accel::augment)); }
