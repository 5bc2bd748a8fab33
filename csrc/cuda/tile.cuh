// A tile: 16 samples that one warp reads from the planes and decodes on tensor cores, forward and backward.
//
// The matrix instruction mma.m16n8k* wants its operands spread over the 32 lanes of a warp. With g = lane / 4, t = lane % 4,
// a lane holds two rows of the left operand and of the result, g and g + 8, and in each row the columns that belong to t.
// Which columns those are is ours to choose, as long as both operands agree: so lane (g, t) reads 8 channels that lie
// together in memory for samples g and g + 8, and what it has read already is its share of the operand. Nothing passes
// through shared memory between planes and pixel.
//
// P = half: mixed precision: planes, hidden units and the weights of the colours in half, sums in float. The first layer
// splits its factors into two halves each, as sigma's error is the one that shows; sigma itself is summed in float.
// P = float: strict: every factor is split into two TF32 numbers, a = hi + lo, and a b = hi hi + hi lo + lo hi; what is
// dropped, lo lo and the last bits of lo, is at most 2^-21 |a b|.
#pragma once

#include "common/march.h"
#include "common/planes.h"
#include "cuda/render.cuh"

namespace head3d {

constexpr int kTile = 16;   // samples of a tile
constexpr int kSlots = 8;   // channels of a sample that one lane holds
constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

template <typename P>
constexpr bool kExact = sizeof(P) == 4;

// Channel in slot i of the lanes of column t: 16-byte reads whose 4 lanes lie together.
template <typename P>
__host__ __device__ constexpr int channel_of(int t, int i) {
  return kExact<P> ? (i < 4 ? 4 * t + i : 12 + 4 * t + i) : 8 * t + i;
}

// Channel in slot i of a gradient: of either precision, as the product that makes gradients may order its columns as it
// likes. The four lanes of one 16-byte addition fill whole sectors (32 bytes) of L2, which adds a sector at a time.
__host__ __device__ constexpr int grad_channel_of(int t, int i) { return channel_of<float>(t, i); }

// ---- arithmetic -----------------------------------------------------------------------------------------------------

__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float fast_log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float fast_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// softplus(x) = max(x, 0) + log(1 + e^-|x|), absolute error below 3e-7
__device__ __forceinline__ float tile_softplus(float x) {
  return fmaf(kLn2, fast_log2(1.f + fast_exp2(-kLog2e * fabsf(x))), fmaxf(x, 0.f));
}

__device__ __forceinline__ float tile_sigmoid(float x) { return fast_reciprocal(1.f + fast_exp2(-kLog2e * x)); }

// These instructions need compute capability 8.0. The kernels compile for older ones and are never chosen there
// (tiles_compiled in render.cuh).
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define HEAD3D_AMPERE(...) asm(__VA_ARGS__)
#else
#define HEAD3D_AMPERE(...) __trap()
#endif

__device__ __forceinline__ float to_tf32(float x) {
  uint32_t bits = 0;
  HEAD3D_AMPERE("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
}

__device__ __forceinline__ uint32_t pack_half(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// What rounding to half leaves of x.
__device__ __forceinline__ float rest_of_half(float x) { return x - __half2float(__float2half_rn(x)); }

// sum [16, 8] += a [16, 16] b [16, 8], half factors
__device__ __forceinline__ void mma_half(float* sum, const uint32_t* a, uint32_t b0, uint32_t b1) {
  HEAD3D_AMPERE("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// sum [16, 8] += a [16, 8] b [8, 8], TF32 factors
__device__ __forceinline__ void mma_tf32(float* sum, const float* a, float b0, float b1) {
  HEAD3D_AMPERE("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}

// A left operand, 16 x 8, rounded to TF32 or split in two. The instruction reads the first 19 bits of a float, so that what
// rounding left needs no rounding of its own: cutting it off costs at most 2^-23 of a factor.
template <bool kSplit>
struct LeftOperand {
  float hi[4], lo[kSplit ? 4 : 1];
  __device__ __forceinline__ LeftOperand(float a0, float a1, float a2, float a3) {
    const float a[4] = {a0, a1, a2, a3};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      hi[i] = to_tf32(a[i]);
      if constexpr (kSplit) lo[i] = a[i] - hi[i];
    }
  }
};

// sum += a b. Without the split b must be TF32 already.
template <bool kSplit>
__device__ __forceinline__ void mma_float(float* sum, const LeftOperand<kSplit>& a, float b0, float b1) {
  if constexpr (kSplit) {
    const float high0 = to_tf32(b0), high1 = to_tf32(b1);
    mma_tf32(sum, a.lo, high0, high1);
    mma_tf32(sum, a.hi, b0 - high0, b1 - high1);
    mma_tf32(sum, a.hi, high0, high1);
  } else {
    mma_tf32(sum, a.hi, b0, b1);
  }
}

// Sum over the four lanes that share the rows g and g + 8.
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Sum over the eight lanes that share the columns of t.
__device__ __forceinline__ float column_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 4);
  x += __shfl_xor_sync(kAllLanes, x, 8);
  return x + __shfl_xor_sync(kAllLanes, x, 16);
}

// ---- planes ---------------------------------------------------------------------------------------------------------

// Planes with channels innermost; strides in elements fit 32 bits within an image.
template <typename P>
struct TileView {
  P* data;
  int64_t image;
  int plane, row, column, height, width;
};

template <typename P>
TileView<P> tile_view(const PlaneView<P>& view) {  // the count of planes is the kernels' template argument
  return {view.data, view.image, static_cast<int>(view.plane), static_cast<int>(view.row), static_cast<int>(view.column),
          view.height, view.width};
}

// Where a point falls on one plane.
struct Footprint {
  Taps<float> x, y;
  __device__ __forceinline__ Footprint(const float (&point)[3], int plane, const Projection<float>& projection, int height,
                                       int width) {
    // plane is known when this is compiled; axes picks between two coordinates of plane 2
    const int axes = projection.axes;
    const float column = plane < 2 ? point[0] : (axes == 0 ? point[2] : point[1]);
    const float row = plane == 0 ? point[1] : (plane == 1 ? point[2] : (axes == 0 ? point[0] : point[2]));
    x = taps_at(texel_coordinate(column, projection.scale, width), width);
    y = taps_at(texel_coordinate(row, projection.scale, height), height);
  }
};

constexpr float kThird = 1.f / 3.f;  // the readings are averaged

// The planes in the order in which they are read: slices one after the other, as they share a footprint.
template <int kPlanes>
__device__ constexpr int plane_in_turn(int turn) {
  return kPlanes == 3 || turn == 0 ? turn : (turn == 1 ? 3 : turn - 1);
}

// Weight of a plane's reading: a third, which the two slices of plane 0 share.
template <int kPlanes>
__device__ __forceinline__ float reading_weight(int plane, float front) {
  return kPlanes == 3 || plane == 1 || plane == 2 ? kThird : kThird * share_of<kPlanes>(plane, front);
}

__device__ __forceinline__ void add_texel(const __half* texel, int t, float weight, float (&x)[kSlots]) {
  const uint4 bits = __ldg(reinterpret_cast<const uint4*>(texel + 8 * t));
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
    x[2 * i] = fmaf(weight, pair.x, x[2 * i]);
    x[2 * i + 1] = fmaf(weight, pair.y, x[2 * i + 1]);
  }
}

__device__ __forceinline__ void add_texel(const float* texel, int t, float weight, float (&x)[kSlots]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float4 four = __ldg(reinterpret_cast<const float4*>(texel + 16 * half + 4 * t));
    x[4 * half] = fmaf(weight, four.x, x[4 * half]);
    x[4 * half + 1] = fmaf(weight, four.y, x[4 * half + 1]);
    x[4 * half + 2] = fmaf(weight, four.z, x[4 * half + 2]);
    x[4 * half + 3] = fmaf(weight, four.w, x[4 * half + 3]);
  }
}

// The same for the channels of a gradient's slots.
__device__ __forceinline__ void add_texel_of_grad(const float* texel, int t, float weight, float (&x)[kSlots]) {
  add_texel(texel, t, weight, x);
}

__device__ __forceinline__ void add_texel_of_grad(const __half* texel, int t, float weight, float (&x)[kSlots]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint2 bits = __ldg(reinterpret_cast<const uint2*>(texel + grad_channel_of(t, 4 * half)));
    const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&bits.x));
    const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&bits.y));
    x[4 * half] = fmaf(weight, low.x, x[4 * half]);
    x[4 * half + 1] = fmaf(weight, low.y, x[4 * half + 1]);
    x[4 * half + 2] = fmaf(weight, high.x, x[4 * half + 2]);
    x[4 * half + 3] = fmaf(weight, high.y, x[4 * half + 3]);
  }
}

