// CPU twin of calibration_bins.

#include "../calibration.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "../checks.h"
#include "atomic.h"
#include "instruction_sets.h"

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A view of the arguments. Strides count elements and may be 0.
template <class Logit>
struct Input {
  const Logit* logits;
  int64_t row_stride, class_stride;
  const int64_t* labels;
  int64_t label_stride;
  int64_t num_classes;
  Bins bins;
};

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

template <class Real>
struct Top {
  Real logit;
  int64_t prediction;  // -1 where the row holds a NaN or an infinity
};

template <class Real>
struct MaxLanes {
  using Bits = typename RealFormat<Real>::Bits;
  alignas(64) Real max[num_lanes];
  alignas(64) Bits group_of_max[num_lanes];
  alignas(64) Bits magnitude[num_lanes];
};

template <class Real, class Bits>
DOGS_ACCEL_INLINE void update_max(const Real* __restrict row, int size, Bits group, MaxLanes<Real>& __restrict lanes) {
  for (int lane = 0; lane < size; ++lane) {
    lanes.group_of_max[lane] = row[lane] > lanes.max[lane] ? group : lanes.group_of_max[lane];
    lanes.max[lane] = row[lane] > lanes.max[lane] ? row[lane] : lanes.max[lane];
    lanes.magnitude[lane] = std::max(magnitude_bits(row[lane]), lanes.magnitude[lane]);
  }
}

