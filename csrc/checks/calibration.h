// What calibration_bins accepts. class_calibration_bins checks the same, and then a limit of its own.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>

#include "common.h"

namespace dogs_accel {

inline void check_calibration_bins(const torch::stable::Tensor& logits, const torch::stable::Tensor& labels,
                                   int64_t bins) {
  using torch::headeronly::ScalarType;
  constexpr int64_t max_bins = 4096;           // a histogram of 16 bytes a bin fits in a GPU's shared memory
  constexpr int64_t limit = int64_t{1} << 31;  // rows: a bin's fixed-point sum; classes: indices beside float32

  check(logits.dim() == 2, "logits: got shape ", shape_of(logits), ", expected (N, C)");
  check(logits.size(1) >= 1, "logits: got shape ", shape_of(logits), ", expected (N, C) with C >= 1");
  check(logits.size(0) < limit, "logits: got ", logits.size(0), " rows, expected fewer than ", limit);
  check(logits.size(1) < limit, "logits: got ", logits.size(1), " classes, expected fewer than ", limit);
  const ScalarType dtype = logits.scalar_type();
  check(dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16 ||
            dtype == ScalarType::Double,
        "logits: got dtype ", torch::headeronly::toString(dtype), ", expected float32, float16, bfloat16 or float64");
  check(labels.dim() == 1 && labels.size(0) == logits.size(0), "labels: got shape ", shape_of(labels), ", expected (",
        logits.size(0), ",)");
  check(labels.scalar_type() == ScalarType::Long, "labels: got dtype ",
        torch::headeronly::toString(labels.scalar_type()), ", expected int64");
  check(device_of(labels) == device_of(logits), "labels: got device ", device_of(labels), ", expected ",
        device_of(logits), " as logits have");
  check(bins >= 1 && bins <= max_bins, "bins: got ", bins, ", expected 1 <= bins <= ", max_bins);
}

}  // namespace dogs_accel