// Eq. 2: the lane's 8 channels of a third of the sum of the bilinear readings.
template <int kPlanes, typename P>
__device__ __forceinline__ void gather(const TileView<const P>& planes, const P* image, const float (&point)[3],
                                       const Projection<float>& projection, int t, float (&x)[kSlots]) {
#pragma unroll
  for (int i = 0; i < kSlots; ++i) x[i] = 0.f;
  const float front = front_of<kPlanes>(point[2], projection);
#pragma unroll
  for (int turn = 0; turn < kPlanes; ++turn) {
    const int plane = plane_in_turn<kPlanes>(turn);
    const P* data = image + plane * planes.plane;
    const float weight = reading_weight<kPlanes>(plane, front);
    if (kPlanes == 4 && weight == 0.f) continue;
    const Footprint at(point, place_of(plane), projection, planes.height, planes.width);
    const int top = at.y.low * planes.row, bottom = at.y.high * planes.row;
    const int left = at.x.low * planes.column, right = at.x.high * planes.column;
    const float above = at.y.weight_low * weight, below = at.y.weight_high * weight;
    add_texel(data + top + left, t, above * at.x.weight_low, x);
    add_texel(data + top + right, t, above * at.x.weight_high, x);
    add_texel(data + bottom + left, t, below * at.x.weight_low, x);
    add_texel(data + bottom + right, t, below * at.x.weight_high, x);
  }
}

