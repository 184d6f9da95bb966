// Both passes of Pillow's resampling over rows of interleaved bytes. Everything is inlined, to be compiled for each
// instruction set, and nothing is allocated once the buffers have grown.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../resample.h"

namespace dogs_accel {

constexpr int64_t rows_at_once = 4;  // of the horizontal pass: 4 pixels of 4 bytes fill the lanes of a vector
constexpr int64_t row_alignment = 64;

// A pixel is moved as 4 bytes, so a row is written up to one byte beyond its end.
inline int64_t padded_row(int64_t width) { return (3 * width + 1 + row_alignment - 1) / row_alignment * row_alignment; }

// RGB bytes; rows may be any distance apart.
struct Rows {
  const uint8_t* bytes;
  int64_t stride;
  int32_t height, width;
};

// The weights of every output pixel of an axis, as many for each: those that are missing are 0.
struct WeightTable {
  int32_t taps = 0;
  std::vector<int32_t> first;
  std::vector<int32_t> weights;

  void fill(const Axis& axis) {
    const int32_t most = max_taps(axis);
    first.resize(axis.out_size);
    weights.assign(static_cast<int64_t>(axis.out_size) * most, 0);
    taps = 1;
    for (int32_t out = 0; out < axis.out_size; ++out) {
      const Taps own = taps_of(axis, out);
      first[out] = own.first;
      for (int32_t k = 0; k < own.size; ++k) {
        const int32_t weight = weight_of(axis, own, k);
        weights[static_cast<int64_t>(out) * most + k] = weight;
        taps = weight != 0 ? std::max(taps, k + 1) : taps;
      }
    }
    for (int32_t out = 0; out < axis.out_size; ++out) {
      std::copy_n(&weights[static_cast<int64_t>(out) * most], taps, &weights[static_cast<int64_t>(out) * taps]);
    }
  }
};

using Bytes16 = uint8_t __attribute__((vector_size(16)));
using Sums16 = int32_t __attribute__((vector_size(64)));

// One output pixel of four rows. With `fixed_taps` the loop has that length, else `taps`.
template <int fixed_taps>
DOGS_ACCEL_INLINE Bytes16 weigh_pixels(const Bytes16* pixels, const int32_t* weights, int32_t taps) {
  Sums16 sums = half_weight - Sums16{};
  const int32_t size = fixed_taps > 0 ? fixed_taps : taps;
  for (int32_t k = 0; k < size; ++k) {
    sums += __builtin_convertvector(pixels[k], Sums16) * weights[k];
  }
  sums >>= weight_bits;
  sums = sums < 0 ? Sums16{} : sums;
  sums = sums > 255 ? 255 - Sums16{} : sums;
  return __builtin_convertvector(sums, Bytes16);
}

template <int fixed_taps>
DOGS_ACCEL_INLINE void weigh_four_rows(const Bytes16* pixels, const WeightTable& table, bool is_mirrored,
                                       uint8_t* out, int64_t stride) {
  const auto width = static_cast<int64_t>(table.first.size());
  for (int64_t x = 0; x < width; ++x) {
    const int64_t entry = is_mirrored ? width - 1 - x : x;
    const Bytes16 four = weigh_pixels<fixed_taps>(pixels + table.first[entry], &table.weights[entry * table.taps],
                                                  table.taps);
    for (int64_t r = 0; r < rows_at_once; ++r) {
      std::memcpy(out + r * stride + 3 * x, reinterpret_cast<const uint8_t*>(&four) + 4 * r, 4);
    }
  }
}

// Gathers four rows, pixel by pixel; beyond the end there is room for taps of weight 0.
DOGS_ACCEL_INLINE void interleave_rows(const Rows& in, int64_t y, uint32_t* pixels) {
  for (int64_t r = 0; r < rows_at_once; ++r) {
    const uint8_t* row = in.bytes + std::min<int64_t>(y + r, in.height - 1) * in.stride;
    for (int64_t x = 0; x < in.width - 1; ++x) {
      std::memcpy(pixels + rows_at_once * x + r, row + 3 * x, 4);
    }
    const uint8_t* last = row + 3 * (in.width - 1);  // nobody says that there is a byte behind it
    pixels[rows_at_once * (in.width - 1) + r] = last[0] | last[1] << 8 | last[2] << 16;
  }
}

// Writes the rows of `in` resampled along x to `out`, which has room for a multiple of four padded rows.
DOGS_ACCEL_INLINE void resample_horizontally(const Rows& in, const WeightTable& table, bool is_mirrored,
                                             std::vector<Bytes16>& pixels, uint8_t* out, int64_t stride) {
  pixels.resize(in.width + table.taps);
  for (int64_t y = 0; y < in.height; y += rows_at_once) {
    interleave_rows(in, y, reinterpret_cast<uint32_t*>(pixels.data()));
    uint8_t* rows = out + y * stride;
    switch (table.taps) {
      case 2:
        weigh_four_rows<2>(pixels.data(), table, is_mirrored, rows, stride);
        break;
      case 3:
        weigh_four_rows<3>(pixels.data(), table, is_mirrored, rows, stride);
        break;
      default:
        weigh_four_rows<0>(pixels.data(), table, is_mirrored, rows, stride);
    }
  }
}

template <int taps>
DOGS_ACCEL_INLINE void weigh_rows(const uint8_t* const (&rows)[taps], const int32_t* weights, int64_t size,
                                  uint8_t* __restrict__ out) {
  for (int64_t i = 0; i < size; ++i) {
    int32_t sum = half_weight;
#pragma GCC unroll 4
    for (int k = 0; k < taps; ++k) {
      sum += rows[k][i] * weights[k];
    }
    out[i] = rounded_byte(sum);
  }
}

// The first `taps` rows of many: adds them to `sums`.
template <int taps>
DOGS_ACCEL_INLINE void add_rows(const uint8_t* rows, int64_t stride, const int32_t* weights, int64_t size,
                                int32_t* __restrict__ sums) {
  for (int64_t i = 0; i < size; ++i) {
    int32_t sum = sums[i];
#pragma GCC unroll 4
    for (int k = 0; k < taps; ++k) {
      sum += rows[k * stride + i] * weights[k];
    }
    sums[i] = sum;
  }
}

DOGS_ACCEL_INLINE void weigh_many_rows(const uint8_t* rows, int64_t stride, const int32_t* weights, int32_t taps,
                                       int64_t size, std::vector<int32_t>& sums, uint8_t* __restrict__ out) {
  sums.assign(size, half_weight);
  int32_t k = 0;
  for (; k + 4 <= taps; k += 4) {
    add_rows<4>(rows + k * stride, stride, weights + k, size, sums.data());
  }
  for (; k < taps; ++k) {
    add_rows<1>(rows + k * stride, stride, weights + k, size, sums.data());
  }
  for (int64_t i = 0; i < size; ++i) {
    out[i] = rounded_byte(sums[i]);
  }
}

DOGS_ACCEL_INLINE void resample_vertically(const Rows& in, const WeightTable& table, std::vector<int32_t>& sums,
                                           uint8_t* out, int64_t stride) {
  const int64_t size = 3 * static_cast<int64_t>(in.width);
  const auto height = static_cast<int64_t>(table.first.size());
  for (int64_t y = 0; y < height; ++y) {
    const int32_t* weights = &table.weights[y * table.taps];
    const uint8_t* row = in.bytes + table.first[y] * in.stride;
    // Taps of weight 0 may be beyond the last row.
    const int32_t taps = std::min(table.taps, in.height - table.first[y]);
    const auto row_at = [&](int32_t k) { return row + std::min(k, taps - 1) * in.stride; };
    switch (table.taps) {
      case 1:
        weigh_rows<1>({row}, weights, size, out + y * stride);
        break;
      case 2:
        weigh_rows<2>({row, row_at(1)}, weights, size, out + y * stride);
        break;
      case 3:
        weigh_rows<3>({row, row_at(1), row_at(2)}, weights, size, out + y * stride);
        break;
      default:
        weigh_many_rows(row, in.stride, weights, taps, size, sums, out + y * stride);
    }
  }
}

// Buffers of one thread. They grow to what its largest image takes.
struct Resampler {
  WeightTable horizontal, vertical;
  std::vector<Bytes16> pixels;
  std::vector<int32_t> sums;
  std::vector<uint8_t> between, result;

  // Returns rows that stay as they are until the next call; mirrored left to right where that is asked for.
  DOGS_ACCEL_INLINE Rows resample(const Rows& in, int32_t height, int32_t width, Interpolation interpolation,
                                  bool is_mirrored) {
    horizontal.fill(axis_of(in.width, width, interpolation));
    vertical.fill(axis_of(in.height, height, interpolation));
    const int64_t stride = padded_row(width);
    result.resize((height + rows_at_once) * stride);
    if (is_vertical_first(in.height, in.width, height, width)) {
      const int64_t wide_stride = padded_row(in.width);
      between.resize(height * wide_stride);
      resample_vertically(in, vertical, sums, between.data(), wide_stride);
      resample_horizontally({between.data(), wide_stride, height, in.width}, horizontal, is_mirrored, pixels,
                            result.data(), stride);
    } else {
      between.resize((in.height + rows_at_once) * stride);
      resample_horizontally(in, horizontal, is_mirrored, pixels, between.data(), stride);
      resample_vertically({between.data(), stride, in.height, width}, vertical, sums, result.data(), stride);
    }
    return {result.data(), stride, height, width};
  }
};

}  // namespace dogs_accel
