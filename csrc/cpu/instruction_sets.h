// The choice at run time between one body compiled for several instruction sets. The wheel must run on any
// x86-64, and the arithmetic of every operator gives the same bits in each, so it changes the speed only.
#pragma once

#include <type_traits>

#include "../host_device.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define DOGS_ACCEL_X86_DISPATCH 1
#endif

namespace dogs_accel {

enum class InstructionSet { baseline, avx2, avx512 };

// The best that this CPU has and limit_instruction_set allows.
InstructionSet instruction_set();

// How many 32-bit numbers a vector register holds, for a body that wants to know.
template <int num_lanes>
using Lanes = std::integral_constant<int, num_lanes>;

template <int num_lanes, class Body>
DOGS_ACCEL_INLINE void run_with_lanes(const Body& body) {
  if constexpr (std::is_invocable_v<Body, Lanes<num_lanes>>) {
    body(Lanes<num_lanes>{});
  } else {
    body();
  }
}

#if defined(DOGS_ACCEL_X86_DISPATCH)
template <class Body>
__attribute__((target("avx2,fma"))) void run_avx2(const Body& body) {
  run_with_lanes<8>(body);
}

template <class Body>
__attribute__((target("fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))) void run_avx512(
    const Body& body) {
  run_with_lanes<16>(body);
}
#endif

// Runs a body that is always inlined, and so compiled once for each instruction set.
template <class Body>
void run_on_best_instruction_set(const Body& body) {
#if defined(DOGS_ACCEL_X86_DISPATCH)
  switch (instruction_set()) {
    case InstructionSet::avx512:
      return run_avx512(body);
    case InstructionSet::avx2:
      return run_avx2(body);
    case InstructionSet::baseline:
      break;
  }
#endif
  run_with_lanes<4>(body);
}

}  // namespace dogs_accel
