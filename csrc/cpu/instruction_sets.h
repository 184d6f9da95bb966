// The choice at run time between one body compiled for several instruction sets. The wheel must run on any
// x86-64, and the arithmetic of every operator gives the same bits in each, so it changes the speed only.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define DOGS_ACCEL_X86_DISPATCH 1
#define DOGS_ACCEL_AVX2 __attribute__((target("avx2,fma")))
#define DOGS_ACCEL_AVX512 __attribute__((target("fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#endif

namespace dogs_accel {

enum class InstructionSet { baseline, avx2, avx512 };

// The best that this CPU has and limit_instruction_set allows.
InstructionSet instruction_set();

}  // namespace dogs_accel