__device__ __forceinline__ void add_to(float* address, float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(address), "f"(a), "f"(b), "f"(c), "f"(d)
               : "memory");
#else
  atomicAdd(address, a);
  atomicAdd(address + 1, b);
  atomicAdd(address + 2, c);
  atomicAdd(address + 3, d);
#endif
}

// The transpose of gather: adds weight * grad to the texels that were read. A texel of weight 0 is left alone.
template <int kPlanes>
__device__ __forceinline__ void scatter(const TileView<float>& grads, float* image, const float (&point)[3],
                                        const Projection<float>& projection, int t, const float (&grad)[kSlots]) {
  const float front = front_of<kPlanes>(point[2], projection);
#pragma unroll
  for (int turn = 0; turn < kPlanes; ++turn) {
    const int plane = plane_in_turn<kPlanes>(turn);
    const Footprint at(point, place_of(plane), projection, grads.height, grads.width);
    const float share = reading_weight<kPlanes>(plane, front);
    float* data = image + plane * grads.plane;
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const float across = corner & 1 ? at.x.weight_high : at.x.weight_low;
      const float weight = (corner & 2 ? at.y.weight_high : at.y.weight_low) * share * across;
      if (weight == 0.f) continue;
      float* texel = data + (corner & 2 ? at.y.high : at.y.low) * grads.row + (corner & 1 ? at.x.high : at.x.low) * grads.column;
      add_to(texel + grad_channel_of(t, 0), weight * grad[0], weight * grad[1], weight * grad[2], weight * grad[3]);
      add_to(texel + grad_channel_of(t, 4), weight * grad[4], weight * grad[5], weight * grad[6], weight * grad[7]);
    }
  }
}

