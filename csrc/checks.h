// Argument checks shared by the CPU and CUDA twins of an operator. They look at shapes, dtypes and devices
// only; values are checked where they are read. A message has the form "name: got ..., expected ...": torch
// makes a RuntimeError of every exception, and ops.py tells a refused argument by that form.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "augment.h"

namespace dogs_accel {

// STD_TORCH_CHECK is not used because it puts the path of the source file in front of the message.
template <class... Parts>
void check(bool ok, const Parts&... parts) {
  if (ok) {
    return;
  }
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

// What a message prints, put into words only if there is one.
struct Shape {
  const torch::stable::Tensor& tensor;
};

inline Shape shape_of(const torch::stable::Tensor& tensor) { return {tensor}; }

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  const torch::stable::Tensor& tensor = shape.tensor;
  out << '(';
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    out << (d > 0 ? ", " : "") << tensor.size(d);
  }
  return out << (tensor.dim() == 1 ? ",)" : ")");
}

struct Device {
  bool is_cpu;
  int64_t index;

  bool operator==(const Device&) const = default;
};

inline Device device_of(const torch::stable::Tensor& tensor) {
  return tensor.is_cpu() ? Device{true, 0} : Device{false, tensor.get_device_index()};
}

inline std::ostream& operator<<(std::ostream& out, const Device& device) {
  return device.is_cpu ? out << "cpu" : out << "cuda:" << device.index;
}

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

inline void check_class_calibration_bins(const torch::stable::Tensor& logits, const torch::stable::Tensor& labels,
                                         int64_t bins) {
  constexpr int64_t limit = int64_t{1} << 31;  // 48 GiB of output
  check_calibration_bins(logits, labels, bins);
  check(logits.size(1) * bins < limit, "bins: got ", bins, " of ", logits.size(1),
        " classes, expected fewer than 2^31 bins in all");
}

inline void check_images(const std::vector<torch::stable::Tensor>& images) {
  using torch::headeronly::ScalarType;
  constexpr int64_t limit = int64_t{1} << 40;  // sums of 2^23 a pixel fit in 64 bits

  for (size_t i = 0; i < images.size(); ++i) {
    const torch::stable::Tensor& image = images[i];
    check(image.scalar_type() == ScalarType::Byte, "images[", i, "]: got dtype ",
          torch::headeronly::toString(image.scalar_type()), ", expected uint8");
    check(image.dim() == 3 && image.size(2) == 3 && image.size(0) >= 1 && image.size(1) >= 1, "images[", i,
          "]: got shape ", shape_of(image), ", expected (H, W, 3) with H, W >= 1");
    check(image.size(0) <= (limit - 1) / image.size(1), "images[", i, "]: got shape ", shape_of(image),
          ", expected fewer than ", limit, " pixels");
    check(device_of(image) == device_of(images[0]), "images[", i, "]: got device ", device_of(image), ", expected ",
          device_of(images[0]), " as images[0] has");
  }
}

// Of an operator on images that is called without an image, or on a device whose kernels are not loaded.
inline void check_has_kernel(const std::vector<torch::stable::Tensor>& images) {
  if (!images.empty()) {
    check(false, "images[0]: got device ", device_of(images[0]), ", expected one whose kernels are loaded");
  }
}

inline void check_num_threads(int64_t num_threads) {
  check(num_threads >= 0, "num_threads: got ", num_threads,
        ", expected an integer >= 1, or 0 for as many as torch uses");
}

inline Interpolation checked_interpolation(const std::string& name) {
  check(name == "bilinear" || name == "bicubic", "interpolation: got '", name, "', expected 'bilinear' or 'bicubic'");
  return name == "bilinear" ? Interpolation::bilinear : Interpolation::bicubic;
}

inline void check_squash(const std::vector<torch::stable::Tensor>& images, int64_t height, int64_t width,
                         int64_t num_threads) {
  check_num_threads(num_threads);
  constexpr int64_t limit = int64_t{1} << 24;  // where Pillow's float32 coordinates end
  check(height >= 1 && height <= max_size, "height: got ", height, ", expected 1 to ", max_size);
  check(width >= 1 && width <= max_size, "width: got ", width, ", expected 1 to ", max_size);
  check_images(images);
  for (size_t i = 0; i < images.size(); ++i) {
    check(images[i].size(0) <= limit && images[i].size(1) <= limit, "images[", i, "]: got shape ", shape_of(images[i]),
          ", expected sides of at most ", limit);
  }
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

inline void check_image_sums(const torch::stable::Tensor& sums, int64_t num_columns) {
  using torch::headeronly::ScalarType;
  check(sums.dim() == 2 && sums.size(1) == num_columns, "sums: got shape ", shape_of(sums), ", expected (N, ",
        num_columns, ")");
  check(sums.scalar_type() == ScalarType::Long, "sums: got dtype ", torch::headeronly::toString(sums.scalar_type()),
        ", expected int64");
}

}  // namespace dogs_accel
