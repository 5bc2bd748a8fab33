// Rays on tensor cores, forward: one warp a ray, two passes over tiles of 16 samples, nothing per sample in memory.
#include <algorithm>

#include "cuda/march_warp.cuh"

namespace head3d {
namespace {

constexpr int kWarps = 4;
constexpr int kRaysPerWarp = 4;  // neighbours in turn, so that their texels are still in the L1 cache

#ifndef HEAD3D_FORWARD_BLOCKS
#define HEAD3D_FORWARD_BLOCKS 4
#endif

// Writes a ray's depths for the backward pass, if it wants them.
template <typename Depth>
__device__ __forceinline__ void keep_depths(const RenderOutput<float>& out, int64_t index, int count, int lane, Depth depth) {
  if (out.depths == nullptr) return;
  for (int i = lane; i < count; i += 32) out.depths[index * count + i] = depth(i);
}

template <int kPlanes, typename P>
__global__ __launch_bounds__(32 * kWarps, HEAD3D_FORWARD_BLOCKS) void render_tiles_kernel(TileView<const P> planes,
                                                                                          RenderArgs<float> args,
                                                                                          RenderOutput<float> out) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& weights = *reinterpret_cast<ForwardWeights<P>*>(shared);
  load_decoder(weights, args);
  __syncthreads();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int ray_floats = RaySamples::floats(args.samples, args.fine_samples);
  const RaySamples at(reinterpret_cast<float*>(shared + sizeof(weights)) + warp * ray_floats, args.samples,
                      args.fine_samples);
  Projection<float> projection = args.projection;
  if (kPlanes == 3) projection.scale = 2.f / args.box_warp;  // computed here it stays in a register, which spares 100 bytes of spills
  const int64_t total = args.images * args.rays;
  constexpr int kChunk = kWarps * kRaysPerWarp;

