// Rays of any decoder size, in float or double: one thread a ray. Slow and simple: for small presets, odd sizes, gradcheck.
#include "common/random.h"
#include "cuda/simple.cuh"

namespace head3d {
namespace {

constexpr int kThreads = 64;

// Memory of the ray that a thread is at; lists are `stride` apart so that neighbouring threads touch neighbouring words.
template <typename T>
struct RayLists {
  T* coarse;   // [samples] stratified depths
  T* weights;  // [samples]
  T* cdf;      // [samples]
  T* depths;   // [samples + fine], in order
  T* sigma;    // [samples + fine]
  T* dot;      // [samples + fine] grad_features . colour; backward only
  __device__ RayLists(T* memory, int samples, int fine)
      : coarse(memory),
        weights(memory + samples),
        cdf(memory + 2 * samples),
        depths(memory + 3 * samples),
        sigma(memory + 4 * samples + fine),
        dot(memory + 5 * samples + 2 * fine) {}
};

template <typename T>
struct SimpleRay {
  T origin[3], direction[3];
  bool finite;
  __device__ SimpleRay(const RenderArgs<T>& args, int64_t index) {
    T zero = args.near[index] * T(0) + args.far[index] * T(0);  // NaN if anything is not finite
    for (int i = 0; i < 3; ++i) {
      origin[i] = args.origins[3 * index + i];
      direction[i] = args.directions[3 * index + i];
      zero += origin[i] * T(0) + direction[i] * T(0);
    }
    finite = zero == T(0);
  }
  __device__ void at(T depth, T* point) const {
    for (int i = 0; i < 3; ++i) point[i] = origin[i] + depth * direction[i];
  }
};

template <typename T>
__device__ DecoderArgs<T> decoder_of(const PlaneView<const T>& planes, const RenderArgs<T>& args) {
  return {args.w0, args.b0, args.w1, args.b1, planes.channels, args.hidden, args.features};
}

// Depths of all samples, in order, into lists.depths.
template <int kPlanes, typename T>
__device__ void find_depths(const PlaneView<const T>& planes, const RenderArgs<T>& args, const SimpleRay<T>& ray, int64_t index,
                            const RayLists<T>& lists) {
  const int64_t image = index / args.rays;
  const uint32_t row = static_cast<uint32_t>(index - image * args.rays);
  const bool random = args.seeds != nullptr;
  const uint32_t seed = random ? seed_key(args.seeds[image]) : 0u;
  const uint32_t depth_key = row_key(seed, row, kStreamDepth), fine_key = row_key(seed, row, kStreamImportance);
  const int samples = args.samples, fine = args.fine_samples;
  T x[kSimpleChannels], point[3];
  for (int i = 0; i < samples; ++i) {
    const T offset = random ? T(uniform(depth_key, i)) : T(0.5);
    lists.coarse[i] = depth_at(args.near[index], args.far[index], (T(i) + offset) / T(samples - 1), args.disparity);
    lists.depths[i] = lists.coarse[i];
  }
  if (fine == 0) return;
  T before = 0, transmittance = 1;
  for (int i = 0; i < samples; ++i) {
    ray.at(lists.coarse[i], point);
    read_point<kPlanes>(planes, planes.data + image * planes.image, point, args.projection, x);
    const T sigma = decode_point(decoder_of(planes, args), x, static_cast<T*>(nullptr));
    if (i > 0) {
      const T alpha = alpha_of((before + sigma) / T(2), lists.coarse[i] - lists.coarse[i - 1]);
      lists.weights[i - 1] = alpha * transmittance;
      transmittance = light_behind(transmittance, alpha);
    }
    before = sigma;
  }
  make_cdf(lists.weights, samples, lists.cdf);
  for (int j = 0; j < fine; ++j) {
    const T u = random ? T(uniform(fine_key, j)) : (T(j) + T(0.5)) / T(fine);
    int start = 0, place = samples + j;
    const T depth = invert_cdf(lists.cdf, lists.coarse, samples, u, start);
    for (; place > 0 && lists.depths[place - 1] > depth; --place) lists.depths[place] = lists.depths[place - 1];
    lists.depths[place] = depth;
  }
}

template <int kPlanes, typename T>
__global__ void render_simple_kernel(PlaneView<const T> planes, RenderArgs<T> args, RenderOutput<T> out, T* scratch,
                                    int64_t per_ray) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, threads = int64_t(gridDim.x) * blockDim.x;
  const RayLists<T> lists(scratch + thread * per_ray, args.samples, args.fine_samples);
  const int count = args.samples + args.fine_samples, features = args.features;
  T x[kSimpleChannels], colour[kSimpleChannels], last[kSimpleChannels], point[3];
  for (int64_t index = thread; index < args.images * args.rays; index += threads) {
    const SimpleRay<T> ray(args, index);
    T* sum = out.features + index * features;
    if (!ray.finite) {
      for (int f = 0; f < features; ++f) sum[f] = T(NAN);
      out.depth[index] = out.opacity[index] = T(NAN);
      for (int i = 0; out.depths != nullptr && i < count; ++i) out.depths[index * count + i] = T(NAN);
      continue;
    }
    find_depths<kPlanes>(planes, args, ray, index, lists);
    for (int i = 0; out.depths != nullptr && i < count; ++i) out.depths[index * count + i] = lists.depths[i];
    const T* image = planes.data + (index / args.rays) * planes.image;
    T before = 0, transmittance = 1, opacity = 0, depth = 0;
    for (int f = 0; f < features; ++f) sum[f] = T(0);
    for (int i = 0; i < count; ++i) {
      ray.at(lists.depths[i], point);
      read_point<kPlanes>(planes, image, point, args.projection, x);
      const T sigma = decode_point(decoder_of(planes, args), x, colour);
      if (i > 0) {
        const T alpha = alpha_of((before + sigma) / T(2), lists.depths[i] - lists.depths[i - 1]);
        const T weight = alpha * transmittance;
        transmittance = light_behind(transmittance, alpha);
        for (int f = 0; f < features; ++f) sum[f] += weight * (colour[f] + last[f]);  // 2 weight (c + c') / 2
        opacity += weight;
        depth += weight * (lists.depths[i] + lists.depths[i - 1]) / T(2);
      }
      before = sigma;
      for (int f = 0; f < features; ++f) last[f] = colour[f];
    }
    for (int f = 0; f < features; ++f) sum[f] += (args.white_back ? T(2) * (T(1) - opacity) : T(0)) - T(1);
    out.opacity[index] = opacity;
    out.depth[index] = opacity == T(0) ? T(INFINITY) : depth / opacity;
  }
}

template <int kPlanes, typename T>
__global__ void render_simple_backward_kernel(PlaneView<const T> planes, PlaneView<T> grad_planes, RenderArgs<T> args,
                                             RenderGrads<T> grads, T* scratch, int64_t per_ray) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, threads = int64_t(gridDim.x) * blockDim.x;
  const RayLists<T> lists(scratch + thread * per_ray, args.samples, args.fine_samples);
  const int count = args.samples + args.fine_samples, features = args.features;
  const DecoderArgs<T> decoder = decoder_of(planes, args);
  T x[kSimpleChannels], colour[kSimpleChannels], grad_x[kSimpleChannels], point[3], by_point[3];
  for (int64_t index = thread; index < args.images * args.rays; index += threads) {
    const SimpleRay<T> ray(args, index);
    T grad_origin[3] = {}, grad_direction[3] = {};
    if (ray.finite) {
      const T* depths = grads.depths + index * count;
      const int64_t n = index / args.rays;
      const T* image = planes.data + n * planes.image;
      T* grad_image = grads.planes == nullptr ? nullptr : grad_planes.data + n * grad_planes.image;
      const T* grad_features = grads.grad_features + index * features;
      T all = 0;
      for (int f = 0; f < features; ++f) all += grad_features[f];
      const T opacity = grads.opacity[index];
      const T grad_opacity = grads.grad_opacity[index] - (args.white_back ? T(2) * all : T(0));
      const T grad_depth = opacity > T(0) ? grads.grad_depth[index] / opacity : T(0);
      const T depth = opacity > T(0) ? grads.depth[index] : T(0);
      for (int i = 0; i < count; ++i) {
        ray.at(depths[i], point);
        read_point<kPlanes>(planes, image, point, args.projection, x);
        lists.sigma[i] = decode_point(decoder, x, colour);
        T dot = 0;
        for (int f = 0; f < features; ++f) dot += grad_features[f] * colour[f];
        lists.dot[i] = dot;
      }
      T total = 0, transmittance = 1;  // sum_i weight_i v_i, v_i = d L / d weight_i
      for (int pass = 0; pass < 2; ++pass) {
        T behind = total, weight_before = 0, grad_before = 0;
        transmittance = 1;
        for (int i = 0; i < count; ++i) {  // sample i and the interval behind it
          T weight = 0, grad_mean = 0;
          if (i + 1 < count) {
            const T delta = depths[i + 1] - depths[i];
            const T mean = (lists.sigma[i] + lists.sigma[i + 1]) / T(2);
            const T alpha = alpha_of(mean, delta);
            weight = alpha * transmittance;
            const T v = lists.dot[i] + lists.dot[i + 1] + grad_opacity +
                        grad_depth * ((depths[i] + depths[i + 1]) / T(2) - depth);
            if (pass == 0) total += weight * v;
            behind -= weight * v;
            const T through = T(1) - alpha + T(kTransmittanceFloor);
            grad_mean = delta * (T(1) - alpha) * (transmittance * v - behind / through) * simple_sigmoid(mean - T(1));
            transmittance *= through;
          }
          if (pass == 1) {
            ray.at(depths[i], point);
            read_point<kPlanes>(planes, image, point, args.projection, x);
            decode_point(decoder, x, colour);
            for (int f = 0; f < features; ++f) {
              const T s = (colour[f] + T(kColourShift)) / T(kColourScale);
              colour[f] = (weight + weight_before) * grad_features[f] * T(kColourScale) * s * (T(1) - s);
            }
            decode_point_backward(decoder, DecoderGrads<T>{grads.w0, grads.b0, grads.w1, grads.b1}, x,
                                  (grad_mean + grad_before) / T(2), colour, grad_x);
            read_point_backward<kPlanes>(planes, image, point, args.projection, grad_x, grad_planes, grad_image,
                                         grads.origins == nullptr ? nullptr : by_point);
            for (int k = 0; grads.origins != nullptr && k < 3; ++k) {
              grad_origin[k] += by_point[k];
              grad_direction[k] += depths[i] * by_point[k];
            }
          }
          weight_before = weight;
          grad_before = grad_mean;
        }
      }
    }
    for (int k = 0; grads.origins != nullptr && k < 3; ++k) {
      grads.origins[3 * index + k] = ray.finite ? grad_origin[k] : T(NAN);
      grads.directions[3 * index + k] = ray.finite ? grad_direction[k] : T(NAN);
    }
  }
}

}  // namespace

