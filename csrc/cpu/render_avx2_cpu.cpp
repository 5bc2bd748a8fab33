// The kernels for x86-64 with AVX2 and FMA. Every library header comes before the target is set: a library function compiled for
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
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define HEAD3D_ISA avx2
#define HEAD3D_VECTOR_BYTES 32
#define HEAD3D_REGISTERS 16
#include "cpu/render_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace head3d {
const KernelSet* avx2_kernels() {
  static const KernelSet set = {"avx2", &avx2::kRenderFloat, &avx2::kRenderDouble, avx2::kFilters};
  return &set;
}
}  // namespace head3d

#else

namespace head3d {
const KernelSet* avx2_kernels() { return nullptr; }
}  // namespace head3d

#endif
