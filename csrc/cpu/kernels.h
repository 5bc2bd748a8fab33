// What the tensor side (render_cpu.cpp) asks of the arithmetic side (render_body.h, compiled once per instruction set).
// Plain pointers only: nothing in here may pull a library template into a file that is compiled for newer processors.
#pragma once

#include <cstdint>

#include "common/planes.h"

namespace head3d {

// Planes with the channels innermost and their number a multiple of the lanes.
template <typename T>
struct PlanesView {
  const T* data;
  int64_t image, plane, row, column;  // strides, in elements
  int64_t height, width;
  int channels;
  int plane_count;  // 3, or 4 with two slices of the first plane
  Projection<T> projection;
};

// The decoder's weights, packed once a call. Sizes are rounded up to the lanes and filled with zeros. The 1/3 of the mean
// over planes is folded into w0, so that the kernels only add the three readings.
template <typename T>
struct Decoder {
  int hidden, features;   // padded
  int true_features;      // as given
  const T* w0_columns;    // [channels, hidden]
  const T* b0;            // [hidden]
  const T* w1_columns;    // [hidden, features], colours only
  const T* b1;            // [features]
  const T* w1_sigma;      // [hidden]
  T b1_sigma;
  const T* w0_rows;  // [hidden, channels]          (backward)
  const T* w1_rows;  // [features + 1, hidden]: the colours, then sigma   (backward)
};

template <typename T>
struct RayJob {
  PlanesView<T> planes;
  Decoder<T> decoder;
  const T* origins;     // [N * R, 3]
  const T* directions;  // [N * R, 3]
  const T* near;        // [N * R]
  const T* far;         // [N * R]
  const int64_t* seeds;  // [N] or null
  int64_t rays;          // R
  int64_t side;          // rays are visited in square blocks if R = side * side, else side = 0
  int samples, fine_samples;
  bool disparity, white_back;
  T negligible;  // a sample whose share of the ray is below this is left out
  T* features;   // [N * R, true_features]
  T* depth;      // [N * R]
  T* opacity;    // [N * R]
  T* depths;     // [N * R, samples + fine_samples] or null
};

// Where the gradients of some samples are to be added to the planes. Filled by the backward kernels, emptied by `scatter`.
template <typename T>
struct Splat {
  int32_t x[3], y[3];  // upper left texel; -2 if that axis is outside
  T fx[3], fy[3];
  T front;  // weight of the front slice of plane 0; 1 unless there are two
  int32_t image;
};

// Sums over a fixed number of rays or points, so that the result does not depend on the number of threads.
template <typename T>
struct WeightSums {
  T* w0;  // [hidden, channels]
  T* b0;  // [hidden]
  T* w1;  // [features + 1, hidden]: the colours, then sigma
  T* b1;  // [features + 1 rounded up to lanes]
};

template <typename T>
struct RayGradients {
  const T* features;  // [N * R, true_features]
  const T* depth;     // [N * R]
  const T* opacity;   // [N * R]
  bool needs_planes, needs_weights, needs_rays;
  T* origins;     // [N * R, 3]
  T* directions;  // [N * R, 3]
};

template <typename T>
struct PointJob {
  PlanesView<T> planes;
  Decoder<T> decoder;
  const T* points;  // [N * M, 3]
  int64_t points_per_image;
  bool decode;   // false: features are the plane readings, [N * M, channels of the caller]
  int channels;  // of the caller
  T* sigma;      // [N * M]
  T* features;   // [N * M, F]
};

template <typename T>
struct PointGradients {
  const T* sigma;     // [N * M], null unless `decode`
  const T* features;  // [N * M, F]
  bool needs_planes, needs_weights, needs_points;
  T* points;  // [N * M, 3]
};

template <typename T>
struct ScatterJob {
  const Splat<T>* splats;
  const T* values;  // [count, channels]
  int64_t count;
  T* planes;  // [N, plane_count, H, W, channels]
  int64_t height, width;
  int channels, plane_count;
};

// One texel row of one plane, to be copied with its channels innermost and padded with zeros.
template <typename T>
struct PackJob {
  const T* from;
  int64_t channel, column;  // strides of `from`, in elements
  T* to;                    // [width, padded]
  int64_t width;
  int channels, padded;
};

template <typename T>
struct RenderKernels {
  int lanes;
  void (*pack_row)(const PackJob<T>&);
  int64_t (*ray_scratch)(const RayJob<T>&);  // elements of T
  void (*render)(const RayJob<T>&, int64_t begin, int64_t end, T* scratch);
  // Returns the number of splats it filled; `values` is [splats, channels].
  int64_t (*render_backward)(const RayJob<T>&, const RayGradients<T>&, int64_t begin, int64_t end, T* scratch,
                             WeightSums<T> sums, Splat<T>* splats, T* values);
  int64_t (*point_scratch)(const PointJob<T>&);
  void (*query)(const PointJob<T>&, int64_t begin, int64_t end, T* scratch);
  int64_t (*query_backward)(const PointJob<T>&, const PointGradients<T>&, int64_t begin, int64_t end, T* scratch,
                            WeightSums<T> sums, Splat<T>* splats, T* values);
  // Adds the splats whose texel row is `part` modulo `parts`.
  void (*scatter)(const ScatterJob<T>&, int64_t part, int64_t parts);
};

struct BiasActJob {
  const void* x;     // forward: input; backward: gradient
  const void* bias;  // forward: [channels] or null; backward: the forward's output
  void* out;
  int64_t channels, inner;  // x is [outer, channels, inner]
  double slope, gain, limit;
};

struct FirJob {
  const void* x;  // [planes, height, width], or [N, height, width, channels] for fir_row
  void* out;
  const double* kernel;  // [kernel_height, kernel_width], to be correlated with, times the gain
  int64_t channels, height, width, out_height, out_width, kernel_height, kernel_width;
  int64_t up, down, pad_left, pad_top;
  int64_t margin, row_size;  // of the padded rows
};

struct FilterKernels {
  void (*bias_act)(const BiasActJob&, int64_t begin, int64_t end);
  void (*bias_act_backward)(const BiasActJob&, int64_t begin, int64_t end);
  void (*fir_plane)(const FirJob&, int64_t plane, void* scratch);
  void (*fir_row)(const FirJob&, int64_t line, void* scratch);
};

struct KernelSet {
  const char* name;
  const RenderKernels<float>* render_float;
  const RenderKernels<double>* render_double;
  const FilterKernels* filters;  // float, double, half, bfloat16
};

// Null where the file was compiled for another processor.
const KernelSet* avx512_kernels();
const KernelSet* avx2_kernels();
const KernelSet* portable_kernels();

// The fastest set that this processor has, or a lower one that HEAD3D_CPU_ISA (avx2, scalar) asks for.
const KernelSet& kernels();

}  // namespace head3d
