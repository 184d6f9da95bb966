// Affine transforms with the nearest neighbour, as PIL.Image.transform has them; shared by the CPU kernels and the CUDA
// kernels of augment and augment_ragged. Definition: Pillow 13, src/libImaging/Geometry.c.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace dogs_accel {

constexpr double max_offset = 32767;  // 16 bits before the point, as in Pillow, and room for rounding

// Where each output pixel comes from, in 16.16 fixed point: start + x * step_x + y * step_y.
struct FixedAffine {
  int32_t x, x_step_x, x_step_y;
  int32_t y, y_step_x, y_step_y;

  DOGS_ACCEL_HOST_DEVICE int32_t from_x(int32_t out_x, int32_t out_y) const {
    return (x + out_y * x_step_y + out_x * x_step_x) >> 16;
  }
  DOGS_ACCEL_HOST_DEVICE int32_t from_y(int32_t out_x, int32_t out_y) const {
    return (y + out_y * y_step_y + out_x * y_step_x) >> 16;
  }
};

DOGS_ACCEL_HOST_DEVICE int32_t fixed_point(double value) {
  return static_cast<int32_t>(std::floor(value * 65536.0 + 0.5));
}

DOGS_ACCEL_HOST_DEVICE FixedAffine fixed_affine(const double* m) {
  return {fixed_point(m[2] + m[0] * 0.5 + m[1] * 0.5), fixed_point(m[0]), fixed_point(m[1]),
          fixed_point(m[5] + m[3] * 0.5 + m[4] * 0.5), fixed_point(m[3]), fixed_point(m[4])};
}

DOGS_ACCEL_HOST_DEVICE bool is_identity(const FixedAffine& affine) {
  return affine.x >> 16 == 0 && affine.x_step_x == 1 << 16 && affine.x_step_y == 0 && affine.y >> 16 == 0 &&
         affine.y_step_x == 0 && affine.y_step_y == 1 << 16;
}

// Whether every pixel of a square of `size` px comes from less than `max_offset` px away. A NaN fails the comparison.
DOGS_ACCEL_HOST_DEVICE bool stays_near(const double* matrix, int32_t size) {
  for (int row = 0; row < 2; ++row) {
    const double* m = matrix + 3 * row;
    if (!((std::fabs(m[0]) + std::fabs(m[1])) * size + std::fabs(m[2]) < max_offset)) {
      return false;
    }
  }
  return true;
}

}  // namespace dogs_accel