// Scatters two points at once. Texels that both touch get one addition instead of two: rays of neighbouring pixels meet the
// same texels, and additions to memory are what the backward pass is made of.
struct PairedTaps {
  float on_low, on_high;      // weights of b at the texels of a
  bool low_alone, high_alone;  // texels of b that a does not touch
  __device__ __forceinline__ PairedTaps(const Taps<float>& a, const Taps<float>& b) : on_low(0.f), on_high(0.f) {
    const bool low_low = b.low == a.low, low_high = !low_low && b.low == a.high;
    const bool high_low = b.high == a.low, high_high = !high_low && b.high == a.high;
    if (low_low) on_low += b.weight_low;
    if (low_high) on_high += b.weight_low;
    if (high_low) on_low += b.weight_high;
    if (high_high) on_high += b.weight_high;
    low_alone = !(low_low || low_high);
    high_alone = !(high_low || high_high);
  }
};

template <int kPlanes>
__device__ __forceinline__ void scatter_pair(const TileView<float>& grads, float* image, const float (&point_a)[3],
                                             const float (&point_b)[3], const Projection<float>& projection, int t,
                                             const float (&grad_a)[kSlots], const float (&grad_b)[kSlots]) {
  const float front_a = front_of<kPlanes>(point_a[2], projection), front_b = front_of<kPlanes>(point_b[2], projection);
#pragma unroll
  for (int turn = 0; turn < kPlanes; ++turn) {
    const int plane = plane_in_turn<kPlanes>(turn);
    const float share_a = reading_weight<kPlanes>(plane, front_a);
    const float share_b = reading_weight<kPlanes>(plane, front_b);
    if (kPlanes == 4 && share_a == 0.f && share_b == 0.f) continue;
    const Footprint a(point_a, place_of(plane), projection, grads.height, grads.width);
    const Footprint b(point_b, place_of(plane), projection, grads.height, grads.width);
    const PairedTaps x(a.x, b.x), y(a.y, b.y);
    float* data = image + plane * grads.plane;
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const bool right = corner & 1, bottom = corner & 2;
      const float weight_a = (bottom ? a.y.weight_high : a.y.weight_low) * share_a * (right ? a.x.weight_high : a.x.weight_low);
      const float weight_b = (bottom ? y.on_high : y.on_low) * share_b * (right ? x.on_high : x.on_low);
      if (weight_a != 0.f || weight_b != 0.f) {
        float* texel = data + (bottom ? a.y.high : a.y.low) * grads.row + (right ? a.x.high : a.x.low) * grads.column;
        float sum[kSlots];
#pragma unroll
        for (int i = 0; i < kSlots; ++i) sum[i] = fmaf(weight_a, grad_a[i], weight_b * grad_b[i]);
        add_to(texel + grad_channel_of(t, 0), sum[0], sum[1], sum[2], sum[3]);
        add_to(texel + grad_channel_of(t, 4), sum[4], sum[5], sum[6], sum[7]);
      }
    }
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const bool right = corner & 1, bottom = corner & 2;
      const float weight = (bottom ? b.y.weight_high : b.y.weight_low) * share_b * (right ? b.x.weight_high : b.x.weight_low);
      if (weight != 0.f && ((bottom ? y.high_alone : y.low_alone) || (right ? x.high_alone : x.low_alone))) {
        float* texel = data + (bottom ? b.y.high : b.y.low) * grads.row + (right ? b.x.high : b.x.low) * grads.column;
        add_to(texel + grad_channel_of(t, 0), weight * grad_b[0], weight * grad_b[1], weight * grad_b[2], weight * grad_b[3]);
        add_to(texel + grad_channel_of(t, 4), weight * grad_b[4], weight * grad_b[5], weight * grad_b[6], weight * grad_b[7]);
      }
    }
  }
}

