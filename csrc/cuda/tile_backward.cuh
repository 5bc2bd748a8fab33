// The decoder's backward pass over a tile, and the sum of the weights' gradients over the tiles of a block.
//
// Gradients of the hidden units and of the features follow the forward pass's trick: the result of one product is, lane by
// lane, the left operand of the next. The weights' gradients sum over samples, which lie across lanes; so each warp leaves
// its tile in shared memory and takes over the 16 hidden units that are its own, for the samples of all four warps.
// Factors are TF32 numbers (mixed) or pairs of them (strict); small gradients are safe, as TF32 has float's range.
#pragma once

#include <type_traits>

#include "cuda/tile.cuh"

namespace head3d {

constexpr int kBackwardWarps = 4;  // kHidden / 16: each owns 16 hidden units of the weights' gradients

// Strides of 8 modulo 32 words: the four samples t and eight units g of an operand then fall into 32 different banks.
constexpr int kHiddenStride = kHidden + 8, kNarrowStride = kFeatures + 8;
static_assert(kChannels == kFeatures, "features and inputs of a tile share one stride");

// What is kept of the forward pass: in mixed precision in half, which has TF32's precision and, for these, range enough.
// That leaves room for three blocks on a multiprocessor instead of two.
template <typename P>
using Kept = std::conditional_t<kExact<P>, float, __half>;

template <typename P>
struct alignas(16) TileMemory {
  float grad_hidden[kTile * kHiddenStride];  // [sample][unit], before the softplus
  float grad_out[kTile * kNarrowStride];     // [sample][feature], then sigma, then seven zeros
  Kept<P> hidden[kTile * kHiddenStride];     // [sample][unit]
  Kept<P> inputs[kTile * kNarrowStride];     // [sample][8 t + slot]
};

// Right operands of the two products of decode_backward, eight numbers a lane.
//   w1: for j and q, features 8 q + 2 t, + 1 to hidden unit 8 j + g
//   w0: for j and q, hidden units 8 j + 2 t, + 1 to the gradient's channel of column g
template <typename P>
struct alignas(16) BackwardWeights {
  Kept<P> w1[8 * 32 * 8], w0[8 * 32 * 8];

  // Place of number `i` (q = i / 2) of a lane: 16 bytes of neighbouring lanes lie together.
  __device__ static int place(int j, int lane, int i) {
    return kExact<P> ? ((2 * j + (i >> 2)) * 32 + lane) * 4 + (i & 3) : (j * 32 + lane) * 8 + i;
  }
};

__device__ __forceinline__ void read_operand(const float* from, int j, int lane, float (&out)[8]) {
  const float4 low = reinterpret_cast<const float4*>(from)[(2 * j) * 32 + lane];
  const float4 high = reinterpret_cast<const float4*>(from)[(2 * j + 1) * 32 + lane];
  out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
  out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
}

__device__ __forceinline__ void read_operand(const __half* from, int j, int lane, float (&out)[8]) {
  const uint4 bits = reinterpret_cast<const uint4*>(from)[j * 32 + lane];
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
    out[2 * i] = pair.x;
    out[2 * i + 1] = pair.y;
  }
}

template <typename P>
__device__ __forceinline__ void load_backward(BackwardWeights<P>& w, const RenderArgs<float>& args) {
  for (int n = threadIdx.x; n < 8 * 32 * 8; n += blockDim.x) {
    const int i = n & 7, lane = (n >> 3) & 31, j = n >> 8, g = lane >> 2, t = lane & 3, q = i >> 1, odd = i & 1;
    const int place = BackwardWeights<P>::place(j, lane, i);
    w.w1[place] = static_cast<Kept<P>>(args.w1[(1 + 8 * q + 2 * t + odd) * kHidden + 8 * j + g]);
    w.w0[place] = static_cast<Kept<P>>(args.w0[(8 * j + 2 * t + odd) * kChannels + grad_channel_of(g >> 1, 2 * q + (g & 1))]);
  }
}

// As it is stored for the weights' gradients: in mixed precision rounded once here rather than at every read.
template <typename P>
__device__ __forceinline__ float stored(float x) {
  return kExact<P> ? x : to_tf32(x);
}

