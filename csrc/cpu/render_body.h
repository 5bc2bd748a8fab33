// The renderer of one ray, forward and backward, and the look-up of points. Included by render_{avx512,avx2,portable}_cpu.cpp,
// each of which compiles it for one instruction set. The equations are those of head3d_core/model/volume.py.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions only
#endif

#include "cpu/samples_body.h"
#include "cpu/filters_body.h"

namespace head3d {
namespace HEAD3D_ISA {
namespace {

// Scratch of one ray. "Sorted" arrays run along the ray; others keep the stratified samples first, then the importance ones.
template <typename T>
struct Ray {
  Samples<T> samples;
  T* depth;  // [count]
  T *sorted_depth, *sorted_sigma;
  Whole<T>* order;  // order[i]: which sample is the i-th along the ray
  T *alpha, *keep, *slope, *through;  // per interval: alpha, 1 - alpha, d density / d sigma, transmittance before it
  T* weight;                          // per interval
  T* cdf;
  T* u;
  T* share;       // per sample: what its colour contributes to the ray
  T* grad_sigma;  // per sample
  T* pull;        // per sample: grad_features . colour
  T* grad_features;

  Ray(Arena<T>& arena, const RayJob<T>& job, bool backward)
      : samples(arena, job.samples + job.fine_samples, job.planes, job.decoder, backward) {
    const int size = samples.capacity;
    depth = arena.take(size);
    sorted_depth = arena.take(size);
    sorted_sigma = arena.take(size);
    order = arena.template take<Whole<T>>(size);
    alpha = arena.take(size);
    keep = arena.take(size);
    slope = arena.take(size);
    through = arena.take(size);
    weight = arena.take(size);
    cdf = arena.take(size);
    u = arena.take(2 * size);
    share = arena.take(size);
    grad_sigma = arena.take(size);
    pull = arena.take(size);
    grad_features = arena.take(job.decoder.features);
  }
};

template <typename T>
int64_t ray_scratch(const RayJob<T>& job) {
  Arena<T> arena{nullptr};
  Ray<T> ray(arena, job, true);
  return arena.used;
}

// Rays of a square image are visited in blocks of 8 x 8, whose samples share texels.
template <typename T>
HEAD3D_ALWAYS int64_t visit(const RayJob<T>& job, int64_t index) {
  if (job.side == 0) return index;
  const int64_t image = index / job.rays, place = index % job.rays, blocks = job.side / 8;
  const int64_t block = place / 64, inner = place % 64;
  const int64_t row = block / blocks * 8 + inner / 8, column = block % blocks * 8 + inner % 8;
  return image * job.rays + row * job.side + column;
}

// alpha_i = 1 - exp(-softplus(sigma_mid - 1) delta) and the weights of n sorted samples.
template <typename T>
void march(int n, const T* depth, const T* sigma, Ray<T>& ray) {
  constexpr int V = Simd<T>::lanes;
  for (int i = 0; i < n - 1; i += V) {
    const Vec<T> delta = load(depth + i + 1) - load(depth + i);
    const Vec<T> middle = (load(sigma + i + 1) + load(sigma + i)) * T(0.5) - T(1);
    const Softplus<T> density = soft_plus_and_slope(middle);
    const Vec<T> keep = exponential(-(density.value * delta));
    store(ray.keep + i, keep);
    store(ray.alpha + i, T(1) - keep);
    store(ray.slope + i, density.slope);
  }
  T through = 1;
  for (int i = 0; i < n - 1; ++i) {
    ray.through[i] = through;
    ray.weight[i] = ray.alpha[i] * through;
    through = light_behind(through, ray.alpha[i]);
  }
}

template <typename T>
HEAD3D_ALWAYS void place_points(const RayJob<T>& job, int64_t index, Ray<T>& ray, int from, int count) {
  constexpr int V = Simd<T>::lanes;
  for (int axis = 0; axis < 3; ++axis) {
    const T origin = job.origins[3 * index + axis], direction = job.directions[3 * index + axis];
    for (int i = from; i < from + count; i += V)
      store(ray.samples.position[axis] + i, origin + load(ray.depth + i) * direction);
  }
}

// Stable ranking: each value counts those that come before it. Branch-free, and short lists are all there is.
template <typename T>
void sort_ascending(const T* values, int count, T* sorted) {
  constexpr int V = Simd<T>::lanes;
  for (int i = 0; i < count; i += V) {
    const Vec<T> mine = load(values + i);
    Int<T> place, rank{};
    for (int v = 0; v < V; ++v) place[v] = i + v;
    for (int j = 0; j < count; ++j) rank -= (values[j] < mine) | ((values[j] == mine) & (place > Whole<T>(j)));
    for (int v = 0; v < V && i + v < count; ++v) sorted[rank[v]] = mine[v];
  }
}

template <typename T>
void importance_samples(const RayJob<T>& job, int64_t index, Ray<T>& ray) {
  const int count = job.fine_samples;
  T* u = ray.u;
  if (job.seeds == nullptr) {
    for (int j = 0; j < count; ++j) u[j] = (T(j) + T(0.5)) / T(count);
  } else {
    const uint32_t key = row_key(seed_key(job.seeds[index / job.rays]), uint32_t(index % job.rays), kStreamImportance);
    T* unsorted = ray.u + ray.samples.capacity;
    for (int j = 0; j < count; ++j) unsorted[j] = T(uniform(key, uint32_t(j)));
    sort_ascending(unsorted, count, u);
  }
  make_cdf(ray.weight, job.samples, ray.cdf);
  int start = 0;
  for (int j = 0; j < count; ++j) ray.depth[job.samples + j] = invert_cdf(ray.cdf, ray.depth, job.samples, u[j], start);
}

// Merges the stratified and the importance samples, both ascending, and puts right what rounding disordered.
template <typename T>
void merge_samples(const RayJob<T>& job, Ray<T>& ray) {
  const int n = job.samples + job.fine_samples;
  int a = 0, b = job.samples;
  for (int i = 0; i < n; ++i) {
    const bool first = b >= n || (a < job.samples && ray.depth[a] <= ray.depth[b]);
    int next = first ? a++ : b++, at = i;
    const T depth = ray.depth[next];
    for (; at > 0 && ray.sorted_depth[at - 1] > depth; --at) {
      ray.sorted_depth[at] = ray.sorted_depth[at - 1];
      ray.order[at] = ray.order[at - 1];
    }
    ray.sorted_depth[at] = depth;
    ray.order[at] = next;
  }
  for (int i = 0; i < n; ++i) ray.sorted_sigma[i] = ray.samples.sigma[ray.order[i]];
}

template <typename T>
HEAD3D_ALWAYS bool finite(T x) {
  return x - x == T(0);
}

template <typename T>
bool ray_is_finite(const RayJob<T>& job, int64_t index) {
  bool good = finite(job.near[index]) && finite(job.far[index]);
  for (int axis = 0; axis < 3; ++axis)
    good = good && finite(job.origins[3 * index + axis]) && finite(job.directions[3 * index + axis]);
  return good;
}

// Both passes of one ray, up to the weights of its sorted samples. Returns their number.
template <typename T, bool kBackward>
int trace(const RayJob<T>& job, int64_t index, Ray<T>& ray) {
  constexpr int V = Simd<T>::lanes;
  const int coarse = job.samples, n = coarse + job.fine_samples;
  const int64_t image = index / job.rays;
  const T near = job.near[index], far = job.far[index];
  const uint32_t key =
      job.seeds ? row_key(seed_key(job.seeds[image]), uint32_t(index % job.rays), kStreamDepth) : 0;
  for (int i = 0; i < coarse; ++i) {
    const T offset = job.seeds ? T(uniform(key, uint32_t(i))) : T(0.5);
    ray.depth[i] = depth_at(near, far, (T(i) + offset) / T(coarse - 1), job.disparity);
  }
  place_points(job, index, ray, 0, coarse);
  look_up(job.planes, image, ray.samples, 0, coarse);
  decode_sigma<T, kBackward>(job.decoder, job.planes.channels, ray.samples, 0, coarse);
  for (int i = 0; i < coarse; ++i) {
    ray.order[i] = i;
    ray.sorted_depth[i] = ray.depth[i];
    ray.sorted_sigma[i] = ray.samples.sigma[i];
  }
  if (job.fine_samples > 0) {
    for (int i = coarse; i < coarse + V; ++i) ray.sorted_depth[i] = ray.sorted_sigma[i] = 0;
    march(coarse, ray.sorted_depth, ray.sorted_sigma, ray);
    importance_samples(job, index, ray);
    place_points(job, index, ray, coarse, job.fine_samples);
    look_up(job.planes, image, ray.samples, coarse, job.fine_samples);
    decode_sigma<T, kBackward>(job.decoder, job.planes.channels, ray.samples, coarse, job.fine_samples);
    merge_samples(job, ray);
  }
  for (int i = n; i < n + V; ++i) ray.sorted_depth[i] = ray.sorted_sigma[i] = 0;
  march(n, ray.sorted_depth, ray.sorted_sigma, ray);
  // A colour counts half in the interval before its sample and half in the one after.
  for (int i = 0; i < n; ++i)
    ray.share[ray.order[i]] = ((i > 0 ? ray.weight[i - 1] : T(0)) + (i < n - 1 ? ray.weight[i] : T(0))) * T(0.5);
  return n;
}

template <typename T>
void copy_row(T* to, const T* from, int count) {
  if (to == from) return;
  for (int i = 0; i < count; i += Simd<T>::lanes) store(to + i, load(from + i));
}

template <typename T>
void render(const RayJob<T>& job, int64_t begin, int64_t end, T* scratch) {
  constexpr int V = Simd<T>::lanes;
  Arena<T> arena{scratch};
  Ray<T> ray(arena, job, false);
  Samples<T>& samples = ray.samples;
  const int hidden = job.decoder.hidden, features = job.decoder.features;
  for (int64_t place = begin; place < end; ++place) {
    const int64_t index = visit(job, place);
    T* out = job.features + index * job.decoder.true_features;
    const int count = job.samples + job.fine_samples;
    T* depths = job.depths == nullptr ? nullptr : job.depths + index * count;
    if (!ray_is_finite(job, index)) {
      const T nothing = T(NAN);
      for (int i = 0; depths != nullptr && i < count; ++i) depths[i] = nothing;
      for (int f = 0; f < job.decoder.true_features; ++f) out[f] = nothing;
      job.depth[index] = job.opacity[index] = nothing;
      continue;
    }
    const int n = trace<T, false>(job, index, ray);
    for (int i = 0; depths != nullptr && i < n; ++i) depths[i] = ray.sorted_depth[i];
    T opacity = 0, depth = 0;
    for (int i = 0; i < n - 1; ++i) {
      opacity += ray.weight[i];
      depth += ray.weight[i] * (ray.sorted_depth[i] + ray.sorted_depth[i + 1]) * T(0.5);
    }
    job.opacity[index] = opacity;
    job.depth[index] = opacity > 0 ? depth / opacity : T(INFINITY);

    // Only samples that the eye can tell get a colour: the rest together weigh less than n * negligible.
    int active = 0;
    T total = 0;
    for (int i = 0; i < n; ++i) {
      if (ray.share[i] <= job.negligible) continue;
      copy_row(samples.h + int64_t(active) * hidden, samples.h + int64_t(i) * hidden, hidden);
      total += ray.share[i];
      ray.share[active++] = ray.share[i];
    }
    decode_colour(job.decoder, samples, active);
    const T background = job.white_back ? T(1) - opacity : T(0);
    for (int f = 0; f < features; f += V) {
      Vec<T> acc{};
      for (int i = 0; i < active; ++i) acc += ray.share[i] * load(samples.colour + int64_t(i) * features + f);
      acc = T(2) * (T(kColourScale) * acc - T(kColourShift) * total + background) - T(1);
      for (int v = 0; v < V && f + v < job.decoder.true_features; ++v) out[f + v] = acc[v];
    }
  }
}

// From the gradient of the ray's outputs to that of every visible sample's sigma, and `pull`; see `march` and volume.march.
//   opacity = sum w_i; features = 2 sum w_i (c_i + c_{i+1}) / 2 - 1 (+ 2 (1 - opacity)); depth = sum w_i m_i / opacity
//   d L / d alpha_i = T_i (g_i - B_i) with g_i = d L / d w_i, B_{i-1} = g_i alpha_i + (1 - alpha_i + 1e-10) B_i
template <typename T>
void march_backward(int intervals, T grad_constant, T grad_depth, T depth, Ray<T>& ray, T* sorted_grad) {
  T behind = 0;
  for (int i = 0; i <= intervals; ++i) sorted_grad[i] = 0;
  for (int i = intervals - 1; i >= 0; --i) {
    const T delta = ray.sorted_depth[i + 1] - ray.sorted_depth[i];
    const T middle = (ray.sorted_depth[i + 1] + ray.sorted_depth[i]) * T(0.5);
    const T g = (ray.pull[ray.order[i]] + ray.pull[ray.order[i + 1]]) * T(0.5) + grad_constant + grad_depth * (middle - depth);
    const T grad_alpha = ray.through[i] * (g - behind);
    behind = g * ray.alpha[i] + (T(1) - ray.alpha[i] + T(kTransmittanceFloor)) * behind;
    const T half = grad_alpha * delta * ray.keep[i] * ray.slope[i] * T(0.5);
    sorted_grad[i] += half;
    sorted_grad[i + 1] += half;
  }
}

template <typename T>
int64_t render_backward(const RayJob<T>& job, const RayGradients<T>& grads, int64_t begin, int64_t end, T* scratch,
                        WeightSums<T> sums, Splat<T>* splats, T* values) {
  constexpr int V = Simd<T>::lanes;
  Arena<T> arena{scratch};
  Ray<T> ray(arena, job, true);
  Samples<T>& samples = ray.samples;
  const int hidden = job.decoder.hidden, features = job.decoder.features, true_features = job.decoder.true_features;
  const int channels = job.planes.channels;
  for (int f = 0; f < features; ++f) ray.grad_features[f] = 0;
  int64_t filled = 0;
  for (int64_t place = begin; place < end; ++place) {
    const int64_t index = visit(job, place), image = index / job.rays;
    if (!ray_is_finite(job, index)) continue;
    const int n = trace<T, true>(job, index, ray);
    T opacity = 0, depth = 0, grad_white = 0;
    int intervals = 0;  // those that light still reaches
    for (int i = 0; i < n - 1; ++i) {
      opacity += ray.weight[i];
      depth += ray.weight[i] * (ray.sorted_depth[i] + ray.sorted_depth[i + 1]) * T(0.5);
      if (!(ray.through[i] < job.negligible)) intervals = i + 1;
    }
    for (int f = 0; f < true_features; ++f) {
      ray.grad_features[f] = T(2) * grads.features[index * true_features + f];
      grad_white += ray.grad_features[f];
    }
    const T grad_constant = grads.opacity[index] - (job.white_back ? grad_white : T(0));
    const T grad_depth = opacity > 0 ? grads.depth[index] / opacity : T(0);
    depth = opacity > 0 ? depth / opacity : T(0);

    // Keep the rows of the samples that take part, in place. `kept[m]` is where row m came from.
    Whole<T>* kept = reinterpret_cast<Whole<T>*>(ray.cdf);
    for (int i = 0; i < n; ++i) ray.grad_sigma[i] = 0;
    for (int i = 0; i <= intervals; ++i) ray.grad_sigma[ray.order[i]] = 1;
    int active = 0;
    for (int i = 0; i < n; ++i) {
      if (ray.grad_sigma[i] == T(0)) continue;
      copy_row(samples.x + int64_t(active) * channels, samples.x + int64_t(i) * channels, channels);
      copy_row(samples.h + int64_t(active) * hidden, samples.h + int64_t(i) * hidden, hidden);
      copy_row(samples.slope + int64_t(active) * hidden, samples.slope + int64_t(i) * hidden, hidden);
      kept[active++] = i;
    }
    decode_colour(job.decoder, samples, active);

    const int stride = features + V;
    for (int m = 0; m < active; ++m) {
      const T* colour = samples.colour + int64_t(m) * features;
      T* grad_out = samples.grad_out + int64_t(m) * stride;
      const T share = ray.share[kept[m]] * T(kColourScale);
      Vec<T> pull{};
      for (int f = 0; f < features; f += V) {
        const Vec<T> s = load(colour + f), g = load(ray.grad_features + f);
        pull += g * (T(kColourScale) * s - T(kColourShift));
        store(grad_out + f, share * g * s * (T(1) - s));
      }
      ray.pull[kept[m]] = sum<T>(pull);
    }
    T* sorted_grad = ray.sorted_sigma;  // no longer needed
    march_backward(intervals, grad_constant, grad_depth, depth, ray, sorted_grad);
    for (int i = 0; i <= intervals; ++i) ray.grad_sigma[ray.order[i]] = sorted_grad[i];
    for (int m = 0; m < active; ++m) {
      T* grad_out = samples.grad_out + int64_t(m) * stride + features;
      store(grad_out, Vec<T>{});
      grad_out[0] = ray.grad_sigma[kept[m]];
    }

    T* grad_x = values + filled * channels;
    decode_backward(job.decoder, channels, samples, active, grads.needs_weights, sums, grad_x);
    T grad_origin[3] = {}, grad_direction[3] = {};
    for (int m = 0; m < active; ++m) {
      const int i = int(kept[m]);
      if (grads.needs_planes) fill_splat(job.planes, samples.taps, i, image, splats[filled + m]);
      if (!grads.needs_rays) continue;
      T grad_point[3] = {};
      point_gradient(job.planes, image, samples.taps, i, grad_x + int64_t(m) * channels, grad_point);
      for (int axis = 0; axis < 3; ++axis) {
        grad_origin[axis] += grad_point[axis];
        grad_direction[axis] += grad_point[axis] * ray.depth[i];
      }
    }
    if (grads.needs_rays)
      for (int axis = 0; axis < 3; ++axis) {
        grads.origins[3 * index + axis] = grad_origin[axis];
        grads.directions[3 * index + axis] = grad_direction[axis];
      }
    if (grads.needs_planes) filled += active;
  }
  return filled;
}

constexpr int kGroup = 48;  // points that are looked up together

template <typename T>
int64_t point_scratch(const PointJob<T>& job) {
  Arena<T> arena{nullptr};
  Samples<T> samples(arena, kGroup, job.planes, job.decoder, true);
  return arena.used;
}

// Up to kGroup points of one image: [at, return value).
template <typename T>
int64_t gather_points(const PointJob<T>& job, int64_t at, int64_t end, Samples<T>& samples) {
  const int64_t image_end = (at / job.points_per_image + 1) * job.points_per_image;
  int64_t stop = at + kGroup < end ? at + kGroup : end;
  stop = stop < image_end ? stop : image_end;
  for (int64_t i = at; i < stop; ++i)
    for (int axis = 0; axis < 3; ++axis) samples.position[axis][i - at] = job.points[3 * i + axis];
  return stop;
}

template <typename T>
void query(const PointJob<T>& job, int64_t begin, int64_t end, T* scratch) {
  Arena<T> arena{scratch};
  Samples<T> samples(arena, kGroup, job.planes, job.decoder, false);
  for (int64_t at = begin, stop; at < end; at = stop) {
    stop = gather_points(job, at, end, samples);
    const int count = int(stop - at);
    look_up(job.planes, at / job.points_per_image, samples, 0, count);
    if (!job.decode) {
      for (int i = 0; i < count; ++i)
        for (int c = 0; c < job.channels; ++c)
          job.features[(at + i) * job.channels + c] = samples.x[int64_t(i) * job.planes.channels + c] / T(3);
      continue;
    }
    decode_sigma<T, false>(job.decoder, job.planes.channels, samples, 0, count);
    decode_colour(job.decoder, samples, count);
    const int features = job.decoder.true_features;
    for (int i = 0; i < count; ++i) {
      job.sigma[at + i] = samples.sigma[i];
      for (int f = 0; f < features; ++f)
        job.features[(at + i) * features + f] =
            T(kColourScale) * samples.colour[int64_t(i) * job.decoder.features + f] - T(kColourShift);
    }
  }
}

template <typename T>
int64_t query_backward(const PointJob<T>& job, const PointGradients<T>& grads, int64_t begin, int64_t end, T* scratch,
                       WeightSums<T> sums, Splat<T>* splats, T* values) {
  Arena<T> arena{scratch};
  Samples<T> samples(arena, kGroup, job.planes, job.decoder, true);
  const int channels = job.planes.channels, features = job.decoder.features, stride = features + Simd<T>::lanes;
  int64_t filled = 0;
  for (int64_t at = begin, stop; at < end; at = stop) {
    stop = gather_points(job, at, end, samples);
    const int count = int(stop - at);
    const int64_t image = at / job.points_per_image;
    T* grad_x = values + filled * channels;
    if (job.decode) {
      look_up(job.planes, image, samples, 0, count);
      decode_sigma<T, true>(job.decoder, channels, samples, 0, count);
      decode_colour(job.decoder, samples, count);
      const int true_features = job.decoder.true_features;
      for (int i = 0; i < count; ++i) {
        T* grad_out = samples.grad_out + int64_t(i) * stride;
        for (int f = 0; f < stride; ++f) grad_out[f] = 0;
        for (int f = 0; f < true_features; ++f) {
          const T s = samples.colour[int64_t(i) * features + f];
          grad_out[f] = T(kColourScale) * grads.features[(at + i) * true_features + f] * s * (T(1) - s);
        }
        grad_out[features] = grads.sigma[at + i];
      }
      decode_backward(job.decoder, channels, samples, count, grads.needs_weights, sums, grad_x);
    } else {
      find_taps(job.planes, samples, 0, count);
      for (int i = 0; i < count; ++i)
        for (int c = 0; c < channels; ++c)
          grad_x[int64_t(i) * channels + c] =
              c < job.channels ? grads.features[(at + i) * job.channels + c] / T(3) : T(0);
    }
    for (int i = 0; i < count; ++i) {
      if (grads.needs_planes) fill_splat(job.planes, samples.taps, i, image, splats[filled + i]);
      if (!grads.needs_points) continue;
      T grad_point[3] = {};
      point_gradient(job.planes, image, samples.taps, i, grad_x + int64_t(i) * channels, grad_point);
      for (int axis = 0; axis < 3; ++axis) grads.points[3 * (at + i) + axis] = grad_point[axis];
    }
    if (grads.needs_planes) filled += count;
  }
  return filled;
}

template <typename T>
constexpr RenderKernels<T> kRender = {Simd<T>::lanes,     pack_row<T>,      ray_scratch<T>, render<T>,
                                      render_backward<T>, point_scratch<T>, query<T>,       query_backward<T>,
                                      scatter<T>};
constexpr RenderKernels<float> kRenderFloat = kRender<float>;
constexpr RenderKernels<double> kRenderDouble = kRender<double>;

}  // namespace
}  // namespace HEAD3D_ISA
}  // namespace head3d

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
