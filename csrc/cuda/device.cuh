// What every CUDA file needs: the stream and device of a call, launch checks, and views of tensors for kernels.
#pragma once

#ifndef USE_CUDA
#define USE_CUDA  // torch's shim declares its CUDA functions only then
#endif

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>

#include "common/planes.h"
#include "head3d.h"

namespace head3d {

constexpr unsigned kAllLanes = 0xffffffffu;

inline void check_cuda(cudaError_t error, const char* what) {
  STD_TORCH_CHECK(error == cudaSuccess, what, ": ", cudaGetErrorString(error));
}

inline void check_launch(const char* kernel) { check_cuda(cudaGetLastError(), kernel); }

// The stream that PyTorch uses now on this device; every kernel and memset goes there.
inline cudaStream_t current_stream(const Tensor& on) {
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(on.get_device_index(), &stream) == 0, "no current CUDA stream");
  return static_cast<cudaStream_t>(stream);
}

inline int multiprocessors(int device) {
  int count = 0;
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "reading the device's properties");
  return count;
}

inline unsigned blocks_for(int64_t items, int threads) {
  const int64_t blocks = (items + threads - 1) / threads;
  return static_cast<unsigned>(blocks < (int64_t(1) << 30) ? (blocks > 0 ? blocks : 1) : (int64_t(1) << 30));
}

// Planes [N, P, C, H, W] as the kernels see them: any strides, in elements.
template <typename T>
struct PlaneView {
  T* data;
  int64_t image, plane, channel, row, column;  // strides
  int planes, channels, height, width;  // planes: 3, or 4 with two slices of the first
};

template <typename T>
PlaneView<T> view_of(const Tensor& planes, T* data) {
  return {data,
          planes.stride(0),
          planes.stride(1),
          planes.stride(2),
          planes.stride(3),
          planes.stride(4),
          static_cast<int>(planes.size(1)),
          static_cast<int>(planes.size(2)),
          static_cast<int>(planes.size(3)),
          static_cast<int>(planes.size(4))};
}

// A view of contiguous [N, P, H, W, C].
template <typename T>
PlaneView<T> channels_last_view(T* data, int planes, int channels, int height, int width) {
  const int64_t row = int64_t(width) * channels, plane = height * row;
  return {data, planes * plane, plane, 1, row, channels, planes, channels, height, width};
}

template <typename T>
PlaneView<T> channels_last_view(const Tensor& planes, T* data) {
  return channels_last_view(data, static_cast<int>(planes.size(1)), static_cast<int>(planes.size(2)),
                            static_cast<int>(planes.size(3)), static_cast<int>(planes.size(4)));
}

template <typename T>
Projection<T> projection_of(const PlaneSettings& settings) {
  return make_projection<T>(settings.axes, settings.box_warp, settings.slice_half_distance, settings.slice_centre);
}

// The two texels along one axis that a coordinate falls between, and their weights. A texel beyond the border has weight
// 0 and an index inside, so that reading it does no harm; NaN and infinities fall outside too.
template <typename T>
struct Taps {
  int low, high;
  T weight_low, weight_high;
  bool low_inside, high_inside;
};

template <typename T>
__device__ __forceinline__ Taps<T> taps_at(T coordinate, int size) {
  const T floor_ = floor(coordinate);
  const T fraction = coordinate - floor_;
  // max(NaN, -2) is -2: both texels are then outside
  const int index = static_cast<int>(min(max(floor_, T(-2)), T(size)));
  Taps<T> taps;
  taps.low_inside = static_cast<unsigned>(index) < static_cast<unsigned>(size);
  taps.high_inside = static_cast<unsigned>(index + 1) < static_cast<unsigned>(size);
  taps.low = min(max(index, 0), size - 1);
  taps.high = min(max(index + 1, 0), size - 1);
  taps.weight_low = taps.low_inside ? T(1) - fraction : T(0);
  taps.weight_high = taps.high_inside ? fraction : T(0);
  return taps;
}

}  // namespace head3d
