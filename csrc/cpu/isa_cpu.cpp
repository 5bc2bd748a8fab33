// Which instruction set serves this process.

#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "cpu/kernels.h"

namespace head3d {

namespace {

const KernelSet* fastest() {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_cpu_init();
  if (avx512_kernels() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    return avx512_kernels();
  if (avx2_kernels() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2_kernels();
#endif
  return portable_kernels();
}

std::string instruction_set() { return kernels().name; }

}  // namespace

const KernelSet& kernels() {
  static const KernelSet* const best = fastest();
  // Read at every call, so that tests and timings can compare the paths within one process.
  const char* wish = std::getenv("HEAD3D_CPU_ISA");
  if (wish == nullptr) return *best;
  if (std::strcmp(wish, "avx2") == 0 && best == avx512_kernels() && avx2_kernels()) return *avx2_kernels();
  if (std::strcmp(wish, "scalar") == 0) return *portable_kernels();
  return *best;
}

}  // namespace head3d

STABLE_TORCH_LIBRARY_IMPL(head3d, CompositeExplicitAutograd, m) {
  m.impl("instruction_set", TORCH_BOX(&head3d::instruction_set));
}
