// CPU twin of image_sums and image_stats.

#include "../image_stats.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "../checks.h"
#include "atomic.h"
#include "instruction_sets.h"

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t lanes = 64;          // bytes of the widest vector register
constexpr int64_t block_size = 256;    // pixels; their sums of one channel fit in 16 bits
constexpr int64_t chunk_size = 16384;  // pixels that a thread takes at a time, a multiple of block_size

// A view of one image, in which the order of the pixels does not matter. Strides may be 0.
struct Image {
  const uint8_t* pixels;
  int64_t num_rows, num_columns;
  int64_t row_stride, column_stride, channel_stride;

  explicit Image(const Tensor& tensor)
      : pixels(static_cast<const uint8_t*>(tensor.const_data_ptr())),
        num_rows(tensor.size(0)),
        num_columns(tensor.size(1)),
        row_stride(tensor.stride(0)),
        column_stride(tensor.stride(1)),
        channel_stride(tensor.stride(2)) {
    if (num_rows > 1 && row_stride < column_stride) {  // transposed: walk along memory
      std::swap(num_rows, num_columns);
      std::swap(row_stride, column_stride);
    }
    if (num_rows == 1 || row_stride == num_columns * column_stride) {
      num_columns *= num_rows;
      num_rows = 1;
    }
  }

  int64_t num_pixels() const { return num_rows * num_columns; }
  bool interleaved() const { return column_stride == 3 && channel_stride == 1; }
};

