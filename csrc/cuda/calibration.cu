// CUDA kernel of calibration_bins: one warp a row, one histogram a block in shared memory, no host
// synchronisation.

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
#include "../checks/calibration.h"
#include "../logits.h"
#include "../outputs.h"
#include "launch.h"
#include "rows.h"

namespace dogs_accel {
namespace {

using torch::stable::Tensor;

template <class Real>
struct Output {
  Real* confidence;
  int64_t* prediction;
  Counter* count;
  Counter* fixed_point_sum;
  Counter* correct;
  Counter* bad_row;
};

template <class Logit>
__global__ void __launch_bounds__(threads_per_block) bin_rows(const Input<Logit> in, const Output<real_t<Logit>> out) {
  extern __shared__ Counter shared[];
  const int num_bins = static_cast<int>(in.bins.size);
  Counter* const fixed_point_sum = shared;
  auto* const count = reinterpret_cast<unsigned int*>(fixed_point_sum + num_bins);
  unsigned int* const correct = count + num_bins;
  for (int b = threadIdx.x; b < num_bins; b += threads_per_block) {
    fixed_point_sum[b] = 0;
    count[b] = 0;
    correct[b] = 0;
  }
  __syncthreads();

  const int lane = threadIdx.x % num_lanes;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * rows_per_block + threadIdx.x / num_lanes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * rows_per_block;
  for (int64_t row = first_row; row < in.num_rows; row += step) {
    const Top<real_t<Logit>> top = top_of_row(in, row, lane);
    if (lane != 0) {
      continue;
    }
    out.confidence[row] = top.confidence;
    out.prediction[row] = top.prediction;
    const int64_t label = in.labels[row * in.label_stride];
    if (top.prediction < 0 || label < 0 || label >= in.num_classes) {
      atomicMin(out.bad_row, static_cast<Counter>(row));
      continue;
    }
    const int64_t b = in.bins.find(top.confidence);
    atomicAdd(&fixed_point_sum[b], static_cast<Counter>(to_fixed_point(top.confidence)));
    atomicAdd(&count[b], 1u);
    if (top.prediction == label) {
      atomicAdd(&correct[b], 1u);
    }
  }

  __syncthreads();
  for (int b = threadIdx.x; b < num_bins; b += threads_per_block) {
    if (count[b] > 0) {
      atomicAdd(&out.fixed_point_sum[b], fixed_point_sum[b]);
      atomicAdd(&out.count[b], static_cast<Counter>(count[b]));
      atomicAdd(&out.correct[b], static_cast<Counter>(correct[b]));
    }
  }
}

__global__ void convert_sums(const int64_t* fixed_point_sum, double* confidence_sum, int num_bins) {
  const int b = blockIdx.x * threads_per_block + threadIdx.x;
  if (b < num_bins) {
    confidence_sum[b] = from_fixed_point(fixed_point_sum[b]);
  }
}

template <class Logit>
void launch_bin_rows(const Input<Logit>& in, const Output<real_t<Logit>>& out, cudaStream_t stream) {
  constexpr int64_t max_blocks = 2048;  // several for each multiprocessor; rows beyond them are taken in turn
  constexpr int default_shared_bytes = 48 * 1024;
  const int64_t blocks = std::min(max_blocks, ceil_div(in.num_rows, rows_per_block));
  const int shared_bytes = static_cast<int>(in.bins.size * (sizeof(Counter) + 2 * sizeof(unsigned int)));
  if (shared_bytes > default_shared_bytes) {
    STD_CUDA_CHECK(cudaFuncSetAttribute(bin_rows<Logit>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  }
  bin_rows<Logit><<<static_cast<unsigned int>(blocks), threads_per_block, shared_bytes, stream>>>(in, out);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> calibration_bins(const Tensor& logits, const Tensor& labels,
                                                                            int64_t bins) {
  check_calibration_bins(logits, labels, bins);
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  const cudaStream_t stream = current_stream(logits);
  const int64_t num_rows = logits.size(0);
  const RowBins result(logits, bins);

  if (num_rows > 0) {  // a grid of no blocks is a launch error
    const auto counters = [](const Tensor& tensor) { return static_cast<Counter*>(tensor.mutable_data_ptr()); };
    with_logit_type(logits, [&]<class Logit>(std::type_identity<Logit>) {
      launch_bin_rows<Logit>({logits, labels, bins},
                             {static_cast<real_t<Logit>*>(result.confidence.mutable_data_ptr()),
                              static_cast<int64_t*>(result.prediction.mutable_data_ptr()), counters(result.count),
                              counters(result.fixed_point_sum), counters(result.correct), counters(result.bad_row)},
                             stream);
    });
  }

  const int num_bins = static_cast<int>(bins);
  convert_sums<<<static_cast<unsigned int>(ceil_div(bins, threads_per_block)), threads_per_block, 0, stream>>>(
      static_cast<const int64_t*>(result.fixed_point_sum.const_data_ptr()),
      static_cast<double*>(result.confidence_sum.mutable_data_ptr()), num_bins);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {result.confidence, result.prediction, result.count, result.confidence_sum, result.correct, result.bad_row};
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CUDA, m) { m.impl("calibration_bins", TORCH_BOX(&dogs_accel::calibration_bins)); }
