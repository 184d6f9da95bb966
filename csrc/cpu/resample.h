// Both passes of Pillow's resampling over rows of interleaved bytes. Everything is inlined, to be compiled for each
// instruction set, and nothing is allocated once the buffers have grown.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../resample.h"

namespace dogs_accel {

constexpr int64_t most_rows_at_once = 16;  // of the horizontal pass, which has a row in each lane of a vector
constexpr int64_t row_alignment = 64;

// A pixel is moved as 4 bytes, so a row is written up to one byte beyond its end.
inline int64_t padded_row(int64_t width) { return (3 * width + 1 + row_alignment - 1) / row_alignment * row_alignment; }

// RGB bytes; rows may be any distance apart.
struct Rows {
  const uint8_t* bytes;
  int64_t stride;
  int32_t height, width;
};

// A range of the pixels of an axis.
struct Range {
  int32_t begin, end;

  int32_t size() const { return end - begin; }
};

// The weights of the output pixels of a range of an axis, as many for each: those that are missing are 0.
struct WeightTable {
  int32_t taps = 0;
  Range inputs{};              // the input pixels that they are made of
  std::vector<int32_t> first;  // counted from the first of `inputs`
  std::vector<int32_t> weights;

  void fill(const Axis& axis, const Range& outputs) {
    const int32_t most = max_taps(axis);
    const int32_t size = outputs.size();
    first.resize(size);
    weights.assign(static_cast<int64_t>(size) * most, 0);
    taps = 1;
    for (int32_t out = 0; out < size; ++out) {
      const Taps own = taps_of(axis, outputs.begin + out);
      inputs = {out == 0 ? own.first : inputs.begin, own.first + own.size};
      first[out] = own.first - inputs.begin;
      for (int32_t k = 0; k < own.size; ++k) {
        const int32_t weight = weight_of(axis, own, k);
        weights[static_cast<int64_t>(out) * most + k] = weight;
        taps = weight != 0 ? std::max(taps, k + 1) : taps;
      }
    }
    for (int32_t out = 0; out < size; ++out) {
      std::copy_n(&weights[static_cast<int64_t>(out) * most], taps, &weights[static_cast<int64_t>(out) * taps]);
    }
  }
};

template <int lanes>
struct VectorOf {
  typedef int32_t type __attribute__((vector_size(4 * lanes)));
};
template <int lanes>
using Vector = typename VectorOf<lanes>::type;

// A template argument loses what an attribute says of alignment, a structure's does not.
struct alignas(4 * most_rows_at_once) WidestVector {
  int32_t lanes[most_rows_at_once];
};

// The same pixel of as many rows as there are lanes.
template <int lanes>
struct PixelColumn {
  Vector<lanes> r, g, b;
};

// Gathers rows, a pixel of 4 bytes in each lane, and takes them apart.
template <int lanes>
DOGS_ACCEL_INLINE void gather_rows(const Rows& in, int64_t y, Vector<lanes>* words, PixelColumn<lanes>* columns) {
  for (int64_t r = 0; r < lanes; ++r) {
    const uint8_t* row = in.bytes + std::min<int64_t>(y + r, in.height - 1) * in.stride;
    auto* word = reinterpret_cast<uint8_t*>(words) + 4 * r;
    for (int64_t x = 0; x < in.width - 1; ++x) {
      std::memcpy(word + 4 * lanes * x, row + 3 * x, 4);
    }
    // Nobody says that there is a byte behind the last pixel.
    std::memcpy(word + 4 * lanes * (in.width - 1), row + 3 * (in.width - 1), 3);
  }
  for (int64_t x = 0; x < in.width; ++x) {
    columns[x] = {words[x] & 255, words[x] >> 8 & 255, words[x] >> 16 & 255};
  }
}

template <int lanes>
DOGS_ACCEL_INLINE Vector<lanes> rounded_bytes(Vector<lanes> sums) {
  const Vector<lanes> zero{};
  sums >>= weight_bits;
  sums = sums < 0 ? zero : sums;
  return sums > 255 ? zero + 255 : sums;
}

// One output pixel of as many rows as there are lanes. With `fixed_taps` the loop has that length, else `taps`.
template <int fixed_taps, int lanes>
DOGS_ACCEL_INLINE Vector<lanes> weigh_columns(const PixelColumn<lanes>* columns, const int32_t* weights, int32_t taps) {
  const Vector<lanes> start = Vector<lanes>{} + half_weight;
  Vector<lanes> r = start, g = start, b = start;
  const int32_t size = fixed_taps > 0 ? fixed_taps : taps;
  for (int32_t k = 0; k < size; ++k) {
    r += columns[k].r * weights[k];
    g += columns[k].g * weights[k];
    b += columns[k].b * weights[k];
  }
  return rounded_bytes<lanes>(r) | rounded_bytes<lanes>(g) << 8 | rounded_bytes<lanes>(b) << 16;
}

template <int fixed_taps, int lanes>
DOGS_ACCEL_INLINE void weigh_gathered_rows(const PixelColumn<lanes>* columns, const WeightTable& table,
                                           bool is_mirrored, uint8_t* out, int64_t stride) {
  const auto width = static_cast<int64_t>(table.first.size());
  for (int64_t x = 0; x < width; ++x) {
    const int64_t entry = is_mirrored ? width - 1 - x : x;
    const Vector<lanes> words =
        weigh_columns<fixed_taps, lanes>(columns + table.first[entry], &table.weights[entry * table.taps], table.taps);
    for (int64_t r = 0; r < lanes; ++r) {
      const int32_t word = words[r];
      std::memcpy(out + r * stride + 3 * x, &word, 4);
    }
  }
}

// Writes the rows of `in` resampled along x to `out`, which has room for most_rows_at_once more.
template <int lanes>
DOGS_ACCEL_INLINE void resample_horizontally(const Rows& in, const WeightTable& table, bool is_mirrored,
                                             std::vector<WidestVector>& buffer, uint8_t* out, int64_t stride) {
  // Behind the last column there is room for taps of weight 0.
  buffer.resize(in.width + 3 * static_cast<int64_t>(in.width + table.taps));
  auto* const words = reinterpret_cast<Vector<lanes>*>(buffer.data());
  auto* const columns = reinterpret_cast<PixelColumn<lanes>*>(words + in.width);
  for (int64_t y = 0; y < in.height; y += lanes) {
    gather_rows<lanes>(in, y, words, columns);
    uint8_t* rows = out + y * stride;
    switch (table.taps) {
      case 2:
        weigh_gathered_rows<2, lanes>(columns, table, is_mirrored, rows, stride);
        break;
      case 3:
        weigh_gathered_rows<3, lanes>(columns, table, is_mirrored, rows, stride);
        break;
      default:
        weigh_gathered_rows<0, lanes>(columns, table, is_mirrored, rows, stride);
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
  std::vector<WidestVector> columns;
  std::vector<int32_t> sums;
  std::vector<uint8_t> between, result;

  // Resamples to (height, width) and returns the rows and columns of that which are asked for, computing no others.
  // They stay as they are until the next call, and are mirrored left to right where that is asked for.
  template <int lanes>
  DOGS_ACCEL_INLINE Rows resample(const Rows& image, int32_t height, int32_t width, Interpolation interpolation,
                                  bool is_mirrored, const Range& out_rows, const Range& out_columns) {
    horizontal.fill(axis_of(image.width, width, interpolation), out_columns);
    vertical.fill(axis_of(image.height, height, interpolation), out_rows);
    const Rows in{image.bytes + vertical.inputs.begin * image.stride + int64_t{3} * horizontal.inputs.begin,
                  image.stride, vertical.inputs.size(), horizontal.inputs.size()};
    const Rows out = room_for(result, out_rows.size(), out_columns.size());
    if (is_vertical_first(image.height, image.width, height, width)) {
      const Rows wide = room_for(between, out.height, in.width);
      resample_vertically(in, vertical, sums, between.data(), wide.stride);
      resample_horizontally<lanes>(wide, horizontal, is_mirrored, columns, result.data(), out.stride);
    } else {
      const Rows tall = room_for(between, in.height, out.width);
      resample_horizontally<lanes>(in, horizontal, is_mirrored, columns, between.data(), tall.stride);
      resample_vertically(tall, vertical, sums, result.data(), out.stride);
    }
    return out;
  }

  template <int lanes>
  DOGS_ACCEL_INLINE Rows resample(const Rows& image, int32_t height, int32_t width, Interpolation interpolation,
                                  bool is_mirrored) {
    return resample<lanes>(image, height, width, interpolation, is_mirrored, {0, height}, {0, width});
  }

 private:
  // Rows of a buffer, which has as many more as the horizontal pass writes beyond their end.
  static Rows room_for(std::vector<uint8_t>& buffer, int32_t height, int32_t width) {
    const int64_t stride = padded_row(width);
    buffer.resize((height + most_rows_at_once) * stride);
    return {buffer.data(), stride, height, width};
  }
};

}  // namespace dogs_accel
