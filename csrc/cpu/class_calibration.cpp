// CPU kernel of class_calibration_bins.

#include "../checks/class_calibration.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../calibration.h"
#include "../logits.h"
#include "../outputs.h"
#include "atomic.h"
#include "instruction_sets.h"
#include "rows.h"

namespace dogs_accel {
namespace {

using torch::stable::Tensor;

// Histograms of (C, bins), bin 0 of which is left out until finish_class: it is what the other bins leave of the
// totals, and most probabilities are in it.
struct Histograms {
  int64_t* count;
  int64_t* fixed_point_sum;
  int64_t* positives;
};

// What a thread adds up. Its histograms are its own while they are small, and the output's if not: then they are
// shared by all threads, and its few numbers a row are added atomically.
struct Partial {
  std::vector<int64_t> storage, fixed_point_total, squared_error;
  int64_t num_rows = 0;
  bool own;
  Histograms histograms;

  Partial(const Histograms& output, int64_t num_cells, int64_t padded_classes)
      : fixed_point_total(padded_classes), squared_error(padded_classes), own(num_cells <= max_own_cells) {
    if (own) {
      storage.resize(3 * num_cells);
    }
    histograms = own ? Histograms{storage.data(), storage.data() + num_cells, storage.data() + 2 * num_cells} : output;
  }

  DOGS_ACCEL_INLINE void add(int64_t& target, int64_t value) const {
    if (own) {
      target += value;
    } else {
      add_atomically(target, value);
    }
  }

