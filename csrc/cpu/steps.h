// The steps of augment over rows of words, in passes over an image that stays in the cache of one core. Everything is
// inlined, to be compiled for each instruction set.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../affine.h"
#include "../augment.h"
#include "../steps.h"
#include "resample.h"

namespace dogs_accel {

inline uint32_t word_at(const void* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

// A square of pixels as words, row by row.
struct Pixels {
  std::vector<uint32_t> words;
  int32_t size = 0;

  void resize(int32_t new_size) {
    size = new_size;
    words.resize(static_cast<int64_t>(size) * size);
  }
  uint32_t* row(int64_t y) { return words.data() + y * size; }
  const uint32_t* row(int64_t y) const { return words.data() + y * size; }
  // Where a pixel is.
  DOGS_ACCEL_INLINE int32_t place(int32_t x, int32_t y) const { return y * size + x; }
  DOGS_ACCEL_INLINE uint32_t at(int32_t place) const { return word_at(words.data() + place); }
};

// The same of bytes. Of a pixel four are read.
struct PixelsOfBytes {
  Rows rows;

  // Where a pixel is, in rows that are not farther apart than those of an image of max_size.
  DOGS_ACCEL_INLINE int32_t place(int32_t x, int32_t y) const { return y * static_cast<int32_t>(rows.stride) + 3 * x; }
  DOGS_ACCEL_INLINE uint32_t at(int32_t place) const { return word_at(rows.bytes + place); }
};

// One row of an affine transform, black where it comes from outside.
template <class From>
DOGS_ACCEL_INLINE void fetch_row(const From& from, const FixedAffine& affine, int32_t y, int32_t size,
                                 uint32_t* __restrict__ out) {
  const auto is_inside = [&](int32_t x) {
    const int32_t from_x = affine.from_x(x, y), from_y = affine.from_y(x, y);
    return from_x >= 0 && from_x < size && from_y >= 0 && from_y < size;
  };
  // What is inside is one run of pixels, since each coordinate goes one way.
  int32_t begin = 0, end = size;
  while (begin < end && !is_inside(begin)) {
    out[begin++] = 0;
  }
  while (begin < end && !is_inside(end - 1)) {
    out[--end] = 0;
  }
  // The places first, which are computed many at a time. What is there is loaded one by one: on some CPUs gcc's
  // gathers, which it makes of loads of numbers, take twice as long.
  constexpr int32_t most_at_once = 64;
  int32_t places[most_at_once];
  for (; begin < end; begin += most_at_once) {
    const int32_t size_at_once = std::min(most_at_once, end - begin);
    for (int32_t i = 0; i < size_at_once; ++i) {
      places[i] = from.place(affine.from_x(begin + i, y), affine.from_y(begin + i, y));
    }
    uint32_t* const run = out + begin;
    for (int32_t i = 0; i < size_at_once; ++i) {
      run[i] = from.at(places[i]);
    }
  }
}

// One row of the image itself, or mirrored left to right. Nobody says that there is a byte behind the last pixel.
template <int lanes>
DOGS_ACCEL_INLINE void copy_row(const PixelsOfBytes& from, bool is_mirrored, int32_t y, int32_t size,
                                uint32_t* __restrict__ out) {
  const uint8_t* const bytes = from.rows.bytes + y * from.rows.stride;
  const int64_t last = size - 1;
  int64_t x = 0;
  if constexpr (lanes > 4) {
    for (; 3 * x + 16 <= int64_t{3} * size; x += 4) {
      FourWords words;
      std::memcpy(&words, bytes + 3 * x, sizeof(words));
      words = words_of_bytes<4>(words);
      if (is_mirrored) {
        words = __builtin_shuffle(words, FourWords{3, 2, 1, 0});
      }
      std::memcpy(is_mirrored ? out + (last - 3 - x) : out + x, &words, sizeof(words));
    }
  }
  for (; x < size; ++x) {
    uint32_t pixel = 0;
    std::memcpy(&pixel, bytes + 3 * x, x < last ? 4 : 3);
    out[is_mirrored ? last - x : x] = pixel;
  }
}

// The pixels at the border stay as they are.
DOGS_ACCEL_INLINE void sharpen_row(const Pixels& from, int32_t y, float factor, uint32_t* __restrict__ out) {
  const int32_t size = from.size;
  const uint32_t* row = from.row(y);
  if (y == 0 || y == size - 1) {
    std::memcpy(out, row, sizeof(uint32_t) * size);
    return;
  }
  const uint32_t *above = from.row(y - 1), *below = from.row(y + 1);
  out[0] = row[0];
  for (int32_t x = 1; x < size - 1; ++x) {
    Smoothing smoothing;
    for (int32_t k = -1; k <= 1; ++k) {
      smoothing.add(above[x + k], 1);
      smoothing.add(row[x + k], k == 0 ? 5 : 1);
      smoothing.add(below[x + k], 1);
    }
    out[x] = blend_pixels(smoothing.pixel(), row[x], factor);
  }
  out[size - 1] = row[size - 1];
}

// What the steps that begin a pass need of the image before them, row by row.
struct Statistics {
  int64_t grey_sum;
  uint32_t lowest[3], highest[3];
  // Of every other pixel each: a counter that has just been counted up is not ready for the next pixel.
  uint32_t histogram[2][3][num_levels];

  void clear(const Step& step) {
    grey_sum = 0;
    std::fill_n(lowest, 3, 255);
    std::fill_n(highest, 3, 0);
    if (step.needs_histogram()) {
      std::fill_n(&histogram[0][0][0], sizeof(histogram) / sizeof(uint32_t), 0);
    }
  }

  DOGS_ACCEL_INLINE void add(const Step& step, const uint32_t* row, int32_t size) {
    if (step.needs_sum()) {
      add_grey(row, size);
    } else if (step.needs_extremes()) {
      add_extremes(row, size);
    } else if (step.needs_histogram()) {
      add_histogram(row, size);
    }
  }

 private:
  DOGS_ACCEL_INLINE void add_grey(const uint32_t* row, int32_t size) {
    uint32_t sum = 0;
    for (int32_t x = 0; x < size; ++x) {
      sum += grey(row[x]);
    }
    grey_sum += sum;
  }

  DOGS_ACCEL_INLINE void add_extremes(const uint32_t* row, int32_t size) {
    for (int c = 0; c < 3; ++c) {
      uint32_t low = lowest[c], high = highest[c];
      for (int32_t x = 0; x < size; ++x) {
        const uint32_t byte = row[x] >> 8 * c & 255;
        low = std::min(low, byte);
        high = std::max(high, byte);
      }
      lowest[c] = low;
      highest[c] = high;
    }
  }

  DOGS_ACCEL_INLINE void add_histogram(const uint32_t* row, int32_t size) {
    for (int32_t x = 0; x < size; ++x) {
      ++histogram[x % 2][0][red(row[x])];
      ++histogram[x % 2][1][green(row[x])];
      ++histogram[x % 2][2][blue(row[x])];
    }
  }
};

// What a step that begins a pass does, by the statistics of the image before it.
struct PassStart {
  int32_t mean = 0;               // contrast
  uint8_t levels[3][num_levels];  // autocontrast and equalize: what each byte of each channel becomes

  void set(const Step& step, Statistics& statistics, int64_t num_pixels) {
    if (step.needs_sum()) {
      mean = mean_of(statistics.grey_sum, num_pixels);
    }
    for (int c = 0; c < 3; ++c) {
      if (step.needs_extremes()) {
        stretch(c, static_cast<int32_t>(statistics.lowest[c]), static_cast<int32_t>(statistics.highest[c]));
      } else if (step.needs_histogram()) {
        equalize(c, statistics.histogram[0][c], statistics.histogram[1][c]);
      }
    }
  }

 private:
  void stretch(int channel, int32_t lowest, int32_t highest) {
    for (int byte = 0; byte < num_levels; ++byte) {
      levels[channel][byte] = stretched(byte, lowest, highest);
    }
  }

  void equalize(int channel, uint32_t* histogram, const uint32_t* rest) {
    for (int byte = 0; byte < num_levels; ++byte) {
      histogram[byte] += rest[byte];
    }
    const Equalization equalization(histogram);
    uint32_t num_below = 0;
    for (int byte = 0; byte < num_levels; ++byte) {
      levels[channel][byte] = equalization.of(byte, num_below);
      num_below += histogram[byte];
    }
  }
};

template <class OfPixel>
DOGS_ACCEL_INLINE void change_pixels(uint32_t* row, int32_t size, const OfPixel& of_pixel) {
  for (int32_t x = 0; x < size; ++x) {
    row[x] = of_pixel(row[x]);
  }
}

// A step that needs no neighbours.
DOGS_ACCEL_INLINE void change_row(const Step& step, const PassStart& start, uint32_t* row, int32_t size) {
  const float factor = step.factor;
  const int32_t value = step.value;
  const auto change = [&](auto of_pixel) __attribute__((always_inline)) { change_pixels(row, size, of_pixel); };
  switch (step.kind) {
    case StepKind::brightness:
      return change([factor](uint32_t pixel) { return brighten(pixel, factor); });
    case StepKind::contrast:
      return change([factor, mean = start.mean](uint32_t pixel) { return blend_pixel(mean, pixel, factor); });
    case StepKind::saturation:
      return change([factor](uint32_t pixel) { return saturate(pixel, factor); });
    case StepKind::hue:
      return change([value](uint32_t pixel) { return shift_hue(pixel, value); });
    case StepKind::grayscale:
      return change([](uint32_t pixel) { return grey_pixel(pixel); });
    case StepKind::posterize:
      return change([mask = pixel_of(value, value, value)](uint32_t pixel) { return pixel & mask; });
    case StepKind::solarize:
      return change([value](uint32_t pixel) { return solarize_pixel(pixel, value); });
    default:  // autocontrast and equalize
      return change([&levels = start.levels](uint32_t pixel) {
        return pixel_of(levels[0][red(pixel)], levels[1][green(pixel)], levels[2][blue(pixel)]);
      });
  }
}

// The buffers of one thread.
struct StepBuffers {
  Pixels pixels, before;  // of this pass, and of the one before where its neighbours are needed
  Statistics statistics;
  PassStart start;
};

// Where the pass ends whose steps may begin a pass no more from `begin` on.
inline int end_of_pass(const Step* steps, int begin, int num_steps) {
  while (begin < num_steps && !steps[begin].begins_pass()) {
    ++begin;
  }
  return begin;
}

// Calls finish(y, row) with each row of words, all steps done on the image or on the mirrored one. Where the first step
// is affine, it is not to be mirrored and there is a byte behind each of its rows.
template <int lanes, class Finish>
DOGS_ACCEL_INLINE void run_steps(const PixelsOfBytes& image, bool is_mirrored, int32_t size, const Step* steps,
                                 int num_steps, StepBuffers& buffers, const Finish& finish) {
  Pixels& pixels = buffers.pixels;
  pixels.resize(size);
  bool is_first_pass = true;
  int begin = begins_with_affine(steps, num_steps) ? 1 : 0;  // which reads the image itself
  const FixedAffine* affine = begin == 1 ? &steps[0].affine : nullptr;
  while (true) {
    const Step* sharpness = nullptr;
    int first = begin;
    if (!is_first_pass) {
      if (steps[begin].needs_neighbours()) {
        std::swap(pixels, buffers.before);
        pixels.resize(size);
        affine = steps[begin].kind == StepKind::affine ? &steps[begin].affine : nullptr;
        sharpness = affine == nullptr ? &steps[begin] : nullptr;
        ++first;
      } else {
        affine = nullptr;
        buffers.start.set(steps[begin], buffers.statistics, static_cast<int64_t>(size) * size);
      }
      ++begin;
    }
    const int end = end_of_pass(steps, begin, num_steps);
    if (end < num_steps) {
      buffers.statistics.clear(steps[end]);
    }
    for (int32_t y = 0; y < size; ++y) {
      uint32_t* row = pixels.row(y);
      if (is_first_pass && affine != nullptr) {
        fetch_row(image, *affine, y, size, row);
      } else if (is_first_pass) {
        copy_row<lanes>(image, is_mirrored, y, size, row);
      } else if (affine != nullptr) {
        fetch_row(buffers.before, *affine, y, size, row);
      } else if (sharpness != nullptr) {
        sharpen_row(buffers.before, y, sharpness->factor, row);
      }
      for (int i = first; i < end; ++i) {
        change_row(steps[i], buffers.start, row, size);
      }
      if (end < num_steps) {
        buffers.statistics.add(steps[end], row, size);
      } else {
        finish(y, row);
      }
    }
    if (end == num_steps) {
      return;
    }
    begin = end;
    is_first_pass = false;
  }
}

}  // namespace dogs_accel
