// The kernels for x86-64 with AVX-512 (F, DQ, BW, VL). Every library header comes before the target is set: a library function compiled for
// this target could be picked by the linker for callers on older processors.

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "common/half.h"
#include "common/march.h"
#include "common/planes.h"
#include "common/random.h"
#include "cpu/kernels.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif

#define HEAD3D_ISA avx512
#define HEAD3D_VECTOR_BYTES 64
#define HEAD3D_REGISTERS 32
#include "cpu/render_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace head3d {
const KernelSet* avx512_kernels() {
  static const KernelSet set = {"avx512", &avx512::kRenderFloat, &avx512::kRenderDouble, avx512::kFilters};
  return &set;
}
}  // namespace head3d

#else

namespace head3d {
const KernelSet* avx512_kernels() { return nullptr; }
}  // namespace head3d

#endif
