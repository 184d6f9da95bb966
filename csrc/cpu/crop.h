// The box of an image that a sample is made of: cut out, of the image as it is or resized, with a fill outside of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../augment.h"
#include "resample.h"

namespace dogs_accel {

// The buffers of one thread.
struct Cropper {
  Resampler resampler;
  std::vector<uint8_t> padded;

  // `settings` has the size to which the image is resized first. Of that no more is computed than the box has. The rows
  // stay as they are until the next call.
  template <int lanes>
  DOGS_ACCEL_INLINE Rows crop(const Rows& image, const Box& box, const AugmentSettings& settings, const Fill& fill) {
    const auto top = static_cast<int32_t>(box.top), left = static_cast<int32_t>(box.left);
    const auto height = static_cast<int32_t>(box.height), width = static_cast<int32_t>(box.width);
    const Range rows = within(top, height, settings.height), columns = within(left, width, settings.width);
    Rows inside{};
    if (rows.size() > 0 && columns.size() > 0) {
      inside = image.height == settings.height && image.width == settings.width
                   ? Rows{image.bytes + rows.begin * image.stride + int64_t{3} * columns.begin, image.stride,
                          rows.size(), columns.size()}
                   : resampler.resample<lanes>(image, settings.height, settings.width, settings.interpolation,
                                               /*is_mirrored=*/false, rows, columns);
    }
    if (inside.height == height && inside.width == width) {
      return inside;
    }
    return pad(inside, rows.begin - top, columns.begin - left, height, width, fill);
  }

 private:
  static Range within(int32_t begin, int32_t size, int32_t limit) {
    return {std::clamp(begin, 0, limit), std::clamp(begin + size, 0, limit)};
  }

  // Rows of (height, width) with others from (top, left) on and the fill around them.
  Rows pad(const Rows& inside, int32_t top, int32_t left, int32_t height, int32_t width, const Fill& fill) {
    const int64_t stride = padded_row(width);
    padded.resize(height * stride);
    for (int32_t x = 0; x < width; ++x) {
      std::memcpy(&padded[int64_t{3} * x], fill.bytes, 3);
    }
    for (int32_t y = 1; y < height; ++y) {
      std::memcpy(&padded[y * stride], padded.data(), 3 * static_cast<size_t>(width));
    }
    for (int32_t y = 0; y < inside.height; ++y) {
      std::memcpy(&padded[(top + y) * stride + int64_t{3} * left], inside.bytes + y * inside.stride,
                  3 * static_cast<size_t>(inside.width));
    }
    return {padded.data(), stride, height, width};
  }
};

}  // namespace dogs_accel
