// Rays on tensor cores, backward: the samples are decoded again, front to back, and differentiated at once. Their depths are
// kept from the forward pass, so that its first pass, which finds them, need not be run again.
//
// L depends on weight_i through v_i = d L / d weight_i. With T the transmittance, d L / d alpha_i = T_i v_i -
// (sum_{k > i} weight_k v_k) / (1 - alpha_i). The sum behind i is the sum of all, which the results of the forward pass
// give, less what has been passed; so one pass from the front is enough. A tile holds 8 samples of each of two rays, one above the
// other in the picture where rays come as a square: they meet many of the same texels, whose gradients are then added once.
// Tiles overlap by one sample, as the interval behind a sample needs the next one too. Gradients of planes and weights are added with atomics: their order, and so the last
// bits, differ from run to run.
#include <algorithm>
#include <cmath>

#include "cuda/march_warp.cuh"
#include "cuda/tile_backward.cuh"

namespace head3d {
namespace {

#ifndef HEAD3D_BACKWARD_BLOCKS
#define HEAD3D_BACKWARD_BLOCKS 3
#endif
// Blocks that a multiprocessor of the H100 has shared memory for.
template <typename P>
constexpr int kBlocks = kExact<P> ? 2 : HEAD3D_BACKWARD_BLOCKS;

template <typename P>
struct BlockMemory {
  ForwardWeights<P> forward;
  BackwardWeights<P> backward;
  TileMemory<P> tiles[kBackwardWarps];
};

constexpr int kRows = kTile / 2;  // samples of each ray in a tile

// What the passage from the front carries from tile to tile, in every lane for the ray of that lane (lane & 8).
struct BackwardState {
  float transmittance = 1.f, sigma = 0.f, depth = 0.f;
  float share = 0.f, grad_sigma = 0.f;  // of the interval that ends at the next tile's first sample
  float passed = 0.f;                   // sum of weight_i v_i so far
  float dot = 0.f;                      // grad_features . colour of the last sample
};

// Gradients that come in along one ray.
struct RayGrads {
  float depth, grad_depth, grad_opacity, total;
};

__device__ __forceinline__ RayGrads load_grads(const RenderArgs<float>& args, const RenderGrads<float>& grads, int64_t index,
                                               int lane, float (&grad_features)[8]) {
  const int t = lane & 3;
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    const float2 two = *reinterpret_cast<const float2*>(grads.grad_features + index * kFeatures + 8 * q + 2 * t);
    grad_features[2 * q] = two.x;
    grad_features[2 * q + 1] = two.y;
  }
  // lane = feature
  const float grad = grads.grad_features[index * kFeatures + lane];
  float all = grad, dot = grad * (grads.features[index * kFeatures + lane] + 1.f);
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    all += __shfl_xor_sync(kAllLanes, all, step);
    dot += __shfl_xor_sync(kAllLanes, dot, step);
  }
  const float opacity = grads.opacity[index];
  RayGrads ray;
  ray.grad_opacity = grads.grad_opacity[index] - (args.white_back ? 2.f * all : 0.f);
  ray.depth = opacity > 0.f ? grads.depth[index] : 0.f;
  ray.grad_depth = opacity > 0.f ? grads.grad_depth[index] / opacity : 0.f;
  // sum_i weight_i v_i; the depth's part is 0, as depth is the weighted mean itself
  ray.total = dot - (args.white_back ? 2.f * (1.f - opacity) * all : 0.f) + ray.grad_opacity * opacity;
  return ray;
}

// Gradient of a sample's sigma, and the derivative of every feature by its colour.
struct SampleGrad {
  float sigma, share;
};

