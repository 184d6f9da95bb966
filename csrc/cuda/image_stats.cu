// CUDA kernels of image_sums and image_stats: one pass over the pixels, up to 64 images a launch, no host
// synchronisation. What a launch has to know of its images are kernel parameters, so nothing is copied.

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "../checks/image_stats.h"
#include "../image.h"
#include "../image_stats.h"
#include "launch.h"

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int warps_per_block = 8;
constexpr int threads_per_block = warps_per_block * warp_size;
constexpr int blocks_per_multiprocessor = 4;  // at least, so that enough loads are under way: 64 registers a thread
constexpr int64_t segment_size = 1024;        // pixels of one row that a warp takes at a time
constexpr int64_t segments_per_warp = 2;      // enough work to make up for folding a block's sums
constexpr int64_t max_blocks = 1 << 16;       // of one image; segments beyond them are taken in turn
constexpr int images_per_launch = 64;
constexpr size_t max_parameter_bytes = 4096;

// The images of one launch: blocks first_block[i] to first_block[i + 1] - 1 share image i and add to row i.
struct Images {
  Image image[images_per_launch];
  int first_block[images_per_launch + 1];
  int size;
  Counter* rows;
};
static_assert(sizeof(Images) <= max_parameter_bytes);

// Sums of the pixels that one thread has of a segment, 33 at most, fit in 32 bits.
using SegmentSums = SumsOf<uint32_t>;

// What one thread has of an image, by column.
struct ThreadSums {
  Counter column[num_image_sums] = {};

  __device__ void add(const SegmentSums& part) {
    const auto values = std::bit_cast<std::array<uint32_t, num_image_sums>>(part);
#pragma unroll
    for (int c = 0; c < num_image_sums; ++c) {
      column[c] += values[c];
    }
  }
};

// Weights of the bytes R, G, B and any of a word.
__device__ constexpr uint32_t weights_word(GreyWeights weights) {
  return weights.r | static_cast<uint32_t>(weights.g) << 8 | static_cast<uint32_t>(weights.b) << 16;
}

// 1 / max of every byte, in shared memory. A division would take a third more instructions a pixel, with a
// branch for its special cases.
struct Inverses {
  float of[threads_per_block];

  __device__ void fill() {
    of[threadIdx.x] = 1.0f / static_cast<float>(max(threadIdx.x, 1));
    __syncthreads();
  }
};
static_assert(threads_per_block == 256);

// Adds the grey and the saturation of a pixel whose R, G and B are the low bytes of `rgb`.
__device__ void add_pixel(uint32_t rgb, const Inverses& inverses, SegmentSums& sums) {
  const uint32_t grey = grey_of(static_cast<uint16_t>(__dp4a(rgb, weights_word(grey_high), 0u)),
                                static_cast<uint16_t>(__dp4a(rgb, weights_word(grey_low), 0u)));
  sums.grey += grey;
  sums.grey_squared += grey * grey;
  const uint32_t r = rgb & 255, g = rgb >> 8 & 255, b = rgb >> 16 & 255;
  const uint32_t largest = max(max(r, g), b), range = largest - min(min(r, g), b);
  sums.saturation +=
      saturation_of(quotient_of(static_cast<float>(range), static_cast<float>(largest), inverses.of[largest]));
}

// Adds up to four values of each channel, a byte each.
__device__ void add_channels(uint32_t r, uint32_t g, uint32_t b, SegmentSums& sums) {
  constexpr uint32_t ones = 0x01010101u;
  sums.r = __dp4a(r, ones, sums.r);
  sums.g = __dp4a(g, ones, sums.g);
  sums.b = __dp4a(b, ones, sums.b);
  sums.r_squared = __dp4a(r, r, sums.r_squared);
  sums.g_squared = __dp4a(g, g, sums.g_squared);
  sums.b_squared = __dp4a(b, b, sums.b_squared);
}

__device__ void add_one(const uint8_t* pixel, int64_t channel_stride, const Inverses& inverses, SegmentSums& sums) {
  const uint32_t r = pixel[0], g = pixel[channel_stride], b = pixel[2 * channel_stride];
  add_pixel(r | g << 8 | b << 16, inverses, sums);
  add_channels(r, g, b, sums);
}

