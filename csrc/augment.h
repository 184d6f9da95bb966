// The arithmetic of augment, shared by the CPU kernel and the CUDA kernel. Definition: torchvision's transforms on PIL
// images, which is Pillow 13's 8-bit arithmetic up to the normalisation.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"
#include "resample.h"

namespace dogs_accel {

struct Box {
  double top, left, height, width;
};

// A row of the argument `params`.
struct AugmentParams {
  Box crop;
  double flip;
  double matrix[6];   // where an output pixel comes from, as PIL.Image.transform takes it
  double factors[3];  // of brightness, contrast and saturation
  double order[3];    // in which they come
  Box erase;
};
constexpr int num_augment_params = sizeof(AugmentParams) / sizeof(double);

enum Jitter { brightness, contrast, saturation, num_jitters };

// Which of the other arguments an operator call gives to every sample.
struct AugmentSettings {
  int32_t height, width;  // of a stored image
  int32_t size;           // of the output
  Interpolation interpolation;
};

constexpr double max_factor = 1e6;    // 255 times it is an int32
constexpr double max_offset = 32767;  // 16 bits before the point, as in Pillow, and room for rounding

DOGS_ACCEL_HOST_DEVICE bool is_inside(const Box& box, int32_t height, int32_t width, double smallest) {
  return box.top >= 0 && box.left >= 0 && box.height >= smallest && box.width >= smallest &&
         box.top + box.height <= height && box.left + box.width <= width;
}

DOGS_ACCEL_HOST_DEVICE bool is_whole(const Box& box) {
  return box.top == std::floor(box.top) && box.left == std::floor(box.left) && box.height == std::floor(box.height) &&
         box.width == std::floor(box.width);
}

// What of a row of `params` is not what it may be.
enum class BadParams { none, crop, flip, matrix, factors, order, erase };

// A NaN fails every comparison.
DOGS_ACCEL_HOST_DEVICE BadParams bad_params(const AugmentParams& params, const AugmentSettings& settings) {
  if (!is_inside(params.crop, settings.height, settings.width, 1) || !is_whole(params.crop)) {
    return BadParams::crop;
  }
  if (!(params.flip == 0 || params.flip == 1)) {
    return BadParams::flip;
  }
  for (int row = 0; row < 2; ++row) {
    const double* m = params.matrix + 3 * row;
    if (!((std::fabs(m[0]) + std::fabs(m[1])) * settings.size + std::fabs(m[2]) < max_offset)) {
      return BadParams::matrix;
    }
  }
  bool comes[num_jitters] = {};
  for (int i = 0; i < num_jitters; ++i) {
    if (!(params.factors[i] >= 0 && params.factors[i] <= max_factor)) {
      return BadParams::factors;
    }
    for (int jitter = 0; jitter < num_jitters; ++jitter) {
      comes[jitter] |= params.order[i] == jitter;
    }
  }
  if (!comes[brightness] || !comes[contrast] || !comes[saturation]) {
    return BadParams::order;
  }
  const bool erases_within = is_inside(params.erase, settings.size, settings.size, 0) && is_whole(params.erase);
  return erases_within ? BadParams::none : BadParams::erase;
}

// Where each output pixel of an affine transform comes from, in 16.16 fixed point: start + x * step_x + y * step_y.
struct FixedAffine {
  int32_t x, x_step_x, x_step_y;
  int32_t y, y_step_x, y_step_y;

