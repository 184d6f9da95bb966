// CUDA twin of calibration_bins: one warp a row, one histogram a block in shared memory, no host
// synchronisation.

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <tuple>

#include "../calibration.h"
#include "../checks.h"
#include "stream.h"

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int threads_per_block = 256;
constexpr int rows_per_block = threads_per_block / num_lanes;
constexpr unsigned int whole_warp = 0xffffffffu;

using Counter = unsigned long long;  // atomicAdd has no int64_t overload; the bits of a sum are the same

// A view of the arguments. Strides count elements and may be 0.
template <class Logit>
struct Input {
  const Logit* logits;
  int64_t row_stride, class_stride;
  const int64_t* labels;
  int64_t label_stride;
  int64_t num_rows, num_classes;
  Bins bins;
};

template <class Real>
struct Output {
  Real* confidence;
  int64_t* prediction;
  Counter* count;
  Counter* fixed_point_sum;
  Counter* correct;
  Counter* bad_row;
};

template <class Real>
struct Top {
  Real confidence;
  int64_t prediction;  // -1 where the row holds a NaN or an infinity
};

template <class Real>
struct Candidate {
  Real value;
  int64_t index;
};

// Of equal values the one of the lowest class, as argmax has it. Every lane gets the result.
template <class Real>
__device__ Candidate<Real> warp_max(Candidate<Real> best) {
  for (int offset = num_lanes / 2; offset > 0; offset /= 2) {
    const Real value = __shfl_xor_sync(whole_warp, best.value, offset);
    const int64_t index = __shfl_xor_sync(whole_warp, best.index, offset);
    if (value > best.value || (value == best.value && index < best.index)) {
      best = {value, index};
    }
  }
  return best;
}

// Adds in the order in which the CPU twin folds its lanes.
template <class Real>
__device__ Real warp_sum(Real sum) {
  for (int offset = num_lanes / 2; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(whole_warp, sum, offset);
  }
  return sum;
}

// Top class of one row, and its softmax probability 1 / sum(exp(x - max)). The second pass finds the row in
// cache.
template <class Logit>
__device__ Top<real_t<Logit>> top_of_row(const Input<Logit>& in, int64_t row, int lane) {
  using Real = real_t<Logit>;
  const Logit* logits = in.logits + row * in.row_stride;
  // A lane without a class repeats class 0, which changes neither the maximum nor its lowest index.
  Candidate<Real> best{static_cast<Real>(logits[0]), 0};
  bool finite = true;
  for (int64_t c = lane; c < in.num_classes; c += num_lanes) {
    const Real value = static_cast<Real>(logits[c * in.class_stride]);
    finite = finite && magnitude_bits(value) < RealFormat<Real>::infinity;
    if (value > best.value) {
      best = {value, c};
    }
  }
  if (!__all_sync(whole_warp, finite)) {
    return {std::numeric_limits<Real>::quiet_NaN(), -1};
  }
  best = warp_max(best);
  Real sum = 0;
  for (int64_t c = lane; c < in.num_classes; c += num_lanes) {
    sum += exp_nonpositive(static_cast<Real>(logits[c * in.class_stride]) - best.value);
  }
  return {Real{1} / warp_sum(sum), best.index};
}

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
  const int64_t blocks = std::min(max_blocks, (in.num_rows + rows_per_block - 1) / rows_per_block);
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
  const ScalarType dtype = logits.scalar_type();
  const int64_t num_rows = logits.size(0);
  using torch::stable::new_empty, torch::stable::new_zeros;
  const auto real_dtype = dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const Tensor confidence = new_empty(logits, {num_rows}, real_dtype);
  const Tensor prediction = new_empty(logits, {num_rows}, ScalarType::Long);
  const Tensor count = new_zeros(logits, {bins}, ScalarType::Long);
  const Tensor fixed_point_sum = new_zeros(logits, {bins}, ScalarType::Long);
  const Tensor confidence_sum = new_empty(logits, {bins}, ScalarType::Double);
  const Tensor correct = new_zeros(logits, {bins}, ScalarType::Long);
  const Tensor bad_row = new_empty(logits, {1}, ScalarType::Long);
  torch::stable::fill_(bad_row, -1);  // the largest Counter, so that atomicMin finds the first row

  const auto launch = [&]<class Logit>(std::type_identity<Logit>) {
    using Real = real_t<Logit>;
    const Input<Logit> in{static_cast<const Logit*>(logits.const_data_ptr()),
                          logits.stride(0),
                          logits.stride(1),
                          static_cast<const int64_t*>(labels.const_data_ptr()),
                          labels.stride(0),
                          num_rows,
                          logits.size(1),
                          Bins(bins)};
    const Output<Real> out{
        static_cast<Real*>(confidence.mutable_data_ptr()), static_cast<int64_t*>(prediction.mutable_data_ptr()),
        static_cast<Counter*>(count.mutable_data_ptr()),   static_cast<Counter*>(fixed_point_sum.mutable_data_ptr()),
        static_cast<Counter*>(correct.mutable_data_ptr()), static_cast<Counter*>(bad_row.mutable_data_ptr())};
    launch_bin_rows(in, out, stream);
  };
  if (num_rows == 0) {
    // A grid of no blocks is a launch error.
  } else if (dtype == ScalarType::Float) {
    launch(std::type_identity<float>{});
  } else if (dtype == ScalarType::Double) {
    launch(std::type_identity<double>{});
  } else if (dtype == ScalarType::Half) {
    launch(std::type_identity<torch::headeronly::Half>{});
  } else {
    launch(std::type_identity<torch::headeronly::BFloat16>{});
  }

  const int num_bins = static_cast<int>(bins);
  convert_sums<<<(num_bins + threads_per_block - 1) / threads_per_block, threads_per_block, 0, stream>>>(
      static_cast<const int64_t*>(fixed_point_sum.const_data_ptr()),
      static_cast<double*>(confidence_sum.mutable_data_ptr()), num_bins);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {confidence, prediction, count, confidence_sum, correct, bad_row};
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CUDA, m) { m.impl("calibration_bins", TORCH_BOX(&dogs_accel::calibration_bins)); }
