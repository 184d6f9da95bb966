// Arguments of the operators that resample: what squash and augment have in common.
#pragma once

#include <cstdint>
#include <string>

#include "../resample.h"
#include "common.h"

namespace dogs_accel {

inline void check_num_threads(int64_t num_threads) {
  check(num_threads >= 0, "num_threads: got ", num_threads,
        ", expected an integer >= 1, or 0 for as many as torch uses");
}

inline Interpolation checked_interpolation(const std::string& name) {
  check(name == "bilinear" || name == "bicubic", "interpolation: got '", name, "', expected 'bilinear' or 'bicubic'");
  return name == "bilinear" ? Interpolation::bilinear : Interpolation::bicubic;
}

}  // namespace dogs_accel
