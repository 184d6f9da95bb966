// CUDA kernels of augment and augment_ragged, a thread an output pixel and no host synchronisation. The first launch
// reads the parameters and fills the tables of weights. Then there is a launch for each pass that a sample may have:
// how many it has stands in its parameters, which only the device can read, and a block whose sample has fewer returns
// at once. Between two passes a sample's pixels are words in one of two buffers.

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "../augment.h"
#include "../checks/augment.h"
#include "../normalisation.h"
#include "launch.h"
#include "resample.h"
#include "resize.h"

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int num_histogram_levels = 3 * num_levels;
static_assert(threads_per_block == num_levels);  // a thread a level

// What the steps that begin a pass need of the image before them. All is 0 for no pixels.
struct Statistics {
  Counter grey_sum;
  unsigned int highest[3], highest_inverted[3];  // 255 - lowest
  unsigned int histogram[num_histogram_levels];
};
// A pass reads those of the one before, writes those for the next, and clears those that the one before read.
constexpr int num_statistics = 3;

// By all threads of a block.
__device__ void clear_statistics(Statistics& statistics) {
  if (threadIdx.x == 0) {
    statistics.grey_sum = 0;
  }
  if (threadIdx.x < 3) {
    statistics.highest[threadIdx.x] = statistics.highest_inverted[threadIdx.x] = 0;
  }
  for (int i = threadIdx.x; i < num_histogram_levels; i += threads_per_block) {
    statistics.histogram[i] = 0;
  }
}

// What a sample's row of params comes to.
struct Sample {
  Image image;  // that the crop is of; its pixels are null where a value cannot be
  int32_t crop_top, crop_left, crop_height, crop_width;
  bool is_inside, is_mirrored;
  int32_t num_steps, num_passes;
  int32_t first_step[max_steps + 2];  // of each pass, and where the last one ends
  int32_t erase_top, erase_left, erase_bottom, erase_right;

  __device__ bool erases(int32_t x, int32_t y) const {
    return y >= erase_top && y < erase_bottom && x >= erase_left && x < erase_right;
  }
};

// Of one call. Each sample has two tables of weights, the horizontal one before the vertical one.
struct Batch {
  const uint8_t* images;  // of one size, any of which `index` names; or null, and `ragged` has an image for each sample
  int64_t num_images, image_stride, row_stride;
  const int64_t* index;
  const Image* ragged;
  const double* params;
  int32_t max_num_steps;
  AugmentSettings settings;  // the height and width are of `images`
  Fill fill;
  Sample* samples;
  Step* steps;             // max_num_steps a sample
  Statistics* statistics;  // num_statistics a sample, where there are steps
  uint32_t* words[2];      // an image a sample, where there are steps
  int32_t* tables;
  int64_t horizontal_words, vertical_words;  // of the tables of a sample
  int64_t blocks_per_sample;

  __device__ Axis horizontal(const Sample& sample) const {
    return axis_of(sample.crop_width, settings.size, settings.interpolation);
  }
  __device__ Axis vertical(const Sample& sample) const {
    return axis_of(sample.crop_height, settings.size, settings.interpolation);
  }
  // A crop that is larger than its image may have more taps than there is room for.
  __device__ bool has_tables(const Sample& sample) const {
    return table_size(horizontal(sample)) <= horizontal_words && table_size(vertical(sample)) <= vertical_words;
  }
  __device__ WeightTable horizontal_table_of(int64_t i) const {
    return {tables + i * (horizontal_words + vertical_words), settings.size};
  }
  __device__ WeightTable vertical_table_of(int64_t i) const {
    return {tables + i * (horizontal_words + vertical_words) + horizontal_words, settings.size};
  }
  __device__ int32_t num_pixels() const { return settings.size * settings.size; }
  __device__ Step* steps_of_sample(int64_t i) const { return steps + i * max_num_steps; }
  __device__ Statistics& statistics_of(int64_t i, int pass) const {
    return statistics[i * num_statistics + pass % num_statistics];
  }
  __device__ uint32_t* words_of(int64_t i, int pass) const { return words[pass % 2] + i * num_pixels(); }
};

