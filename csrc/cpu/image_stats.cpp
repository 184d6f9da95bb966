// CPU kernels of image_sums and image_stats.

#include "../image_stats.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../checks/image_stats.h"
#include "../image.h"
#include "atomic.h"
#include "instruction_sets.h"

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t lanes = 64;          // bytes of the widest vector register
constexpr int64_t block_size = 256;    // pixels; their saturations add up to 2^31 at most
constexpr int64_t chunk_size = 16384;  // pixels that a thread takes at a time, a multiple of block_size

// The pixels of one block, channel by channel, each channel in the same order. Where a block is not full the
// rest is black, which adds nothing to any sum.
struct Planes {
  alignas(lanes) uint8_t r[block_size];
  alignas(lanes) uint8_t g[block_size];
  alignas(lanes) uint8_t b[block_size];
};

// What is summed. 16 bits because vector multiplications have them, and signed because gcc then multiplies and
// adds pairs in one instruction (pmaddwd). The order of the pixels is another than in Planes.
struct Values {
  alignas(lanes) int16_t grey[block_size];
  alignas(lanes) int16_t r[block_size];
  alignas(lanes) int16_t g[block_size];
  alignas(lanes) int16_t b[block_size];
};

// Which bytes of the three vectors that hold 64 interleaved pixels belong to the first channel. Every byte
// position does in exactly one of them, so three masks gather a channel, though not in the order of the
// pixels. The same masks applied one byte further on gather the next channel, in the same order.
struct FirstChannel {
  alignas(lanes) uint8_t mask[3][lanes];

  constexpr FirstChannel() : mask{} {
    for (int64_t i = 0; i < 3 * lanes; ++i) {
      mask[i / lanes][i % lanes] = i % 3 == 0 ? 0xff : 0;
    }
  }
};
constexpr FirstChannel first_channel;

DOGS_ACCEL_INLINE void gather_channel(const uint8_t* __restrict pixels, uint8_t* __restrict plane) {
  for (int64_t i = 0; i < lanes; ++i) {
    plane[i] = (pixels[i] & first_channel.mask[0][i]) | (pixels[lanes + i] & first_channel.mask[1][i]) |
               (pixels[2 * lanes + i] & first_channel.mask[2][i]);
  }
}

// Reads two bytes more than the block has.
DOGS_ACCEL_INLINE void split_channels(const uint8_t* __restrict pixels, Planes& __restrict planes) {
  for (int64_t i = 0; i < block_size; i += lanes) {
    gather_channel(pixels + 3 * i, planes.r + i);
    gather_channel(pixels + 3 * i + 1, planes.g + i);
    gather_channel(pixels + 3 * i + 2, planes.b + i);
  }
}

// Calls visit(first pixel in memory, position, count) for the pieces of rows that pixels [begin, end) are.
template <class Visit>
DOGS_ACCEL_INLINE void for_each_piece(const Image& image, int64_t begin, int64_t end, Visit visit) {
  int64_t row = image.row_of(begin), column = begin - row * image.num_columns;
  for (int64_t at = begin; at < end;) {
    const int64_t count = std::min(end - at, image.num_columns - column);
    visit(image.pixels + row * image.row_stride + column * image.column_stride, at - begin, count);
    at += count;
    ++row;
    column = 0;
  }
}

DOGS_ACCEL_INLINE void copy_strided(const uint8_t* from, int64_t stride, int64_t count, uint8_t* to) {
  if (stride == 1) {
    std::memcpy(to, from, count);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    to[i] = from[i * stride];
  }
}

// Pixels [begin, end) of the image, at most a block of them, into `planes`.
DOGS_ACCEL_INLINE void load_block(const Image& image, int64_t begin, int64_t end, Planes& planes) {
  const int64_t count = end - begin;
  if (image.is_interleaved()) {
    const int64_t row = image.row_of(begin), column = begin - row * image.num_columns;
    if (count == block_size && column + count < image.num_columns) {
      split_channels(image.pixels + row * image.row_stride + 3 * column, planes);
      return;
    }
    uint8_t copy[3 * block_size + 2];
    for_each_piece(image, begin, end, [&](const uint8_t* from, int64_t position, int64_t size) {
      std::memcpy(copy + 3 * position, from, 3 * size);
    });
    std::memset(copy + 3 * count, 0, sizeof(copy) - 3 * count);
    split_channels(copy, planes);
    return;
  }
  uint8_t* const channels[] = {planes.r, planes.g, planes.b};
  for (int c = 0; c < 3; ++c) {
    for_each_piece(image, begin, end, [&](const uint8_t* from, int64_t position, int64_t size) {
      copy_strided(from + c * image.channel_stride, image.column_stride, size, channels[c] + position);
    });
    std::memset(channels[c] + count, 0, block_size - count);
  }
}

