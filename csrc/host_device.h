// A function that the CPU kernel and the CUDA kernel of an operator both use, or that is compiled for several
// instruction sets, must be inlined into its caller to be compiled as the caller is.
#pragma once

#if defined(__CUDACC__)
#define DOGS_ACCEL_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DOGS_ACCEL_HOST_DEVICE inline __attribute__((always_inline))
#endif
#define DOGS_ACCEL_INLINE inline __attribute__((always_inline))
