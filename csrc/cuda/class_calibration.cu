// CUDA kernel of class_calibration_bins, without host synchronisation: a warp a row finds the maximum and the sum of
// exponentials; then blocks of 32 classes, a class a lane, go down the rows and keep their sums in registers.

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include "../calibration.h"
#include "../checks/class_calibration.h"
#include "../logits.h"
#include "../outputs.h"
#include "launch.h"
#include "rows.h"

namespace dogs_accel {
namespace {

using torch::stable::Tensor;

// What a row's probabilities exp(x - max) * inverse_sum need; inverse_sum is 0 where the row is bad.
template <class Real>
struct Scale {
  Real max, inverse_sum;
};

// Histograms of (C, bins); bin 0 of count and of the sum are left out until finish_classes, and fixed_point_sum
// holds the sum over all bins there.
struct Output {
  Counter* count;
  Counter* fixed_point_sum;
  Counter* positives;
  Counter* squared_error;
  Counter* num_bad;
  Counter* bad_row;
};

// The histograms of a block's classes: in shared memory where they fit, and if not, the output's.
template <class Count>
struct Histograms {
  Count* count;
  Counter* fixed_point_sum;
  Count* positives;
};

template <class Logit>
__global__ void __launch_bounds__(threads_per_block)
    scale_rows(const Input<Logit> in, Scale<real_t<Logit>>* scales, const Output out) {
  using Real = real_t<Logit>;
  const int lane = threadIdx.x % num_lanes;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * rows_per_block + threadIdx.x / num_lanes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * rows_per_block;
  for (int64_t row = first_row; row < in.num_rows; row += step) {
    const Top<Real> top = top_of_row(in, row, lane);
    if (lane != 0) {
      continue;
    }
    const int64_t label = in.labels[row * in.label_stride];
    if (top.prediction < 0 || label < 0 || label >= in.num_classes) {
      scales[row] = {0, 0};
      atomicMin(out.bad_row, static_cast<Counter>(row));
      atomicAdd(out.num_bad, Counter{1});
    } else {
      scales[row] = {top.logit, top.confidence};
    }
  }
}

// Rows blockIdx.y * rows_per_block + warp, and so on in steps of the grid, of one class a lane.
template <class Logit, class Count>
__device__ void bin_class(const Input<Logit>& in, const Scale<real_t<Logit>>* scales, int64_t c,
                          const Histograms<Count>& histograms, int64_t first_cell, real_t<Logit> first_upper,
                          int64_t& total, int64_t& squared_error) {
  using Real = real_t<Logit>;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * rows_per_block + threadIdx.x / num_lanes;
  const int64_t step = static_cast<int64_t>(gridDim.y) * rows_per_block;
  for (int64_t row = first_row; row < in.num_rows; row += step) {
    const Scale<Real> scale = scales[row];
    if (scale.inverse_sum == 0) {
      continue;
    }
    const Real logit = static_cast<Real>(in.logits[row * in.row_stride + c * in.class_stride]);
    const Real probability = exp_nonpositive(logit - scale.max) * scale.inverse_sum;
    const bool positive = in.labels[row * in.label_stride] == c;
    const double error = positive ? 1.0 - probability : static_cast<double>(probability);
    total += to_fixed_point(probability);
    squared_error += to_fixed_point(error * error);
    if (probability > first_upper || positive) {
      const int64_t b = in.bins.find(probability);
      if (b > 0) {
        atomicAdd(&histograms.count[first_cell + b], Count{1});
        atomicAdd(&histograms.fixed_point_sum[first_cell + b], static_cast<Counter>(to_fixed_point(probability)));
      }
      if (positive) {
        atomicAdd(&histograms.positives[first_cell + b], Count{1});
      }
    }
  }
}

template <class Logit, bool in_shared_memory>
__global__ void __launch_bounds__(threads_per_block)
    bin_classes(const Input<Logit> in, const Scale<real_t<Logit>>* scales, real_t<Logit> first_upper,
                const Output out) {
  extern __shared__ Counter shared[];
  Counter* const total = shared;
  Counter* const squared_error = shared + num_lanes;
  const int64_t first_class = static_cast<int64_t>(blockIdx.x) * num_lanes;
  const int64_t num_classes = in.num_classes - first_class < num_lanes ? in.num_classes - first_class : num_lanes;
  const int64_t bins = in.bins.size;
  const int64_t max_cells = num_lanes * bins;
  Counter* const shared_sum = shared + 2 * num_lanes;
  auto* const shared_count = reinterpret_cast<unsigned int*>(shared_sum + (in_shared_memory ? max_cells : 0));
  unsigned int* const shared_positives = shared_count + max_cells;
  if (threadIdx.x < num_lanes) {
    total[threadIdx.x] = 0;
    squared_error[threadIdx.x] = 0;
  }
  if constexpr (in_shared_memory) {
    for (int64_t cell = threadIdx.x; cell < max_cells; cell += threads_per_block) {
      shared_sum[cell] = 0;
      shared_count[cell] = 0;
      shared_positives[cell] = 0;
    }
  }
  __syncthreads();

  const int lane = threadIdx.x % num_lanes;
  if (lane < num_classes) {
    int64_t own_total = 0, own_squared_error = 0;
    if constexpr (in_shared_memory) {
      const Histograms<unsigned int> histograms{shared_count, shared_sum, shared_positives};
      bin_class(in, scales, first_class + lane, histograms, lane * bins, first_upper, own_total, own_squared_error);
    } else {
      const Histograms<Counter> histograms{out.count, out.fixed_point_sum, out.positives};
      bin_class(in, scales, first_class + lane, histograms, (first_class + lane) * bins, first_upper, own_total,
                own_squared_error);
    }
    atomicAdd(&total[lane], static_cast<Counter>(own_total));
    atomicAdd(&squared_error[lane], static_cast<Counter>(own_squared_error));
  }
  __syncthreads();

  if (threadIdx.x < num_classes) {
    const int64_t c = first_class + threadIdx.x;
    atomicAdd(&out.fixed_point_sum[c * bins], total[threadIdx.x]);
    atomicAdd(&out.squared_error[c], squared_error[threadIdx.x]);
  }
  if constexpr (in_shared_memory) {
    for (int64_t cell = threadIdx.x; cell < num_classes * bins; cell += threads_per_block) {
      const int64_t target = first_class * bins + cell;
      if (shared_count[cell] > 0) {
        atomicAdd(&out.count[target], static_cast<Counter>(shared_count[cell]));
        atomicAdd(&out.fixed_point_sum[target], shared_sum[cell]);
      }
      if (shared_positives[cell] > 0) {
        atomicAdd(&out.positives[target], static_cast<Counter>(shared_positives[cell]));
      }
    }
  }
}

// A warp a class: bin 0 is what the other bins leave of the totals, and the sums become float64.
__global__ void __launch_bounds__(threads_per_block)
    finish_classes(int64_t num_rows, int64_t num_classes, int64_t bins, const int64_t* num_bad, int64_t* count,
                   const int64_t* fixed_point_sum, double* probability_sum, const int64_t* fixed_point_error,
                   double* squared_error) {
  const int lane = threadIdx.x % num_lanes;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * rows_per_block + threadIdx.x / num_lanes;
  if (c >= num_classes) {
    return;
  }
  int64_t later_count = 0, later_sum = 0;
  for (int64_t b = lane; b < bins; b += num_lanes) {
    if (b > 0) {
      const int64_t cell = c * bins + b;
      later_count += count[cell];
      later_sum += fixed_point_sum[cell];
      probability_sum[cell] = from_fixed_point(fixed_point_sum[cell]);
    }
  }
  later_count = warp_sum(later_count);
  later_sum = warp_sum(later_sum);
  if (lane == 0) {
    count[c * bins] = num_rows - *num_bad - later_count;
    probability_sum[c * bins] = from_fixed_point(fixed_point_sum[c * bins] - later_sum);
    squared_error[c] = from_fixed_point(fixed_point_error[c]);
  }
}

template <class Logit>
void launch_bins(const Input<Logit>& in, const Output& out, Scale<real_t<Logit>>* scales, cudaStream_t stream) {
  constexpr int64_t max_blocks = 2048;  // several for each multiprocessor; rows beyond them are taken in turn
  constexpr int64_t shared_limit = 48 * 1024;
  const int64_t row_blocks = ceil_div(in.num_rows, rows_per_block);
  scale_rows<<<static_cast<unsigned int>(std::min(max_blocks, row_blocks)), threads_per_block, 0, stream>>>(in, scales,
                                                                                                            out);
  STD_CUDA_KERNEL_LAUNCH_CHECK();

  const int64_t class_blocks = ceil_div(in.num_classes, num_lanes);
  const dim3 grid(static_cast<unsigned int>(class_blocks),
                  static_cast<unsigned int>(std::clamp<int64_t>(max_blocks / class_blocks, 1, row_blocks)));
  const auto first_upper = in.bins.template first_upper<real_t<Logit>>();
  const int64_t totals_bytes = 2 * num_lanes * sizeof(Counter);
  const int64_t histogram_bytes = num_lanes * in.bins.size * (sizeof(Counter) + 2 * sizeof(unsigned int));
  if (totals_bytes + histogram_bytes <= shared_limit) {
    bin_classes<Logit, true>
        <<<grid, threads_per_block, totals_bytes + histogram_bytes, stream>>>(in, scales, first_upper, out);
  } else {
    bin_classes<Logit, false><<<grid, threads_per_block, totals_bytes, stream>>>(in, scales, first_upper, out);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> class_calibration_bins(const Tensor& logits, const Tensor& labels,
                                                                          int64_t bins) {
  check_class_calibration_bins(logits, labels, bins);
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  const cudaStream_t stream = current_stream(logits);
  const int64_t num_rows = logits.size(0), num_classes = logits.size(1);
  const ClassBins result(logits, bins);
  const Tensor num_bad = no_counts(logits, {1});

  if (num_rows > 0) {  // a grid of no blocks is a launch error
    const Tensor scales = new_empty(logits, {num_rows, 2}, real_dtype(logits));
    const auto counters = [](const Tensor& tensor) { return static_cast<Counter*>(tensor.mutable_data_ptr()); };
    with_logit_type(logits, [&]<class Logit>(std::type_identity<Logit>) {
      launch_bins<Logit>({logits, labels, bins},
                         {counters(result.count), counters(result.fixed_point_sum), counters(result.positives),
                          counters(result.fixed_point_error), counters(num_bad), counters(result.bad_row)},
                         static_cast<Scale<real_t<Logit>>*>(scales.mutable_data_ptr()), stream);
    });
  }

  finish_classes<<<static_cast<unsigned int>(ceil_div(num_classes, rows_per_block)), threads_per_block, 0, stream>>>(
      num_rows, num_classes, bins, static_cast<const int64_t*>(num_bad.const_data_ptr()),
      static_cast<int64_t*>(result.count.mutable_data_ptr()),
      static_cast<const int64_t*>(result.fixed_point_sum.const_data_ptr()),
      static_cast<double*>(result.probability_sum.mutable_data_ptr()),
      static_cast<const int64_t*>(result.fixed_point_error.const_data_ptr()),
      static_cast<double*>(result.squared_error.mutable_data_ptr()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {result.count, result.probability_sum, result.positives, result.squared_error, result.bad_row};
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CUDA, m) {
  m.impl("class_calibration_bins", TORCH_BOX(&dogs_accel::class_calibration_bins));
}
