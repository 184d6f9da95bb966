// What the calibration operators read, and the choice by its dtype; shared by the CPU and CUDA kernels.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <type_traits>

#include "calibration.h"

namespace dogs_accel {

// A view of the arguments. Strides count elements and may be 0.
template <class Logit>
struct Input {
  const Logit* logits;
  int64_t row_stride, class_stride;
  const int64_t* labels;
  int64_t label_stride;
  int64_t num_rows, num_classes;
  Bins bins;

  Input(const torch::stable::Tensor& logits, const torch::stable::Tensor& labels, int64_t num_bins)
      : logits(static_cast<const Logit*>(logits.const_data_ptr())),
        row_stride(logits.stride(0)),
        class_stride(logits.stride(1)),
        labels(static_cast<const int64_t*>(labels.const_data_ptr())),
        label_stride(labels.stride(0)),
        num_rows(logits.size(0)),
        num_classes(logits.size(1)),
        bins(num_bins) {}
};

inline torch::headeronly::ScalarType real_dtype(const torch::stable::Tensor& logits) {
  using torch::headeronly::ScalarType;
  return logits.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Calls function(std::type_identity<Logit>{}) for the dtype of the logits, one of those that check_calibration_bins
// accepts.
template <class Function>
void with_logit_type(const torch::stable::Tensor& logits, const Function& function) {
  using torch::headeronly::ScalarType;
  const ScalarType dtype = logits.scalar_type();
  if (dtype == ScalarType::Float) {
    function(std::type_identity<float>{});
  } else if (dtype == ScalarType::Double) {
    function(std::type_identity<double>{});
  } else if (dtype == ScalarType::Half) {
    function(std::type_identity<torch::headeronly::Half>{});
  } else {
    function(std::type_identity<torch::headeronly::BFloat16>{});
  }
}

}  // namespace dogs_accel
