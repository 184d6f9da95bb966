// What the calibration operators return, and what their CPU and CUDA kernels count with.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <initializer_list>

#include "logits.h"

namespace dogs_accel {

// (1,) int64. As an unsigned number -1 is the largest, so that an atomic minimum finds the first row.
inline torch::stable::Tensor no_bad_row(const torch::stable::Tensor& logits) {
  const auto bad_row = torch::stable::new_empty(logits, {1}, torch::headeronly::ScalarType::Long);
  torch::stable::fill_(bad_row, -1);
  return bad_row;
}

inline torch::stable::Tensor no_counts(const torch::stable::Tensor& logits, std::initializer_list<int64_t> shape) {
  return torch::stable::new_zeros(logits, shape, torch::headeronly::ScalarType::Long);
}

inline torch::stable::Tensor new_doubles(const torch::stable::Tensor& logits, std::initializer_list<int64_t> shape) {
  return torch::stable::new_empty(logits, shape, torch::headeronly::ScalarType::Double);
}

// Of calibration_bins.
struct RowBins {
  torch::stable::Tensor confidence, prediction, count, fixed_point_sum, confidence_sum, correct, bad_row;

  RowBins(const torch::stable::Tensor& logits, int64_t bins)
      : confidence(torch::stable::new_empty(logits, {logits.size(0)}, real_dtype(logits))),
        prediction(torch::stable::new_empty(logits, {logits.size(0)}, torch::headeronly::ScalarType::Long)),
        count(no_counts(logits, {bins})),
        fixed_point_sum(no_counts(logits, {bins})),
        confidence_sum(new_doubles(logits, {bins})),
        correct(no_counts(logits, {bins})),
        bad_row(no_bad_row(logits)) {}
};

// Of class_calibration_bins.
struct ClassBins {
  torch::stable::Tensor count, fixed_point_sum, probability_sum, positives, fixed_point_error, squared_error, bad_row;

  ClassBins(const torch::stable::Tensor& logits, int64_t bins)
      : count(no_counts(logits, {logits.size(1), bins})),
        fixed_point_sum(no_counts(logits, {logits.size(1), bins})),
        probability_sum(new_doubles(logits, {logits.size(1), bins})),
        positives(no_counts(logits, {logits.size(1), bins})),
        fixed_point_error(no_counts(logits, {logits.size(1)})),
        squared_error(new_doubles(logits, {logits.size(1)})),
        bad_row(no_bad_row(logits)) {}
};

}  // namespace dogs_accel
