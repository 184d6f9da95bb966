// Pillow's resampling of 8-bit images, shared by the CPU and CUDA kernels of squash and augment: weights in fixed
// point, one pass for each axis, rounded to bytes after each. Definition: Pillow 13, src/libImaging/Resample.c.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace dogs_accel {

enum class Interpolation { bilinear, bicubic };

// Of a side of an output, and of the images that augment reads: the pixels of one are counted in 32 bits.
constexpr int32_t max_size = 1 << 14;
// Of an input: where Pillow's float32 coordinates end.
constexpr int32_t max_side = 1 << 24;

// Weights count 2^-22, so that 255 times the largest sum of them leaves a sign bit in 32.
constexpr int weight_bits = 22;
constexpr int32_t half_weight = 1 << (weight_bits - 1);

DOGS_ACCEL_HOST_DEVICE uint8_t rounded_byte(int32_t sum) {
  const int32_t value = sum >> weight_bits;
  return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

// How one axis is resampled. Where it shrinks the filter is widened, which is what antialiases.
struct Axis {
  int32_t in_size, out_size;
  Interpolation interpolation;
  double scale, inverse_of_widening, support;
};

DOGS_ACCEL_HOST_DEVICE Axis axis_of(int32_t in_size, int32_t out_size, Interpolation interpolation) {
  const double scale = static_cast<double>(in_size) / out_size;
  const double widening = scale < 1.0 ? 1.0 : scale;
  return {in_size, out_size,       interpolation,
          scale,   1.0 / widening, (interpolation == Interpolation::bilinear ? 1.0 : 2.0) * widening};
}

// At least as many input pixels as any output pixel of the axis is made of.
DOGS_ACCEL_HOST_DEVICE int32_t max_taps(const Axis& axis) {
  return static_cast<int32_t>(std::ceil(axis.support)) * 2 + 1;
}

DOGS_ACCEL_HOST_DEVICE double filter(Interpolation interpolation, double x) {
  x = x < 0.0 ? -x : x;
  if (interpolation == Interpolation::bilinear) {
    return x < 1.0 ? 1.0 - x : 0.0;
  }
  constexpr double a = -0.5;
  if (x < 1.0) {
    return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  }
  return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

// The input pixels that one output pixel is made of.
struct Taps {
  int32_t first, size;
  double center, total;
};

DOGS_ACCEL_HOST_DEVICE double tap(const Axis& axis, const Taps& taps, int32_t k) {
  return filter(axis.interpolation, (k + taps.first - taps.center + 0.5) * axis.inverse_of_widening);
}

DOGS_ACCEL_HOST_DEVICE Taps taps_of(const Axis& axis, int32_t out) {
  Taps taps{};
  taps.center = (out + 0.5) * axis.scale;
  const int32_t first = static_cast<int32_t>(taps.center - axis.support + 0.5);
  const int32_t end = static_cast<int32_t>(taps.center + axis.support + 0.5);
  taps.first = first < 0 ? 0 : first;
  taps.size = (end > axis.in_size ? axis.in_size : end) - taps.first;
  for (int32_t k = 0; k < taps.size; ++k) {
    taps.total += tap(axis, taps, k);
  }
  return taps;
}

DOGS_ACCEL_HOST_DEVICE int32_t weight_of(const Axis& axis, const Taps& taps, int32_t k) {
  const double weight = tap(axis, taps, k) / taps.total * (1 << weight_bits);
  return static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
}

// Pillow 13 takes the vertical pass first where the height shrinks by more than twice as many pixels as the width.
DOGS_ACCEL_HOST_DEVICE bool is_vertical_first(int32_t in_height, int32_t in_width, int32_t out_height,
                                              int32_t out_width) {
  return in_height > out_height && in_height - out_height > (in_width - out_width) * 2;
}

}  // namespace dogs_accel