// The marcher's derivative over one tile. Lane r has sample r of its ray. The last row waits for the next tile unless it is the
// ray's last sample.
__device__ __forceinline__ SampleGrad march_backward(float sigma, float depth, float dot, const RayGrads& ray, bool last_tile,
                                                     BackwardState& state) {
  constexpr int W = kRows;
  const int r = threadIdx.x & (W - 1);
  const float sigma_before = from_before<W>(sigma, state.sigma), depth_before = from_before<W>(depth, state.depth);
  const float dot_before = from_before<W>(dot, state.dot);
  const Interval interval(sigma_before, sigma, depth_before, depth);
  const float floor_ = static_cast<float>(kTransmittanceFloor);
  const float product = running_product<W>(r == 0 ? 1.f : interval.through + floor_);
  const float transmittance = state.transmittance * from_before<W>(product, 1.f);
  float weight = r == 0 ? 0.f : interval.alpha * transmittance;
  const float v = dot + dot_before + ray.grad_depth * (0.5f * (depth + depth_before) - ray.depth) + ray.grad_opacity;
  const float passed = state.passed + running_sum<W>(r == 0 ? 0.f : weight * v);
  const float behind = ray.total - passed;
  // d alpha / d density = delta (1 - alpha); d density / d sigma = sigmoid(sigma - 1)
  const float grad_density =
      interval.delta * (interval.through * transmittance * v - behind * (interval.through / (interval.through + floor_)));
  float grad_sigma = grad_density / (1.f + expf(1.f - interval.mean_sigma));
  if (r == 0) {
    weight = state.share;
    grad_sigma = state.grad_sigma;
  }
  state.transmittance *= __shfl_sync(kAllLanes, product, W - 1, W);
  state.sigma = __shfl_sync(kAllLanes, sigma, W - 1, W);
  state.depth = __shfl_sync(kAllLanes, depth, W - 1, W);
  state.passed = __shfl_sync(kAllLanes, passed, W - 1, W);
  state.dot = __shfl_sync(kAllLanes, dot, W - 1, W);
  state.share = __shfl_sync(kAllLanes, weight, W - 1, W);
  state.grad_sigma = __shfl_sync(kAllLanes, grad_sigma, W - 1, W);
  const float next_weight = __shfl_down_sync(kAllLanes, weight, 1, W);
  const float next_grad = __shfl_down_sync(kAllLanes, grad_sigma, 1, W);
  if (r == W - 1) return {last_tile ? 0.5f * grad_sigma : 0.f, last_tile ? weight : 0.f};
  return {0.5f * (grad_sigma + next_grad), weight + next_weight};
}

// The two rays of a pair, as indices into [N, R]. With `side` the rays of an image are side x side pixels.
struct RayPair {
  int64_t index[2];
  bool there[2];
  __device__ __forceinline__ RayPair(int64_t pair, int64_t pairs, int64_t rays, int side) {
    const int64_t image = pair / pairs, p = pair - image * pairs;
    const int64_t first = side > 0 ? p + p / side * side : 2 * p, second = side > 0 ? first + side : first + 1;
    index[0] = image * rays + first;
    index[1] = image * rays + second;
    there[0] = true;
    there[1] = second < rays;
  }
};

// Adds a sample's part to the gradients of its ray.
template <int kPlanes, typename P>
__device__ __forceinline__ void add_ray_grads(const TileView<const P>& planes, const P* image, const float (&point)[3],
                                              float depth, const Projection<float>& projection, int t, const float (&grad)[kSlots],
                                              float (&grad_origin)[3], float (&grad_direction)[3]) {
  float by_point[3] = {};
  grad_point<kPlanes>(planes, image, point, projection, t, grad, by_point);
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    grad_origin[i] += by_point[i];
    grad_direction[i] = fmaf(depth, by_point[i], grad_direction[i]);
  }
}

