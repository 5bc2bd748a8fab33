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