// d (grad . features) / d point: this lane's channels only; the caller adds the four lanes of a row. With two slices z
// also moves weight from one to the other: (B(front) - B(back)) / (2 half distance) where 0 < front_share < 1.
template <int kPlanes, typename P>
__device__ __forceinline__ void grad_point(const TileView<const P>& planes, const P* image, const float (&point)[3],
                                           const Projection<float>& projection, int t, const float (&grad)[kSlots],
                                           float (&out)[3]) {
  const float front = front_of<kPlanes>(point[2], projection);
#pragma unroll
  for (int turn = 0; turn < kPlanes; ++turn) {
    const int plane = plane_in_turn<kPlanes>(turn);
    const float weight = reading_weight<kPlanes>(plane, front);
    if (kPlanes == 4 && weight == 0.f) continue;
    const Footprint at(point, place_of(plane), projection, planes.height, planes.width);
    float reading[4];  // grad . texel at each corner, 0 outside
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const P* texel = image + plane * planes.plane + (corner & 2 ? at.y.high : at.y.low) * planes.row +
                       (corner & 1 ? at.x.high : at.x.low) * planes.column;
      float x[kSlots] = {};
      add_texel_of_grad(texel, t, 1.f, x);
      const bool inside = (corner & 1 ? at.x.high_inside : at.x.low_inside) && (corner & 2 ? at.y.high_inside : at.y.low_inside);
      reading[corner] = 0.f;
#pragma unroll
      for (int i = 0; i < kSlots; ++i) reading[corner] = fmaf(grad[i], x[i], reading[corner]);
      if (!inside) reading[corner] = 0.f;
    }
    const float across = (reading[1] - reading[0]) * at.y.weight_low + (reading[3] - reading[2]) * at.y.weight_high;
    const float down = (reading[2] - reading[0]) * at.x.weight_low + (reading[3] - reading[1]) * at.x.weight_high;
    const float by_column = across * (weight * 0.5f * projection.scale * planes.width);
    const float by_row = down * (weight * 0.5f * projection.scale * planes.height);
    if (place_of(plane) < 2) {
      out[0] += by_column;
      out[plane == 1 ? 2 : 1] += by_row;
    } else if (projection.axes == 0) {
      out[2] += by_column;
      out[0] += by_row;
    } else {
      out[1] += by_column;
      out[2] += by_row;
    }
    if (kPlanes == 4 && place_of(plane) == 0 && between_slices(front)) {
      const float above = reading[0] * at.x.weight_low + reading[1] * at.x.weight_high;
      const float below = reading[2] * at.x.weight_low + reading[3] * at.x.weight_high;
      const float by_weight = (above * at.y.weight_low + below * at.y.weight_high) * (kThird * projection.slice_scale);
      out[2] += plane == 0 ? by_weight : -by_weight;
    }
  }
}

// ---- decoder --------------------------------------------------------------------------------------------------------

// The decoder's weights, each lane's share of every right operand lying together.
template <typename P>
struct ForwardWeights;

template <>
struct ForwardWeights<__half> {
  uint4 w0[8 * 32];      // hidden units 8 j ..: [j][lane], words: two per step of 16 channels
  uint4 w0_rest[8 * 32];  // what rounding w0 to half left
  uint4 w1[4 * 2 * 32];  // hidden units 16 s ..: [s][half][lane], words: two per 8 features
  float b0[kHidden], sigma[kHidden], b1[1 + kFeatures];
};

template <>
struct ForwardWeights<float> {
  float4 w0[8 * 2 * 32];  // [j][half][lane], channels of slots 0-3, 4-7
  float4 w1[8 * 2 * 32];  // hidden units 8 s ..: [s][half][lane], two per 8 features
  float b0[kHidden], sigma[kHidden], b1[1 + kFeatures];
};