  DOGS_ACCEL_HOST_DEVICE int32_t from_x(int32_t out_x, int32_t out_y) const {
    return (x + out_y * x_step_y + out_x * x_step_x) >> 16;
  }
  DOGS_ACCEL_HOST_DEVICE int32_t from_y(int32_t out_x, int32_t out_y) const {
    return (y + out_y * y_step_y + out_x * y_step_x) >> 16;
  }
};

DOGS_ACCEL_HOST_DEVICE int32_t fixed_point(double value) {
  return static_cast<int32_t>(std::floor(value * 65536.0 + 0.5));
}

DOGS_ACCEL_HOST_DEVICE FixedAffine fixed_affine(const double* m) {
  return {fixed_point(m[2] + m[0] * 0.5 + m[1] * 0.5), fixed_point(m[0]), fixed_point(m[1]),
          fixed_point(m[5] + m[3] * 0.5 + m[4] * 0.5), fixed_point(m[3]), fixed_point(m[4])};
}

DOGS_ACCEL_HOST_DEVICE bool is_identity(const FixedAffine& affine) {
  return affine.x >> 16 == 0 && affine.x_step_x == 1 << 16 && affine.x_step_y == 0 && affine.y >> 16 == 0 &&
         affine.y_step_x == 0 && affine.y_step_y == 1 << 16;
}

// A pixel is a word: R in its lowest byte, then G, then B; the highest says nothing.
DOGS_ACCEL_HOST_DEVICE uint32_t red(uint32_t pixel) { return pixel & 255; }
DOGS_ACCEL_HOST_DEVICE uint32_t green(uint32_t pixel) { return pixel >> 8 & 255; }
DOGS_ACCEL_HOST_DEVICE uint32_t blue(uint32_t pixel) { return pixel >> 16 & 255; }

// PIL's "L".
DOGS_ACCEL_HOST_DEVICE uint32_t grey(uint32_t pixel) {
  return (red(pixel) * 19595 + green(pixel) * 38470 + blue(pixel) * 7471 + 32768) >> 16;
}

// PIL's blend of a byte with another, factor 1 being the byte itself: the fraction is cut off.
DOGS_ACCEL_HOST_DEVICE uint32_t blend(int32_t other, uint32_t byte, float factor) {
  const int32_t difference = static_cast<int32_t>(byte) - other;
  const int32_t value = static_cast<int32_t>(static_cast<float>(other) + factor * static_cast<float>(difference));
  return static_cast<uint32_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

DOGS_ACCEL_HOST_DEVICE uint32_t blend_pixel(int32_t other, uint32_t pixel, float factor) {
  return blend(other, red(pixel), factor) | blend(other, green(pixel), factor) << 8 |
         blend(other, blue(pixel), factor) << 16;
}

// What contrast blends with: the mean of grey, rounded.
DOGS_ACCEL_HOST_DEVICE int32_t mean_of(int64_t sum, int64_t num_pixels) {
  return static_cast<int32_t>((2 * sum + num_pixels) / (2 * num_pixels));
}

DOGS_ACCEL_HOST_DEVICE uint32_t jittered(Jitter jitter, uint32_t pixel, int32_t mean, float factor) {
  const int32_t other = jitter == saturation ? static_cast<int32_t>(grey(pixel)) : jitter == contrast ? mean : 0;
  return blend_pixel(other, pixel, factor);
}

// The factors that change something, in their order. Contrast needs the mean over the image as the steps before it
// leave it, so it begins a second pass.
struct Steps {
  Jitter jitter[num_jitters];
  float factor[num_jitters];
  int size, first_of_second_pass;

  DOGS_ACCEL_HOST_DEVICE bool need_mean() const { return first_of_second_pass < size; }
};

DOGS_ACCEL_HOST_DEVICE Steps steps_of(const AugmentParams& params) {
  Steps steps{};
  for (int i = 0; i < num_jitters; ++i) {
    const auto next = static_cast<Jitter>(static_cast<int>(params.order[i]));
    const auto factor = static_cast<float>(params.factors[next]);
    if (factor != 1.0f) {
      steps.jitter[steps.size] = next;
      steps.factor[steps.size++] = factor;
    }
  }
  while (steps.need_mean() && steps.jitter[steps.first_of_second_pass] != contrast) {
    ++steps.first_of_second_pass;
  }
  return steps;
}

}  // namespace dogs_accel
