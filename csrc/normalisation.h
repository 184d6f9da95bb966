// What the model sees of each byte of each channel, in the bits of the output's dtype; shared by the CPU kernel and the
// CUDA kernel of augment.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <bit>
#include <cstdint>
#include <vector>

#include "host_device.h"

namespace dogs_accel {

struct MeanAndStd {
  float mean[3], std[3];

  MeanAndStd(const std::vector<double>& means, const std::vector<double>& stds) {
    for (int c = 0; c < 3; ++c) {
      mean[c] = static_cast<float>(means[c]);
      std[c] = static_cast<float>(stds[c]);
    }
  }

  // Each step is rounded to float32, as torchvision's ToTensor and Normalize do.
  DOGS_ACCEL_HOST_DEVICE float normalised(int channel, int byte) const {
    return (static_cast<float>(byte) / 255.0f - mean[channel]) / std[channel];
  }
};

// Values are moved as integers: a half has no vector instructions on most CPUs.
template <class Value>
struct BitsOf {
  using type = uint16_t;
};
template <>
struct BitsOf<float> {
  using type = uint32_t;
};

template <class Value>
DOGS_ACCEL_HOST_DEVICE typename BitsOf<Value>::type bits_of(float value) {
  return std::bit_cast<typename BitsOf<Value>::type>(static_cast<Value>(value));
}

// Calls function(value) with a value of the C++ type of a dtype that check_augment accepts.
template <class Function>
void with_output_type(torch::headeronly::ScalarType dtype, const Function& function) {
  using torch::headeronly::ScalarType;
  if (dtype == ScalarType::Float) {
    function(float{});
  } else if (dtype == ScalarType::Half) {
    function(torch::headeronly::Half{});
  } else {
    function(torch::headeronly::BFloat16{});
  }
}

// (B, H, W, 3) as (B, 3, H, W), channels last. torch::stable::permute does not exist before torch 2.14.
inline torch::stable::Tensor channels_last(const torch::stable::Tensor& batch) {
  return torch::stable::transpose(torch::stable::transpose(batch, 1, 3), 2, 3);
}

}  // namespace dogs_accel
