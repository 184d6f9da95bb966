// The arithmetic of the calibration operators for one row and one bin, shared by their CPU and CUDA kernels.
//
// Every kernel adds a row's exponentials in the same order: column c goes to partial sum c mod num_lanes, and
// the partial sums are folded in halves. With every operation rounded once (the build turns contraction into
// fused multiply-adds off) CUDA and every vector width of the CPU give the same bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "host_device.h"

namespace dogs_accel {

constexpr int num_lanes = 32;  // a warp; on a CPU two to eight vector registers

// Half-precision logits are computed in float32, float64 logits in float64.
template <class Logit>
using real_t = std::conditional_t<std::is_same_v<Logit, double>, double, float>;

template <class Real>
struct RealFormat;

template <>
struct RealFormat<float> {
  using Bits = uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr int exponent_bias = 127;
  static constexpr Bits infinity = 0x7f800000;
  static constexpr float round_to_int = 0x1.8p23f;  // adding it leaves an integer in the low mantissa bits
  static constexpr float lowest_exponent = -87.0f;
  static constexpr float ln2_high = 0x1.62e4p-1f;  // few enough bits for n * ln2_high to be exact
  static constexpr float ln2_low = 0x1.7f7d1cp-20f;
  static constexpr int exp_degree = 7;
};

template <>
struct RealFormat<double> {
  using Bits = uint64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr int exponent_bias = 1023;
  static constexpr Bits infinity = 0x7ff0000000000000;
  static constexpr double round_to_int = 0x1.8p52;
  static constexpr double lowest_exponent = -708.0;
  static constexpr double ln2_high = 0x1.62e42fefa0000p-1;
  static constexpr double ln2_low = 0x1.cf79abc9e3b3ap-40;
  static constexpr int exp_degree = 13;
};

// Bits of |x|, ordered as |x| is; infinity and NaN are >= RealFormat::infinity.
template <class Real>
DOGS_ACCEL_HOST_DEVICE typename RealFormat<Real>::Bits magnitude_bits(Real x) {
  using Bits = typename RealFormat<Real>::Bits;
  return std::bit_cast<Bits>(x) & std::numeric_limits<Bits>::max() >> 1;
}

// The Taylor series of exp from the term r^k / k! on, divided by r^k, in Horner's form.
template <class Real, int k>
DOGS_ACCEL_HOST_DEVICE Real exp_series(Real r) {
  constexpr double inverse_factorial = [] {
    double product = 1.0;
    for (int i = 2; i <= k; ++i) {
      product *= i;
    }
    return 1.0 / product;
  }();
  if constexpr (k == RealFormat<Real>::exp_degree) {
    return static_cast<Real>(inverse_factorial);
  } else {
    return std::fma(r, exp_series<Real, k + 1>(r), static_cast<Real>(inverse_factorial));
  }
}

// exp(x) for x <= 0, within 2 ulp; below about 1e-38 (1e-307 in float64) it stays at that value, which a sum
// that holds exp(0) cannot see. x = n ln 2 + r with |r| <= ln(2) / 2, and exp(x) = 2^n exp(r): no branches
// and no table, so that it vectorises. For the same reason the lower limit is an integer minimum: of two
// negative numbers the one with the larger bits is the lower.
template <class Real>
DOGS_ACCEL_HOST_DEVICE Real exp_nonpositive(Real x) {
  using Format = RealFormat<Real>;
  using Bits = typename Format::Bits;
  constexpr Real inverse_ln2 = static_cast<Real>(1.4426950408889634);
  constexpr Bits lowest = std::bit_cast<Bits>(Format::lowest_exponent);
  constexpr Bits offset = Format::exponent_bias - std::bit_cast<Bits>(Format::round_to_int);
  const Bits bits = std::bit_cast<Bits>(x);
  x = std::bit_cast<Real>(bits < lowest ? bits : lowest);
  const Real shifted = std::fma(x, inverse_ln2, Format::round_to_int);
  const Real n = shifted - Format::round_to_int;
  const Real r = std::fma(n, -Format::ln2_low, std::fma(n, -Format::ln2_high, x));
  const Bits two_to_n = (std::bit_cast<Bits>(shifted) + offset) << Format::mantissa_bits;
  return exp_series<Real, 0>(r) * std::bit_cast<Real>(two_to_n);
}

// Equal bins on [0, 1], (lower, upper], the first with its lower edge 0. The edges are those of
// numpy.linspace(0, 1, size + 1), with its rounding.
struct Bins {
  int64_t size;
  double step;

  explicit Bins(int64_t num_bins) : size(num_bins), step(1.0 / static_cast<double>(num_bins)) {}

  DOGS_ACCEL_HOST_DEVICE double edge(int64_t b) const { return b == size ? 1.0 : static_cast<double>(b) * step; }

  // The product below is rounded, so it may be one off at an edge; the comparison with the edges decides.
  DOGS_ACCEL_HOST_DEVICE int64_t find(double confidence) const {
    int64_t b = static_cast<int64_t>(confidence * static_cast<double>(size));
    b = b < size ? b : size - 1;
    while (b > 0 && confidence <= edge(b)) {
      --b;
    }
    while (b + 1 < size && confidence > edge(b + 1)) {
      ++b;
    }
    return b;
  }

  // The largest Real in bin 0: what is not above it needs no find().
  template <class Real>
  Real first_upper() const {
    const Real upper = static_cast<Real>(edge(1));
    return upper > edge(1) ? std::nextafter(upper, Real{0}) : upper;
  }
};

// Confidences are summed as integers of 2^-32, so that a sum depends on no order. Every float32 confidence
// from 2^-9 on is such a multiple exactly; smaller ones and float64 ones are rounded to the nearest.
// Adding 1.5 * 2^52 leaves the integer in the low mantissa bits; unlike a conversion it vectorises everywhere.
DOGS_ACCEL_HOST_DEVICE int64_t to_fixed_point(double confidence) {
  constexpr double round_to_int = RealFormat<double>::round_to_int;
  return std::bit_cast<int64_t>(confidence * 0x1p32 + round_to_int) - std::bit_cast<int64_t>(round_to_int);
}

DOGS_ACCEL_HOST_DEVICE double from_fixed_point(int64_t sum) { return static_cast<double>(sum) * 0x1p-32; }

}  // namespace dogs_accel