__device__ Image image_of_sample(const Batch& batch, int64_t i) {
  if (batch.ragged != nullptr) {
    return batch.ragged[i];
  }
  const int64_t index = batch.index[i];
  if (index < 0 || index >= batch.num_images) {
    return {};
  }
  return {
      batch.images + index * batch.image_stride, batch.row_stride, 3, 1, batch.settings.height, batch.settings.width};
}

__device__ void find_passes(const Step* steps, Sample* sample) {
  int pass = 0;
  sample->first_step[0] = 0;
  for (int i = begins_with_affine(steps, sample->num_steps) ? 1 : 0; i < sample->num_steps; ++i) {
    if (steps[i].begins_pass()) {
      sample->first_step[++pass] = i;
    }
  }
  sample->num_passes = pass + 1;
  sample->first_step[pass + 1] = sample->num_steps;
}

__device__ Sample sample_of(const Batch& batch, int64_t i) {
  Sample sample{};
  const ParamsRow row{batch.params + i * num_params(batch.max_num_steps), batch.max_num_steps};
  const Image image = image_of_sample(batch, i);
  AugmentSettings settings = batch.settings;
  settings.height = image.height;
  settings.width = image.width;
  if (image.pixels == nullptr || bad_params(row, settings).what != BadParams::none) {
    return sample;
  }
  const Box crop = row.crop(), erase = row.erase();
  sample.image = image;
  sample.crop_top = static_cast<int32_t>(crop.top);
  sample.crop_left = static_cast<int32_t>(crop.left);
  sample.crop_height = static_cast<int32_t>(crop.height);
  sample.crop_width = static_cast<int32_t>(crop.width);
  sample.is_inside = is_inside(crop, image.height, image.width, 1);
  sample.is_mirrored = row.flip() != 0;
  sample.erase_top = static_cast<int32_t>(erase.top);
  sample.erase_left = static_cast<int32_t>(erase.left);
  sample.erase_bottom = sample.erase_top + static_cast<int32_t>(erase.height);
  sample.erase_right = sample.erase_left + static_cast<int32_t>(erase.width);
  sample.num_steps = steps_of(row, batch.steps_of_sample(i));
  find_passes(batch.steps_of_sample(i), &sample);
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
  if (sample.image.pixels == nullptr) {
    return;
  }
  if (batch.has_tables(sample)) {
    fill_table(batch.horizontal(sample), batch.horizontal_table_of(i));
    fill_table(batch.vertical(sample), batch.vertical_table_of(i));
  }
  if (batch.max_num_steps > 0) {
    for (int k = 0; k < num_statistics; ++k) {
      clear_statistics(batch.statistics_of(i, k));
    }
  }
}

// The images of up to so many samples, which are kernel parameters.
struct Images {
  static constexpr int max_size = 64;

  Image image[max_size];
};
static_assert(sizeof(Images) + 2 * sizeof(void*) <= max_parameter_bytes);

