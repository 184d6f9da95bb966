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

  DOGS_ACCEL_HOST_DEVICE int32_t first(int32_t out) const { return words[out]; }
  DOGS_ACCEL_HOST_DEVICE int32_t num_taps(int32_t out) const { return words[out_size + out]; }
  DOGS_ACCEL_HOST_DEVICE int32_t weight(int32_t out, int32_t k) const { return words[weight_at(out, k)]; }

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

struct Channels {
  int32_t r, g, b;

  DOGS_ACCEL_HOST_DEVICE void add(const Channels& values, int32_t weight) {
    r += values.r * weight;
    g += values.g * weight;
    b += values.b * weight;
  }

  DOGS_ACCEL_HOST_DEVICE Channels rounded() const { return {rounded_byte(r), rounded_byte(g), rounded_byte(b)}; }
};

// An axis of an image to be resampled. Strides count bytes and may be 0.
struct ResampledAxis {
  WeightTable table;
  int64_t stride;
};

struct ResampledImage {
  const uint8_t* pixels;
  int64_t channel_stride;
  ResampledAxis horizontal, vertical;
  bool is_vertical_first;

  DOGS_ACCEL_HOST_DEVICE Channels pixel(int32_t x, int32_t y) const {
    return is_vertical_first ? pixel_of(vertical, y, horizontal, x) : pixel_of(horizontal, x, vertical, y);
  }

 private:
  DOGS_ACCEL_HOST_DEVICE Channels pixel_of(const ResampledAxis& first, int32_t first_out, const ResampledAxis& second,
                                           int32_t second_out) const {
    const uint8_t* line =
        pixels + first.table.first(first_out) * first.stride + second.table.first(second_out) * second.stride;
    const int32_t first_taps = first.table.num_taps(first_out), second_taps = second.table.num_taps(second_out);
    Channels sums{half_weight, half_weight, half_weight};
    for (int32_t i = 0; i < second_taps; ++i, line += second.stride) {
      Channels line_sums{half_weight, half_weight, half_weight};
      const uint8_t* from = line;
      for (int32_t k = 0; k < first_taps; ++k, from += first.stride) {
        line_sums.add({from[0], from[channel_stride], from[2 * channel_stride]}, first.table.weight(first_out, k));
      }
      sums.add(line_sums.rounded(), second.table.weight(second_out, i));
    }
    return sums.rounded();
  }
};

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