__device__ __forceinline__ void write_two(float* to, float a, float b) { *reinterpret_cast<float2*>(to) = make_float2(a, b); }
__device__ __forceinline__ void write_two(__half* to, float a, float b) {
  *reinterpret_cast<__half2*>(to) = __floats2half2_rn(a, b);
}
__device__ __forceinline__ float2 read_two(const float* from) { return *reinterpret_cast<const float2*>(from); }
__device__ __forceinline__ float2 read_two(const __half* from) {
  return __half22float2(*reinterpret_cast<const __half2*>(from));
}

template <typename P>
__device__ __forceinline__ void store_inputs(TileMemory<P>& tile, const float (&x0)[kSlots], const float (&x1)[kSlots],
                                             int lane) {
  Kept<P>* row0 = tile.inputs + (lane >> 2) * kNarrowStride + 8 * (lane & 3);
#pragma unroll
  for (int i = 0; i < kSlots; i += 2) {
    write_two(row0 + i, x0[i], x0[i + 1]);
    write_two(row0 + 8 * kNarrowStride + i, x1[i], x1[i + 1]);
  }
}

// Hidden units 8 j + 2 t, + 1 of rows g and g + 8.
template <typename P>
__device__ __forceinline__ void store_hidden(TileMemory<P>& tile, int j, const float (&h)[4], int lane) {
  Kept<P>* row0 = tile.hidden + (lane >> 2) * kHiddenStride + 8 * j + 2 * (lane & 3);
  write_two(row0, h[0], h[1]);
  write_two(row0 + 8 * kHiddenStride, h[2], h[3]);
}

// Two columns of rows g and g + 8, as a result of mma leaves them.
template <typename P>
__device__ __forceinline__ void store_pair(float* tile, int stride, int column, const float* v, int lane) {
  float* row0 = tile + (lane >> 2) * stride + column + 2 * (lane & 3);
  write_two(row0, stored<P>(v[0]), stored<P>(v[1]));
  write_two(row0 + 8 * stride, stored<P>(v[2]), stored<P>(v[3]));
}

// Gradient of the tile's features from those of its logits and sigmas; fills tile.grad_out and tile.grad_hidden.
// `tile.hidden` holds the hidden units. grad0, grad1: rows g and g + 8, the lane's 8 channels.
template <typename P>
__device__ __forceinline__ void decode_backward(const ForwardWeights<P>& forward, const BackwardWeights<P>& w, TileMemory<P>& tile,
                                                const float (&grad_logits)[16], float grad_sigma0, float grad_sigma1, int lane,
                                                float (&grad0)[kSlots], float (&grad1)[kSlots]) {
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int q = 0; q < 4; ++q) store_pair<P>(tile.grad_out, kNarrowStride, 8 * q, grad_logits + 4 * q, lane);
  if (t == 0) {
    tile.grad_out[g * kNarrowStride + kFeatures] = stored<P>(grad_sigma0);
    tile.grad_out[(g + 8) * kNarrowStride + kFeatures] = stored<P>(grad_sigma1);
  }
  using Left = LeftOperand<kExact<P>>;
  const Left logits[4] = {{grad_logits[0], grad_logits[2], grad_logits[1], grad_logits[3]},
                          {grad_logits[4], grad_logits[6], grad_logits[5], grad_logits[7]},
                          {grad_logits[8], grad_logits[10], grad_logits[9], grad_logits[11]},
                          {grad_logits[12], grad_logits[14], grad_logits[13], grad_logits[15]}};
  float features[16] = {};
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float2 to_sigma = *reinterpret_cast<const float2*>(&forward.sigma[8 * j + 2 * t]);
    float unit[4] = {grad_sigma0 * to_sigma.x, grad_sigma0 * to_sigma.y, grad_sigma1 * to_sigma.x, grad_sigma1 * to_sigma.y};
    float right[8];
    read_operand(w.w1, j, lane, right);
#pragma unroll
    for (int q = 0; q < 4; ++q) mma_float<kExact<P>>(unit, logits[q], right[2 * q], right[2 * q + 1]);
    const Kept<P>* row0 = tile.hidden + g * kHiddenStride + 8 * j + 2 * t;
    const float2 h0 = read_two(row0), h1 = read_two(row0 + 8 * kHiddenStride);
    // softplus' = sigmoid = 1 - e^-softplus
    unit[0] *= 1.f - fast_exp2(-kLog2e * h0.x);
    unit[1] *= 1.f - fast_exp2(-kLog2e * h0.y);
    unit[2] *= 1.f - fast_exp2(-kLog2e * h1.x);
    unit[3] *= 1.f - fast_exp2(-kLog2e * h1.y);
    store_pair<P>(tile.grad_hidden, kHiddenStride, 8 * j, unit, lane);
    const Left units(unit[0], unit[2], unit[1], unit[3]);
    read_operand(w.w0, j, lane, right);
