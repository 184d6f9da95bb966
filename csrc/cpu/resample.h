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

// Of a row up to 13 bytes beyond its end are written.
inline int64_t padded_row(int64_t width) {
  return (3 * width + 13 + row_alignment - 1) / row_alignment * row_alignment;
}

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

template <int lanes>
DOGS_ACCEL_INLINE Vector<lanes> rounded_bytes(Vector<lanes> sums) {
  const Vector<lanes> zero{};
  sums >>= weight_bits;
  sums = sums < 0 ? zero : sums;
  return sums > 255 ? zero + 255 : sums;
}

// Four pixels as words, or the same pixel of four rows.
using FourWords = Vector<4>;
typedef uint8_t SixteenBytes __attribute__((vector_size(16)));

// Rows become columns.
DOGS_ACCEL_INLINE void transpose(FourWords (&rows)[4]) {
  constexpr FourWords low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, last = {2, 3, 6, 7};
  const FourWords a = __builtin_shuffle(rows[0], rows[1], low), b = __builtin_shuffle(rows[2], rows[3], low),
                  c = __builtin_shuffle(rows[0], rows[1], high), d = __builtin_shuffle(rows[2], rows[3], high);
  rows[0] = __builtin_shuffle(a, b, first);
  rows[1] = __builtin_shuffle(a, b, last);
  rows[2] = __builtin_shuffle(c, d, first);
  rows[3] = __builtin_shuffle(c, d, last);
}

// Four pixels of three bytes; reads 16. SSE2 has no such shuffle.
DOGS_ACCEL_INLINE FourWords words_of_bytes(const uint8_t* bytes) {
  SixteenBytes pixels;
  std::memcpy(&pixels, bytes, sizeof(pixels));
  constexpr SixteenBytes spread = {0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12};
  return (FourWords)__builtin_shuffle(pixels, spread);
}

// Writes 16 bytes, of which the last four say nothing.
DOGS_ACCEL_INLINE void write_bytes_of_words(FourWords words, uint8_t* bytes) {
  constexpr SixteenBytes packed = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 15, 15, 15};
  const SixteenBytes pixels = __builtin_shuffle((SixteenBytes)words, packed);
  std::memcpy(bytes, &pixels, sizeof(pixels));
}

// Gathers the columns of a range from rows `y` on, a row in each lane, and takes their pixels apart.
template <int lanes>
DOGS_ACCEL_INLINE void gather_columns(const Rows& in, int64_t y, const Range& range, FourWords* words,
                                      PixelColumn<lanes>* columns) {
  constexpr int quarters = lanes / 4;
  const auto row_at = [&](int64_t r) { return in.bytes + std::min<int64_t>(y + r, in.height - 1) * in.stride; };
  const auto word_at = [&](int64_t x) { return words + quarters * (x - range.begin); };
  int64_t x = range.begin;
  if constexpr (lanes > 4) {
    // Nobody says that there is a byte behind the last pixel of a row.
    for (; x < range.end && 3 * x + 16 <= int64_t{3} * in.width; x += 4) {
      for (int quarter = 0; quarter < quarters; ++quarter) {
        FourWords four[4];
        for (int r = 0; r < 4; ++r) {
          four[r] = words_of_bytes(row_at(4 * quarter + r) + 3 * x);
        }
        transpose(four);
        for (int i = 0; i < 4; ++i) {
          word_at(x + i)[quarter] = four[i];
        }
      }
    }
  }
  const int64_t rest = x, last = in.width - 1;
  for (int64_t r = 0; r < lanes; ++r) {
    const uint8_t* row = row_at(r);
    for (x = rest; x < std::min<int64_t>(range.end, last); ++x) {
      std::memcpy(reinterpret_cast<uint8_t*>(word_at(x)) + 4 * r, row + 3 * x, 4);
    }
    if (x == last && x < range.end) {
      std::memcpy(reinterpret_cast<uint8_t*>(word_at(x)) + 4 * r, row + 3 * x, 3);
    }
  }
  const auto* columns_of_words = reinterpret_cast<const Vector<lanes>*>(words);
  for (int64_t i = 0; i < range.size(); ++i) {
    const Vector<lanes> word = columns_of_words[i];
    columns[i] = {word & 255, word >> 8 & 255, word >> 16 & 255};
  }
}

// One output pixel of as many rows as there are lanes. With `fixed_taps` the loop has that length, else `taps`.
template <int fixed_taps, int lanes>
DOGS_ACCEL_INLINE Vector<lanes> weigh_columns(const PixelColumn<lanes>* columns, const int32_t* weights, int32_t taps) {
  const Vector<lanes> start = Vector<lanes>{} + half_weight;
  Vector<lanes> r = start, g = start, b = start;
  const int32_t size = fixed_taps > 0 ? fixed_taps : taps;
#pragma GCC unroll 8
  for (int32_t k = 0; k < size; ++k) {
    r += columns[k].r * weights[k];
    g += columns[k].g * weights[k];
    b += columns[k].b * weights[k];
  }
  return rounded_bytes<lanes>(r) | rounded_bytes<lanes>(g) << 8 | rounded_bytes<lanes>(b) << 16;
}

