// CPU kernel of augment: a sample at a time, its pixels in the cache of one core from the stored bytes to the batch.

#include "../augment.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../checks/augment.h"
#include "../normalisation.h"
#include "batch_memory.h"
#include "instruction_sets.h"
#include "resample.h"
#include "threads.h"

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Pixels as words, row by row: what rotation and jitter work on.
struct Pixels {
  std::vector<uint32_t> words;
  int32_t size = 0;

  uint32_t* row(int64_t y) { return words.data() + y * size; }
};

// One row of an affine transform, black where it comes from outside.
DOGS_ACCEL_INLINE void fetch_row(const Rows& in, const FixedAffine& affine, int32_t y, int32_t size,
                                 uint32_t* __restrict__ out) {
  const auto is_inside = [&](int32_t x) {
    const int32_t from_x = affine.from_x(x, y), from_y = affine.from_y(x, y);
    return from_x >= 0 && from_x < size && from_y >= 0 && from_y < size;
  };
  // What is inside is one run of pixels, since each coordinate goes one way.
  int32_t begin = 0, end = size;
  while (begin < end && !is_inside(begin)) {
    out[begin++] = 0;
  }
  while (begin < end && !is_inside(end - 1)) {
    out[--end] = 0;
  }
  for (int32_t x = begin; x < end; ++x) {
    const int64_t from_x = affine.from_x(x, y), from_y = affine.from_y(x, y);
    std::memcpy(out + x, in.bytes + from_y * in.stride + 3 * from_x, 4);
  }
}

DOGS_ACCEL_INLINE void copy_row(const Rows& in, int32_t y, int32_t size, uint32_t* __restrict__ out) {
  const uint8_t* row = in.bytes + y * in.stride;
  for (int32_t x = 0; x < size; ++x) {
    std::memcpy(out + x, row + 3 * x, 4);
  }
}

template <Jitter jitter>
DOGS_ACCEL_INLINE void jitter_row(uint32_t* row, int32_t size, int32_t mean, float factor) {
  for (int32_t x = 0; x < size; ++x) {
    row[x] = jittered(jitter, row[x], mean, factor);
  }
}

DOGS_ACCEL_INLINE int64_t sum_of_grey(const uint32_t* row, int32_t size) {
  uint32_t sum = 0;
  for (int32_t x = 0; x < size; ++x) {
    sum += grey(row[x]);
  }
  return sum;
}

// Those from `begin` to `end`.
DOGS_ACCEL_INLINE void apply_steps(const Steps& steps, int begin, int end, int32_t mean, uint32_t* row, int32_t size) {
  for (int i = begin; i < end; ++i) {
    switch (steps.jitter[i]) {
      case brightness:
        jitter_row<brightness>(row, size, mean, steps.factor[i]);
        break;
      case contrast:
        jitter_row<contrast>(row, size, mean, steps.factor[i]);
        break;
      default:
        jitter_row<saturation>(row, size, mean, steps.factor[i]);
    }
  }
}

// What each byte of each channel becomes, in the bits of the output's dtype.
template <class Bits>
struct Levels {
  Bits of[3][256];
};

template <class Value>
auto levels_of(const MeanAndStd& normalisation) {
  Levels<typename BitsOf<Value>::type> levels;
  for (int c = 0; c < 3; ++c) {
    for (int byte = 0; byte < 256; ++byte) {
      levels.of[c][byte] = bits_of<Value>(normalisation.normalised(c, byte));
    }
  }
  return levels;
}

template <class Bits>
DOGS_ACCEL_INLINE void normalise_words(const uint32_t* row, int32_t size, const Levels<Bits>& levels,
                                       Bits* __restrict__ out) {
  for (int32_t x = 0; x < size; ++x) {
    out[3 * x] = levels.of[0][red(row[x])];
    out[3 * x + 1] = levels.of[1][green(row[x])];
    out[3 * x + 2] = levels.of[2][blue(row[x])];
  }
}

template <class Bits>
DOGS_ACCEL_INLINE void normalise_bytes(const uint8_t* row, int32_t size, const Levels<Bits>& levels,
                                       Bits* __restrict__ out) {
  for (int32_t x = 0; x < size; ++x) {
    for (int c = 0; c < 3; ++c) {
      out[3 * x + c] = levels.of[c][row[3 * x + c]];
    }
  }
}

template <class Bits>
void erase(const Box& box, int32_t size, Bits* out) {
  const auto top = static_cast<int64_t>(box.top), left = static_cast<int64_t>(box.left);
  const auto height = static_cast<int64_t>(box.height), width = static_cast<int64_t>(box.width);
  for (int64_t y = top; y < top + height; ++y) {
    std::fill_n(out + (y * size + left) * 3, 3 * width, Bits{0});
  }
}

struct Buffers {
  Resampler resampler;
  Pixels pixels;
};