int64_t simple_scratch_per_ray(int samples, int fine_samples) { return 6 * int64_t(samples) + 3 * int64_t(fine_samples); }

template <typename T>
void launch_render_simple(const PlaneView<const T>& planes, const RenderArgs<T>& args, const RenderOutput<T>& out, T* scratch,
                         int64_t threads, cudaStream_t stream) {
  const auto kernel = planes.planes == 4 ? render_simple_kernel<4, T> : render_simple_kernel<3, T>;
  kernel<<<blocks_for(threads, kThreads), kThreads, 0, stream>>>(
      planes, args, out, scratch, simple_scratch_per_ray(args.samples, args.fine_samples));
  check_launch("render_rays (simple)");
}

template <typename T>
void launch_render_simple_backward(const PlaneView<const T>& planes, const RenderArgs<T>& args, const RenderGrads<T>& grads,
                                  T* scratch, int64_t threads, cudaStream_t stream) {
  const auto kernel = planes.planes == 4 ? render_simple_backward_kernel<4, T> : render_simple_backward_kernel<3, T>;
  kernel<<<blocks_for(threads, kThreads), kThreads, 0, stream>>>(
      planes, channels_last_view(grads.planes, planes.planes, planes.channels, planes.height, planes.width), args, grads, scratch, simple_scratch_per_ray(args.samples, args.fine_samples));
  check_launch("render_rays_backward (simple)");
}

#define HEAD3D_INSTANTIATE(T)                                                                                               \
  template void launch_render_simple(const PlaneView<const T>&, const RenderArgs<T>&, const RenderOutput<T>&, T*, int64_t,   \
                                    cudaStream_t);                                                                          \
  template void launch_render_simple_backward(const PlaneView<const T>&, const RenderArgs<T>&, const RenderGrads<T>&, T*,    \
                                             int64_t, cudaStream_t)
HEAD3D_INSTANTIATE(float);
HEAD3D_INSTANTIATE(double);

}  // namespace head3d
