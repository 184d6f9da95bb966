// The steps of augment: the arithmetic of one pixel, shared by the CPU kernels and the CUDA kernels. Definition:
// torchvision's adjust_* and PIL's ImageOps on 8-bit images, which are Pillow 13's Blend.c, Convert.c and Filter.c.
#pragma once

#include <cmath>
#include <cstdint>

#include "affine.h"
#include "host_device.h"

namespace dogs_accel {

// The number of a step in `params`. dogs_accel.ops.AUGMENT_STEPS has the names in this order.
enum class StepKind : int32_t {
  none,
  affine,
  brightness,
  contrast,
  saturation,
  hue,
  grayscale,
  sharpness,
  posterize,
  solarize,
  autocontrast,
  equalize
};
constexpr const char* step_names[] = {"none",      "affine",    "brightness", "contrast", "saturation",   "hue",
                                      "grayscale", "sharpness", "posterize",  "solarize", "autocontrast", "equalize"};
constexpr int num_step_kinds = sizeof(step_names) / sizeof(step_names[0]);

constexpr double max_factor = 1e6;  // 255 times it is an int32
constexpr int num_levels = 256;

// A step that changes something.
struct Step {
  StepKind kind;
  float factor;        // of brightness, contrast, saturation and sharpness
  int32_t value;       // hue's shift; the bits that posterize keeps, as a mask of a byte; solarize's threshold
  FixedAffine affine;  // of affine

