// CPU kernels of augment and augment_ragged: a sample at a time, its pixels in the cache of one core from the stored
// bytes to the batch.

#include "../augment.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "../checks/augment.h"
#include "../normalisation.h"
#include "batch_memory.h"
#include "crop.h"
#include "images.h"
#include "instruction_sets.h"
#include "resample.h"
#include "steps.h"
#include "threads.h"

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int32_t bytes_at_once = 48;  // whole pixels, and whole vectors

// A quotient with IEEE's rounding, from the inverse of its divisor: fused multiplications tell how far the product is
// from it. So it is wherever nothing on the way is too small or too large for float32.
DOGS_ACCEL_INLINE float quotient(float dividend, float divisor, float inverse) {
  const float product = dividend * inverse;
  return std::fma(std::fma(-divisor, product, dividend), inverse, product);
}

// What each byte of each channel becomes, in the bits of the output's dtype. float32 can be computed many at a time,
// and then is the faster so, without divisions: loads and stores of single values cost more.
template <class Bits>
struct Levels {
  Bits of[3][256];
  float mean[bytes_at_once], std[bytes_at_once], inverse_of_std[bytes_at_once];  // of the channels of whole pixels
  bool are_computed = false;

  Levels(const MeanAndStd& normalisation, Bits (*bits)(float)) {
    for (int c = 0; c < 3; ++c) {
      for (int byte = 0; byte < 256; ++byte) {
        of[c][byte] = bits(normalisation.normalised(c, byte));
      }
    }
    for (int i = 0; i < bytes_at_once; ++i) {
      mean[i] = normalisation.mean[i % 3];
      std[i] = normalisation.std[i % 3];
      inverse_of_std[i] = 1.0f / std[i];
    }
  }

  // Of a byte of the channel of mean[i].
  DOGS_ACCEL_INLINE uint32_t computed(int64_t i, uint32_t byte) const {
    const float share = quotient(static_cast<float>(static_cast<int32_t>(byte)), 255.0f, 1.0f / 255);
    return std::bit_cast<uint32_t>(quotient(share - mean[i], std[i], inverse_of_std[i]));
  }

  // Whether that is what each byte becomes.
  DOGS_ACCEL_INLINE bool can_be_computed() const {
    uint32_t difference = 0;
    for (int c = 0; c < 3; ++c) {
      for (int byte = 0; byte < 256; ++byte) {
        difference |= computed(c, static_cast<uint32_t>(byte)) ^ of[c][byte];
      }
    }
    return difference == 0;
  }
};

template <int lanes, class Bits>
constexpr bool may_be_computed = std::is_same_v<Bits, BitsOf<float>::type> && lanes > 4;

template <class Bits>
DOGS_ACCEL_INLINE void normalise_pixel(uint32_t pixel, const Levels<Bits>& levels, Bits* __restrict__ out) {
  out[0] = levels.of[0][red(pixel)];
  out[1] = levels.of[1][green(pixel)];
  out[2] = levels.of[2][blue(pixel)];
}

template <int lanes, class Bits>
DOGS_ACCEL_INLINE void normalise_words(const uint32_t* row, int32_t size, const Levels<Bits>& levels,
                                       Bits* __restrict__ out) {
  if constexpr (may_be_computed<lanes, Bits>) {
    if (levels.are_computed) {
      for (int64_t x = 0; x < size; ++x) {
        const uint32_t pixel = row[x];
        out[3 * x] = levels.computed(0, red(pixel));
        out[3 * x + 1] = levels.computed(1, green(pixel));
        out[3 * x + 2] = levels.computed(2, blue(pixel));
      }
      return;
    }
  }
  for (int32_t x = 0; x < size; ++x) {
    normalise_pixel(row[x], levels, out + 3 * x);
  }
}

