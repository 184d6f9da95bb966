// The parameters of augment and augment_ragged, and what of them cannot be; shared by the CPU kernels and the CUDA
// kernels. What the steps do is in steps.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "affine.h"
#include "host_device.h"
#include "resample.h"
#include "steps.h"

namespace dogs_accel {

struct Box {
  double top, left, height, width;
};

constexpr int num_head_params = 9, num_step_params = 7, max_steps = 32;

// A row of the argument `params`.
struct ParamsRow {
  const double* values;
  int num_steps;

  DOGS_ACCEL_HOST_DEVICE Box crop() const { return {values[0], values[1], values[2], values[3]}; }
  DOGS_ACCEL_HOST_DEVICE double flip() const { return values[4]; }
  DOGS_ACCEL_HOST_DEVICE Box erase() const { return {values[5], values[6], values[7], values[8]}; }
  DOGS_ACCEL_HOST_DEVICE double step(int i) const { return values[num_head_params + i * num_step_params]; }
  DOGS_ACCEL_HOST_DEVICE const double* numbers(int i) const {
    return values + num_head_params + i * num_step_params + 1;
  }
};

DOGS_ACCEL_HOST_DEVICE constexpr int64_t num_params(int num_steps) {
  return num_head_params + int64_t{num_steps} * num_step_params;
}

// What the other arguments of a call give to a sample.
struct AugmentSettings {
  int32_t height, width;  // of the image that the crop is of
  int32_t size;           // of the output
  Interpolation interpolation;
};

// R, G and B outside of an image.
struct Fill {
  uint8_t bytes[3];
};

inline Fill fill_of(const std::vector<int64_t>& fill) {
  return {static_cast<uint8_t>(fill[0]), static_cast<uint8_t>(fill[1]), static_cast<uint8_t>(fill[2])};
}

DOGS_ACCEL_HOST_DEVICE bool is_whole(double value) { return value == std::floor(value); }

DOGS_ACCEL_HOST_DEVICE bool is_whole(const Box& box) {
  return is_whole(box.top) && is_whole(box.left) && is_whole(box.height) && is_whole(box.width);
}

DOGS_ACCEL_HOST_DEVICE bool is_inside(const Box& box, int32_t height, int32_t width, double smallest) {
  return box.top >= 0 && box.left >= 0 && box.height >= smallest && box.width >= smallest &&
         box.top + box.height <= height && box.left + box.width <= width;
}

// A crop may lie anywhere; where it is not within its image, what it may ask for in memory has a limit.
DOGS_ACCEL_HOST_DEVICE bool is_crop(const Box& box, int32_t height, int32_t width) {
  const bool is_near = std::fabs(box.top) <= max_side && std::fabs(box.left) <= max_side && box.height >= 1 &&
                       box.width >= 1 && box.height <= max_size && box.width <= max_size;
  return is_whole(box) && (is_near || is_inside(box, height, width, 1));
}

// Whether the numbers of a known step may be. A NaN fails every comparison.
DOGS_ACCEL_HOST_DEVICE bool may_be(StepKind kind, const double* numbers, int32_t size) {
  const auto is_within = [&](double least, double most) { return numbers[0] >= least && numbers[0] <= most; };
  switch (kind) {
    case StepKind::affine:
      return stays_near(numbers, size);
    case StepKind::brightness:
    case StepKind::contrast:
    case StepKind::saturation:
    case StepKind::sharpness:
      return is_within(0, max_factor);
    case StepKind::hue:
      return is_within(0, 255) && is_whole(numbers[0]);
    case StepKind::posterize:
      return is_within(1, 8) && is_whole(numbers[0]);
    case StepKind::solarize:
      return is_within(0, 256);
    default:
      return true;
  }
}

// What of a row of `params` is not what it may be, and in which step.
struct BadParams {
  enum What { none, crop, flip, erase, step, numbers } what;
  int step_index;
};

DOGS_ACCEL_HOST_DEVICE BadParams bad_params(const ParamsRow& row, const AugmentSettings& settings) {
  if (!is_crop(row.crop(), settings.height, settings.width)) {
    return {BadParams::crop, 0};
  }
  if (!(row.flip() == 0 || row.flip() == 1)) {
    return {BadParams::flip, 0};
  }
  if (!is_inside(row.erase(), settings.size, settings.size, 0) || !is_whole(row.erase())) {
    return {BadParams::erase, 0};
  }
  for (int i = 0; i < row.num_steps; ++i) {
    const double step = row.step(i);
    if (!(step >= 0 && step < num_step_kinds && is_whole(step))) {
      return {BadParams::step, i};
    }
    if (!may_be(static_cast<StepKind>(static_cast<int>(step)), row.numbers(i), settings.size)) {
      return {BadParams::numbers, i};
    }
  }
  return {BadParams::none, 0};
}

// A step of a row that bad_params has accepted.
DOGS_ACCEL_HOST_DEVICE Step step_of(StepKind kind, const double* numbers) {
  Step step{};
  step.kind = kind;
  switch (kind) {
    case StepKind::affine:
      step.affine = fixed_affine(numbers);
      break;
    case StepKind::hue:
      step.value = static_cast<int32_t>(numbers[0]);
      break;
    case StepKind::posterize:
      step.value = 256 - (1 << (8 - static_cast<int32_t>(numbers[0])));
      break;
    case StepKind::solarize:
      step.value = static_cast<int32_t>(std::ceil(numbers[0]));
      break;
    default:
      step.factor = static_cast<float>(numbers[0]);
  }
  return step;
}

DOGS_ACCEL_HOST_DEVICE bool changes_nothing(const Step& step) {
  switch (step.kind) {
    case StepKind::none:
      return true;
    case StepKind::affine:
      return is_identity(step.affine);
    case StepKind::brightness:
    case StepKind::contrast:
    case StepKind::saturation:
    case StepKind::sharpness:
      return step.factor == 1.0f;
    case StepKind::posterize:
      return step.value == 255;
    case StepKind::solarize:
      return step.value == num_levels;
    default:
      return false;
  }
}

// Writes the steps that change something to `steps`, in their order, and returns how many they are.
DOGS_ACCEL_HOST_DEVICE int steps_of(const ParamsRow& row, Step* steps) {
  int size = 0;
  for (int i = 0; i < row.num_steps; ++i) {
    const Step step = step_of(static_cast<StepKind>(static_cast<int>(row.step(i))), row.numbers(i));
    if (!changes_nothing(step)) {
      steps[size++] = step;
    }
  }
  return size;
}

// Then it reads the cropped image itself, and needs no pass for that.
DOGS_ACCEL_HOST_DEVICE bool begins_with_affine(const Step* steps, int num_steps) {
  return num_steps > 0 && steps[0].kind == StepKind::affine;
}

}  // namespace dogs_accel