template <class Unsigned, class Element>
DOGS_ACCEL_INLINE Unsigned load(const Element* elements, int64_t i) {
  Unsigned value;
  std::memcpy(&value, elements + i * (sizeof(Unsigned) / sizeof(Element)), sizeof(Unsigned));
  return value;
}

// gcc replaces a multiplication by a known constant with shifts and additions, which are slower here.
DOGS_ACCEL_INLINE GreyWeights unknown(GreyWeights weights) {
  const volatile GreyWeights copy = weights;
  return {copy.r, copy.g, copy.b};
}

// Two bytes are taken as one number of 16 bits whose halves are computed with apart. Unlike a conversion that
// keeps the order of the pixels, that needs no shuffle.
DOGS_ACCEL_INLINE void derive_values(const Planes& __restrict planes, Values& __restrict values) {
  constexpr int64_t half = block_size / 2;
  const GreyWeights high = unknown(grey_high), low = unknown(grey_low);
  for (int64_t i = 0; i < half; ++i) {
    const uint16_t r = load<uint16_t>(planes.r, i), g = load<uint16_t>(planes.g, i), b = load<uint16_t>(planes.b, i);
    values.grey[i] = grey_of(weigh(high, r & 255, g & 255, b & 255), weigh(low, r & 255, g & 255, b & 255));
    values.r[i] = r & 255;
    values.g[i] = g & 255;
    values.b[i] = b & 255;
    values.grey[half + i] = grey_of(weigh(high, r >> 8, g >> 8, b >> 8), weigh(low, r >> 8, g >> 8, b >> 8));
    values.r[half + i] = r >> 8;
    values.g[half + i] = g >> 8;
    values.b[half + i] = b >> 8;
  }
}

// Four values of 16 bits are added as one of 64, which is the fastest to fold at the end of a block.
DOGS_ACCEL_INLINE void add_values(const int16_t* values, int64_t& sum, int64_t& sum_of_squares) {
  uint64_t four_sums = 0;
  for (int64_t i = 0; i < block_size / 4; ++i) {
    four_sums += load<uint64_t>(values, i);
  }
  int32_t squares = 0;
  for (int64_t i = 0; i < block_size; ++i) {
    squares += values[i] * values[i];
  }
  for (int shift = 0; shift < 64; shift += 16) {
    sum += four_sums >> shift & 0xffff;
  }
  sum_of_squares += squares;
}

// By value: a loop with the references of std::max does not vectorise.
DOGS_ACCEL_INLINE uint8_t larger(uint8_t x, uint8_t y) { return x > y ? x : y; }
DOGS_ACCEL_INLINE uint8_t smaller(uint8_t x, uint8_t y) { return x < y ? x : y; }

// Of integers multiplied by the same number. Signed, because AVX2 converts only those to float32.
DOGS_ACCEL_INLINE uint32_t saturation_of(uint32_t range, uint32_t max) {
  return dogs_accel::saturation_of(static_cast<float>(static_cast<int32_t>(range)) /
                                   static_cast<float>(static_cast<int32_t>(max)));
}

// Four bytes are taken as one number of 32 bits. Three of them need not be moved to its low end, because
// range and max are multiplied by the same power of 2.
DOGS_ACCEL_INLINE void add_saturation(const Planes& __restrict planes, int64_t& sum) {
  alignas(lanes) uint8_t maxima[block_size];
  alignas(lanes) uint8_t ranges[block_size];
  for (int64_t i = 0; i < block_size; ++i) {
    const uint8_t r = planes.r[i], g = planes.g[i], b = planes.b[i];
    const uint8_t max = larger(larger(r, g), b), min = smaller(smaller(r, g), b);
    maxima[i] = larger(max, 1);  // black has range 0, and so saturation 0
    ranges[i] = max - min;
  }
  uint32_t block_sum = 0;
  for (int64_t i = 0; i < block_size / 4; ++i) {
    const uint32_t range = load<uint32_t>(ranges, i), max = load<uint32_t>(maxima, i);
    block_sum += saturation_of(range & 0xff, max & 0xff);
    block_sum += saturation_of(range & 0xff00, max & 0xff00);
    block_sum += saturation_of(range & 0xff0000, max & 0xff0000);
    block_sum += saturation_of(range >> 24, max >> 24);
  }
  sum += block_sum;
}

// What the CUDA kernel relies on, for it does not divide (see quotient_of).
constexpr bool quotients_are_exact() {
  for (int max = 1; max < 256; ++max) {
    for (int range = 0; range <= max; ++range) {
      const float x = static_cast<float>(range), y = static_cast<float>(max);
      if (quotient_of(x, y, 1.0f / y) != x / y) {
        return false;
      }
    }
  }
  return true;
}
static_assert(quotients_are_exact());