// Nobody says that there is a byte behind the last pixel.
template <int lanes, class Bits>
DOGS_ACCEL_INLINE void normalise_bytes(const uint8_t* row, int32_t size, const Levels<Bits>& levels,
                                       Bits* __restrict__ out) {
  int32_t x = 0;
  if constexpr (may_be_computed<lanes, Bits>) {
    constexpr int32_t pixels_at_once = bytes_at_once / 3;
    for (; levels.are_computed && x + pixels_at_once <= size; x += pixels_at_once) {
      const uint8_t* const bytes = row + int64_t{3} * x;
      Bits* const values = out + int64_t{3} * x;
      for (int64_t i = 0; i < bytes_at_once; ++i) {
        values[i] = levels.computed(i, bytes[i]);
      }
    }
  }
  for (uint32_t pixel = 0; x < size; ++x) {
    std::memcpy(&pixel, row + 3 * x, x < size - 1 ? 4 : 3);
    normalise_pixel(pixel, levels, out + 3 * x);
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
  Cropper cropper;
  Resampler resampler;
  StepBuffers steps;
};

// The image that a sample is made of, and what happens to it.
struct Sample {
  Rows image;
  ParamsRow params;
  AugmentSettings settings;
};

// `out` gets (size, size, 3).
template <int lanes, class Bits>
DOGS_ACCEL_INLINE void augment_image(const Sample& sample, const Fill& fill, const Levels<Bits>& levels,
                                     Buffers& buffers, Bits* out) {
  const ParamsRow& params = sample.params;
  const int32_t size = sample.settings.size;
  const bool is_mirrored = params.flip() != 0;
  Step steps[max_steps];
  const int num_steps = steps_of(params, steps);
  const Rows crop = buffers.cropper.crop<lanes>(sample.image, params.crop(), sample.settings, fill);
  const bool has_its_size = crop.height == size && crop.width == size;
  if (has_its_size && !is_mirrored && num_steps == 0) {
    for (int64_t y = 0; y < size; ++y) {
      normalise_bytes<lanes>(crop.bytes + y * crop.stride, size, levels, out + y * size * 3);
    }
  } else {
    const bool is_copied = has_its_size && !begins_with_affine(steps, num_steps);
    const Rows rows =
        is_copied ? crop
                  : buffers.resampler.resample<lanes>(crop, size, size, sample.settings.interpolation, is_mirrored);
    run_steps<lanes>({rows}, is_copied && is_mirrored, size, steps, num_steps, buffers.steps,
                     [&](int64_t y, const uint32_t* row) __attribute__((always_inline)) {
                       normalise_words<lanes>(row, size, levels, out + y * size * 3);
                     });
  }
  erase(params.erase(), size, out);
}

// Of the dtypes only the number of bits is left here, so that float16 and bfloat16 have the same code.
template <class Bits>
void augment_batch(const std::vector<Sample>& samples, int64_t size, const Fill& fill, const Levels<Bits>& levels,
                   int64_t num_threads, Bits* out) {
  const int64_t sample_size = 3 * size * size;
  share_images(static_cast<int64_t>(samples.size()), num_threads, [&](int64_t begin, int64_t end) {
    Buffers buffers;
    for (int64_t i = begin; i < end; ++i) {
      run_on_best_instruction_set([&](auto lanes) __attribute__((always_inline)) {
        augment_image<lanes>(samples[i], fill, levels, buffers, out + i * sample_size);
      });
    }
  });
}

// (B, size, size, 3).
Tensor augment_samples(const std::vector<Sample>& samples, int64_t size, const MeanAndStd& normalisation,
                       const Fill& fill, ScalarType dtype, int64_t num_threads) {
  const Tensor out = new_batch({static_cast<int64_t>(samples.size()), size, size, 3}, dtype);
  with_output_type(dtype, [&](auto value) {
    using Bits = typename BitsOf<decltype(value)>::type;
    Levels<Bits> levels(normalisation, bits_of<decltype(value)>);
    run_on_best_instruction_set([&](auto lanes) __attribute__((always_inline)) {
      if constexpr (may_be_computed<lanes, Bits>) {
        levels.are_computed = levels.can_be_computed();
      }
    });
    augment_batch(samples, size, fill, levels, num_threads, static_cast<Bits*>(out.mutable_data_ptr()));
  });
  return out;
}

// (B, 3, size, size), channels last.
Tensor augment(const Tensor& images, const Tensor& any_index, const Tensor& any_params, int64_t size,
               const std::vector<double>& mean, const std::vector<double>& std, const std::string& interpolation,
               ScalarType dtype, int64_t num_threads, const std::vector<int64_t>& fill) {
  check_augment(images, any_index, any_params, size, mean, std, dtype, num_threads, fill);
  const AugmentSettings settings{static_cast<int32_t>(images.size(1)), static_cast<int32_t>(images.size(2)),
                                 static_cast<int32_t>(size), checked_interpolation(interpolation)};
  const Tensor index = torch::stable::contiguous(any_index), params = torch::stable::contiguous(any_params);
  const auto* const indices = static_cast<const int64_t*>(index.const_data_ptr());
  std::vector<Sample> samples(index.size(0));
  for (int64_t i = 0; i < index.size(0); ++i) {
    const ParamsRow row = row_of(params, i);
    check_sample(i, indices[i], images.size(0), row, settings);
    const auto* const image = static_cast<const uint8_t*>(images.const_data_ptr()) + indices[i] * images.stride(0);
    samples[i] = {{image, images.stride(1), settings.height, settings.width}, row, settings};
  }
  return channels_last(augment_samples(samples, size, MeanAndStd(mean, std), fill_of(fill), dtype, num_threads));
}

// (B, 3, size, size), channels last.
Tensor augment_ragged(const std::vector<Tensor>& images, const Tensor& any_resized, const Tensor& any_params,
                      int64_t size, const std::vector<double>& mean, const std::vector<double>& std,
                      const std::string& interpolation, ScalarType dtype, int64_t num_threads,
                      const std::vector<int64_t>& fill) {
  check_augment_ragged(images, any_resized, any_params, size, mean, std, dtype, num_threads, fill);
  AugmentSettings settings{0, 0, static_cast<int32_t>(size), checked_interpolation(interpolation)};
  const Tensor resized = torch::stable::contiguous(any_resized), params = torch::stable::contiguous(any_params);
  const auto* const sizes = static_cast<const int64_t*>(resized.const_data_ptr());
  const std::vector<Tensor> interleaved = with_whole_pixels(images);
  std::vector<Sample> samples(images.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    settings.height = static_cast<int32_t>(sizes[2 * i]);
    settings.width = static_cast<int32_t>(sizes[2 * i + 1]);
    const ParamsRow row = row_of(params, static_cast<int64_t>(i));
    check_row(static_cast<int64_t>(i), row, settings);
    samples[i] = {rows_of(interleaved[i]), row, settings};
  }
  return channels_last(augment_samples(samples, size, MeanAndStd(mean, std), fill_of(fill), dtype, num_threads));
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CPU, m) {
  m.impl("augment", TORCH_BOX(&dogs_accel::augment));
  m.impl("augment_ragged", TORCH_BOX(&dogs_accel::augment_ragged));
}
