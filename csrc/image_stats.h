// The arithmetic of image_sums and image_stats, shared by the CPU kernel and the CUDA kernel.
//
// Everything is summed as integers, so that no sum depends on the order of the pixels, and what is summed is an integer
// or a float rounded as IEEE has it. So CUDA and every instruction set of the CPU give the same bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace dogs_accel {

// The columns of image_sums, in its order.
template <class Sum>
struct SumsOf {
  Sum pixels;
  Sum grey, grey_squared;
  Sum saturation;  // in units of 2^-saturation_bits
  Sum r, g, b;
  Sum r_squared, g_squared, b_squared;
};
using ImageSums = SumsOf<int64_t>;
constexpr int num_image_sums = sizeof(ImageSums) / sizeof(int64_t);

// The columns of image_stats, in its order. All are in [0, 1].
struct ImageStats {
  double brightness_mean, contrast_std, saturation_mean, r_mean, g_mean, b_mean;
};
constexpr int num_image_stats = sizeof(ImageStats) / sizeof(double);

// PIL's "L" is (19595 R + 38470 G + 7471 B + 32768) >> 16. The high and the low bytes of the weights are
// applied apart, so that every step fits in 16 bits: the high bytes add up to 255 and the low ones to 256.
struct GreyWeights {
  uint16_t r, g, b;
};
constexpr GreyWeights grey_high{19595 >> 8, 38470 >> 8, 7471 >> 8};
constexpr GreyWeights grey_low{19595 & 255, 38470 & 255, 7471 & 255};

DOGS_ACCEL_HOST_DEVICE uint16_t weigh(GreyWeights weights, uint16_t r, uint16_t g, uint16_t b) {
  return static_cast<uint16_t>(weights.r * r + weights.g * g + weights.b * b);
}

DOGS_ACCEL_HOST_DEVICE uint16_t grey_of(uint16_t weighed_high, uint16_t weighed_low) {
  return static_cast<uint16_t>(static_cast<uint16_t>(weighed_high + (weighed_low >> 8) + 128) >> 8);
}

// HSV's saturation is (max - min) / max, rounded to float32, and here then to a multiple of 2^-23, which is
// what the bits of a float32 in [1, 2] count. The two roundings are off by less than 9e-8 together.
constexpr int saturation_bits = 23;

DOGS_ACCEL_HOST_DEVICE uint32_t saturation_of(float quotient) {
  return std::bit_cast<uint32_t>(1.0f + quotient) - std::bit_cast<uint32_t>(1.0f);
}

// range / max as IEEE rounds it, from 1 / max as IEEE rounds it: their product, corrected by its remainder.
// That it is, of all bytes range <= max with max >= 1, is asserted in cpu/image_stats.cpp.
DOGS_ACCEL_HOST_DEVICE constexpr float quotient_of(float range, float max, float inverse_of_max) {
  const float product = range * inverse_of_max;
  return std::fma(std::fma(-max, product, range), inverse_of_max, product);
}

// An integer's square root is taken of its float64, rounded here step by step because compilers have their
// own ways with 128 bits.
DOGS_ACCEL_HOST_DEVICE double to_double(unsigned __int128 value) {
  return static_cast<double>(static_cast<uint64_t>(value >> 64)) * 0x1p64 +
         static_cast<double>(static_cast<uint64_t>(value));
}

// The standard deviation is that of the population, sqrt(n sum(x^2) - sum(x)^2) / n. The difference is exact
// in 128 bits; so are all other operands, which are below 2^53 except for the sum of saturations.
DOGS_ACCEL_HOST_DEVICE ImageStats stats_of(const ImageSums& sums) {
  using Wide = unsigned __int128;
  const double n = static_cast<double>(sums.pixels);
  const double full = 255.0 * n;
  const Wide spread = static_cast<Wide>(sums.pixels) * static_cast<Wide>(sums.grey_squared) -
                      static_cast<Wide>(sums.grey) * static_cast<Wide>(sums.grey);
  return {
      static_cast<double>(sums.grey) / full,
      std::sqrt(to_double(spread)) / full,
      static_cast<double>(sums.saturation) / (static_cast<double>(1 << saturation_bits) * n),
      static_cast<double>(sums.r) / full,
      static_cast<double>(sums.g) / full,
      static_cast<double>(sums.b) / full,
  };
}

}  // namespace dogs_accel
