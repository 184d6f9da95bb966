// What image_sums, image_stats and stats_of_sums accept.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>

#include "common.h"
#include "images.h"

namespace dogs_accel {

inline void check_image_sums(const torch::stable::Tensor& sums, int64_t num_columns) {
  using torch::headeronly::ScalarType;
  check(sums.dim() == 2 && sums.size(1) == num_columns, "sums: got shape ", shape_of(sums), ", expected (N, ",
        num_columns, ")");
  check(sums.scalar_type() == ScalarType::Long, "sums: got dtype ", torch::headeronly::toString(sums.scalar_type()),
        ", expected int64");
}

}  // namespace dogs_accel
