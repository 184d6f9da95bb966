// A view of one uint8 RGB image whose pixels may be visited in any order.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <limits>
#include <utility>

#include "host_device.h"

namespace dogs_accel {

// Strides count bytes and may be 0. Rows run along memory, also of a transposed image, and rows that follow
// each other in memory are one row.
struct Image {
  const uint8_t* pixels;
  int64_t num_rows, num_columns;
  int64_t row_stride, column_stride, channel_stride;

  Image() = default;

  // Of a tensor that check_images has accepted.
  explicit Image(const torch::stable::Tensor& tensor)
      : pixels(static_cast<const uint8_t*>(tensor.const_data_ptr())),
        num_rows(tensor.size(0)),
        num_columns(tensor.size(1)),
        row_stride(tensor.stride(0)),
        column_stride(tensor.stride(1)),
        channel_stride(tensor.stride(2)) {
    if (num_columns == 1 || (num_rows > 1 && spread(row_stride) < spread(column_stride))) {
      std::swap(num_rows, num_columns);
      std::swap(row_stride, column_stride);
    }
    if (num_rows == 1 || row_stride == num_columns * column_stride) {
      num_columns *= num_rows;
      num_rows = 1;
    }
  }

  DOGS_ACCEL_HOST_DEVICE int64_t num_pixels() const { return num_rows * num_columns; }

  // The row of a pixel. An image of one row is the most frequent, and is spared the division.
  DOGS_ACCEL_HOST_DEVICE int64_t row_of(int64_t pixel) const { return num_rows == 1 ? 0 : pixel / num_columns; }

  // Whether each row is R, G, B, R, G, B and so on.
  DOGS_ACCEL_HOST_DEVICE bool is_interleaved() const { return column_stride == 3 && channel_stride == 1; }

 private:
  // How far apart pixels are: those of an expanded dimension are no neighbours.
  static int64_t spread(int64_t stride) { return stride == 0 ? std::numeric_limits<int64_t>::max() : stride; }
};

}  // namespace dogs_accel
