// What the CPU and the CUDA compilers each need to share one arithmetic.
#pragma once

#if defined(__CUDACC__)
#define HEAD3D_INLINE static __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define HEAD3D_INLINE static __forceinline
#else
// Internal linkage and inlined: the CPU files are compiled for different instruction sets, and the linker must not
// take one file's copy for another's.
#define HEAD3D_INLINE static inline __attribute__((always_inline, unused))
#endif
