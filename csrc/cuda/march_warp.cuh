// One warp marches one ray: 16 samples at a time, a sample a lane (lanes 16-31 repeat lanes 0-15).
// The equations are volume.py's; the scans over samples are shuffles.
#pragma once

#include "common/random.h"
#include "cuda/tile.cuh"

namespace head3d {

struct RayInput {
  float origin[3], direction[3], near, far;
  int64_t image;
  uint32_t row;  // index of the ray in its image
  bool finite;
};

__device__ __forceinline__ RayInput load_ray(const RenderArgs<float>& args, int64_t index) {
  RayInput ray;
  ray.image = index / args.rays;
  ray.row = static_cast<uint32_t>(index - ray.image * args.rays);
  ray.near = args.near[index];
  ray.far = args.far[index];
  float zero = ray.near * 0.f + ray.far * 0.f;  // NaN if anything is not finite
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    ray.origin[i] = args.origins[3 * index + i];
    ray.direction[i] = args.directions[3 * index + i];
    zero += ray.origin[i] * 0.f + ray.direction[i] * 0.f;
  }
  ray.finite = zero == 0.f;
  return ray;
}

__device__ __forceinline__ void point_at(const RayInput& ray, float depth, float (&point)[3]) {
#pragma unroll
  for (int i = 0; i < 3; ++i) point[i] = fmaf(depth, ray.direction[i], ray.origin[i]);
}

// One interval: from the sigmas and depths at its ends.
struct Interval {
  float delta, mean_sigma, through, alpha;
  __device__ __forceinline__ Interval(float sigma_a, float sigma_b, float depth_a, float depth_b)
      : delta(depth_b - depth_a), mean_sigma(0.5f * (sigma_a + sigma_b)) {
    const float optical = softplus(mean_sigma - 1.f) * delta;
    alpha = -expm1f(-optical);
    through = 1.f - alpha;
  }
};

// Carried from tile to tile along the ray.
struct MarchState {
  float transmittance = 1.f, sigma = 0.f, depth = 0.f;
  bool first = true;
};

// Value of the lane before, in groups of kWidth lanes; the first lane of a group gets `before`.
template <int kWidth>
__device__ __forceinline__ float from_before(float value, float before) {
  const float other = __shfl_up_sync(kAllLanes, value, 1, kWidth);
  return (threadIdx.x & (kWidth - 1)) == 0 ? before : other;
}

template <int kWidth>
__device__ __forceinline__ float running_product(float value) {
#pragma unroll
  for (int step = 1; step < kWidth; step *= 2) {
    const float other = __shfl_up_sync(kAllLanes, value, step, kWidth);
    if ((threadIdx.x & (kWidth - 1)) >= step) value *= other;
  }
  return value;
}

template <int kWidth>
__device__ __forceinline__ float running_sum(float value) {
#pragma unroll
  for (int step = 1; step < kWidth; step *= 2) {
    const float other = __shfl_up_sync(kAllLanes, value, step, kWidth);
    if ((threadIdx.x & (kWidth - 1)) >= step) value += other;
  }
  return value;
}

// Lane r's value for sample r of the tile, from lanes (g, t) that hold rows g and g + 8.
__device__ __forceinline__ float row_value(float low, float high, int lane) {
  const float a = __shfl_sync(kAllLanes, low, (lane & 7) * 4), b = __shfl_sync(kAllLanes, high, (lane & 7) * 4);
  return lane & 8 ? b : a;
}

// The interval that ends at sample r: its weight (0 for the ray's first sample) and its mid-point.
struct Marched {
  float weight, middle;
};

__device__ __forceinline__ Marched march_tile(float sigma, float depth, MarchState& state) {
  const float sigma_before = from_before<16>(sigma, state.sigma), depth_before = from_before<16>(depth, state.depth);
  const Interval interval(sigma_before, sigma, depth_before, depth);
  const bool none = state.first && (threadIdx.x & 15) == 0;
  const float product = running_product<16>(none ? 1.f : interval.through + static_cast<float>(kTransmittanceFloor));
  const float transmittance = state.transmittance * from_before<16>(product, 1.f);
  const float middle = 0.5f * (depth + depth_before);
  state.transmittance *= __shfl_sync(kAllLanes, product, 15);
  state.sigma = __shfl_sync(kAllLanes, sigma, 15);
  state.depth = __shfl_sync(kAllLanes, depth, 15);
  state.first = false;
  return {none ? 0.f : interval.alpha * transmittance, middle};
}