__device__ __forceinline__ void load_decoder(ForwardWeights<__half>& w, const RenderArgs<float>& args) {
  for (int i = threadIdx.x; i < 8 * 32 * 4; i += blockDim.x) {
    const int word = i & 3, lane = (i >> 2) & 31, j = i >> 7, t = lane & 3;
    const float* row = args.w0 + (8 * j + (lane >> 2)) * kChannels;
    const float a = row[channel_of<__half>(t, 2 * word)], b = row[channel_of<__half>(t, 2 * word + 1)];
    reinterpret_cast<uint32_t*>(w.w0)[i] = pack_half(a, b);
    reinterpret_cast<uint32_t*>(w.w0_rest)[i] = pack_half(rest_of_half(a), rest_of_half(b));
  }
  for (int i = threadIdx.x; i < 4 * 2 * 32 * 4; i += blockDim.x) {
    const int word = i & 3, lane = (i >> 2) & 31, half = (i >> 7) & 1, s = i >> 8;
    const int feature = 8 * (2 * half + (word >> 1)) + (lane >> 2);
    const float* row = args.w1 + (1 + feature) * kHidden + 16 * s + 8 * (word & 1) + 2 * (lane & 3);
    reinterpret_cast<uint32_t*>(w.w1)[i] = pack_half(row[0], row[1]);
  }
  for (int i = threadIdx.x; i < kHidden; i += blockDim.x) w.b0[i] = args.b0[i], w.sigma[i] = args.w1[i];
  for (int i = threadIdx.x; i < 1 + kFeatures; i += blockDim.x) w.b1[i] = args.b1[i];
}

__device__ __forceinline__ void load_decoder(ForwardWeights<float>& w, const RenderArgs<float>& args) {
  for (int i = threadIdx.x; i < 8 * 2 * 32 * 4; i += blockDim.x) {
    const int word = i & 3, lane = (i >> 2) & 31, half = (i >> 7) & 1, j = i >> 8;
    const int row = lane >> 2, t = lane & 3;
    reinterpret_cast<float*>(w.w0)[i] = args.w0[(8 * j + row) * kChannels + channel_of<float>(t, 4 * half + word)];
    const int feature = 8 * (2 * half + (word >> 1)) + row;
    reinterpret_cast<float*>(w.w1)[i] = args.w1[(1 + feature) * kHidden + 8 * j + 2 * t + (word & 1)];
  }
  for (int i = threadIdx.x; i < kHidden; i += blockDim.x) w.b0[i] = args.b0[i], w.sigma[i] = args.w1[i];
  for (int i = threadIdx.x; i < 1 + kFeatures; i += blockDim.x) w.b1[i] = args.b1[i];
}

// What a tile's decoder gives: sigma of rows g and g + 8 (all four lanes of a row have it), and before the sigmoid the
// colours of features 8 q + 2 t, + 1 in rows g (places 4 q, 4 q + 1) and g + 8 (4 q + 2, 4 q + 3).
struct Decoded {
  float sigma0, sigma1;
  float logits[16];
};

// Hidden units 8 j + 2 t, + 1 of rows g and g + 8, after the softplus; adds their part of sigma.
template <typename P, typename A>
__device__ __forceinline__ void hidden_units(const ForwardWeights<P>& w, const A& operand, int j, int lane, Decoded& out,
                                             float (&h)[4]) {
  const int unit = 8 * j + 2 * (lane & 3);
  const float2 bias = *reinterpret_cast<const float2*>(&w.b0[unit]);
  h[0] = h[2] = bias.x;
  h[1] = h[3] = bias.y;
  if constexpr (kExact<P>) {
    const float4 low = w.w0[(2 * j) * 32 + lane], high = w.w0[(2 * j + 1) * 32 + lane];
    mma_float<true>(h, operand[0], low.x, low.y);
    mma_float<true>(h, operand[1], low.z, low.w);
    mma_float<true>(h, operand[2], high.x, high.y);
    mma_float<true>(h, operand[3], high.z, high.w);
  } else {
    const uint4 b = w.w0[j * 32 + lane], rest = w.w0_rest[j * 32 + lane];
    mma_half(h, operand[2], b.x, b.y);  // 2, 3: what rounding the features left
    mma_half(h, operand[3], b.z, b.w);
    mma_half(h, operand[0], rest.x, rest.y);
    mma_half(h, operand[1], rest.z, rest.w);
    mma_half(h, operand[0], b.x, b.y);
    mma_half(h, operand[1], b.z, b.w);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) h[i] = tile_softplus(h[i]);
  const float2 to_sigma = *reinterpret_cast<const float2*>(&w.sigma[unit]);
  out.sigma0 = fmaf(h[0], to_sigma.x, fmaf(h[1], to_sigma.y, out.sigma0));
  out.sigma1 = fmaf(h[2], to_sigma.x, fmaf(h[3], to_sigma.y, out.sigma1));
}