template <int fixed_taps, int lanes>
DOGS_ACCEL_INLINE void weigh_gathered_columns(const PixelColumn<lanes>* columns, const WeightTable& table,
                                              const Range& entries, bool is_mirrored, Vector<lanes>* out) {
  const int32_t begin = table.first[entries.begin];
  for (int32_t entry = entries.begin; entry < entries.end; ++entry) {
    out[is_mirrored ? entries.end - 1 - entry : entry - entries.begin] = weigh_columns<fixed_taps, lanes>(
        columns + (table.first[entry] - begin), &table.weights[int64_t{entry} * table.taps], table.taps);
  }
}

// Writes pixels that have a row in each lane to rows.
template <int lanes>
DOGS_ACCEL_INLINE void scatter_columns(const FourWords* words, int32_t size, uint8_t* out, int64_t stride) {
  constexpr int quarters = lanes / 4;
  if constexpr (lanes == 4) {
    for (int32_t x = 0; x < size; ++x) {
      for (int r = 0; r < lanes; ++r) {
        const int32_t word = words[x][r];
        std::memcpy(out + r * stride + int64_t{3} * x, &word, 4);
      }
    }
    return;
  }
  for (int32_t x = 0; x < size; x += 4) {
    for (int q = 0; q < quarters; ++q) {
      FourWords four[4];
      for (int i = 0; i < 4; ++i) {
        four[i] = words[quarters * (x + i) + q];
      }
      transpose(four);
      for (int r = 0; r < 4; ++r) {
        write_bytes_of_words(four[r], out + (4 * q + r) * stride + int64_t{3} * x);
      }
    }
  }
}

constexpr int32_t outputs_at_once = 64;

// Writes the rows of `in` resampled along x to `out`, which has room for most_rows_at_once more.
template <int lanes>
DOGS_ACCEL_INLINE void resample_horizontally(const Rows& in, const WeightTable& table, bool is_mirrored,
                                             std::vector<WidestVector>& buffer, uint8_t* out, int64_t stride) {
  const auto width = static_cast<int32_t>(table.first.size());
  // Behind the last column there is room for taps of weight 0.
  buffer.resize(outputs_at_once + in.width + 4 + 3 * static_cast<int64_t>(in.width + table.taps));
  auto* const results = reinterpret_cast<Vector<lanes>*>(buffer.data());
  auto* const words = reinterpret_cast<FourWords*>(results + outputs_at_once);
  auto* const columns = reinterpret_cast<PixelColumn<lanes>*>(reinterpret_cast<Vector<lanes>*>(words) + in.width + 4);
  for (int64_t y = 0; y < in.height; y += lanes) {
    uint8_t* rows = out + y * stride;
    for (int32_t x = 0; x < width; x += outputs_at_once) {
      // A row is written from left to right: what is written beyond its end is written again.
      const int32_t end = std::min(x + outputs_at_once, width);
      const Range entries = is_mirrored ? Range{width - end, width - x} : Range{x, end};
      const int32_t begin = table.first[entries.begin];
      gather_columns<lanes>(in, y, {begin, std::min(table.first[entries.end - 1] + table.taps, in.width)}, words,
                            columns);
      switch (table.taps) {
        case 2:
          weigh_gathered_columns<2, lanes>(columns, table, entries, is_mirrored, results);
          break;
        case 3:
          weigh_gathered_columns<3, lanes>(columns, table, entries, is_mirrored, results);
          break;
        case 5:
          weigh_gathered_columns<5, lanes>(columns, table, entries, is_mirrored, results);
          break;
        default:
          weigh_gathered_columns<0, lanes>(columns, table, entries, is_mirrored, results);
      }
      scatter_columns<lanes>(reinterpret_cast<const FourWords*>(results), end - x, rows + int64_t{3} * x, stride);
    }
  }
}

template <int taps>
DOGS_ACCEL_INLINE void weigh_rows(const uint8_t* const (&rows)[taps], const int32_t* weights, int64_t size,
                                  uint8_t* __restrict__ out) {
  for (int64_t i = 0; i < size; ++i) {
    int32_t sum = half_weight;
#pragma GCC unroll 8
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
      case 4:
        weigh_rows<4>({row, row_at(1), row_at(2), row_at(3)}, weights, size, out + y * stride);
        break;
      case 5:
        weigh_rows<5>({row, row_at(1), row_at(2), row_at(3), row_at(4)}, weights, size, out + y * stride);
        break;
      case 6:
        weigh_rows<6>({row, row_at(1), row_at(2), row_at(3), row_at(4), row_at(5)}, weights, size, out + y * stride);
        break;
      case 7:
        weigh_rows<7>({row, row_at(1), row_at(2), row_at(3), row_at(4), row_at(5), row_at(6)}, weights, size,
                      out + y * stride);
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
