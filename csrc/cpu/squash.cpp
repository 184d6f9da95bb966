// CPU kernel of squash.

#include "../checks/squash.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "batch_memory.h"
#include "images.h"
#include "instruction_sets.h"
#include "resample.h"
#include "threads.h"

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <int lanes>
DOGS_ACCEL_INLINE void squash_image(const Rows& in, int32_t height, int32_t width, Interpolation interpolation,
                                    Resampler& resampler, uint8_t* out) {
  const Rows rows = resampler.resample<lanes>(in, height, width, interpolation, /*is_mirrored=*/false);
  for (int64_t y = 0; y < height; ++y) {
    std::memcpy(out + y * 3 * width, rows.bytes + y * rows.stride, 3 * static_cast<size_t>(width));
  }
}

// (N, height, width, 3) uint8.
Tensor squash(const std::vector<Tensor>& images, int64_t height, int64_t width, const std::string& interpolation_name,
              int64_t num_threads) {
  check_squash(images, height, width, num_threads);
  const Interpolation interpolation = checked_interpolation(interpolation_name);
  const auto num_images = static_cast<int64_t>(images.size());
  const Tensor out = new_batch({num_images, height, width, 3}, ScalarType::Byte);
  const std::vector<Tensor> interleaved = with_whole_pixels(images);
  auto* const bytes = static_cast<uint8_t*>(out.mutable_data_ptr());
  const auto out_height = static_cast<int32_t>(height), out_width = static_cast<int32_t>(width);
  share_images(num_images, num_threads, [&](int64_t begin, int64_t end) {
    Resampler resampler;
    for (int64_t i = begin; i < end; ++i) {
      const Rows in = rows_of(interleaved[i]);
      run_on_best_instruction_set([&](auto lanes) __attribute__((always_inline)) {
        squash_image<lanes>(in, out_height, out_width, interpolation, resampler, bytes + i * height * width * 3);
      });
    }
  });
  return out;
}

// Called where there is no image to tell the device, and for a device without a kernel.
Tensor no_squash(const std::vector<Tensor>& images, int64_t height, int64_t width, const std::string& interpolation,
                 int64_t num_threads) {
  check_squash(images, height, width, num_threads);
  checked_interpolation(interpolation);
  check_has_kernel(images);
  return torch::stable::empty({0, height, width, 3}, ScalarType::Byte);
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CPU, m) { m.impl("squash", TORCH_BOX(&dogs_accel::squash)); }

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CompositeExplicitAutograd, m) {
  m.impl("squash", TORCH_BOX(&dogs_accel::no_squash));
}
