// CPU kernel of calibration_bins.

#include "../calibration.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../checks/calibration.h"
#include "../logits.h"
#include "../outputs.h"
#include "atomic.h"
#include "instruction_sets.h"
#include "rows.h"

namespace dogs_accel {
namespace {

using torch::stable::Tensor;

template <class Real>
struct Output {
  Real* confidence;
  int64_t* prediction;
  int64_t* count;
  int64_t* fixed_point_sum;
  int64_t* correct;
  int64_t* bad_row;
};

struct Bin {
  int64_t count = 0, fixed_point_sum = 0, correct = 0;
};

// Rows [begin, end) into this thread's own histogram. Returns the first bad row, or `end`.
template <class Logit>
DOGS_ACCEL_INLINE int64_t bin_rows(const Input<Logit>& in, const Output<real_t<Logit>>& out, int64_t begin, int64_t end,
                                   Bin* histogram) {
  using Real = real_t<Logit>;
  Tiles<Logit> tiles(in);
  int64_t first_bad = end;
  for (int64_t tile_begin = begin; tile_begin < end; tile_begin += tiles.max_rows) {
    const int64_t num_rows = std::min(tiles.max_rows, end - tile_begin);
    const Real* values = tiles.load(tile_begin, num_rows);
    // Pass by pass over the tile and not row by row: a row's folds are chains of dependent operations, and
    // this way the chains of several rows overlap.
    Top<Real> top[max_rows_per_tile];
    Real sum[max_rows_per_tile];
    for (int64_t i = 0; i < num_rows; ++i) {
      top[i] = top_of_row(values + i * tiles.row_stride, in.num_classes);
    }
    for (int64_t i = 0; i < num_rows; ++i) {
      if (tile_begin + num_rows + i < end) {
        tiles.prefetch(tile_begin + num_rows + i);
      }
      sum[i] = sum_exp_of_row<Exps::discard>(values + i * tiles.row_stride, in.num_classes, top[i].logit);
    }
    for (int64_t i = 0; i < num_rows; ++i) {
      const int64_t row = tile_begin + i;
      const bool finite = top[i].prediction >= 0;
      const Real confidence = finite ? Real{1} / sum[i] : std::numeric_limits<Real>::quiet_NaN();
      out.confidence[row] = confidence;
      out.prediction[row] = top[i].prediction;
      const int64_t label = in.labels[row * in.label_stride];
      if (!finite || label < 0 || label >= in.num_classes) {
        first_bad = std::min(first_bad, row);
        continue;
      }
      Bin& bin = histogram[in.bins.find(confidence)];
      bin.count += 1;
      bin.fixed_point_sum += to_fixed_point(confidence);
      bin.correct += top[i].prediction == label;
    }
  }
  return first_bad;
}

template <class Logit>
void run(const Input<Logit>& in, const Output<real_t<Logit>>& out) {
  const int64_t bins = in.bins.size;
  torch::stable::parallel_for(0, in.num_rows, rows_per_thread(in.num_classes), [&](int64_t begin, int64_t end) {
    std::vector<Bin> histogram(bins);
    int64_t first_bad = end;
    run_on_best_instruction_set(
        [&]() __attribute__((always_inline)) { first_bad = bin_rows(in, out, begin, end, histogram.data()); });
    for (int64_t b = 0; b < bins; ++b) {
      if (histogram[b].count > 0) {
        add_atomically(out.count[b], histogram[b].count);
        add_atomically(out.fixed_point_sum[b], histogram[b].fixed_point_sum);
        add_atomically(out.correct[b], histogram[b].correct);
      }
    }
    if (first_bad < end) {
      lower_atomically(*out.bad_row, first_bad);
    }
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> calibration_bins(const Tensor& logits, const Tensor& labels,
                                                                            int64_t bins) {
  check_calibration_bins(logits, labels, bins);
  const RowBins result(logits, bins);

  with_logit_type(logits, [&]<class Logit>(std::type_identity<Logit>) {
    run<Logit>({logits, labels, bins}, {static_cast<real_t<Logit>*>(result.confidence.mutable_data_ptr()),
                                        static_cast<int64_t*>(result.prediction.mutable_data_ptr()),
                                        static_cast<int64_t*>(result.count.mutable_data_ptr()),
                                        static_cast<int64_t*>(result.fixed_point_sum.mutable_data_ptr()),
                                        static_cast<int64_t*>(result.correct.mutable_data_ptr()),
                                        static_cast<int64_t*>(result.bad_row.mutable_data_ptr())});
  });

  const auto* sums = static_cast<const int64_t*>(result.fixed_point_sum.const_data_ptr());
  std::transform(sums, sums + bins, static_cast<double*>(result.confidence_sum.mutable_data_ptr()), from_fixed_point);
  return {result.confidence, result.prediction, result.count, result.confidence_sum, result.correct, result.bad_row};
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CPU, m) { m.impl("calibration_bins", TORCH_BOX(&dogs_accel::calibration_bins)); }
