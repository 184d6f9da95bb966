// Memory of the outputs that hold a batch.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <vector>

namespace dogs_accel {

// An uninitialised contiguous CPU tensor. Its memory is kept when the tensor is gone, for the next one of about its
// size: batch after batch has the same, and memory that the system hands out anew costs more to touch first than a
// batch takes to make.
torch::stable::Tensor new_batch(const std::vector<int64_t>& sizes, torch::headeronly::ScalarType dtype);

}  // namespace dogs_accel