// Adds the four interleaved pixels of three words, R G B R | G B R G | B R G B. A digit of a selector is the
// byte to take: 0 to 3 of the first word, 4 to 7 of the second.
__device__ void add_four(uint32_t first, uint32_t second, uint32_t third, const Inverses& inverses, SegmentSums& sums) {
  add_pixel(first, inverses, sums);
  add_pixel(__byte_perm(first, second, 0x5543), inverses, sums);
  add_pixel(__byte_perm(second, third, 0x4432), inverses, sums);
  add_pixel(third >> 8, inverses, sums);
  add_channels(__byte_perm(__byte_perm(first, second, 0x0630), third, 0x5210),
               __byte_perm(__byte_perm(first, second, 0x0741), third, 0x6210),
               __byte_perm(__byte_perm(first, second, 0x0052), third, 0x7410), sums);
}

// Adds this lane's share of `count` interleaved pixels. Four pixels are 12 bytes, so that from an address that
// is a multiple of 4 they are three aligned words. The next such address is k pixels on, k = address mod 4,
// because address + 3 k = 4 k = 0 mod 4. Those k and what is left after the last four are taken singly.
__device__ void add_interleaved(const uint8_t* pixels, int count, int lane, const Inverses& inverses,
                                SegmentSums& sums) {
  const int front = min(static_cast<int>(reinterpret_cast<uintptr_t>(pixels) % 4), count);
  const int fours = (count - front) / 4;
  const auto* words = reinterpret_cast<const uint32_t*>(pixels + 3 * front);
#pragma unroll 2
  for (int i = lane; i < fours; i += warp_size) {
    add_four(words[3 * i], words[3 * i + 1], words[3 * i + 2], inverses, sums);
  }
  const int singles = count - 4 * fours;  // 6 at most
  if (lane < singles) {
    add_one(pixels + 3 * (lane < front ? lane : lane + 4 * fours), 1, inverses, sums);
  }
}

__device__ void add_strided(const uint8_t* pixels, int count, const Image& image, int lane, const Inverses& inverses,
                            SegmentSums& sums) {
  for (int i = lane; i < count; i += warp_size) {
    add_one(pixels + i * image.column_stride, image.channel_stride, inverses, sums);
  }
}

// Adds the segments first, first + step, ... of an image.
__device__ void add_segments(const Image& image, int64_t first, int64_t step, int lane, const Inverses& inverses,
                             ThreadSums& sums) {
  const int64_t segments_per_row = (image.num_columns + segment_size - 1) / segment_size;
  const int64_t num_segments = image.num_rows * segments_per_row;
  for (int64_t segment = first; segment < num_segments; segment += step) {
    const int64_t row = image.num_rows == 1 ? 0 : segment / segments_per_row;
    const int64_t column = (segment - row * segments_per_row) * segment_size;
    const int count = static_cast<int>(min(segment_size, image.num_columns - column));
    const uint8_t* pixels = image.pixels + row * image.row_stride + column * image.column_stride;
    SegmentSums part{};
    if (image.is_interleaved()) {
      add_interleaved(pixels, count, lane, inverses, part);
    } else {
      add_strided(pixels, count, image, lane, inverses, part);
    }
    part.pixels = lane == 0 ? count : 0;
    sums.add(part);
  }
}

// Adds the sums of a block's threads to a row of the result.
__device__ void fold_block(const ThreadSums& sums, int warp, int lane, Counter* row) {
  __shared__ Counter warp_sums[warps_per_block][num_image_sums];
#pragma unroll
  for (int c = 0; c < num_image_sums; ++c) {
    Counter sum = sums.column[c];
    for (int offset = warp_size / 2; offset > 0; offset /= 2) {
      sum += __shfl_xor_sync(whole_warp, sum, offset);
    }
    if (lane == 0) {
      warp_sums[warp][c] = sum;
    }
  }
  __syncthreads();
  if (threadIdx.x < num_image_sums) {
    Counter sum = 0;
    for (int w = 0; w < warps_per_block; ++w) {
      sum += warp_sums[w][threadIdx.x];
    }
    atomicAdd(&row[threadIdx.x], sum);
  }
}

