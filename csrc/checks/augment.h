// What augment accepts.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <ostream>
#include <vector>

#include "../augment.h"
#include "../resample.h"
#include "common.h"
#include "resample.h"

namespace dogs_accel {

struct Values {
  const double* first;
  int size;
};

inline std::ostream& operator<<(std::ostream& out, const Values& values) {
  for (int i = 0; i < values.size; ++i) {
    out << (i > 0 ? " " : "") << values.first[i];
  }
  return out;
}

inline std::ostream& operator<<(std::ostream& out, const Box& box) {
  return out << "(top " << box.top << ", left " << box.left << ", height " << box.height << ", width " << box.width
             << ")";
}

inline void check_augment(const torch::stable::Tensor& images, const torch::stable::Tensor& index,
                          const torch::stable::Tensor& params, int64_t size, const std::vector<double>& mean,
                          const std::vector<double>& std, torch::headeronly::ScalarType dtype, int64_t num_threads) {
  check_num_threads(num_threads);
  using torch::headeronly::ScalarType;
  check(images.scalar_type() == ScalarType::Byte, "images: got dtype ",
        torch::headeronly::toString(images.scalar_type()), ", expected uint8");
  check(images.dim() == 4 && images.size(3) == 3 && images.size(1) >= 1 && images.size(1) <= max_size &&
            images.size(2) >= 1 && images.size(2) <= max_size,
        "images: got shape ", shape_of(images), ", expected (N, H, W, 3) with H, W of 1 to ", max_size);
  check(images.stride(3) == 1 && images.stride(2) == 3, "images: got strides of ", images.stride(2), " and ",
        images.stride(3), " bytes a pixel and a channel, expected 3 and 1");
  check(index.dim() == 1, "index: got shape ", shape_of(index), ", expected (B,)");
  check(index.scalar_type() == ScalarType::Long, "index: got dtype ", torch::headeronly::toString(index.scalar_type()),
        ", expected int64");
  check(params.dim() == 2 && params.size(0) == index.size(0) && params.size(1) == num_augment_params,
        "params: got shape ", shape_of(params), ", expected (", index.size(0), ", ", num_augment_params, ")");
  check(params.scalar_type() == ScalarType::Double, "params: got dtype ",
        torch::headeronly::toString(params.scalar_type()), ", expected float64");
  check(device_of(index) == device_of(images), "index: got device ", device_of(index), ", expected ", device_of(images),
        " as images have");
  check(device_of(params) == device_of(images), "params: got device ", device_of(params), ", expected ",
        device_of(images), " as images have");
  check(size >= 1 && size <= max_size, "size: got ", size, ", expected 1 to ", max_size);
  check(mean.size() == 3, "mean: got ", mean.size(), " numbers, expected 3");
  check(std.size() == 3, "std: got ", std.size(), " numbers, expected 3");
  check(dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16, "dtype: got ",
        torch::headeronly::toString(dtype), ", expected float32, float16 or bfloat16");
}

// Values of one sample of augment, where a CPU may look at them.
inline void check_sample(int64_t sample, int64_t index, int64_t num_images, const AugmentParams& params,
                         const AugmentSettings& settings) {
  check(index >= 0 && index < num_images, "index[", sample, "]: got ", index, ", expected 0 to ", num_images - 1);
  const AugmentParams& p = params;
  switch (bad_params(params, settings)) {
    case BadParams::none:
      return;
    case BadParams::crop:
      return check(false, "params[", sample, "]: got crop ", p.crop, ", expected whole numbers within (",
                   settings.height, ", ", settings.width, ") and at least (1, 1)");
    case BadParams::flip:
      return check(false, "params[", sample, "]: got flip ", p.flip, ", expected 0 or 1");
    case BadParams::matrix:
      return check(false, "params[", sample, "]: got matrix ", Values{p.matrix, 6}, ", expected to stay within ",
                   max_offset, " px");
    case BadParams::factors:
      return check(false, "params[", sample, "]: got factors ", Values{p.factors, 3}, ", expected 0 to ", max_factor);
    case BadParams::order:
      return check(false, "params[", sample, "]: got order ", Values{p.order, 3}, ", expected 0, 1 and 2, each once");
    case BadParams::erase:
      return check(false, "params[", sample, "]: got erase ", p.erase, ", expected whole numbers within (",
                   settings.size, ", ", settings.size, ")");
  }
}

}  // namespace dogs_accel