  static constexpr int64_t max_own_cells = int64_t{1} << 16;  // 1.5 MiB
};

template <class Real>
DOGS_ACCEL_INLINE void add_probabilities(const Real* __restrict exps, Real inverse_sum, int64_t* __restrict total,
                                         int64_t* __restrict squared_error) {
  for (int lane = 0; lane < num_lanes; ++lane) {
    const double probability = exps[lane] * inverse_sum;
    total[lane] += to_fixed_point(probability);
    squared_error[lane] += to_fixed_point(probability * probability);
  }
}

// One bit a lane.
template <class Real>
DOGS_ACCEL_INLINE uint32_t lanes_above(const Real* exps, Real inverse_sum, Real limit) {
  uint32_t bits = 0;
  for (int lane = 0; lane < num_lanes; ++lane) {
    bits |= static_cast<uint32_t>(exps[lane] * inverse_sum > limit) << lane;
  }
  return bits;
}

// A probability above bin 0: the row of the tile, and the class.
struct Found {
  int32_t row, c;
};

constexpr int num_found_at_once = 4;

// Lists the lanes whose bit is set and returns how many there are. The first few are written whether they are
// there or not, because a branch on each would be mispredicted.
DOGS_ACCEL_INLINE int find_lanes(uint32_t bits, int64_t row, int64_t first_class, Found* found) {
  const auto next = [&]() __attribute__((always_inline)) {
    const int lane = std::countr_zero(bits | uint32_t{1} << (num_lanes - 1));
    bits &= bits - 1;
    return Found{static_cast<int32_t>(row), static_cast<int32_t>(first_class + lane)};
  };
  const int size = std::popcount(bits);
  for (int k = 0; k < num_found_at_once; ++k) {
    found[k] = next();
  }
  for (int k = num_found_at_once; k < size; ++k) {
    found[k] = next();
  }
  return size;
}

// Rows [begin, end) into what this thread adds up. Returns the first bad row, or `end`.
template <class Logit>
DOGS_ACCEL_INLINE int64_t bin_classes(const Input<Logit>& in, Partial& partial, int64_t begin, int64_t end) {
  using Real = real_t<Logit>;
  const int64_t bins = in.bins.size;
  const Real first_upper = in.bins.template first_upper<Real>();
  const int64_t padded_classes = static_cast<int64_t>(partial.squared_error.size());
  const int64_t num_groups = padded_classes / num_lanes;
  const int64_t max_rows = rows_that_fit(in.num_classes);
  Tiles<Logit> tiles(in);
  std::vector<Real> exps(max_rows * padded_classes);  // 0 beyond the last class
  std::vector<uint32_t> above(num_groups * max_rows_per_tile);
  std::vector<Found> found(max_rows * padded_classes + num_found_at_once);
  const Histograms& to = partial.histograms;

  int64_t first_bad = end;
  for (int64_t tile_begin = begin; tile_begin < end; tile_begin += max_rows) {
    const int64_t num_rows = std::min(max_rows, end - tile_begin);
    const Real* values = tiles.load(tile_begin, num_rows);
    Top<Real> top[max_rows_per_tile];
    Real inverse_sum[max_rows_per_tile];
    int64_t label[max_rows_per_tile];
    int64_t num_good = 0;
    for (int64_t i = 0; i < num_rows; ++i) {
      top[i] = top_of_row(values + i * tiles.row_stride, in.num_classes);
    }
    for (int64_t i = 0; i < num_rows; ++i) {
      const int64_t row = tile_begin + i;
      if (row + num_rows < end) {
        tiles.prefetch(row + num_rows);
      }
      label[num_good] = in.labels[row * in.label_stride];
      if (top[i].prediction < 0 || label[num_good] < 0 || label[num_good] >= in.num_classes) {
        first_bad = std::min(first_bad, row);
        continue;
      }
      inverse_sum[num_good] = Real{1} / sum_exp_of_row<Exps::keep>(values + i * tiles.row_stride, in.num_classes,
                                                                   top[i].logit, &exps[num_good * padded_classes]);
      ++num_good;
    }
    // The sums over rows stay in registers as long as nothing else is stored, hence two loops.
    for (int64_t g = 0; g < num_groups; ++g) {
      int64_t* const total = &partial.fixed_point_total[g * num_lanes];
      int64_t* const squared_error = &partial.squared_error[g * num_lanes];
      for (int64_t i = 0; i < num_good; ++i) {
        const Real* group = &exps[i * padded_classes + g * num_lanes];
        add_probabilities(group, inverse_sum[i], total, squared_error);
        above[g * max_rows_per_tile + i] = lanes_above(group, inverse_sum[i], first_upper);
      }
    }
    int64_t num_found = 0;
    for (int64_t g = 0; g < num_groups; ++g) {
      for (int64_t i = 0; i < num_good; ++i) {
        num_found += find_lanes(above[g * max_rows_per_tile + i], i, g * num_lanes, &found[num_found]);
      }
    }
    for (int64_t k = 0; k < num_found; ++k) {
      const auto [i, c] = found[k];
      const Real probability = exps[i * padded_classes + c] * inverse_sum[i];
      const int64_t cell = c * bins + in.bins.find(probability);
      partial.add(to.count[cell], 1);
      partial.add(to.fixed_point_sum[cell], to_fixed_point(probability));
    }
    for (int64_t i = 0; i < num_good; ++i) {
      const double probability = exps[i * padded_classes + label[i]] * inverse_sum[i];
      const double error = 1.0 - probability;
      partial.add(to.positives[label[i] * bins + in.bins.find(probability)], 1);
      partial.squared_error[label[i]] += to_fixed_point(error * error) - to_fixed_point(probability * probability);
    }
    partial.num_rows += num_good;
  }
  return first_bad;
}

void add_partial(const Partial& partial, const Histograms& out, int64_t* squared_error, int64_t num_classes,
                 int64_t bins) {
  for (int64_t c = 0; c < num_classes; ++c) {
    add_atomically(out.fixed_point_sum[c * bins], partial.fixed_point_total[c]);
    add_atomically(squared_error[c], partial.squared_error[c]);
  }
  if (!partial.own) {
    return;
  }
  const Histograms& from = partial.histograms;
  for (int64_t cell = 0; cell < num_classes * bins; ++cell) {
    if (from.count[cell] > 0) {
      add_atomically(out.count[cell], from.count[cell]);
      add_atomically(out.fixed_point_sum[cell], from.fixed_point_sum[cell]);
    }
    if (from.positives[cell] > 0) {
      add_atomically(out.positives[cell], from.positives[cell]);
    }
  }
}

// Bin 0 of a class: until now it has held the sum over all bins.
void finish_class(int64_t* count, int64_t* fixed_point_sum, double* probability_sum, int64_t bins, int64_t num_rows) {
  count[0] = num_rows;
  for (int64_t b = 1; b < bins; ++b) {
    count[0] -= count[b];
    fixed_point_sum[0] -= fixed_point_sum[b];
  }
  std::transform(fixed_point_sum, fixed_point_sum + bins, probability_sum, from_fixed_point);
}

template <class Logit>
int64_t run(const Input<Logit>& in, const Histograms& out, int64_t* squared_error, int64_t* bad_row) {
  const int64_t bins = in.bins.size;
  const int64_t padded_classes = (in.num_classes + num_lanes - 1) / num_lanes * num_lanes;
  int64_t num_good = 0;
  torch::stable::parallel_for(0, in.num_rows, rows_per_thread(in.num_classes), [&](int64_t begin, int64_t end) {
    Partial partial(out, in.num_classes * bins, padded_classes);
    int64_t first_bad = end;
    run_on_best_instruction_set(
        [&]() __attribute__((always_inline)) { first_bad = bin_classes(in, partial, begin, end); });
    add_partial(partial, out, squared_error, in.num_classes, bins);
    add_atomically(num_good, partial.num_rows);
    if (first_bad < end) {
      lower_atomically(*bad_row, first_bad);
    }
  });
  return num_good;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> class_calibration_bins(const Tensor& logits, const Tensor& labels,
                                                                          int64_t bins) {
  check_class_calibration_bins(logits, labels, bins);
  const int64_t num_classes = logits.size(1);
  const ClassBins result(logits, bins);

  const auto integers = [](const Tensor& tensor) { return static_cast<int64_t*>(tensor.mutable_data_ptr()); };
  const Histograms out{integers(result.count), integers(result.fixed_point_sum), integers(result.positives)};
  int64_t num_good = 0;
  with_logit_type(logits, [&]<class Logit>(std::type_identity<Logit>) {
    num_good = run<Logit>({logits, labels, bins}, out, integers(result.fixed_point_error), integers(result.bad_row));
  });

  auto* const sums = static_cast<double*>(result.probability_sum.mutable_data_ptr());
  torch::stable::parallel_for(0, num_classes, (1 << 15) / bins, [&](int64_t begin, int64_t end) {
    for (int64_t cell = begin * bins; cell < end * bins; cell += bins) {
      finish_class(out.count + cell, out.fixed_point_sum + cell, sums + cell, bins, num_good);
    }
  });
  std::transform(integers(result.fixed_point_error), integers(result.fixed_point_error) + num_classes,
                 static_cast<double*>(result.squared_error.mutable_data_ptr()), from_fixed_point);
  return {result.count, result.probability_sum, result.positives, result.squared_error, result.bad_row};
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CPU, m) {
  m.impl("class_calibration_bins", TORCH_BOX(&dogs_accel::class_calibration_bins));
}