// `stored` is one whole image; `out` gets (size, size, 3).
template <int lanes, class Bits>
DOGS_ACCEL_INLINE void augment_image(const Rows& stored, const AugmentParams& params, const AugmentSettings& settings,
                                     const Levels<Bits>& levels, Buffers& buffers, Bits* out) {
  const int32_t size = settings.size;
  const Steps steps = steps_of(params);
  const FixedAffine affine = fixed_affine(params.matrix);
  const bool moves = !is_identity(affine);
  Rows rows{
      stored.bytes + static_cast<int64_t>(params.crop.top) * stored.stride + static_cast<int64_t>(params.crop.left) * 3,
      stored.stride, static_cast<int32_t>(params.crop.height), static_cast<int32_t>(params.crop.width)};
  const bool is_cut_out = rows.height == size && rows.width == size && params.flip == 0;
  if (is_cut_out && !moves && steps.size == 0) {
    for (int64_t y = 0; y < size; ++y) {
      normalise_bytes(rows.bytes + y * rows.stride, size, levels, out + y * size * 3);
    }
    return erase(params.erase, size, out);
  }
  rows = buffers.resampler.resample<lanes>(rows, size, size, settings.interpolation, params.flip != 0);
  Pixels& pixels = buffers.pixels;
  int64_t grey_sum = 0;
  for (int32_t y = 0; y < size; ++y) {
    uint32_t* row = pixels.row(y);
    if (moves) {
      fetch_row(rows, affine, y, size, row);
    } else {
      copy_row(rows, y, size, row);
    }
    apply_steps(steps, 0, steps.first_of_second_pass, 0, row, size);
    if (steps.need_mean()) {
      grey_sum += sum_of_grey(row, size);
    } else {
      normalise_words(row, size, levels, out + static_cast<int64_t>(y) * size * 3);
    }
  }
  if (steps.need_mean()) {
    const int32_t mean = mean_of(grey_sum, static_cast<int64_t>(size) * size);
    for (int32_t y = 0; y < size; ++y) {
      uint32_t* row = pixels.row(y);
      apply_steps(steps, steps.first_of_second_pass, steps.size, mean, row, size);
      normalise_words(row, size, levels, out + static_cast<int64_t>(y) * size * 3);
    }
  }
  erase(params.erase, size, out);
}

struct Batch {
  const uint8_t* images;
  int64_t image_stride, row_stride;
  const int64_t* index;
  const AugmentParams* params;
  int64_t size;
};

template <class Bits>
void augment_batch(const Batch& batch, const AugmentSettings& settings, const Levels<Bits>& levels, int64_t num_threads,
                   Bits* out) {
  const int64_t sample_size = int64_t{3} * settings.size * settings.size;
  share_images(batch.size, num_threads, [&](int64_t begin, int64_t end) {
    Buffers buffers;
    buffers.pixels.size = settings.size;
    buffers.pixels.words.resize(static_cast<int64_t>(settings.size) * settings.size);
    for (int64_t i = begin; i < end; ++i) {
      const Rows stored{batch.images + batch.index[i] * batch.image_stride, batch.row_stride, settings.height,
                        settings.width};
      run_on_best_instruction_set([&](auto lanes) __attribute__((always_inline)) {
        augment_image<lanes>(stored, batch.params[i], settings, levels, buffers, out + i * sample_size);
      });
    }
  });
}

// (B, 3, size, size), channels last.
Tensor augment(const Tensor& images, const Tensor& any_index, const Tensor& any_params, int64_t size,
               const std::vector<double>& mean, const std::vector<double>& std, const std::string& interpolation,
               ScalarType dtype, int64_t num_threads) {
  check_augment(images, any_index, any_params, size, mean, std, dtype, num_threads);
  const AugmentSettings settings{static_cast<int32_t>(images.size(1)), static_cast<int32_t>(images.size(2)),
                                 static_cast<int32_t>(size), checked_interpolation(interpolation)};
  const Tensor index = torch::stable::contiguous(any_index), params = torch::stable::contiguous(any_params);
  const Batch batch{static_cast<const uint8_t*>(images.const_data_ptr()),
                    images.stride(0),
                    images.stride(1),
                    static_cast<const int64_t*>(index.const_data_ptr()),
                    static_cast<const AugmentParams*>(params.const_data_ptr()),
                    index.size(0)};
  for (int64_t i = 0; i < batch.size; ++i) {
    check_sample(i, batch.index[i], images.size(0), batch.params[i], settings);
  }
  const Tensor out = new_batch({batch.size, size, size, 3}, dtype);
  with_output_type(dtype, [&](auto value) {
    const auto levels = levels_of<decltype(value)>(MeanAndStd(mean, std));
    augment_batch(batch, settings, levels, num_threads,
                  static_cast<typename BitsOf<decltype(value)>::type*>(out.mutable_data_ptr()));
  });
  return channels_last(out);
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CPU, m) { m.impl("augment", TORCH_BOX(&dogs_accel::augment)); }
