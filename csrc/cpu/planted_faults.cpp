// Faults on purpose, only in the library of `make sanitize`: its tests begin by seeing each of them reported, so that a
// build without sanitizers does not pass.

#include <cstdint>
#include <vector>

namespace {

// What the optimiser cannot look through.
int64_t opaque(int64_t value) {
  const volatile int64_t copy = value;
  return copy;
}

}  // namespace

extern "C" {

// Reads the element of that index of a vector of four.
__attribute__((visibility("default"))) int64_t dogs_accel_planted_read(int64_t index) {
  const std::vector<int64_t> four(4, opaque(1));
  return four.data()[opaque(index)];
}

__attribute__((visibility("default"))) int64_t dogs_accel_planted_sum(int64_t a, int64_t b) {
  return opaque(a) + opaque(b);
}

}  // extern "C"