DOGS_ACCEL_INLINE void add_pixels(const Image& image, int64_t begin, int64_t end, ImageSums& sums) {
  Planes planes;
  Values values;
  for (int64_t at = begin; at < end; at += block_size) {
    load_block(image, at, std::min(at + block_size, end), planes);
    derive_values(planes, values);
    add_values(values.grey, sums.grey, sums.grey_squared);
    add_values(values.r, sums.r, sums.r_squared);
    add_values(values.g, sums.g, sums.g_squared);
    add_values(values.b, sums.b, sums.b_squared);
    add_saturation(planes, sums.saturation);
  }
  sums.pixels += end - begin;
}

void add_row(int64_t* row, const ImageSums& sums) {
  const auto values = std::bit_cast<std::array<int64_t, num_image_sums>>(sums);
  for (int i = 0; i < num_image_sums; ++i) {
    add_atomically(row[i], values[i]);
  }
}

// (N, 10) int64. Threads share the chunks of all images, so that neither a large image nor a list of images
// of different size leaves one of them idle.
Tensor image_sums(const std::vector<Tensor>& tensors) {
  check_images(tensors);
  const int64_t num_images = static_cast<int64_t>(tensors.size());
  const Tensor sums = torch::stable::new_zeros(tensors[0], {num_images, num_image_sums}, ScalarType::Long);
  auto* const rows = static_cast<int64_t*>(sums.mutable_data_ptr());

  const std::vector<Image> images(tensors.begin(), tensors.end());
  std::vector<int64_t> first_chunk(num_images + 1, 0);
  for (int64_t i = 0; i < num_images; ++i) {
    first_chunk[i + 1] = first_chunk[i] + (images[i].num_pixels() + chunk_size - 1) / chunk_size;
  }
  // A tenth of a millisecond of work a thread. Less is not worth waking one, which on a busy machine may wait
  // for a core many times as long.
  constexpr int64_t grain = 16;
  torch::stable::parallel_for(0, first_chunk.back(), grain, [&](int64_t begin, int64_t end) {
    int64_t i = std::upper_bound(first_chunk.begin(), first_chunk.end(), begin) - first_chunk.begin() - 1;
    for (int64_t chunk = begin; chunk < end; ++i) {
      const int64_t last = std::min(end, first_chunk[i + 1]);
      const int64_t from = (chunk - first_chunk[i]) * chunk_size;
      const int64_t to = std::min((last - first_chunk[i]) * chunk_size, images[i].num_pixels());
      ImageSums part{};
      run_on_best_instruction_set([&]() __attribute__((always_inline)) { add_pixels(images[i], from, to, part); });
      add_row(rows + i * num_image_sums, part);
      chunk = last;
    }
  });
  return sums;
}

// (N, 6) float64.
Tensor stats_of_sums(const Tensor& strided_sums) {
  check_image_sums(strided_sums, num_image_sums);
  const Tensor sums = torch::stable::contiguous(strided_sums);
  const Tensor stats = torch::stable::new_empty(sums, {sums.size(0), num_image_stats}, ScalarType::Double);
  const auto* from = static_cast<const ImageSums*>(sums.const_data_ptr());
  std::transform(from, from + sums.size(0), static_cast<ImageStats*>(stats.mutable_data_ptr()), stats_of);
  return stats;
}

Tensor image_stats(const std::vector<Tensor>& tensors) { return stats_of_sums(image_sums(tensors)); }

// Called where there is no image to tell the device, and for a device without a kernel.
Tensor empty_rows(const std::vector<Tensor>& images, int64_t num_columns, ScalarType dtype) {
  check_has_kernel(images);
  return torch::stable::empty({0, num_columns}, dtype);
}

Tensor no_image_sums(const std::vector<Tensor>& images) { return empty_rows(images, num_image_sums, ScalarType::Long); }

Tensor no_image_stats(const std::vector<Tensor>& images) {
  return empty_rows(images, num_image_stats, ScalarType::Double);
}

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CPU, m) {
  m.impl("image_stats", TORCH_BOX(&dogs_accel::image_stats));
  m.impl("image_sums", TORCH_BOX(&dogs_accel::image_sums));
  m.impl("stats_of_sums", TORCH_BOX(&dogs_accel::stats_of_sums));
}

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CompositeExplicitAutograd, m) {
  m.impl("image_stats", TORCH_BOX(&dogs_accel::no_image_stats));
  m.impl("image_sums", TORCH_BOX(&dogs_accel::no_image_sums));
}
