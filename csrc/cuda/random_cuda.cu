// Uniform and normal numbers of head3d_core/ops/random.py, one kernel a call: as separate operations the hash is a hundred.
#include "cuda/device.cuh"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/random.h"

namespace head3d {
namespace {

constexpr int kThreads = 256;

template <bool kNormal>
__global__ void random_kernel(const int64_t* seeds, float* out /* [N, rows, columns] */, int64_t total, int64_t rows,
                              int64_t columns, uint32_t stream) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    const int64_t line = i / columns;
    const uint32_t column = static_cast<uint32_t>(i - line * columns);
    const int64_t sample = line / rows;
    const uint32_t row = static_cast<uint32_t>(line - sample * rows);
    const uint32_t key = seed_key(seeds[sample]);
    const float u = uniform(row_key(key, row, stream), column);
    if constexpr (kNormal) {
      const float v = uniform(row_key(key, row, stream + 1), column);
      out[i] = sqrtf(-2.f * log1pf(-u)) * cosf(6.283185307179586f * v);  // Box-Muller
    } else {
      out[i] = u;
    }
  }
}

template <bool kNormal>
Tensor random_cuda(Tensor seeds_in, int64_t rows, int64_t columns, int64_t stream) {
  STD_TORCH_CHECK(seeds_in.dim() == 1 && seeds_in.scalar_type() == ScalarType::Long, "seeds must be [N] int64, got ",
                  shape_of(seeds_in));
  STD_TORCH_CHECK(rows >= 0 && columns >= 0 && stream >= 0, "rows, columns and stream must be 0 or more");
  const torch::stable::accelerator::DeviceGuard guard(seeds_in.get_device_index());
  const Tensor seeds = torch::stable::contiguous(seeds_in);
  const Tensor out = torch::stable::new_empty(seeds, {seeds.size(0), rows, columns}, ScalarType::Float);
  const int64_t total = seeds.size(0) * rows * columns;
  if (total == 0) return out;
  const unsigned blocks = std::min<unsigned>(blocks_for(total, kThreads), multiprocessors(seeds.get_device_index()) * 32);
  random_kernel<kNormal><<<blocks, kThreads, 0, current_stream(seeds)>>>(
      static_cast<const int64_t*>(seeds.const_data_ptr()), static_cast<float*>(out.mutable_data_ptr()), total, rows, columns,
      static_cast<uint32_t>(stream));
  check_launch("random");
  return out;
}

}  // namespace
}  // namespace head3d

STABLE_TORCH_LIBRARY_IMPL(head3d, CUDA, m) {
  m.impl("uniform", TORCH_BOX(&head3d::random_cuda<false>));
  m.impl("normal", TORCH_BOX(&head3d::random_cuda<true>));
}
