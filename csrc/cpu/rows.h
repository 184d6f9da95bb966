// What the CPU kernels of the calibration operators share: passes over a row of logits, and rows of any strides
// and dtypes as tiles of consecutive numbers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "../calibration.h"
#include "../logits.h"

namespace dogs_accel {

template <class Real>
struct Top {
  Real logit;
  int64_t prediction;  // -1 where the row holds a NaN or an infinity
};

template <class Real>
struct MaxLanes {
  using Bits = typename RealFormat<Real>::Bits;
  alignas(64) Real max[num_lanes];
  alignas(64) Bits first_of_max[num_lanes];  // the class in lane 0 when this lane's maximum was found
  alignas(64) Bits magnitude[num_lanes];
};

template <class Real, class Bits>
DOGS_ACCEL_INLINE void update_max(const Real* __restrict row, Bits first, MaxLanes<Real>& __restrict lanes) {
  for (int lane = 0; lane < num_lanes; ++lane) {
    lanes.first_of_max[lane] = row[lane] > lanes.max[lane] ? first : lanes.first_of_max[lane];
    lanes.max[lane] = row[lane] > lanes.max[lane] ? row[lane] : lanes.max[lane];
    lanes.magnitude[lane] = std::max(magnitude_bits(row[lane]), lanes.magnitude[lane]);
  }
}

// Keeps the exponentials in `exps`, or with `discard` only adds them.
enum class Exps { discard, keep };

template <Exps what, class Real>
DOGS_ACCEL_INLINE void add_exp(const Real* __restrict row, int size, Real max, Real* __restrict sum,
                               Real* __restrict exps) {
  for (int lane = 0; lane < size; ++lane) {
    const Real exp = exp_nonpositive(row[lane] - max);
    sum[lane] += exp;
    if constexpr (what == Exps::keep) {
      exps[lane] = exp;
    }
  }
}

// Folds in halves. Written with vectors of four because gcc makes scalar code of short floating-point loops.
template <class Real, class Fold>
DOGS_ACCEL_INLINE Real fold_lanes(const Real* lanes, Fold fold) {
  using Four [[gnu::vector_size(4 * sizeof(Real))]] = Real;
  Four part[num_lanes / 4];
  std::memcpy(part, lanes, sizeof(part));
  for (int size = num_lanes / 8; size > 0; size /= 2) {
    for (int i = 0; i < size; ++i) {
      part[i] = fold(part[i], part[i + size]);
    }
  }
  return fold(fold(part[0][0], part[0][2]), fold(part[0][1], part[0][3]));
}

struct Larger {
  template <class T>
  DOGS_ACCEL_INLINE T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

struct Add {
  template <class T>
  DOGS_ACCEL_INLINE T operator()(T a, T b) const {
    return a + b;
  }
};

// The largest of a row of consecutive logits, and the first class that has it.
template <class Real>
DOGS_ACCEL_INLINE Top<Real> top_of_row(const Real* row, int64_t num_classes) {
  using Bits = typename RealFormat<Real>::Bits;
  // A loop whose length is not known becomes a vectorised one with a slow rest. So few classes are filled up
  // with the first, and of many the last are visited a second time: neither changes what is found.
  alignas(64) Real few[num_lanes];
  const int64_t last = std::max<int64_t>(num_classes - num_lanes, 0);
  if (num_classes < num_lanes) {
    for (int lane = 0; lane < num_lanes; ++lane) {
      few[lane] = row[lane < num_classes ? lane : 0];
    }
    row = few;
  }
  MaxLanes<Real> lanes;
  for (int lane = 0; lane < num_lanes; ++lane) {
    lanes.max[lane] = row[0];
    lanes.first_of_max[lane] = lanes.magnitude[lane] = 0;
  }
  for (int64_t c = 0; c < last; c += num_lanes) {
    update_max(row + c, static_cast<Bits>(c), lanes);
  }
  update_max(row + last, static_cast<Bits>(last), lanes);

  const Real max = fold_lanes(lanes.max, Larger{});
  Bits magnitude = 0, prediction = std::numeric_limits<Bits>::max();
  for (int lane = 0; lane < num_lanes; ++lane) {
    const Bits not_max = -static_cast<Bits>(lanes.max[lane] != max);
    prediction = std::min(prediction, (lanes.first_of_max[lane] + lane) | not_max);
    magnitude = std::max(magnitude, lanes.magnitude[lane]);
  }
  return {max, magnitude < RealFormat<Real>::infinity ? static_cast<int64_t>(prediction) : -1};
}

template <Exps what, class Real>
DOGS_ACCEL_INLINE Real sum_exp_of_row(const Real* row, int64_t num_classes, Real max, Real* exps = nullptr) {
  const int64_t whole = num_classes / num_lanes * num_lanes;
  alignas(64) Real sum[num_lanes];
  for (int lane = 0; lane < num_lanes; ++lane) {
    sum[lane] = 0;
  }
  for (int64_t c = 0; c < whole; c += num_lanes) {
    add_exp<what>(row + c, num_lanes, max, sum, exps + c);
  }
  add_exp<what>(row + whole, static_cast<int>(num_classes - whole), max, sum, exps + whole);
  return fold_lanes(sum, Add{});
}

constexpr int64_t max_rows_per_tile = 16;  // a cache line of float32 each class of a transposed tensor

// As many rows as fit in the L1 cache.
inline int64_t rows_that_fit(int64_t num_classes) {
  return std::clamp<int64_t>(4096 / num_classes, 1, max_rows_per_tile);
}

// Rows of logits as consecutive Reals, a few at a time. Rows that are not such already are copied; of a
// transposed tensor that reads whole cache lines, and the copy stays in the L1 cache.
template <class Logit>
struct Tiles {
  using Real = real_t<Logit>;
  static constexpr bool convert = !std::is_same_v<Logit, Real>;