// The pixels of one block, channel by channel. What is left of the last block is black, which adds nothing.
struct Planes {
  alignas(lanes) uint8_t r[block_size];
  alignas(lanes) uint8_t g[block_size];
  alignas(lanes) uint8_t b[block_size];
  alignas(lanes) uint8_t grey[block_size];
  alignas(lanes) uint8_t max[block_size];
  alignas(lanes) uint8_t range[block_size];
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
  int64_t row = begin / image.num_columns, column = begin % image.num_columns;
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
  if (image.interleaved()) {
    const int64_t column = begin % image.num_columns;
    if (count == block_size && column + count < image.num_columns) {
      split_channels(image.pixels + begin / image.num_columns * image.row_stride + 3 * column, planes);
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

template <class Unsigned>
DOGS_ACCEL_INLINE Unsigned load(const uint8_t* bytes, int64_t i) {
  Unsigned value;
  std::memcpy(&value, bytes + i * sizeof(Unsigned), sizeof(Unsigned));
  return value;
}

// Greys, maxima and ranges of the pixels. Two bytes are taken as one number of 16 bits, and its halves are
// computed with apart: unlike a conversion that keeps the order, that needs no shuffle.
DOGS_ACCEL_INLINE void derive_planes(Planes& __restrict planes) {
  for (int64_t i = 0; i < block_size; ++i) {
    const uint8_t max = std::max(std::max(planes.r[i], planes.g[i]), planes.b[i]);
    const uint8_t min = std::min(std::min(planes.r[i], planes.g[i]), planes.b[i]);
    planes.max[i] = std::max<uint8_t>(max, 1);
    planes.range[i] = max - min;
  }
  for (int64_t i = 0; i < block_size / 2; ++i) {
    const uint16_t r = load<uint16_t>(planes.r, i), g = load<uint16_t>(planes.g, i), b = load<uint16_t>(planes.b, i);
    const uint16_t first = grey_of(r & 255, g & 255, b & 255);
    const uint16_t second = grey_of(r >> 8, g >> 8, b >> 8);
    const uint16_t both = static_cast<uint16_t>(first | second << 8);
    std::memcpy(planes.grey + 2 * i, &both, sizeof(both));
  }
}

DOGS_ACCEL_INLINE void add_plane(const uint8_t* plane, int64_t& sum, int64_t& squared) {
  uint16_t block_sum = 0;
  int32_t block_squared = 0;
  for (int64_t i = 0; i < block_size / 2; ++i) {
    const uint16_t both = load<uint16_t>(plane, i);
    const int16_t first = both & 255, second = both >> 8;
    block_sum += first + second;
    block_squared += first * first;
    block_squared += second * second;
  }
  sum += block_sum;
  squared += block_squared;
}

DOGS_ACCEL_INLINE void add_saturation(const Planes& planes, int64_t& sum) {
  uint32_t block_sum = 0;  // 256 pixels of at most 2^23
  for (int64_t i = 0; i < block_size / 4; ++i) {
    const uint32_t range = load<uint32_t>(planes.range, i), max = load<uint32_t>(planes.max, i);
    for (int shift = 0; shift < 32; shift += 8) {
      block_sum += saturation_of(static_cast<float>(static_cast<int32_t>(range >> shift & 255)),
                                 static_cast<float>(static_cast<int32_t>(max >> shift & 255)));
    }
  }
  sum += block_sum;
}

DOGS_ACCEL_INLINE void add_pixels(const Image& image, int64_t begin, int64_t end, ImageSums& sums) {
  Planes planes;
  for (int64_t at = begin; at < end; at += block_size) {
    load_block(image, at, std::min(at + block_size, end), planes);
    derive_planes(planes);
    add_plane(planes.grey, sums.grey, sums.grey_squared);
    add_plane(planes.r, sums.r, sums.r_squared);
    add_plane(planes.g, sums.g, sums.g_squared);
    add_plane(planes.b, sums.b, sums.b_squared);
    add_saturation(planes, sums.saturation);
  }
  sums.pixels += end - begin;
}

using AddPixels = void (*)(const Image&, int64_t begin, int64_t end, ImageSums&);

void add_pixels_baseline(const Image& image, int64_t begin, int64_t end, ImageSums& sums) {
  add_pixels(image, begin, end, sums);
}
#if defined(DOGS_ACCEL_X86_DISPATCH)
DOGS_ACCEL_AVX2 void add_pixels_avx2(const Image& image, int64_t begin, int64_t end, ImageSums& sums) {
  add_pixels(image, begin, end, sums);
}
DOGS_ACCEL_AVX512 void add_pixels_avx512(const Image& image, int64_t begin, int64_t end, ImageSums& sums) {
  add_pixels(image, begin, end, sums);
}
#endif

AddPixels choose_add_pixels() {
#if defined(DOGS_ACCEL_X86_DISPATCH)
  switch (instruction_set()) {
    case InstructionSet::avx512:
      return add_pixels_avx512;
    case InstructionSet::avx2:
      return add_pixels_avx2;
    case InstructionSet::baseline:
      break;
  }
#endif
  return add_pixels_baseline;
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
  const AddPixels add = choose_add_pixels();
  constexpr int64_t grain = 4;  // chunks: some ten microseconds of work a thread, more than starting one costs
  torch::stable::parallel_for(0, first_chunk.back(), grain, [&](int64_t begin, int64_t end) {
    int64_t i = std::upper_bound(first_chunk.begin(), first_chunk.end(), begin) - first_chunk.begin() - 1;
    for (int64_t chunk = begin; chunk < end; ++i) {
      const int64_t last = std::min(end, first_chunk[i + 1]);
      const int64_t from = (chunk - first_chunk[i]) * chunk_size;
      const int64_t to = std::min((last - first_chunk[i]) * chunk_size, images[i].num_pixels());
      ImageSums part;
      add(images[i], from, to, part);
      add_row(rows + i * num_image_sums, part);
      chunk = last;
    }
  });
  return sums;
}

// (N, 6) float64.
Tensor image_stats(const std::vector<Tensor>& tensors) {
  const Tensor sums = image_sums(tensors);
  const Tensor stats = torch::stable::new_empty(sums, {sums.size(0), num_image_stats}, ScalarType::Double);
  const auto* from = static_cast<const ImageSums*>(sums.const_data_ptr());
  std::transform(from, from + sums.size(0), static_cast<ImageStats*>(stats.mutable_data_ptr()), stats_of);
  return stats;
}

// Called where there is no image to tell the device, and for a device without a kernel.
Tensor empty_rows(const std::vector<Tensor>& images, int64_t num_columns, ScalarType dtype) {
  if (!images.empty()) {
    check(false, "images[0]: got device ", device_of(images[0]), ", expected one whose kernels are loaded");
  }
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
}

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CompositeExplicitAutograd, m) {
  m.impl("image_stats", TORCH_BOX(&dogs_accel::no_image_stats));
  m.impl("image_sums", TORCH_BOX(&dogs_accel::no_image_sums));
}
