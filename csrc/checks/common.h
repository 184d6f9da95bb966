// What the checks of every operator are made of. They look at shapes, dtypes and devices only; values are checked where
// they are read. The CPU kernel and the CUDA kernel of an operator call the same check, and each includes the header of
// its own operator, so that a change of one operator's checks recompiles the two files of that operator.
//
// A message has the form "name: got ..., expected ...": torch makes a RuntimeError of every exception, and ops.py tells
// a refused argument by that form.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <ostream>
#include <sstream>
#include <stdexcept>

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

}  // namespace dogs_accel