__global__ void __launch_bounds__(threads_per_block, blocks_per_multiprocessor)
    add_images(const __grid_constant__ Images images) {
  const int block = static_cast<int>(blockIdx.x);
  int i = 0;
  for (int end = images.size; end - i > 1;) {  // the image is one of i to end - 1
    const int middle = (i + end) / 2;
    (images.first_block[middle] <= block ? i : end) = middle;
  }
  const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
  const int64_t first = static_cast<int64_t>(block - images.first_block[i]) * warps_per_block + warp;
  const int64_t step = static_cast<int64_t>(images.first_block[i + 1] - images.first_block[i]) * warps_per_block;
  __shared__ Inverses inverses;
  inverses.fill();
  ThreadSums sums;
  add_segments(images.image[i], first, step, lane, inverses, sums);
  fold_block(sums, warp, lane, images.rows + i * num_image_sums);
}

__global__ void derive_stats(const ImageSums* sums, ImageStats* stats, int64_t num_images) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads_per_block + threadIdx.x;
  if (i < num_images) {
    stats[i] = stats_of(sums[i]);
  }
}

int blocks_of(const Image& image) {
  constexpr int64_t segments_per_block = segments_per_warp * warps_per_block;
  const int64_t segments = image.num_rows * ceil_div(image.num_columns, segment_size);
  return static_cast<int>(std::min(max_blocks, ceil_div(segments, segments_per_block)));
}

// (N, 10) int64.
Tensor image_sums(const std::vector<Tensor>& tensors) {
  check_images(tensors);
  const torch::stable::accelerator::DeviceGuard guard(tensors[0].get_device_index());
  const cudaStream_t stream = current_stream(tensors[0]);
  const size_t num_images = tensors.size();
  const Tensor sums =
      torch::stable::new_zeros(tensors[0], {static_cast<int64_t>(num_images), num_image_sums}, ScalarType::Long);
  auto* const rows = static_cast<Counter*>(sums.mutable_data_ptr());
  for (size_t begin = 0; begin < num_images; begin += images_per_launch) {
    Images images{};
    images.size = static_cast<int>(std::min<size_t>(images_per_launch, num_images - begin));
    images.rows = rows + begin * num_image_sums;
    for (int i = 0; i < images.size; ++i) {
      images.image[i] = Image(tensors[begin + i]);
      images.first_block[i + 1] = images.first_block[i] + blocks_of(images.image[i]);
    }
    add_images<<<images.first_block[images.size], threads_per_block, 0, stream>>>(images);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return sums;
}

// (N, 6) float64.
Tensor stats_of_sums(const Tensor& strided_sums) {
  check_image_sums(strided_sums, num_image_sums);
  const Tensor sums = torch::stable::contiguous(strided_sums);
  const torch::stable::accelerator::DeviceGuard guard(sums.get_device_index());
  const int64_t num_images = sums.size(0);
  const Tensor stats = torch::stable::new_empty(sums, {num_images, num_image_stats}, ScalarType::Double);
  if (num_images == 0) {
    return stats;  // a grid of no blocks is a launch error
  }
  const auto blocks = static_cast<unsigned int>(ceil_div(num_images, threads_per_block));
  derive_stats<<<blocks, threads_per_block, 0, current_stream(sums)>>>(
      static_cast<const ImageSums*>(sums.const_data_ptr()), static_cast<ImageStats*>(stats.mutable_data_ptr()),
      num_images);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return stats;
}

Tensor image_stats(const std::vector<Tensor>& tensors) { return stats_of_sums(image_sums(tensors)); }

}  // namespace
}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CUDA, m) {
  m.impl("image_stats", TORCH_BOX(&dogs_accel::image_stats));
  m.impl("image_sums", TORCH_BOX(&dogs_accel::image_sums));
  m.impl("stats_of_sums", TORCH_BOX(&dogs_accel::stats_of_sums));
}