  for (int64_t chunk = blockIdx.x; chunk * kChunk < total; chunk += gridDim.x) {
    for (int turn = 0; turn < kRaysPerWarp; ++turn) {
      const int64_t index = chunk * kChunk + turn * kWarps + warp;
      if (index >= total) break;
      const RayInput ray = load_ray(args, index);
      float* features = out.features + index * kFeatures;
      if (!ray.finite) {
        const float nan = __int_as_float(0x7fffffff);
        features[lane] = nan;
        if (lane == 0) out.depth[index] = out.opacity[index] = nan;
        keep_depths(out, index, args.samples + args.fine_samples, lane, [&](int) { return nan; });
        continue;
      }
      const P* image = planes.data + ray.image * planes.image;
      place_coarse(args, ray, at, lane);

      float sum[8] = {}, last_colour[8] = {};  // features 8 q + 2 t, + 1 at places 2 q, 2 q + 1
      float depth_sum = 0.f, opacity = 0.f;    // of lane r: what the rows r gave
      for (int pass = args.fine_samples > 0 ? 0 : 1; pass < 2; ++pass) {
        const bool final_pass = pass == 1;
        const float* depths = final_pass && args.fine_samples > 0 ? at.all : at.coarse;
        const int count = final_pass ? args.samples + args.fine_samples : args.samples;
        if (final_pass && args.fine_samples > 0) place_fine(args, ray, at, lane);
        if (final_pass) keep_depths(out, index, count, lane, [&](int i) { return depths[i]; });
        MarchState state;
        int start = 0;
        for (; start < count; start += kTile) {
          float x0[kSlots], x1[kSlots], point[3];
          point_at(ray, depths[min(start + g, count - 1)], point);
          gather<kPlanes>(planes, image, point, projection, t, x0);
          point_at(ray, depths[min(start + g + 8, count - 1)], point);
          gather<kPlanes>(planes, image, point, projection, t, x1);
          Decoded decoded;
          decode(weights, x0, x1, lane, final_pass, decoded, [](int, const float(&)[4]) {});

          // Beyond the last sample lanes repeat it: intervals of length 0, weight 0.
          const int sample = start + (lane & 15);
          const auto [weight, middle] =
              march_tile(row_value(decoded.sigma0, decoded.sigma1, lane), depths[min(sample, count - 1)], state);
          if (final_pass) {
            // sum_i weight_i (c_i + c_{i+1}) / 2: a sample's colour counts with half the weight on either side of it.
            const float next = __shfl_down_sync(kAllLanes, weight, 1, 16);
            const float share = 0.5f * (weight + ((lane & 15) < 15 ? next : 0.f));
            const float share0 = __shfl_sync(kAllLanes, share, g), share1 = __shfl_sync(kAllLanes, share, g + 8);
            const float first_weight = __shfl_sync(kAllLanes, weight, 0);
            const float share_last = g == 7 ? 0.5f * first_weight : 0.f;
#pragma unroll
            for (int k = 0; k < 8; ++k) {
              const int place = (k >> 1) * 4 + (k & 1);
              const float scale_ = static_cast<float>(kColourScale), shift = static_cast<float>(kColourShift);
              const float colour0 = fmaf(scale_, tile_sigmoid(decoded.logits[place]), -shift);
              const float colour1 = fmaf(scale_, tile_sigmoid(decoded.logits[place + 2]), -shift);
              sum[k] += share0 * colour0 + share1 * colour1 + share_last * last_colour[k];
              last_colour[k] = colour1;  // in the lanes of row 15, the tile's last sample
            }
            depth_sum += weight * middle;
            opacity += weight;
          } else if (lane < 16 && sample > 0 && sample < count) {
            at.weights[sample - 1] = weight;
          }
          if (state.transmittance < kOpaque<P>) {
            start += kTile;
            break;
          }
        }
        if (!final_pass) {  // behind an opaque surface: nothing
          for (int i = start + lane; i < count; i += 32) at.weights[i - 1] = 0.f;
          __syncwarp();
        }
      }

#pragma unroll
      for (int step = 1; step < 16; step *= 2) {
        depth_sum += __shfl_xor_sync(kAllLanes, depth_sum, step);
        opacity += __shfl_xor_sync(kAllLanes, opacity, step);
      }
      const float background = args.white_back ? 1.f - opacity : 0.f;
#pragma unroll
      for (int k = 0; k < 8; ++k) sum[k] = 2.f * (column_sum(sum[k]) + background) - 1.f;
      if (g == 0) {
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          *reinterpret_cast<float2*>(features + 8 * q + 2 * t) = make_float2(sum[2 * q], sum[2 * q + 1]);
        }
      }
      if (lane == 0) {
        const float infinity = __int_as_float(0x7f800000);
        out.opacity[index] = opacity;
        out.depth[index] = opacity == 0.f ? infinity : depth_sum / opacity;
      }
      __syncwarp();
    }
  }
}

}  // namespace

template <typename P>
void launch_render_tiles(const PlaneView<const P>& planes, const RenderArgs<float>& args, const RenderOutput<float>& out,
                         int device, cudaStream_t stream) {
  const size_t memory =
      sizeof(ForwardWeights<P>) + sizeof(float) * kWarps * RaySamples::floats(args.samples, args.fine_samples);
  const auto kernel = planes.planes == 4 ? render_tiles_kernel<4, P> : render_tiles_kernel<3, P>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(memory)),
             "shared memory for render_rays");
  int resident = 1;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, 32 * kWarps, memory), "occupancy of render_rays");
  const int64_t chunks = (args.images * args.rays + kWarps * kRaysPerWarp - 1) / (kWarps * kRaysPerWarp);
  const int64_t blocks = std::min<int64_t>(chunks, int64_t(multiprocessors(device)) * std::max(resident, 1));
  kernel<<<static_cast<unsigned>(blocks), 32 * kWarps, memory, stream>>>(tile_view(planes), args, out);
  check_launch("render_rays");
}

template void launch_render_tiles(const PlaneView<const __half>&, const RenderArgs<float>&, const RenderOutput<float>&, int,
                                  cudaStream_t);
template void launch_render_tiles(const PlaneView<const float>&, const RenderArgs<float>&, const RenderOutput<float>&, int,
                                  cudaStream_t);

}  // namespace head3d
