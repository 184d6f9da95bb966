// What augment and augment_ragged accept.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <ostream>
#include <vector>

#include "../augment.h"
#include "../resample.h"
#include "common.h"
#include "images.h"
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

// A row of `params`, which is contiguous.
inline ParamsRow row_of(const torch::stable::Tensor& params, int64_t row) {
  const int64_t num_columns = params.size(1);
  return {static_cast<const double*>(params.const_data_ptr()) + row * num_columns,
          static_cast<int>((num_columns - num_head_params) / num_step_params)};
}

// What augment and augment_ragged have in common.
inline void check_recipe(const torch::stable::Tensor& params, int64_t num_samples, int64_t size,
                         const std::vector<double>& mean, const std::vector<double>& std,
                         torch::headeronly::ScalarType dtype, int64_t num_threads, const std::vector<int64_t>& fill) {
  using torch::headeronly::ScalarType;
  check_num_threads(num_threads);
  check(params.dim() == 2 && params.size(0) == num_samples && params.size(1) >= num_head_params &&
            params.size(1) <= num_params(max_steps) && (params.size(1) - num_head_params) % num_step_params == 0,
        "params: got shape ", shape_of(params), ", expected (", num_samples, ", ", num_head_params, " + ",
        num_step_params, " K) with K of 0 to ", max_steps);
  check(params.scalar_type() == ScalarType::Double, "params: got dtype ",
        torch::headeronly::toString(params.scalar_type()), ", expected float64");
  check(size >= 1 && size <= max_size, "size: got ", size, ", expected 1 to ", max_size);
  check(mean.size() == 3, "mean: got ", mean.size(), " numbers, expected 3");
  check(std.size() == 3, "std: got ", std.size(), " numbers, expected 3");
  check(dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16, "dtype: got ",
        torch::headeronly::toString(dtype), ", expected float32, float16 or bfloat16");
  check(fill.size() == 3, "fill: got ", fill.size(), " numbers, expected 3");
  for (const int64_t byte : fill) {
    check(byte >= 0 && byte < num_levels, "fill: got ", byte, ", expected 0 to ", num_levels - 1);
  }
}

inline void check_params_device(const torch::stable::Tensor& params, const Device& device) {
  check(device_of(params) == device, "params: got device ", device_of(params), ", expected ", device,
        " as images have");
}

inline void check_augment(const torch::stable::Tensor& images, const torch::stable::Tensor& index,
                          const torch::stable::Tensor& params, int64_t size, const std::vector<double>& mean,
                          const std::vector<double>& std, torch::headeronly::ScalarType dtype, int64_t num_threads,
                          const std::vector<int64_t>& fill) {
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
  check_recipe(params, index.size(0), size, mean, std, dtype, num_threads, fill);
  check(device_of(index) == device_of(images), "index: got device ", device_of(index), ", expected ", device_of(images),
        " as images have");
  check_params_device(params, device_of(images));
}

// `resized` is on the CPU on every device, so its values are checked here too.
inline void check_augment_ragged(const std::vector<torch::stable::Tensor>& images, const torch::stable::Tensor& resized,
                                 const torch::stable::Tensor& params, int64_t size, const std::vector<double>& mean,
                                 const std::vector<double>& std, torch::headeronly::ScalarType dtype,
                                 int64_t num_threads, const std::vector<int64_t>& fill) {
  using torch::headeronly::ScalarType;
  const auto num_images = static_cast<int64_t>(images.size());
  check_images(images);
  check(resized.dim() == 2 && resized.size(0) == num_images && resized.size(1) == 2, "resized: got shape ",
        shape_of(resized), ", expected (", num_images, ", 2)");
  check(resized.scalar_type() == ScalarType::Long, "resized: got dtype ",
        torch::headeronly::toString(resized.scalar_type()), ", expected int64");
  check(resized.is_cpu(), "resized: got device ", device_of(resized), ", expected cpu");
  check_recipe(params, num_images, size, mean, std, dtype, num_threads, fill);
  if (num_images > 0) {
    check_params_device(params, device_of(images[0]));
  }
  const auto* const sizes = static_cast<const int64_t*>(resized.const_data_ptr());
  for (int64_t i = 0; i < num_images; ++i) {
    check(images[i].size(0) <= max_side && images[i].size(1) <= max_side, "images[", i, "]: got shape ",
          shape_of(images[i]), ", expected sides of at most ", max_side);
    for (int64_t axis = 0; axis < 2; ++axis) {
      const int64_t side = sizes[i * resized.stride(0) + axis * resized.stride(1)];
      check(side == images[i].size(axis) || (side >= 1 && side <= max_size), "resized[", i, "]: got ", side,
            axis == 0 ? " rows" : " columns", ", expected the image's ", images[i].size(axis), ", or 1 to ", max_size);
    }
  }
}

// Of a row of `params`, where a CPU may look at it.
inline void check_row(int64_t sample, const ParamsRow& row, const AugmentSettings& settings) {
  const BadParams bad = bad_params(row, settings);
  const auto refuse = [&](const auto&... parts) { check(false, "params[", sample, "]: got ", parts...); };
  switch (bad.what) {
    case BadParams::none:
      return;
    case BadParams::crop:
      return refuse("crop ", row.crop(), ", expected whole numbers: a box within (", settings.height, ", ",
                    settings.width, "), or one of 1 to ", max_size, " px a side, at most ", max_side, " px away");
    case BadParams::flip:
      return refuse("flip ", row.flip(), ", expected 0 or 1");
    case BadParams::erase:
      return refuse("erase ", row.erase(), ", expected whole numbers within (", settings.size, ", ", settings.size,
                    ")");
    case BadParams::step:
      return refuse("step ", row.step(bad.step_index), ", expected 0 to ", num_step_kinds - 1);
    case BadParams::numbers:
      break;
  }
  const auto kind = static_cast<StepKind>(static_cast<int>(row.step(bad.step_index)));
  const double* numbers = row.numbers(bad.step_index);
  const char* name = step_names[static_cast<int>(kind)];
  switch (kind) {
    case StepKind::affine:
      return refuse(name, " ", Values{numbers, 6}, ", expected to stay within ", max_offset, " px");
    case StepKind::hue:
      return refuse(name, " ", numbers[0], ", expected a whole number of 0 to 255");
    case StepKind::posterize:
      return refuse(name, " ", numbers[0], ", expected a whole number of 1 to 8");
    case StepKind::solarize:
      return refuse(name, " ", numbers[0], ", expected 0 to ", num_levels);
    default:
      return refuse(name, " ", numbers[0], ", expected 0 to ", max_factor);
  }
}

// Values of one sample of augment, where a CPU may look at them.
inline void check_sample(int64_t sample, int64_t index, int64_t num_images, const ParamsRow& row,
                         const AugmentSettings& settings) {
  check(index >= 0 && index < num_images, "index[", sample, "]: got ", index, ", expected 0 to ", num_images - 1);
  check_row(sample, row, settings);
}

}  // namespace dogs_accel
