// The arithmetic of image_sums and image_stats, shared by the CPU and the CUDA twin.
//
// Everything is summed as integers, so that no sum depends on the order of the pixels, and a pixel's own
// values are integers or floats rounded as IEEE has it. So the twins, and every instruction set, give the
// same bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace dogs_accel {

// The columns of image_sums, in its order.
struct ImageSums {
  int64_t pixels = 0;
  int64_t grey = 0, grey_squared = 0;
  int64_t saturation = 0;  // in units of 2^-saturation_bits
  int64_t r = 0, g = 0, b = 0;
  int64_t r_squared = 0, g_squared = 0, b_squared = 0;
};

// The columns of image_stats, in its order. All are in [0, 1].
struct ImageStats {
  double brightness_mean, contrast_std, saturation_mean, r_mean, g_mean, b_mean;
};

constexpr int num_image_sums = sizeof(ImageSums) / sizeof(int64_t);
constexpr int num_image_stats = sizeof(ImageStats) / sizeof(double);

// PIL's "L" is (19595 R + 38470 G + 7471 B + 32768) >> 16. With the high and the low byte of each weight
// apart, every step fits in 16 bits: the high bytes add up to 255 and the low bytes to 256.
struct GreyWeights {
  uint8_t r, g, b;
};
constexpr GreyWeights grey_high{19595 >> 8, 38470 >> 8, 7471 >> 8};
constexpr GreyWeights grey_low{19595 & 255, 38470 & 255, 7471 & 255};

DOGS_ACCEL_HOST_DEVICE uint16_t weigh(GreyWeights weights, uint16_t r, uint16_t g, uint16_t b) {
  return static_cast<uint16_t>(weights.r * r + weights.g * g + weights.b * b);
}

DOGS_ACCEL_HOST_DEVICE uint16_t grey_of(uint16_t r, uint16_t g, uint16_t b) {
  const uint16_t low = static_cast<uint16_t>(weigh(grey_low, r, g, b) >> 8);
  return static_cast<uint16_t>(static_cast<uint16_t>(weigh(grey_high, r, g, b) + low + 128) >> 8);
}

// HSV's saturation (max - min) / max of a pixel, for which black must be given max = 1. The quotient is
// rounded to float32 and then to a multiple of 2^-23: in [1, 2] the bits of a float32 count such multiples.
// The error of both roundings is below 9e-8.
constexpr int saturation_bits = 23;

DOGS_ACCEL_HOST_DEVICE uint32_t saturation_of(float range, float max) {
  return std::bit_cast<uint32_t>(1.0f + range / max) - std::bit_cast<uint32_t>(1.0f);
}

// The variance is that of the population, (n sum(x^2) - sum(x)^2) / n^2, whose numerator is exact.
DOGS_ACCEL_HOST_DEVICE ImageStats stats_of(const ImageSums& sums) {
  using Wide = unsigned __int128;
  const double n = static_cast<double>(sums.pixels);
  const double full = 255.0 * n;  // exact, as every sum is here: all are below 2^53 but the last
  const Wide sum = static_cast<Wide>(sums.grey);
  const Wide spread = static_cast<Wide>(sums.pixels) * static_cast<Wide>(sums.grey_squared) - sum * sum;
  const double high = static_cast<double>(static_cast<uint64_t>(spread >> 64));
  const double low = static_cast<double>(static_cast<uint64_t>(spread));
  return {
      static_cast<double>(sums.grey) / full,
      std::sqrt(high * 0x1p64 + low) / full,
      static_cast<double>(sums.saturation) / (n * 0x1p23),
      static_cast<double>(sums.r) / full,
      static_cast<double>(sums.g) / full,
      static_cast<double>(sums.b) / full,
  };
}

}  // namespace dogs_accel