template <class Real>
DOGS_ACCEL_INLINE void add_exp(const Real* __restrict row, int size, Real max, Real* __restrict sum) {
  for (int lane = 0; lane < size; ++lane) {
    sum[lane] += exp_nonpositive(row[lane] - max);
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
  const int64_t whole = num_classes / num_lanes * num_lanes;
  MaxLanes<Real> lanes;
  for (int lane = 0; lane < num_lanes; ++lane) {
    lanes.max[lane] = row[0];
    lanes.group_of_max[lane] = lanes.magnitude[lane] = 0;
  }
  for (int64_t c = 0; c < whole; c += num_lanes) {
    update_max(row + c, num_lanes, static_cast<Bits>(c / num_lanes), lanes);
  }
  update_max(row + whole, static_cast<int>(num_classes - whole), static_cast<Bits>(whole / num_lanes), lanes);

  const Real max = fold_lanes(lanes.max, Larger{});
  Bits magnitude = 0, prediction = std::numeric_limits<Bits>::max();
  for (int lane = 0; lane < num_lanes; ++lane) {
    const Bits not_max = -static_cast<Bits>(lanes.max[lane] != max);
    prediction = std::min(prediction, (lanes.group_of_max[lane] * num_lanes + lane) | not_max);
    magnitude = std::max(magnitude, lanes.magnitude[lane]);
  }
  return {max, magnitude < RealFormat<Real>::infinity ? static_cast<int64_t>(prediction) : -1};
}

template <class Real>
DOGS_ACCEL_INLINE Real sum_exp_of_row(const Real* row, int64_t num_classes, Real max) {
  const int64_t whole = num_classes / num_lanes * num_lanes;
  alignas(64) Real sum[num_lanes];
  for (int lane = 0; lane < num_lanes; ++lane) {
    sum[lane] = 0;
  }
  for (int64_t c = 0; c < whole; c += num_lanes) {
    add_exp(row + c, num_lanes, max, sum);
  }
  add_exp(row + whole, static_cast<int>(num_classes - whole), max, sum);
  return fold_lanes(sum, Add{});
}

constexpr int64_t max_rows_per_tile = 16;  // a cache line of float32 each class of a transposed tensor

// Asks for the rows of the next tile while this one's exponentials are computed, for which memory is idle.
template <class Logit>
DOGS_ACCEL_INLINE void prefetch_row(const Logit* row, int64_t num_classes) {
  constexpr int64_t line = 64 / sizeof(Logit);
  const int64_t end = std::min(num_classes, 64 * line);  // the hardware follows longer rows by itself
  for (int64_t c = 0; c < end; c += line) {
    __builtin_prefetch(row + c);
  }
}

// Rows [begin, end) into this thread's own histogram. Returns the first bad row, or `end`.
template <class Logit>
DOGS_ACCEL_INLINE int64_t bin_rows(const Input<Logit>& in, const Output<real_t<Logit>>& out, int64_t begin, int64_t end,
                                   Bin* histogram) {
  using Real = real_t<Logit>;
  constexpr bool convert = !std::is_same_v<Logit, Real>;
  // Rows that are not consecutive or not Real are copied a few at a time. Of a transposed tensor that reads
  // whole cache lines, and the copy stays in the L1 cache.
  const bool copy = convert || (in.class_stride != 1 && in.num_classes > 1);
  const int64_t rows_per_tile =
      copy ? std::clamp<int64_t>(4096 / in.num_classes, 1, max_rows_per_tile) : max_rows_per_tile;
  std::vector<Real> tile(copy ? rows_per_tile * in.num_classes : 0);

  int64_t first_bad = end;
  for (int64_t tile_begin = begin; tile_begin < end; tile_begin += rows_per_tile) {
    const int64_t num_rows = std::min(rows_per_tile, end - tile_begin);
    const Logit* source = in.logits + tile_begin * in.row_stride;
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
    const Real* values = tile.data();
    int64_t stride = in.num_classes;
    if constexpr (!convert) {
      values = copy ? values : source;
      stride = copy ? stride : in.row_stride;
    }
    // Pass by pass over the tile and not row by row: a row's folds are chains of dependent operations, and
    // this way the chains of several rows overlap.
    Top<Real> top[max_rows_per_tile];
    Real sum[max_rows_per_tile];
    for (int64_t i = 0; i < num_rows; ++i) {
      top[i] = top_of_row(values + i * stride, in.num_classes);
    }
    for (int64_t i = 0; i < num_rows; ++i) {
      if (in.class_stride == 1 && tile_begin + num_rows + i < end) {
        prefetch_row(source + (num_rows + i) * in.row_stride, in.num_classes);
      }
      sum[i] = sum_exp_of_row(values + i * stride, in.num_classes, top[i].logit);
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

#define DOGS_ACCEL_DEFINE_BIN_ROWS(name, attributes)                                                            \
  template <class Logit>                                                                                        \
  attributes int64_t name(const Input<Logit>& in, const Output<real_t<Logit>>& out, int64_t begin, int64_t end, \
                          Bin* histogram) {                                                                     \
    return bin_rows(in, out, begin, end, histogram);                                                            \
  }
DOGS_ACCEL_DEFINE_BIN_ROWS(bin_rows_baseline, )
#if defined(DOGS_ACCEL_X86_DISPATCH)
DOGS_ACCEL_DEFINE_BIN_ROWS(bin_rows_avx2, DOGS_ACCEL_AVX2)
DOGS_ACCEL_DEFINE_BIN_ROWS(bin_rows_avx512, DOGS_ACCEL_AVX512)
#endif
#undef DOGS_ACCEL_DEFINE_BIN_ROWS

template <class Logit>
using BinRows = int64_t (*)(const Input<Logit>&, const Output<real_t<Logit>>&, int64_t, int64_t, Bin*);

template <class Logit>
BinRows<Logit> choose_bin_rows() {
#if defined(DOGS_ACCEL_X86_DISPATCH)
  switch (instruction_set()) {
    case InstructionSet::avx512:
      return bin_rows_avx512<Logit>;
    case InstructionSet::avx2:
      return bin_rows_avx2<Logit>;
    case InstructionSet::baseline:
      break;
  }
#endif
  return bin_rows_baseline<Logit>;
}

void lower_atomically(int64_t& target, int64_t value) {
  std::atomic_ref<int64_t> current(target);
  int64_t seen = current.load(std::memory_order_relaxed);
  while ((seen < 0 || value < seen) && !current.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

template <class Logit>
void run(const Tensor& logits, const Tensor& labels, int64_t bins, const Tensor& confidence, const Tensor& prediction,
         const Tensor& count, const Tensor& fixed_point_sum, const Tensor& correct, const Tensor& bad_row) {
  using Real = real_t<Logit>;
  const Input<Logit> in{static_cast<const Logit*>(logits.const_data_ptr()),
                        logits.stride(0),
                        logits.stride(1),
                        static_cast<const int64_t*>(labels.const_data_ptr()),
                        labels.stride(0),
                        logits.size(1),
                        Bins(bins)};
  const Output<Real> out{
      static_cast<Real*>(confidence.mutable_data_ptr()), static_cast<int64_t*>(prediction.mutable_data_ptr()),
      static_cast<int64_t*>(count.mutable_data_ptr()),   static_cast<int64_t*>(fixed_point_sum.mutable_data_ptr()),
      static_cast<int64_t*>(correct.mutable_data_ptr()), static_cast<int64_t*>(bad_row.mutable_data_ptr())};
  const BinRows<Logit> rows = choose_bin_rows<Logit>();
  // About 20 microseconds of work a thread, well above what starting one costs.
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 15) / std::max<int64_t>(in.num_classes, num_lanes));
  torch::stable::parallel_for(0, logits.size(0), grain, [&](int64_t begin, int64_t end) {
    std::vector<Bin> histogram(bins);
    const int64_t first_bad = rows(in, out, begin, end, histogram.data());
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
  torch::stable::fill_(bad_row, -1);

  const auto run_as = [&]<class Logit>(std::type_identity<Logit>) {
    run<Logit>(logits, labels, bins, confidence, prediction, count, fixed_point_sum, correct, bad_row);
  };
  if (dtype == ScalarType::Float) {
    run_as(std::type_identity<float>{});
  } else if (dtype == ScalarType::Double) {
    run_as(std::type_identity<double>{});
  } else if (dtype == ScalarType::Half) {
    run_as(std::type_identity<torch::headeronly::Half>{});
  } else {
    run_as(std::type_identity<torch::headeronly::BFloat16>{});
  }

  const auto* sums = static_cast<const int64_t*>(fixed_point_sum.const_data_ptr());
  std::transform(sums, sums + bins, static_cast<double*>(confidence_sum.mutable_data_ptr()), from_fixed_point);
  return {confidence, prediction, count, confidence_sum, correct, bad_row};
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CPU, m) { m.impl("calibration_bins", TORCH_BOX(&dogs_accel::calibration_bins)); }
