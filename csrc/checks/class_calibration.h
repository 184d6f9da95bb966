// What class_calibration_bins accepts.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#include "calibration.h"
#include "common.h"

namespace dogs_accel {

inline void check_class_calibration_bins(const torch::stable::Tensor& logits, const torch::stable::Tensor& labels,
                                         int64_t bins) {
  constexpr int64_t limit = int64_t{1} << 31;  // 48 GiB of output
  check_calibration_bins(logits, labels, bins);
  check(logits.size(1) * bins < limit, "bins: got ", bins, " of ", logits.size(1),
        " classes, expected fewer than 2^31 bins in all");
}

}  // namespace dogs_accel