// Shared memory of one ray. Lists that are not needed at the same time share their place.
struct RaySamples {
  float* coarse;   // [samples] stratified depths
  float* weights;  // [samples] first-pass weights (samples - 1 used)
  float* fine;     // [fine_samples] importance depths as drawn; over the weights
  float* cdf;      // [samples] cumulative distribution (samples - 2 used)
  float* ordered;  // [fine_samples] importance depths in order; over cdf
  float* all;      // [samples + fine_samples] both kinds, in order
  __host__ __device__ static int floats(int samples, int fine) {
    return 2 * samples + fine + 2 * (samples > fine ? samples : fine);
  }
  __device__ RaySamples(float* memory, int samples, int fine_count)
      : coarse(memory),
        weights(memory + samples),
        fine(weights),
        cdf(weights + max(samples, fine_count)),
        ordered(cdf),
        all(cdf + max(samples, fine_count)) {}
};

// Puts `from` in order into `to` by counting smaller ones; a list in order already is only copied.
__device__ __forceinline__ void sort_depths(const float* from, float* to, int count, int lane) {
  bool ordered = true;
  for (int i = lane + 1; i < count; i += 32) ordered &= !(from[i] < from[i - 1]);
  ordered = __all_sync(kAllLanes, ordered);
  for (int i = lane; i < count; i += 32) {
    const float value = from[i];
    int place = i;
    if (!ordered) {
      place = 0;
      for (int k = 0; k < count; ++k) place += from[k] < value || (from[k] == value && k < i);
    }
    to[place] = value;
  }
  __syncwarp();
}

// Number of entries of an ascending list that are less than `value` (or equal, if `or_equal`).
__device__ __forceinline__ int count_below(const float* list, int count, float value, bool or_equal) {
  int low = 0;
  while (low < count) {
    const int middle = (low + count) >> 1;
    if (or_equal ? list[middle] <= value : list[middle] < value) {
      low = middle + 1;
    } else {
      count = middle;
    }
  }
  return low;
}

// Stratified depths: volume.stratified_depths.
__device__ __forceinline__ void place_coarse(const RenderArgs<float>& args, const RayInput& ray, const RaySamples& at,
                                             int lane) {
  const bool random = args.seeds != nullptr;
  const uint32_t key = random ? row_key(seed_key(args.seeds[ray.image]), ray.row, kStreamDepth) : 0u;
  for (int i = lane; i < args.samples; i += 32) {
    const float fraction = (i + (random ? uniform(key, i) : 0.5f)) / (args.samples - 1);
    at.cdf[i] = depth_at(ray.near, ray.far, fraction, args.disparity);
  }
  __syncwarp();
  sort_depths(at.cdf, at.coarse, args.samples, lane);  // rounding can put equal ones out of order
}

// Importance samples from at.weights, merged with the stratified ones into at.all: volume.importance_depths.
__device__ __forceinline__ void place_fine(const RenderArgs<float>& args, const RayInput& ray, const RaySamples& at, int lane) {
  const int samples = args.samples, fine = args.fine_samples, bins = samples - 3;
  const float* w = at.weights;
  float sum = 0.f;
  if (lane == 0) at.cdf[0] = 0.f;
  for (int start = 0; start < bins; start += 32) {
    const int i = start + lane;
    float value = 0.f;
    if (i < bins) value = (fmaxf(w[i], w[i + 1]) + fmaxf(w[i + 1], w[i + 2])) * 0.5f + (0.01f + 1e-5f);
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const float other = __shfl_up_sync(kAllLanes, value, step);
      if (lane >= step) value += other;
    }
    if (i < bins) at.cdf[i + 1] = sum + value;
    sum += __shfl_sync(kAllLanes, value, 31);
  }
  __syncwarp();
  for (int i = lane + 1; i <= bins; i += 32) at.cdf[i] /= sum;
  __syncwarp();
  const bool random = args.seeds != nullptr;
  const uint32_t key = random ? row_key(seed_key(args.seeds[ray.image]), ray.row, kStreamImportance) : 0u;
  for (int j = lane; j < fine; j += 32) {
    const float u = random ? uniform(key, j) : (j + 0.5f) / fine;
    int start = count_below(at.cdf, bins + 1, u, true);
    at.fine[j] = invert_cdf(at.cdf, at.coarse, samples, u, start);
  }
  for (int i = lane; i < samples + fine; i += 32) at.all[i] = __int_as_float(0x7fffffff);  // NaN stays where NaN comes in
  __syncwarp();
  sort_depths(at.fine, at.ordered, fine, lane);
  for (int i = lane; i < samples; i += 32) {
    at.all[i + count_below(at.ordered, fine, at.coarse[i], false)] = at.coarse[i];
  }
  for (int j = lane; j < fine; j += 32) {
    at.all[j + count_below(at.coarse, samples, at.ordered[j], true)] = at.ordered[j];
  }
  __syncwarp();
}

// What is behind transmittance below this is left out: it could change a feature by twice as much at most.
template <typename P>
constexpr float kOpaque = kExact<P> ? 1e-8f : 1e-5f;

}  // namespace head3d