// Eq. 3 for the tile whose rows g and g + 8 have features x0 and x1. `colour` false leaves the logits at their bias.
// store(j, h) sees the hidden units as they come.
template <typename P, typename Store>
__device__ __forceinline__ void decode(const ForwardWeights<P>& w, const float (&x0)[kSlots], const float (&x1)[kSlots],
                                       int lane, bool colour, Decoded& out, Store&& store) {
  const int t = lane & 3;
  out.sigma0 = out.sigma1 = 0.f;
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    out.logits[4 * q] = out.logits[4 * q + 2] = w.b1[1 + 8 * q + 2 * t];
    out.logits[4 * q + 1] = out.logits[4 * q + 3] = w.b1[2 + 8 * q + 2 * t];
  }
  if constexpr (kExact<P>) {
    const LeftOperand<true> operand[4] = {{x0[0], x1[0], x0[1], x1[1]},
                                          {x0[2], x1[2], x0[3], x1[3]},
                                          {x0[4], x1[4], x0[5], x1[5]},
                                          {x0[6], x1[6], x0[7], x1[7]}};
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float h[4];
      hidden_units<float>(w, operand, j, lane, out, h);
      store(j, h);
      if (colour) {
        const LeftOperand<true> a(h[0], h[2], h[1], h[3]);
        const float4 low = w.w1[(2 * j) * 32 + lane], high = w.w1[(2 * j + 1) * 32 + lane];
        mma_float<true>(out.logits, a, low.x, low.y);
        mma_float<true>(out.logits + 4, a, low.z, low.w);
        mma_float<true>(out.logits + 8, a, high.x, high.y);
        mma_float<true>(out.logits + 12, a, high.z, high.w);
      }
    }
  } else {
    uint32_t operand[4][4];
#pragma unroll
    for (int s = 0; s < 2; ++s) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&x)[kSlots] = i & 1 ? x1 : x0;
        const float a = x[4 * s + (i & 2)], b = x[4 * s + (i & 2) + 1];
        operand[s][i] = pack_half(a, b);
        operand[s + 2][i] = pack_half(rest_of_half(a), rest_of_half(b));
      }
    }
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      uint32_t a[4];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        float h[4];
        hidden_units<__half>(w, operand, 2 * s + k, lane, out, h);
        store(2 * s + k, h);
        a[2 * k] = pack_half(h[0], h[1]);
        a[2 * k + 1] = pack_half(h[2], h[3]);
      }
      if (colour) {
        const uint4 low = w.w1[(2 * s) * 32 + lane], high = w.w1[(2 * s + 1) * 32 + lane];
        mma_half(out.logits, a, low.x, low.y);
        mma_half(out.logits + 4, a, low.z, low.w);
        mma_half(out.logits + 8, a, high.x, high.y);
        mma_half(out.logits + 12, a, high.z, high.w);
      }
    }
  }
  out.sigma0 = quad_sum(out.sigma0) + w.b1[0];
  out.sigma1 = quad_sum(out.sigma1) + w.b1[0];
}

}  // namespace head3d