// kRays: gradients of origins and directions too, which read the texels again.
template <int kPlanes, typename P, bool kRays>
__global__ __launch_bounds__(32 * kBackwardWarps, kBlocks<P>) void render_tiles_backward_kernel(
    TileView<const P> planes, TileView<float> grad_planes, RenderArgs<float> args, RenderGrads<float> grads, int side) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& memory = *reinterpret_cast<BlockMemory<P>*>(shared);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  TileMemory<P>& tile = memory.tiles[warp];
  load_decoder(memory.forward, args);
  load_backward(memory.backward, args);
  for (int i = lane; i < static_cast<int>(sizeof(TileMemory<P>) / 4); i += 32) reinterpret_cast<float*>(&tile)[i] = 0.f;
  __syncthreads();
  const int64_t pairs = (args.rays + 1) / 2, total = args.images * pairs;
  const int count = args.samples + args.fine_samples;
  float* depths = reinterpret_cast<float*>(shared + sizeof(memory)) + 2 * warp * count;  // the second ray's are `count` on
  const bool needs_weights = grads.w0 != nullptr;
  WeightSums sums;

  for (int64_t first = int64_t(blockIdx.x) * kBackwardWarps; first < total; first += int64_t(gridDim.x) * kBackwardWarps) {
    const RayPair pair(min(first + warp, total - 1), pairs, args.rays, side);
    const bool here = first + warp < total;
    RayInput ray[2];
    bool finite[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      ray[k] = load_ray(args, pair.index[pair.there[k] ? k : 0]);
      finite[k] = here && pair.there[k] && ray[k].finite;
    }
    bool done = !(finite[0] || finite[1]), cleared = false;
    RayGrads incoming{};
    float grad_features[2][8] = {};
    const P* image = planes.data + ray[0].image * planes.image;
    if (!done) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        if (!finite[k]) continue;
        const RayGrads mine = load_grads(args, grads, pair.index[k], lane, grad_features[k]);
        if ((lane & 8) == 8 * k) incoming = mine;
      }
      // A ray that is not there, or not finite, goes along as the other one with no gradient coming in.
      if (!finite[0]) ray[0] = ray[1];
      if (!finite[1]) ray[1] = ray[0];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const float* kept = grads.depths + pair.index[finite[k] ? k : 1 - k] * count;
        for (int i = lane; i < count; i += 32) depths[k * count + i] = kept[i];
      }
      __syncwarp();
    }
    BackwardState state;
    [[maybe_unused]] float grad_origin[2][3] = {}, grad_direction[2][3] = {};
    for (int start = 0; start < count - 1; start += kRows - 1) {
      if (!done) {
        const int row = min(start + g, count - 1);
        const float depth0 = depths[row], depth1 = depths[count + row];
        float x0[kSlots], x1[kSlots], point0[3], point1[3];
        point_at(ray[0], depth0, point0);
        gather<kPlanes>(planes, image, point0, args.projection, t, x0);
        point_at(ray[1], depth1, point1);
        gather<kPlanes>(planes, image, point1, args.projection, t, x1);
        if (needs_weights) store_inputs(tile, x0, x1, lane);
        Decoded decoded;
        decode(memory.forward, x0, x1, lane, true, decoded, [&](int j, const float(&h)[4]) {
          store_hidden(tile, j, h, lane);
        });
        float dot0 = 0.f, dot1 = 0.f;
        const float colour_scale = static_cast<float>(kColourScale), shift = static_cast<float>(kColourShift);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          const int place = (k >> 1) * 4 + (k & 1);
          decoded.logits[place] = tile_sigmoid(decoded.logits[place]);
          decoded.logits[place + 2] = tile_sigmoid(decoded.logits[place + 2]);
          dot0 = fmaf(grad_features[0][k], fmaf(colour_scale, decoded.logits[place], -shift), dot0);
          dot1 = fmaf(grad_features[1][k], fmaf(colour_scale, decoded.logits[place + 2], -shift), dot1);
        }
        dot0 = quad_sum(dot0);
        dot1 = quad_sum(dot1);
        const int my_row = min(start + (lane & 7), count - 1);
        const auto [grad_sigma, share] =
            march_backward(row_value(decoded.sigma0, decoded.sigma1, lane), depths[(lane & 8 ? count : 0) + my_row],
                           row_value(dot0, dot1, lane), incoming, start + kRows - 1 == count - 1, state);
        const float grad_sigma0 = __shfl_sync(kAllLanes, grad_sigma, g), grad_sigma1 = __shfl_sync(kAllLanes, grad_sigma, g + 8);
        const float share0 = __shfl_sync(kAllLanes, share, g) * colour_scale;
        const float share1 = __shfl_sync(kAllLanes, share, g + 8) * colour_scale;
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          const int place = (k >> 1) * 4 + (k & 1);
          const float s0 = decoded.logits[place], s1 = decoded.logits[place + 2];
          decoded.logits[place] = share0 * grad_features[0][k] * s0 * (1.f - s0);
          decoded.logits[place + 2] = share1 * grad_features[1][k] * s1 * (1.f - s1);
        }
        __syncwarp();
        float grad0[kSlots], grad1[kSlots];
        decode_backward(memory.forward, memory.backward, tile, decoded.logits, grad_sigma0, grad_sigma1, lane, grad0, grad1);
        point_at(ray[0], depth0, point0);
        point_at(ray[1], depth1, point1);
        // A row that waits for the next tile, or lies beyond the end of its ray, has nothing to add: one row in seven.
        if (grads.planes != nullptr && (share0 != 0.f || share1 != 0.f || grad_sigma0 != 0.f || grad_sigma1 != 0.f)) {
          scatter_pair<kPlanes>(grad_planes, grad_planes.data + ray[0].image * grad_planes.image, point0, point1,
                                args.projection, t, grad0, grad1);
        }
        if constexpr (kRays) {
          add_ray_grads<kPlanes>(planes, image, point0, depth0, args.projection, t, grad0, grad_origin[0], grad_direction[0]);
          add_ray_grads<kPlanes>(planes, image, point1, depth1, args.projection, t, grad1, grad_origin[1], grad_direction[1]);
        }
        // Behind an opaque surface: nothing. The last interval of this tile is still to be finished if it had weight.
        done = __all_sync(kAllLanes, state.transmittance < kOpaque<P> && state.share < kOpaque<P>);
      } else if (!cleared) {
        for (int i = lane; i < kTile * kHiddenStride; i += 32) tile.grad_hidden[i] = 0.f;
        for (int i = lane; i < kTile * kNarrowStride; i += 32) tile.grad_out[i] = 0.f;
        cleared = true;
      }
      if (needs_weights) {
        __syncthreads();
        sums.add<P>(memory.tiles, warp, lane);
        __syncthreads();
      }
    }
    if constexpr (kRays) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
