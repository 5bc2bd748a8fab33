// The kernels for whatever the compiler targets by default: NEON on 64-bit ARM, SSE2 on x86-64, plain code elsewhere.

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "common/half.h"
#include "common/march.h"
#include "common/planes.h"
#include "common/random.h"
#include "cpu/kernels.h"

#define HEAD3D_ISA portable
#define HEAD3D_VECTOR_BYTES 16
#if defined(__aarch64__)
#define HEAD3D_REGISTERS 32
#define HEAD3D_NAME "neon"
#else
#define HEAD3D_REGISTERS 16
#define HEAD3D_NAME "scalar"
#endif
#include "cpu/render_body.h"

namespace head3d {
const KernelSet* portable_kernels() {
  static const KernelSet set = {HEAD3D_NAME, &portable::kRenderFloat, &portable::kRenderDouble, portable::kFilters};
  return &set;
}
}  // namespace head3d