  // Whether it needs what only the whole image before it tells: then it begins a pass over the image.
  DOGS_ACCEL_HOST_DEVICE bool needs_sum() const { return kind == StepKind::contrast; }
  DOGS_ACCEL_HOST_DEVICE bool needs_extremes() const { return kind == StepKind::autocontrast; }
  DOGS_ACCEL_HOST_DEVICE bool needs_histogram() const { return kind == StepKind::equalize; }
  DOGS_ACCEL_HOST_DEVICE bool needs_neighbours() const {
    return kind == StepKind::affine || kind == StepKind::sharpness;
  }
  DOGS_ACCEL_HOST_DEVICE bool begins_pass() const {
    return needs_sum() || needs_extremes() || needs_histogram() || needs_neighbours();
  }
};

// A pixel is a word: R in its lowest byte, then G, then B; the highest says nothing.
DOGS_ACCEL_HOST_DEVICE uint32_t red(uint32_t pixel) { return pixel & 255; }
DOGS_ACCEL_HOST_DEVICE uint32_t green(uint32_t pixel) { return pixel >> 8 & 255; }
DOGS_ACCEL_HOST_DEVICE uint32_t blue(uint32_t pixel) { return pixel >> 16 & 255; }
DOGS_ACCEL_HOST_DEVICE uint32_t pixel_of(uint32_t r, uint32_t g, uint32_t b) { return r | g << 8 | b << 16; }

// PIL's "L".
DOGS_ACCEL_HOST_DEVICE uint32_t grey(uint32_t pixel) {
  return (red(pixel) * 19595 + green(pixel) * 38470 + blue(pixel) * 7471 + 32768) >> 16;
}

DOGS_ACCEL_HOST_DEVICE uint32_t grey_pixel(uint32_t pixel) { return grey(pixel) * 0x010101; }

// PIL's blend of a byte with another, factor 1 being the byte itself: the fraction is cut off.
DOGS_ACCEL_HOST_DEVICE uint32_t blend(int32_t other, uint32_t byte, float factor) {
  const int32_t difference = static_cast<int32_t>(byte) - other;
  const int32_t value = static_cast<int32_t>(static_cast<float>(other) + factor * static_cast<float>(difference));
  return static_cast<uint32_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

// Each byte of a pixel with that of another pixel.
DOGS_ACCEL_HOST_DEVICE uint32_t blend_pixels(uint32_t other, uint32_t pixel, float factor) {
  return pixel_of(blend(static_cast<int32_t>(red(other)), red(pixel), factor),
                  blend(static_cast<int32_t>(green(other)), green(pixel), factor),
                  blend(static_cast<int32_t>(blue(other)), blue(pixel), factor));
}

// Each byte of a pixel with the same byte.
DOGS_ACCEL_HOST_DEVICE uint32_t blend_pixel(int32_t other, uint32_t pixel, float factor) {
  return pixel_of(blend(other, red(pixel), factor), blend(other, green(pixel), factor),
                  blend(other, blue(pixel), factor));
}

// The same with black, which is a product, since a zero changes no sum.
DOGS_ACCEL_HOST_DEVICE uint32_t brighten(uint32_t pixel, float factor) {
  const auto brightened = [factor](uint32_t byte) {
    const auto value = static_cast<int32_t>(factor * static_cast<float>(static_cast<int32_t>(byte)));
    return static_cast<uint32_t>(value > 255 ? 255 : value);
  };
  return pixel_of(brightened(red(pixel)), brightened(green(pixel)), brightened(blue(pixel)));
}

DOGS_ACCEL_HOST_DEVICE uint32_t saturate(uint32_t pixel, float factor) {
  return blend_pixel(static_cast<int32_t>(grey(pixel)), pixel, factor);
}

// What contrast blends with: the mean of grey, rounded.
DOGS_ACCEL_HOST_DEVICE int32_t mean_of(int64_t sum, int64_t num_pixels) {
  return static_cast<int32_t>((2 * sum + num_pixels) / (2 * num_pixels));
}

// The bytes of a pixel that are at least `threshold`, inverted.
DOGS_ACCEL_HOST_DEVICE uint32_t solarize_pixel(uint32_t pixel, int32_t threshold) {
  const auto solarized = [threshold](uint32_t byte) {
    return static_cast<int32_t>(byte) < threshold ? byte : 255 - byte;
  };
  return pixel_of(solarized(red(pixel)), solarized(green(pixel)), solarized(blue(pixel)));
}

// What ImageFilter.SMOOTH makes of each byte: the weighted mean of 3 x 3 pixels, of which the middle counts 5 times and
// each other once. Pillow's sum in float32 rounds to the same byte, since 13 is odd: no mean lies between two bytes.
struct Smoothing {
  uint32_t red_and_blue = 0, green = 0;  // sums in 16 bits each

  DOGS_ACCEL_HOST_DEVICE void add(uint32_t pixel, uint32_t weight) {
    red_and_blue += (pixel & 0xff00ff) * weight;
    green += (pixel >> 8 & 255) * weight;
  }

  DOGS_ACCEL_HOST_DEVICE uint32_t pixel() const {
    return pixel_of(rounded(red_and_blue & 0xffff), rounded(green), rounded(red_and_blue >> 16));
  }

 private:
  // (2 sum + 13) / 26: a multiplication by the inverse, which is exact up to 13 * 255.
  DOGS_ACCEL_HOST_DEVICE static uint32_t rounded(uint32_t sum) { return (2 * sum + 13) * 10083 >> 18; }
};

// Hue. Pillow goes to HSV, which is bytes too, and back, in a mixture of float32 and float64. Only where it computes
// the hue do roundings decide bytes; the rest are the whole numbers nearest to fractions, or below them. Choices are
// between integers because gcc does not vectorise those between results of floating-point arithmetic.

struct Hsv {
  int32_t hue, saturation, value;
};

DOGS_ACCEL_HOST_DEVICE Hsv hsv_of(uint32_t pixel) {
  const auto larger = [](int32_t a, int32_t b) { return a > b ? a : b; };
  const auto smaller = [](int32_t a, int32_t b) { return a < b ? a : b; };
  const auto r = static_cast<int32_t>(red(pixel)), g = static_cast<int32_t>(green(pixel)),
             b = static_cast<int32_t>(blue(pixel));
  const int32_t most = larger(r, larger(g, b)), range = most - smaller(r, smaller(g, b));
  // In sixths of a turn: 0 + B - G where red is the largest, 2 + R - B where green is, 4 + G - R where blue is, each
  // counted as the share of the range that it is below the largest. Of the two one is the smallest, at 1: what is left
  // is one division and one sum.
  const int32_t plus = r == most ? b : g == most ? r : g;
  const int32_t minus = r == most ? g : g == most ? b : r;
  const int32_t middle = r == most ? 0 : g == most ? 2 : 4;
  const int32_t start = plus > minus ? middle - 1 : middle + 1;
  const int32_t below = plus > minus ? most - plus : minus - most;
  const float sixths = static_cast<float>(start) + static_cast<float>(below) / static_cast<float>(larger(range, 1));
  const int32_t is_negative = start < 0;
  const float turns = sixths / 6.0f + static_cast<float>(is_negative);
  const float saturation = static_cast<float>(range) * 255.0f / static_cast<float>(larger(most, 1));
  // Pillow has this product in float64. Of every colour its whole part is that of float32.
  return {static_cast<int32_t>(turns * 255.0f), static_cast<int32_t>(saturation), most};
}

DOGS_ACCEL_HOST_DEVICE uint32_t pixel_of(const Hsv& hsv) {
  const int32_t sixth = (hsv.hue * 6 + 1) * 257 >> 16;  // hue * 6 / 255: 6 of a whole turn, which is as 0
  const int32_t rest = hsv.hue * 6 - sixth * 255;
  const int32_t away = (sixth & 1) != 0 ? rest : 255 - rest;  // what is left to rise or has fallen
  // value * (255 - saturation) / 255, rounded
  const int32_t scaled = hsv.value * (255 - hsv.saturation) + 128;
  const int32_t low = (scaled + (scaled >> 8)) >> 8;
  // The channel that is between high and low: value * (255^2 - saturation * away) / 255^2, rounded. float32 has
  // each of these numerators, and the quotients just below whole numbers are not rounded up to them.
  constexpr int32_t whole = 255 * 255;
  const int32_t numerator = hsv.value * (whole - hsv.saturation * away) + whole / 2;
  const auto between = static_cast<int32_t>(static_cast<float>(numerator) * (1.0f / whole));
  // At which bit of the word the high and the low channel begin, 4 bits for each sixth from the first on.
  constexpr uint32_t high_of_sixths = 0 | 8 << 4 | 8 << 8 | 16 << 12 | 16 << 16 | 0 << 20 | 0 << 24;
  constexpr uint32_t low_of_sixths = 16 | 16 << 4 | 0 << 8 | 0 << 12 | 8 << 16 | 8 << 20 | 16 << 24;
  const uint32_t high_at = high_of_sixths >> 4 * sixth & 24, low_at = low_of_sixths >> 4 * sixth & 24;
  return static_cast<uint32_t>(hsv.value) << high_at | static_cast<uint32_t>(low) << low_at |
         static_cast<uint32_t>(between) << (24 - high_at - low_at);
}

DOGS_ACCEL_HOST_DEVICE uint32_t shift_hue(uint32_t pixel, int32_t shift) {
  Hsv hsv = hsv_of(pixel);
  hsv.hue = (hsv.hue + shift) & 255;
  return pixel_of(hsv);
}

// What a byte becomes where those of its channel are `lowest` to `highest`: autocontrast.
DOGS_ACCEL_HOST_DEVICE uint8_t stretched(int32_t byte, int32_t lowest, int32_t highest) {
  if (highest <= lowest) {
    return static_cast<uint8_t>(byte);
  }
  const double scale = 255.0 / (highest - lowest), offset = -lowest * scale;
  const auto value = static_cast<int32_t>(byte * scale + offset);
  return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

// How equalize counts a channel: the pixels of each byte are given, and what each byte becomes follows from those of
// the bytes below it.
struct Equalization {
  uint32_t step = 0;

  DOGS_ACCEL_HOST_DEVICE explicit Equalization(const uint32_t* histogram) {
    uint32_t num_pixels = 0, last = 0;
    for (int byte = 0; byte < num_levels; ++byte) {
      num_pixels += histogram[byte];
      last = histogram[byte] > 0 ? histogram[byte] : last;
    }
    step = (num_pixels - last) / 255;
  }

  DOGS_ACCEL_HOST_DEVICE uint8_t of(uint32_t byte, uint32_t num_below) const {
    if (step == 0) {
      return static_cast<uint8_t>(byte);
    }
    const uint32_t value = (step / 2 + num_below) / step;
    return static_cast<uint8_t>(value > 255 ? 255 : value);
  }
};

}  // namespace dogs_accel