__global__ void write_images(const __grid_constant__ Images images, int size, Image* out) {
  if (static_cast<int>(threadIdx.x) < size) {
    out[threadIdx.x] = images.image[threadIdx.x];
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
  __device__ bool is_first() const { return first_pixel == 0; }

  // Where in the output its pixels are, counted in values.
  __device__ int64_t first_value(const Batch& batch) const { return (sample * batch.num_pixels() + first_pixel) * 3; }
};

// Cropped, resized and flipped.
__device__ uint32_t cropped_pixel(const Batch& batch, const Sample& sample, int64_t i, int32_t x, int32_t y) {
  const int32_t size = batch.settings.size;
  const bool vertical_first = is_vertical_first(sample.crop_height, sample.crop_width, size, size);
  const Image& image = sample.image;
  x = sample.is_mirrored ? size - 1 - x : x;
  Channels channels;
  if (sample.is_inside && batch.has_tables(sample)) {
    channels = resampled_pixel(batch.horizontal_table_of(i), batch.vertical_table_of(i), vertical_first, x, y,
                               [&](int32_t from_x, int32_t from_y) {
                                 return image.pixel(sample.crop_left + from_x, sample.crop_top + from_y);
                               });
  } else {
    const uint8_t* fill = batch.fill.bytes;
    channels = resampled_pixel(Weights{batch.horizontal(sample)}, Weights{batch.vertical(sample)}, vertical_first, x, y,
                               [&](int32_t from_x, int32_t from_y) -> Channels {
                                 const int32_t column = sample.crop_left + from_x, row = sample.crop_top + from_y;
                                 const bool is_there =
                                     column >= 0 && column < image.width && row >= 0 && row < image.height;
                                 return is_there ? image.pixel(column, row) : Channels{fill[0], fill[1], fill[2]};
                               });
  }
  return pixel_of(static_cast<uint32_t>(channels.r), static_cast<uint32_t>(channels.g),
                  static_cast<uint32_t>(channels.b));
}

// Where an affine transform has a pixel from; `pixel_at` is not called for what is outside, which is black.
template <class PixelAt>
__device__ uint32_t fetched(const FixedAffine& affine, const Part& part, int32_t size, const PixelAt& pixel_at) {
  const int32_t from_x = affine.from_x(part.x, part.y), from_y = affine.from_y(part.x, part.y);
  const bool is_inside = from_x >= 0 && from_x < size && from_y >= 0 && from_y < size;
  return is_inside ? pixel_at(from_x, from_y) : 0;
}

__device__ uint32_t sharpened(const uint32_t* words, const Part& part, int32_t size, float factor) {
  const uint32_t pixel = words[part.pixel];
  if (part.x == 0 || part.x == size - 1 || part.y == 0 || part.y == size - 1) {
    return pixel;
  }
  Smoothing smoothing;
  for (int32_t y = -1; y <= 1; ++y) {
    for (int32_t x = -1; x <= 1; ++x) {
      smoothing.add(words[part.pixel + y * size + x], x == 0 && y == 0 ? 5 : 1);
    }
  }
  return blend_pixels(smoothing.pixel(), pixel, factor);
}

// What a step that begins a pass does, by the statistics of the image before it.
struct PassStart {
  int32_t mean;
  uint8_t levels[3][num_levels];
};

// By all threads of a block, a level each.
__device__ void start_pass(const Step& step, const Statistics& statistics, int64_t num_pixels, PassStart* start) {
  const auto level = static_cast<int32_t>(threadIdx.x);
  if (step.needs_sum()) {
    start->mean = mean_of(static_cast<int64_t>(statistics.grey_sum), num_pixels);
  }
  for (int c = 0; c < 3; ++c) {
    if (step.needs_extremes()) {
      start->levels[c][level] = stretched(level, 255 - static_cast<int32_t>(statistics.highest_inverted[c]),
                                          static_cast<int32_t>(statistics.highest[c]));
    } else if (step.needs_histogram()) {
      const unsigned int* histogram = statistics.histogram + c * num_levels;
      uint32_t num_below = 0;
      for (int32_t below = 0; below < level; ++below) {
        num_below += histogram[below];
      }
      start->levels[c][level] = Equalization(histogram).of(static_cast<uint32_t>(level), num_below);
    }
  }
  __syncthreads();
}

// A step that needs no neighbours.
__device__ uint32_t changed(const Step& step, const PassStart& start, uint32_t pixel) {
  switch (step.kind) {
    case StepKind::brightness:
      return brighten(pixel, step.factor);
    case StepKind::contrast:
      return blend_pixel(start.mean, pixel, step.factor);
    case StepKind::saturation:
      return saturate(pixel, step.factor);
    case StepKind::hue:
      return shift_hue(pixel, step.value);
    case StepKind::grayscale:
      return grey_pixel(pixel);
    case StepKind::posterize:
      return pixel & pixel_of(step.value, step.value, step.value);
    case StepKind::solarize:
      return solarize_pixel(pixel, step.value);
    default:  // autocontrast and equalize
      return pixel_of(start.levels[0][red(pixel)], start.levels[1][green(pixel)], start.levels[2][blue(pixel)]);
  }
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

// By all threads of a block, of which those that have a pixel count.
__device__ void add_extremes_of_block(uint32_t pixel, bool has_pixel, Statistics* statistics) {
  __shared__ unsigned int highest[3], highest_inverted[3];
  if (threadIdx.x < 3) {
    highest[threadIdx.x] = highest_inverted[threadIdx.x] = 0;
  }
  __syncthreads();
  if (has_pixel) {
    for (int c = 0; c < 3; ++c) {
      const uint32_t byte = pixel >> 8 * c & 255;
      atomicMax(&highest[c], byte);
      atomicMax(&highest_inverted[c], 255 - byte);
    }
  }
  __syncthreads();
  if (threadIdx.x < 3) {
    atomicMax(&statistics->highest[threadIdx.x], highest[threadIdx.x]);
    atomicMax(&statistics->highest_inverted[threadIdx.x], highest_inverted[threadIdx.x]);
  }
}

__device__ void add_histogram_of_block(uint32_t pixel, bool has_pixel, Statistics* statistics) {
  __shared__ unsigned int histogram[num_histogram_levels];
  for (int i = threadIdx.x; i < num_histogram_levels; i += threads_per_block) {
    histogram[i] = 0;
  }
  __syncthreads();
  if (has_pixel) {
    for (int c = 0; c < 3; ++c) {
      atomicAdd(&histogram[c * num_levels + (pixel >> 8 * c & 255)], 1u);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < num_histogram_levels; i += threads_per_block) {
    if (histogram[i] > 0) {
      atomicAdd(&statistics->histogram[i], histogram[i]);
    }
  }
}

__device__ void add_statistics(const Step& next, uint32_t pixel, bool has_pixel, Statistics* statistics) {
  if (next.needs_sum()) {
    add_of_block(has_pixel ? grey(pixel) : 0, &statistics->grey_sum);
  } else if (next.needs_extremes()) {
    add_extremes_of_block(pixel, has_pixel, statistics);
  } else if (next.needs_histogram()) {
    add_histogram_of_block(pixel, has_pixel, statistics);
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

// The pixel with which a pass begins: from the image, or from the words of the pass before.
__device__ uint32_t first_pixel_of_pass(const Batch& batch, const Sample& sample, const Part& part, int pass,
                                        const Step* first) {
  const int32_t size = batch.settings.size;
  const bool is_affine = first != nullptr && first->kind == StepKind::affine;
  if (pass == 0) {
    const auto pixel_at = [&](int32_t x, int32_t y) { return cropped_pixel(batch, sample, part.sample, x, y); };
    return is_affine ? fetched(first->affine, part, size, pixel_at) : pixel_at(part.x, part.y);
  }
  const uint32_t* words = batch.words_of(part.sample, pass - 1);
  if (is_affine) {
    return fetched(first->affine, part, size, [&](int32_t x, int32_t y) { return words[y * size + x]; });
  }
  return first->kind == StepKind::sharpness ? sharpened(words, part, size, first->factor) : words[part.pixel];
}

template <class Value>
__global__ void __launch_bounds__(threads_per_block)
    run_pass(const Batch batch, int pass, const MeanAndStd normalisation, typename BitsOf<Value>::type* out) {
  using Bits = typename BitsOf<Value>::type;
  const Part part(batch);
  const Sample& sample = batch.samples[part.sample];
  out += part.first_value(batch);
  if (sample.image.pixels == nullptr) {
    if (pass == 0) {
      const Bits nan = bits_of<Value>(std::numeric_limits<float>::quiet_NaN());
      store_pixels(nan, nan, nan, part.num_pixels, out);
    }
    return;
  }
  if (pass >= sample.num_passes) {
    return;
  }
  __shared__ PassStart start;
  const Step* steps = batch.steps_of_sample(part.sample);
  const int begin = sample.first_step[pass], end = sample.first_step[pass + 1];
  const Step* first = begin < end ? steps + begin : nullptr;
  if (pass > 0) {
    start_pass(*first, batch.statistics_of(part.sample, pass), batch.num_pixels(), &start);
  }
  uint32_t pixel = 0;
  if (part.has_pixel()) {
    pixel = first_pixel_of_pass(batch, sample, part, pass, first);
    for (int i = first != nullptr && first->needs_neighbours() ? begin + 1 : begin; i < end; ++i) {
      pixel = changed(steps[i], start, pixel);
    }
  }
  if (pass + 1 == sample.num_passes) {
    return store_finished<Value>(pixel, sample.erases(part.x, part.y), normalisation, part.num_pixels, out);
  }
  if (part.has_pixel()) {
    batch.words_of(part.sample, pass)[part.pixel] = pixel;
  }
  if (part.is_first()) {
    clear_statistics(batch.statistics_of(part.sample, pass + 2));
  }
  add_statistics(steps[end], pixel, part.has_pixel(), &batch.statistics_of(part.sample, pass + 1));
}

// What both operators have: everything of a Batch but where its images are. Tensors that are made here belong to the
// current stream, so they may go when the launches are in it.
struct Call {
  const Tensor& like;  // a tensor of the device, which is the current one
  const Tensor params;
  int64_t num_samples;
  MeanAndStd normalisation;
  Tensor out;

  Call(const Tensor& like, const Tensor& any_params, int64_t size, const std::vector<double>& mean,
       const std::vector<double>& std, ScalarType dtype)
      : like(like),
        params(torch::stable::contiguous(any_params)),
        num_samples(any_params.size(0)),
        normalisation(mean, std),
        out(torch::stable::new_empty(like, {num_samples, size, size, 3}, dtype)) {}

  template <class T>
  Tensor room_for(int64_t size) const {
    return torch::stable::new_empty(like, {size * static_cast<int64_t>(sizeof(T))}, ScalarType::Byte);
  }

  // `batch` has its images, its settings and the sizes of its tables.
  void run(Batch batch, const std::vector<int64_t>& fill) const {
    const int64_t num_pixels = static_cast<int64_t>(batch.settings.size) * batch.settings.size;
    batch.params = static_cast<const double*>(params.const_data_ptr());
    batch.max_num_steps = static_cast<int32_t>((params.size(1) - num_head_params) / num_step_params);
    batch.fill = fill_of(fill);
    const int64_t num_with_steps = batch.max_num_steps > 0 ? num_samples : 0;
    const Tensor samples = room_for<Sample>(num_samples);
    const Tensor steps = room_for<Step>(num_samples * batch.max_num_steps);
    const Tensor statistics = room_for<Statistics>(num_with_steps * num_statistics);
    const Tensor words = room_for<uint32_t>(2 * num_with_steps * num_pixels);
    const Tensor tables = room_for<int32_t>(num_samples * (batch.horizontal_words + batch.vertical_words));
    batch.samples = static_cast<Sample*>(samples.mutable_data_ptr());
    batch.steps = static_cast<Step*>(steps.mutable_data_ptr());
    batch.statistics = static_cast<Statistics*>(statistics.mutable_data_ptr());
    batch.words[0] = static_cast<uint32_t*>(words.mutable_data_ptr());
    batch.words[1] = batch.words[0] + num_with_steps * num_pixels;
    batch.tables = static_cast<int32_t*>(tables.mutable_data_ptr());
    batch.blocks_per_sample = ceil_div(num_pixels, threads_per_block);
    launch(batch);
  }

 private:
  // A grid of 2^31 blocks would need more memory for its output than there is.
  void launch(const Batch& batch) const {
    const cudaStream_t stream = current_stream(like);
    read_params<<<static_cast<unsigned int>(num_samples), threads_per_block, 0, stream>>>(batch);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    const auto blocks = static_cast<unsigned int>(num_samples * batch.blocks_per_sample);
    with_output_type(out.scalar_type(), [&](auto value) {
      using Value = decltype(value);
      auto* const bits = static_cast<typename BitsOf<Value>::type*>(out.mutable_data_ptr());
      for (int pass = 0; pass <= batch.max_num_steps; ++pass) {
        run_pass<Value><<<blocks, threads_per_block, 0, stream>>>(batch, pass, normalisation, bits);
        STD_CUDA_KERNEL_LAUNCH_CHECK();
      }
    });
  }
};

// (B, 3, size, size), channels last.
Tensor augment(const Tensor& images, const Tensor& any_index, const Tensor& any_params, int64_t size,
               const std::vector<double>& mean, const std::vector<double>& std, const std::string& interpolation,
               ScalarType dtype, int64_t num_threads, const std::vector<int64_t>& fill) {
  check_augment(images, any_index, any_params, size, mean, std, dtype, num_threads, fill);
  Batch batch{};
  batch.settings = {static_cast<int32_t>(images.size(1)), static_cast<int32_t>(images.size(2)),
                    static_cast<int32_t>(size), checked_interpolation(interpolation)};
  const torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  const Tensor index = torch::stable::contiguous(any_index);
  const Call call(images, any_params, size, mean, std, dtype);
  if (call.num_samples > 0) {  // a grid of no blocks is a launch error
    batch.images = static_cast<const uint8_t*>(images.const_data_ptr());
    batch.num_images = images.size(0);
    batch.image_stride = images.stride(0);
    batch.row_stride = images.stride(1);
    batch.index = static_cast<const int64_t*>(index.const_data_ptr());
    // No crop within an image has more taps than the whole image.
    batch.horizontal_words =
        table_size(axis_of(batch.settings.width, batch.settings.size, batch.settings.interpolation));
    batch.vertical_words =
        table_size(axis_of(batch.settings.height, batch.settings.size, batch.settings.interpolation));
    call.run(batch, fill);
  }
  return channels_last(call.out);
}

// The images that the crops are of, on the device: those of the caller, or resized.
struct ResizedImages {
  std::vector<Image> images;
  Tensor bytes;

  ResizedImages(const std::vector<Tensor>& tensors, const int64_t* sizes, Interpolation interpolation,
                const Tensor& like)
      : bytes(torch::stable::new_empty(like, {num_bytes(tensors, sizes)}, ScalarType::Byte)) {
    auto* out = static_cast<uint8_t*>(bytes.mutable_data_ptr());
    std::vector<Resize> resizes;
    for (size_t i = 0; i < tensors.size(); ++i) {
      Image image = image_of(tensors[i]);
      if (is_resized(tensors[i], sizes + 2 * i)) {
        const auto height = static_cast<int32_t>(sizes[2 * i]), width = static_cast<int32_t>(sizes[2 * i + 1]);
        resizes.push_back({image, out, height, width, 0});
        image = {out, int64_t{3} * width, 3, 1, height, width};
        out += int64_t{3} * height * width;
      }
      images.push_back(image);
    }
    resize_images(resizes, interpolation, like, current_stream(like));
  }

 private:
  static bool is_resized(const Tensor& tensor, const int64_t* size) {
    return size[0] != tensor.size(0) || size[1] != tensor.size(1);
  }

  static int64_t num_bytes(const std::vector<Tensor>& tensors, const int64_t* sizes) {
    int64_t sum = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
      sum += is_resized(tensors[i], sizes + 2 * i) ? 3 * sizes[2 * i] * sizes[2 * i + 1] : 0;
    }
    return sum;
  }
};

// (B, 3, size, size), channels last.
Tensor augment_ragged(const std::vector<Tensor>& tensors, const Tensor& any_resized, const Tensor& any_params,
                      int64_t size, const std::vector<double>& mean, const std::vector<double>& std,
                      const std::string& interpolation, ScalarType dtype, int64_t num_threads,
                      const std::vector<int64_t>& fill) {
  check_augment_ragged(tensors, any_resized, any_params, size, mean, std, dtype, num_threads, fill);
  Batch batch{};
  batch.settings = {0, 0, static_cast<int32_t>(size), checked_interpolation(interpolation)};
  const torch::stable::accelerator::DeviceGuard guard(any_params.get_device_index());
  const Call call(any_params, any_params, size, mean, std, dtype);
  if (call.num_samples > 0) {
    const Tensor resized = torch::stable::contiguous(any_resized);
    const ResizedImages all(tensors, static_cast<const int64_t*>(resized.const_data_ptr()),
                            batch.settings.interpolation, any_params);
    const Tensor images = call.room_for<Image>(call.num_samples);
    auto* const on_device = static_cast<Image*>(images.mutable_data_ptr());
    for (int64_t begin = 0; begin < call.num_samples; begin += Images::max_size) {
      Images some{};
      const int num = static_cast<int>(std::min<int64_t>(Images::max_size, call.num_samples - begin));
      std::copy_n(all.images.data() + begin, num, some.image);
      write_images<<<1, Images::max_size, 0, current_stream(any_params)>>>(some, num, on_device + begin);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
    batch.ragged = on_device;
    for (const Image& image : all.images) {
      const auto words_of = [&](int32_t side) {
        return table_size(axis_of(side, batch.settings.size, batch.settings.interpolation));
      };
      batch.horizontal_words = std::max(batch.horizontal_words, words_of(image.width));
      batch.vertical_words = std::max(batch.vertical_words, words_of(image.height));
    }
    call.run(batch, fill);
  }
  return channels_last(call.out);
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CUDA, m) {
  m.impl("augment", TORCH_BOX(&dogs_accel::augment));
  m.impl("augment_ragged", TORCH_BOX(&dogs_accel::augment_ragged));
}
