// What the CUDA kernels of the calibration operators share: a row of logits by a warp.
#pragma once

#include <cstdint>
#include <limits>

#include "../calibration.h"
#include "../logits.h"
#include "launch.h"

namespace dogs_accel {

static_assert(num_lanes == warp_size, "a lane of a row is a thread of a warp");

constexpr int threads_per_block = 256;
constexpr int rows_per_block = threads_per_block / num_lanes;

template <class Real>
struct Top {
  Real logit, confidence;
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

// Adds in the order in which the CPU kernel folds its lanes. Every lane gets the sum.
template <class Number>
__device__ Number warp_sum(Number sum) {
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
    return {best.value, std::numeric_limits<Real>::quiet_NaN(), -1};
  }
  best = warp_max(best);
  Real sum = 0;
  for (int64_t c = lane; c < in.num_classes; c += num_lanes) {
    sum += exp_nonpositive(static_cast<Real>(logits[c * in.class_stride]) - best.value);
  }
  return {best.value, Real{1} / warp_sum(sum), best.index};
}

}  // namespace dogs_accel
