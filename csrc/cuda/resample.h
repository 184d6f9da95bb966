// Pillow's resampling, an output pixel a thread. What the first pass leaves for the second is worked out where it is
// needed, and rounded to bytes as if it had been stored: at most twice (bilinear) or four times (bicubic) the work of
// two passes where an image shrinks, and no image between them.
#pragma once

#include <cstdint>

#include "../resample.h"

namespace dogs_accel {

constexpr int threads_per_block = 256;

// What every output pixel of an axis is made of: its first input pixel, its number of taps, and their weights. Entries
// of neighbouring pixels are neighbours, for neighbouring threads.
struct WeightTable {
  int32_t* words;
  int32_t out_size;

  // One output pixel.
  struct Entry {
    int32_t first, size;
    const int32_t* weights;
    int64_t distance;

    DOGS_ACCEL_HOST_DEVICE int32_t weight(int32_t k) const { return weights[k * distance]; }
  };

  DOGS_ACCEL_HOST_DEVICE Entry of(int32_t out) const {
    return {words[out], words[out_size + out], words + weight_at(out, 0), out_size};
  }

  DOGS_ACCEL_HOST_DEVICE void fill(const Axis& axis, int32_t out) const {
    const Taps taps = taps_of(axis, out);
    int32_t num_taps = 0;
    for (int32_t k = 0; k < taps.size; ++k) {
      const int32_t weight = weight_of(axis, taps, k);
      words[weight_at(out, k)] = weight;
      num_taps = weight != 0 ? k + 1 : num_taps;
    }
    words[out] = taps.first;
    words[out_size + out] = num_taps;
  }

 private:
  DOGS_ACCEL_HOST_DEVICE int64_t weight_at(int32_t out, int32_t k) const {
    return static_cast<int64_t>(k + 2) * out_size + out;
  }
};

// How many words the table of an axis takes.
DOGS_ACCEL_HOST_DEVICE int64_t table_size(const Axis& axis) {
  return static_cast<int64_t>(max_taps(axis) + 2) * axis.out_size;
}

// The same as of a table where there is no room for one: each thread works out the weights that it needs.
struct Weights {
  Axis axis;

  struct Entry {
    int32_t first, size;
    Axis axis;
    Taps taps;

    DOGS_ACCEL_HOST_DEVICE int32_t weight(int32_t k) const { return weight_of(axis, taps, k); }
  };

  DOGS_ACCEL_HOST_DEVICE Entry of(int32_t out) const {
    const Taps taps = taps_of(axis, out);
    return {taps.first, taps.size, axis, taps};
  }
};

struct Channels {
  int32_t r, g, b;

  DOGS_ACCEL_HOST_DEVICE void add(const Channels& values, int32_t weight) {
    r += values.r * weight;
    g += values.g * weight;
    b += values.b * weight;
  }

  DOGS_ACCEL_HOST_DEVICE Channels rounded() const { return {rounded_byte(r), rounded_byte(g), rounded_byte(b)}; }
};

// An image in the memory of the device. Strides count bytes and may be 0.
struct Image {
  const uint8_t* pixels;
  int64_t row_stride, column_stride, channel_stride;
  int32_t height, width;

  DOGS_ACCEL_HOST_DEVICE Channels pixel(int32_t x, int32_t y) const {
    const uint8_t* at = pixels + y * row_stride + x * column_stride;
    return {at[0], at[channel_stride], at[2 * channel_stride]};
  }
};

// One pixel after two passes, of which the first is along one axis and the second along the other; `pixel_at` takes a
// place on the first axis and one on the second.
template <class First, class Second, class PixelAt>
DOGS_ACCEL_HOST_DEVICE Channels resampled(const First& first, const Second& second, const PixelAt& pixel_at) {
  Channels sums{half_weight, half_weight, half_weight};
  for (int32_t i = 0; i < second.size; ++i) {
    Channels line_sums{half_weight, half_weight, half_weight};
    for (int32_t k = 0; k < first.size; ++k) {
      line_sums.add(pixel_at(first.first + k, second.first + i), first.weight(k));
    }
    sums.add(line_sums.rounded(), second.weight(i));
  }
  return sums.rounded();
}

// Pixel (x, y) of an image that is resampled by the weights of both axes; `pixel_at` takes x and y of the image.
template <class Table, class PixelAt>
DOGS_ACCEL_HOST_DEVICE Channels resampled_pixel(const Table& horizontal, const Table& vertical, bool is_vertical_first,
                                                int32_t x, int32_t y, const PixelAt& pixel_at) {
  return is_vertical_first ? resampled(vertical.of(y), horizontal.of(x),
                                       [&](int32_t row, int32_t column) { return pixel_at(column, row); })
                           : resampled(horizontal.of(x), vertical.of(y),
                                       [&](int32_t column, int32_t row) { return pixel_at(column, row); });
}

#if defined(__CUDACC__)

// By all threads of a block.
__device__ inline void fill_table(const Axis& axis, const WeightTable& table) {
  for (int32_t out = threadIdx.x; out < axis.out_size; out += threads_per_block) {
    table.fill(axis, out);
  }
}

// Writes the pixels that a block's first threads have, one each, so that neighbouring threads write neighbouring
// values.
template <class Value>
__device__ void store_pixels(Value first, Value second, Value third, int num_pixels, Value* out) {
  __shared__ Value staged[3 * threads_per_block];
  staged[3 * threadIdx.x] = first;
  staged[3 * threadIdx.x + 1] = second;
  staged[3 * threadIdx.x + 2] = third;
  __syncthreads();
  for (int i = threadIdx.x; i < 3 * num_pixels; i += threads_per_block) {
    out[i] = staged[i];
  }
}

#endif

}  // namespace dogs_accel
