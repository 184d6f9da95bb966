// Both passes of Pillow's resampling over rows of interleaved bytes. Everything is inlined, to be compiled for each
// instruction set, and nothing is allocated once the buffers have grown.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
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
  bool may_overshoot = false;  // whether sums may be beyond a byte, since some weights are negative
  Range inputs{};              // the input pixels that they are made of
  std::vector<int32_t> first;  // counted from the first of `inputs`
  std::vector<int32_t> weights;

  void fill(const Axis& axis, const Range& outputs) {
    const int32_t most = max_taps(axis);
    const int32_t size = outputs.size();
    first.resize(size);
    weights.assign(static_cast<int64_t>(size) * most, 0);
    taps = 1;
    may_overshoot = axis.interpolation != Interpolation::bilinear;
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

// Of bilinear weights, which are not negative and add up to 1 but for their rounding, no sum is beyond a byte.
template <bool is_clamped, int lanes>
DOGS_ACCEL_INLINE Vector<lanes> rounded_bytes(Vector<lanes> sums) {
  const Vector<lanes> zero{};
  sums >>= weight_bits;
  if constexpr (!is_clamped) {
    return sums;
  }
  sums = sums < 0 ? zero : sums;
  return sums > 255 ? zero + 255 : sums;
}

// Four pixels as words.
using FourWords = Vector<4>;

template <int lanes>
struct BytesOf {
  typedef uint8_t type __attribute__((vector_size(4 * lanes)));
};
template <int lanes>
using Bytes = typename BytesOf<lanes>::type;

// The numbers of a pattern of one group of lanes, and the same within each group behind it.
template <class Pattern, int group, size_t... lane>
DOGS_ACCEL_INLINE Pattern repeated(const int (&pattern)[group], std::index_sequence<lane...>) {
  return Pattern{static_cast<std::decay_t<decltype(Pattern{}[0])>>(pattern[lane % group] + lane / group * group)...};
}

// The lanes of one vector, and those of another behind them. gcc has the builtin from 12 on; the slower way is for
// others.
template <int lanes>
DOGS_ACCEL_INLINE Vector<2 * lanes> joined(Vector<lanes> one, Vector<lanes> other) {
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  if constexpr (lanes == 4) {
    return __builtin_shufflevector(one, other, 0, 1, 2, 3, 4, 5, 6, 7);
  } else {
    return __builtin_shufflevector(one, other, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }
#else
  Vector<2 * lanes> both{};
  for (int lane = 0; lane < lanes; ++lane) {
    both[lane] = one[lane];
    both[lanes + lane] = other[lane];
  }
  return both;
#endif
}

// Sixteen bytes of each of as many rows as there are groups of four lanes: of every fourth, `distance` bytes apart.
template <int lanes>
DOGS_ACCEL_INLINE Vector<lanes> load_rows(const uint8_t* bytes, int64_t distance) {
  if constexpr (lanes == 4) {
    FourWords words;
    std::memcpy(&words, bytes, sizeof(words));
    return words;
  } else {
    return joined<lanes / 2>(load_rows<lanes / 2>(bytes, distance),
                             load_rows<lanes / 2>(bytes + lanes / 8 * distance, distance));
  }
}

// Writes the groups of four lanes, as load_rows reads them.
template <int lanes>
DOGS_ACCEL_INLINE void store_rows(Vector<lanes> words, uint8_t* bytes, int64_t distance) {
  for (int group = 0; group < lanes / 4; ++group) {
    std::memcpy(bytes + group * distance, reinterpret_cast<const char*>(&words) + 16 * group, 16);
  }
}

// In each group of four lanes rows become columns.
template <int lanes>
DOGS_ACCEL_INLINE void transpose(Vector<lanes> (&rows)[4]) {
  using Each = std::make_index_sequence<lanes>;
  const auto low = repeated<Vector<lanes>>({0, lanes, 1, lanes + 1}, Each{}),
             high = repeated<Vector<lanes>>({2, lanes + 2, 3, lanes + 3}, Each{}),
             first = repeated<Vector<lanes>>({0, 1, lanes, lanes + 1}, Each{}),
             last = repeated<Vector<lanes>>({2, 3, lanes + 2, lanes + 3}, Each{});
  const Vector<lanes> a = __builtin_shuffle(rows[0], rows[1], low), b = __builtin_shuffle(rows[2], rows[3], low),
                      c = __builtin_shuffle(rows[0], rows[1], high), d = __builtin_shuffle(rows[2], rows[3], high);
  rows[0] = __builtin_shuffle(a, b, first);
  rows[1] = __builtin_shuffle(a, b, last);
  rows[2] = __builtin_shuffle(c, d, first);
  rows[3] = __builtin_shuffle(c, d, last);
}

// In each group of four lanes four pixels of three bytes become words. SSE2 has no such shuffle.
template <int lanes>
DOGS_ACCEL_INLINE Vector<lanes> words_of_bytes(Vector<lanes> bytes) {
  const auto spread = repeated<Bytes<lanes>>({0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12},
                                             std::make_index_sequence<4 * lanes>{});
  return (Vector<lanes>)__builtin_shuffle((Bytes<lanes>)bytes, spread);
}

// The other way round: the last four bytes of each group say nothing.
template <int lanes>
DOGS_ACCEL_INLINE Vector<lanes> bytes_of_words(Vector<lanes> words) {
  const auto packed = repeated<Bytes<lanes>>({0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 15, 15, 15},
                                             std::make_index_sequence<4 * lanes>{});
  return (Vector<lanes>)__builtin_shuffle((Bytes<lanes>)words, packed);
}

// Gathers the columns of a range from rows `y` on, a row in each lane, and takes their pixels apart.
template <int lanes>
DOGS_ACCEL_INLINE void gather_columns(const Rows& in, int64_t y, const Range& range, Vector<lanes>* words,
                                      PixelColumn<lanes>* columns) {
  const uint8_t* const rows = in.bytes + y * in.stride;
  const auto row_at = [&](int64_t r) { return in.bytes + std::min<int64_t>(y + r, in.height - 1) * in.stride; };
  const auto set_column = [&](int64_t x, Vector<lanes> word) {
    columns[x - range.begin] = {word & 255, word >> 8 & 255, word >> 16 & 255};
  };
  int64_t x = range.begin;
  if (lanes > 4 && in.height >= lanes) {
    // Nobody says that there is a byte behind the last pixel of a row.
    for (; x < range.end && 3 * x + 16 <= int64_t{3} * in.width; x += 4) {
      Vector<lanes> four[4];
      for (int r = 0; r < 4; ++r) {
        four[r] = words_of_bytes<lanes>(load_rows<lanes>(rows + r * in.stride + 3 * x, 4 * in.stride));
      }
      transpose<lanes>(four);
      for (int i = 0; i < 4; ++i) {
        set_column(x + i, four[i]);
      }
    }
  }
  const int64_t rest = x, last = in.width - 1;
  const auto word_at = [&](int64_t r) { return reinterpret_cast<uint8_t*>(words + (x - rest)) + 4 * r; };
  for (int64_t r = 0; r < lanes; ++r) {
    const uint8_t* row = row_at(r);
    for (x = rest; x < std::min<int64_t>(range.end, last); ++x) {
      std::memcpy(word_at(r), row + 3 * x, 4);
    }
    if (x == last && x < range.end) {
      std::memcpy(word_at(r), row + 3 * x, 3);
    }
  }
  for (x = rest; x < range.end; ++x) {
    set_column(x, words[x - rest]);
  }
}

// One output pixel of as many rows as there are lanes. With `fixed_taps` the loop has that length, else `taps`.
template <int fixed_taps, bool is_clamped, int lanes>
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
  return rounded_bytes<is_clamped, lanes>(r) | rounded_bytes<is_clamped, lanes>(g) << 8 |
         rounded_bytes<is_clamped, lanes>(b) << 16;
}

// The same bytes of the next rows, which memory is asked for while these rows are computed with: for some at each
// output pixel, since so many at once would have to be waited for. The rows of a photo come from far, and the CPU
// foresees few.
template <int lanes>
struct NextRows {
  const uint8_t* bytes;
  int64_t stride, width;  // how many bytes of each are asked for while as many outputs are computed as there are rows

  NextRows(const Rows& in, int64_t y, const Range& range, int32_t num_outputs)
      : bytes(in.bytes + std::min<int64_t>(y + lanes, std::max<int64_t>(in.height - lanes, 0)) * in.stride +
              int64_t{3} * range.begin),
        stride(in.stride),
        width(int64_t{3} * range.size() * lanes / num_outputs + 1) {}

  DOGS_ACCEL_INLINE void ask(uint32_t output) const {
    const uint8_t* const from = bytes + int64_t{output % lanes} * stride + int64_t{output / lanes} * width;
    for (int64_t byte = 0; byte < width; byte += 64) {
      __builtin_prefetch(from + byte);
    }
  }
};

template <int fixed_taps, bool is_clamped, int lanes>
DOGS_ACCEL_INLINE void weigh_gathered_columns(const PixelColumn<lanes>* columns, const WeightTable& table,
                                              const Range& entries, bool is_mirrored, const NextRows<lanes>& next_rows,
                                              Vector<lanes>* out) {
  const int32_t begin = table.first[entries.begin];
  for (int32_t entry = entries.begin; entry < entries.end; ++entry) {
    next_rows.ask(static_cast<uint32_t>(entry - entries.begin));
    out[is_mirrored ? entries.end - 1 - entry : entry - entries.begin] = weigh_columns<fixed_taps, is_clamped, lanes>(
        columns + (table.first[entry] - begin), &table.weights[int64_t{entry} * table.taps], table.taps);
  }
}

// Writes pixels that have a row in each lane to rows.
template <int lanes>
DOGS_ACCEL_INLINE void scatter_columns(const Vector<lanes>* words, int32_t size, uint8_t* out, int64_t stride) {
  const auto row_at = [&](int64_t r) { return out + r * stride; };
  if constexpr (lanes == 4) {
    for (int32_t x = 0; x < size; ++x) {
      for (int r = 0; r < lanes; ++r) {
        const int32_t word = words[x][r];
        std::memcpy(row_at(r) + int64_t{3} * x, &word, 4);
      }
    }
    return;
  }
  for (int64_t x = 0; x < size; x += 4) {
    Vector<lanes> four[4] = {words[x], words[x + 1], words[x + 2], words[x + 3]};
    transpose<lanes>(four);
    for (int r = 0; r < 4; ++r) {
      store_rows<lanes>(bytes_of_words<lanes>(four[r]), out + r * stride + 3 * x, 4 * stride);
    }
  }
}

constexpr int32_t outputs_at_once = 64;

template <int number>
using Number = std::integral_constant<int, number>;

// Writes the rows of `in` resampled along x to `out`, which has room for most_rows_at_once more.
template <int lanes>
DOGS_ACCEL_INLINE void resample_horizontally(const Rows& in, const WeightTable& table, bool is_mirrored,
                                             std::vector<WidestVector>& buffer, uint8_t* out, int64_t stride) {
  const auto width = static_cast<int32_t>(table.first.size());
  // Behind the last column there is room for taps of weight 0.
  buffer.resize(outputs_at_once + in.width + 4 + 3 * static_cast<int64_t>(in.width + table.taps));
  auto* const results = reinterpret_cast<Vector<lanes>*>(buffer.data());
  auto* const words = results + outputs_at_once;
  auto* const columns = reinterpret_cast<PixelColumn<lanes>*>(words + in.width + 4);
  for (int64_t next = 0; next < in.height; next += lanes) {
    // The last rows are some again, where there are as many as lanes.
    const int64_t y = std::min<int64_t>(next, std::max<int64_t>(in.height - lanes, 0));
    uint8_t* rows = out + y * stride;
    for (int32_t x = 0; x < width; x += outputs_at_once) {
      // A row is written from left to right: what is written beyond its end is written again.
      const int32_t end = std::min(x + outputs_at_once, width);
      const Range entries = is_mirrored ? Range{width - end, width - x} : Range{x, end};
      const int32_t begin = table.first[entries.begin];
      const Range range{begin, std::min(table.first[entries.end - 1] + table.taps, in.width)};
      gather_columns<lanes>(in, y, range, words, columns);
      const NextRows<lanes> next_rows(in, y, range, end - x);
      const auto weigh = [&](auto fixed_taps, auto is_clamped) __attribute__((always_inline)) {
        weigh_gathered_columns<fixed_taps, is_clamped, lanes>(columns, table, entries, is_mirrored, next_rows, results);
      };
      switch (table.may_overshoot ? 0 : table.taps) {
        case 2:
          weigh(Number<2>{}, std::false_type{});
          break;
        case 3:
          weigh(Number<3>{}, std::false_type{});
          break;
        case 4:
          weigh(Number<4>{}, std::false_type{});
          break;
        case 5:
          weigh(Number<5>{}, std::false_type{});
          break;
        default:
          weigh(Number<0>{}, std::true_type{});
      }
      scatter_columns<lanes>(results, end - x, rows + int64_t{3} * x, stride);
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
