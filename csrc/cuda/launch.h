// What every kernel and its launch need.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <cstdint>

namespace dogs_accel {

constexpr int warp_size = 32;
constexpr unsigned int whole_warp = 0xffffffffu;

using Counter = unsigned long long;  // atomicAdd has no int64_t overload; the bits of a sum are the same

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The current stream of the tensor's device, as PyTorch has it in this thread.
inline cudaStream_t current_stream(const torch::stable::Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

}  // namespace dogs_accel