#pragma unroll
    for (int q = 0; q < 4; ++q) mma_float<kExact<P>>(features + 4 * q, units, right[2 * q], right[2 * q + 1]);
  }
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    grad0[2 * q] = features[4 * q];
    grad0[2 * q + 1] = features[4 * q + 1];
    grad1[2 * q] = features[4 * q + 2];
    grad1[2 * q + 1] = features[4 * q + 3];
  }
}

// Running sums of the weights' gradients, spread over the block: warp w has hidden units 16 w .. 16 w + 15.
struct WeightSums {
  float w1[5][4] = {};  // units 16 w + g, + 8 against outputs 8 q + 2 t, + 1 (q = 4: sigma)
  float w0[4][4] = {};  // the same units against inputs 8 q + 2 t, + 1
  float b0[2] = {};     // units 16 w + g, + 8, the samples of this t only
  float b1[5] = {};     // outputs 8 q + g, the samples of this t only; warp 0 counts them

  // Adds the tiles of all warps. The block must have met before, and must meet again before a tile is overwritten.
  template <typename P>
  __device__ __forceinline__ void add(const TileMemory<P>* tiles, int warp, int lane) {
    const int g = lane >> 2, t = lane & 3, unit = 16 * warp + g;
#pragma unroll 1
    for (int step = 0; step < 2 * kBackwardWarps; ++step) {
      const TileMemory<P>& tile = tiles[step >> 1];
      const int row = 8 * (step & 1) + t;
      const Kept<P>* h = tile.hidden + row * kHiddenStride + unit;
      const float* gh = tile.grad_hidden + row * kHiddenStride + unit;
      const LeftOperand<kExact<P>> hidden(static_cast<float>(h[0]), static_cast<float>(h[8]),
                                          static_cast<float>(h[4 * kHiddenStride]), static_cast<float>(h[4 * kHiddenStride + 8]));
      const float a[4] = {gh[0], gh[8], gh[4 * kHiddenStride], gh[4 * kHiddenStride + 8]};
      const LeftOperand<kExact<P>> grad_hidden(a[0], a[1], a[2], a[3]);
      b0[0] += a[0] + a[2];
      b0[1] += a[1] + a[3];
      const float* out = tile.grad_out + row * kNarrowStride + g;
      const Kept<P>* in = tile.inputs + row * kNarrowStride + g;
#pragma unroll
      for (int q = 0; q < 5; ++q) {
        const float low = out[8 * q], high = out[8 * q + 4 * kNarrowStride];
        mma_float<kExact<P>>(w1[q], hidden, low, high);
        if (warp == 0) b1[q] += low + high;
      }
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        mma_float<kExact<P>>(w0[q], grad_hidden, static_cast<float>(in[8 * q]), static_cast<float>(in[8 * q + 4 * kNarrowStride]));
      }
    }
  }

  // Adds the block's sums to the gradients.
  template <typename P>
  __device__ __forceinline__ void flush(float* grad_w0, float* grad_b0, float* grad_w1, float* grad_b1, int warp, int lane) {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int unit = 16 * warp + g + 8 * (i >> 1), odd = i & 1;
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        atomicAdd(grad_w1 + (1 + 8 * q + 2 * t + odd) * kHidden + unit, w1[q][i]);
        atomicAdd(grad_w0 + unit * kChannels + channel_of<P>(q, 2 * t + odd), w0[q][i]);
      }
      if (t == 0 && odd == 0) atomicAdd(grad_w1 + unit, w1[4][i]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float sum = quad_sum(b0[i]);
      if (t == 0) atomicAdd(grad_b0 + 16 * warp + g + 8 * i, sum);
    }
#pragma unroll
    for (int q = 0; q < 5; ++q) {
      const float sum = quad_sum(b1[q]);
      if (warp != 0 || t != 0) continue;
      if (q < 4) {
        atomicAdd(grad_b1 + 1 + 8 * q + g, sum);
      } else if (g == 0) {
        atomicAdd(grad_b1, sum);
      }
    }
  }
};

}  // namespace head3d