  const Input<Logit>& in;
  const bool copy;
  const int64_t max_rows, row_stride;
  std::vector<Real> tile;

  DOGS_ACCEL_INLINE explicit Tiles(const Input<Logit>& input)
      : in(input),
        copy(convert || (in.class_stride != 1 && in.num_classes > 1)),
        max_rows(copy ? rows_that_fit(in.num_classes) : max_rows_per_tile),
        row_stride(copy ? in.num_classes : in.row_stride),
        tile(copy ? max_rows * in.num_classes : 0) {}

  // Rows [begin, begin + num_rows), each row_stride after the one before; num_rows <= max_rows.
  DOGS_ACCEL_INLINE const Real* load(int64_t begin, int64_t num_rows) {
    const Logit* source = in.logits + begin * in.row_stride;
    if (copy && in.class_stride == 1) {
      for (int64_t i = 0; i < num_rows; ++i) {
        for (int64_t c = 0; c < in.num_classes; ++c) {
          tile[i * in.num_classes + c] = static_cast<Real>(source[i * in.row_stride + c]);
        }
      }
    } else if (copy) {
      for (int64_t c = 0; c < in.num_classes; ++c) {
        for (int64_t i = 0; i < num_rows; ++i) {
          tile[i * in.num_classes + c] = static_cast<Real>(source[i * in.row_stride + c * in.class_stride]);
        }
      }
    }
    if constexpr (convert) {
      return tile.data();
    } else {
      return copy ? tile.data() : source;
    }
  }

  // Asks for a row of the next tile while this one's exponentials are computed, for which memory is idle.
  DOGS_ACCEL_INLINE void prefetch(int64_t row) const {
    constexpr int64_t line = 64 / sizeof(Logit);
    if (in.class_stride != 1) {
      return;
    }
    const Logit* logits = in.logits + row * in.row_stride;
    const int64_t end = std::min(in.num_classes, 64 * line);  // the hardware follows longer rows by itself
    for (int64_t c = 0; c < end; c += line) {
      __builtin_prefetch(logits + c);
    }
  }
};

// Rows that are about 20 microseconds of work, well above what starting a thread costs.
inline int64_t rows_per_thread(int64_t num_classes) {
  return std::max<int64_t>(1, (int64_t{1} << 15) / std::max<int64_t>(num_classes, num_lanes));
}

}  // namespace dogs_accel