#pragma unroll
        for (int i = 0; i < 3; ++i) {
          const float origin = column_sum(quad_sum(grad_origin[k][i])), direction = column_sum(quad_sum(grad_direction[k][i]));
          if (lane == i && here && pair.there[k]) {
            const float nan = __int_as_float(0x7fffffff);
            grads.origins[3 * pair.index[k] + i] = finite[k] ? origin : nan;
            grads.directions[3 * pair.index[k] + i] = finite[k] ? direction : nan;
          }
        }
      }
    }
    __syncwarp();
  }
  if (needs_weights) sums.flush<P>(grads.w0, grads.b0, grads.w1, grads.b1, warp, lane);
}

}  // namespace

template <typename P>
void launch_render_tiles_backward(const PlaneView<const P>& planes, const RenderArgs<float>& args,
                                  const RenderGrads<float>& grads, int device, cudaStream_t stream) {
  const size_t memory = sizeof(BlockMemory<P>) + 2 * sizeof(float) * kBackwardWarps * (args.samples + args.fine_samples);
  const bool rays = grads.origins != nullptr;
  const auto kernel = planes.planes == 4 ? (rays ? render_tiles_backward_kernel<4, P, true> : render_tiles_backward_kernel<4, P, false>)
                                         : (rays ? render_tiles_backward_kernel<3, P, true> : render_tiles_backward_kernel<3, P, false>);
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(memory)),
             "shared memory for render_rays_backward");
  int resident = 1;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, 32 * kBackwardWarps, memory),
             "occupancy of render_rays_backward");
  const int64_t groups = (args.images * ((args.rays + 1) / 2) + kBackwardWarps - 1) / kBackwardWarps;
  const int root = static_cast<int>(std::lround(std::sqrt(static_cast<double>(args.rays))));
  const int side = int64_t(root) * root == args.rays && root % 2 == 0 ? root : 0;
  const int64_t blocks = std::min<int64_t>(groups, int64_t(multiprocessors(device)) * std::max(resident, 1));
  const auto grad_view = channels_last_view(grads.planes, planes.planes, kChannels, planes.height, planes.width);
  kernel<<<static_cast<unsigned>(blocks), 32 * kBackwardWarps, memory, stream>>>(tile_view(planes), tile_view(grad_view), args,
                                                                                 grads, side);
  check_launch("render_rays_backward");
}

template void launch_render_tiles_backward(const PlaneView<const __half>&, const RenderArgs<float>&, const RenderGrads<float>&,
                                           int, cudaStream_t);
template void launch_render_tiles_backward(const PlaneView<const float>&, const RenderArgs<float>&, const RenderGrads<float>&,
                                           int, cudaStream_t);

}  // namespace head3d
