// Arguments of the ray kernels, and who launches what.
#pragma once

#include "cuda/device.cuh"

namespace head3d {

template <typename T>
struct RenderArgs {
  const T* w0;          // [hidden, C]
  const T* b0;          // [hidden]
  const T* w1;          // [1 + F, hidden]
  const T* b1;          // [1 + F]
  const T* origins;     // [N, R, 3]
  const T* directions;  // [N, R, 3]
  const T* near;        // [N, R]
  const T* far;         // [N, R]
  const int64_t* seeds;  // [N] or null
  int64_t images, rays;  // N, R
  int samples, fine_samples, hidden, features;
  T box_warp;
  Projection<T> projection;
  bool disparity, white_back;
};

template <typename T>
struct RenderOutput {
  T* features;  // [N, R, F]
  T* depth;     // [N, R]
  T* opacity;   // [N, R]
  T* depths;    // [N, R, samples + fine_samples], in order along the ray; null: not wanted
};

template <typename T>
struct RenderGrads {
  // results of the forward pass and the gradients that come in
  const T* features;       // [N, R, F]
  const T* depth;          // [N, R]
  const T* opacity;        // [N, R]
  const T* depths;         // [N, R, samples + fine_samples]
  const T* grad_features;  // [N, R, F]
  const T* grad_depth;     // [N, R]
  const T* grad_opacity;   // [N, R]
  // the gradients that go out; null: not wanted
  T* planes;      // [N, P, H, W, C]
  T* w0;          // [hidden, C]
  T* b0;          // [hidden]
  T* w1;          // [1 + F, hidden]
  T* b1;          // [1 + F]
  T* origins;     // [N, R, 3]
  T* directions;  // [N, R, 3]
};

// Sizes that the tensor-core kernels are written for: EG3D's decoder. Other sizes take the simple kernels.
constexpr int kChannels = 32, kHidden = 64, kFeatures = 32;
constexpr int kMostSamples = 512;  // samples + fine_samples that fit in shared memory beside the rest

// Simple kernels: any size up to kSimpleChannels, float or double, one thread a ray.
constexpr int kSimpleChannels = 128;
template <typename T>
void launch_render_simple(const PlaneView<const T>& planes, const RenderArgs<T>& args, const RenderOutput<T>& out,
                         T* scratch, int64_t threads, cudaStream_t stream);
template <typename T>
void launch_render_simple_backward(const PlaneView<const T>& planes, const RenderArgs<T>& args, const RenderGrads<T>& grads,
                                  T* scratch, int64_t threads, cudaStream_t stream);
int64_t simple_scratch_per_ray(int samples, int fine_samples);

// Tensor-core kernels. Planes have channels innermost: half for mixed, float for strict precision.
template <typename P>
void launch_render_tiles(const PlaneView<const P>& planes, const RenderArgs<float>& args, const RenderOutput<float>& out,
                         int device, cudaStream_t stream);
template <typename P>
void launch_render_tiles_backward(const PlaneView<const P>& planes, const RenderArgs<float>& args,
                                  const RenderGrads<float>& grads, int device, cudaStream_t stream);

// Whether the code that runs on the current device was compiled for capability 8.0 or more; below it, as on Turing
// (7.5), the simple kernels serve.
bool tiles_compiled();

// Copies planes of any strides to [N, planes, H, W, C] of type P.
template <typename P>
void launch_repack(const PlaneView<const float>& planes, int64_t images, P* out, cudaStream_t stream);

// What the kernels' 32-bit offsets and the repacking's grid can address.
inline void check_launch_limits(const Tensor& planes) {
  STD_TORCH_CHECK(planes.size(1) * planes.size(2) * planes.size(3) * planes.size(4) < (int64_t(1) << 31),
                  "the planes of one image must have less than 2^31 elements, got ", shape_of(planes));
  STD_TORCH_CHECK(planes.size(1) * planes.size(0) <= 65535, "at most ", 65535 / planes.size(1), " images a call, got ",
                  planes.size(0));
}

// True if the kernels can read these planes in place: channels innermost, 16-byte aligned taps.
bool readable_in_place(const Tensor& planes);

}  // namespace head3d
