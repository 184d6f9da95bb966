// The choice at run time between one body compiled for several instruction sets. The wheel must run on any
// x86-64, and the arithmetic of every operator gives the same bits in each, so it changes the speed only.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define DOGS_ACCEL_X86_DISPATCH 1
#endif

namespace dogs_accel {

enum class InstructionSet { baseline, avx2, avx512 };

// The best that this CPU has and limit_instruction_set allows.
InstructionSet instruction_set();

#if defined(DOGS_ACCEL_X86_DISPATCH)
template <class Body>
__attribute__((target("avx2,fma"))) void run_avx2(const Body& body) {
  body();
}

template <class Body>
__attribute__((target("fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))) void run_avx512(
    const Body& body) {
  body();
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
  body();
}

}  // namespace dogs_accel
