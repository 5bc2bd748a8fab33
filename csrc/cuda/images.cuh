// What the operators on images share: element types, packs of values that move at once, and the layout rule.
#pragma once

#include "cuda/device.cuh"

#include <cuda_bf16.h>

#include <optional>
#include <type_traits>

namespace head3d {

// Sums run in double for double, else in float.
template <typename S>
using Wide = std::conditional_t<std::is_same_v<S, double>, double, float>;

template <typename S>
__device__ __forceinline__ Wide<S> widen(S x) {
  return static_cast<Wide<S>>(x);
}

// N values that are read and written at once.
template <typename S, int N>
struct alignas(sizeof(S) * N) Pack {
  S at[N];
};

// The same for all values of a pack. Two bfloat16 are the upper halves of two floats: one instruction each.
template <typename S, int N>
__device__ __forceinline__ void widen(const Pack<S, N>& pack, Wide<S> (&out)[N]) {
  if constexpr (std::is_same_v<S, __nv_bfloat16> && N % 2 == 0) {
    const unsigned* pairs = reinterpret_cast<const unsigned*>(&pack);
#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
      out[2 * k] = __uint_as_float(pairs[k] << 16);
      out[2 * k + 1] = __uint_as_float(pairs[k] & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int k = 0; k < N; ++k) out[k] = widen(pack.at[k]);
  }
}

// Copies 16 bytes into shared memory while the thread goes on, or zeros; see __pipeline_commit and __pipeline_wait_prior.
// In place of __pipeline_memcpy_async, which becomes two guarded copies where its number of zeros is known only at run time.
__device__ __forceinline__ void copy_16_bytes(void* shared, const void* from, bool zeros) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(shared))),
               "l"(from), "r"(zeros ? 0 : 16)
               : "memory");
#else
  *static_cast<int4*>(shared) = zeros ? int4{} : *static_cast<const int4*>(from);
#endif
}

// The layout rule of the operators: channels-last stays channels-last, everything else becomes contiguous.
inline bool channels_last(const Tensor& x) { return x.dim() == 4 && x.size(1) > 1 && x.stride(1) == 1; }

inline Tensor in_layout(const Tensor& x, bool last) {
  using torch::headeronly::MemoryFormat;
  return last ? torch::stable::contiguous(x, MemoryFormat::ChannelsLast) : torch::stable::contiguous(x);
}

inline Tensor empty_image(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef size, bool last) {
  return torch::stable::empty(size, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                              last ? std::optional(torch::headeronly::MemoryFormat::ChannelsLast) : std::nullopt);
}

// Calls run(S{}) with the element type of x.
template <typename Run>
void with_type(const Tensor& x, const char* op, Run run) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return run(float{});
    case ScalarType::Double:
      return run(double{});
    case ScalarType::Half:
      return run(__half{});
    case ScalarType::BFloat16:
      return run(__nv_bfloat16{});
    default:
      STD_TORCH_CHECK(false, op, " takes float32, float64, float16 or bfloat16, got ",
                      torch::headeronly::toString(x.scalar_type()));
  }
}

template <typename S>
S* data_of(const Tensor& x) {
  return static_cast<S*>(const_cast<void*>(x.const_data_ptr()));
}

inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace head3d
