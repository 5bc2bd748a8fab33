// Renderer and plane look-up on the CPU: tensors in, tensors out. The arithmetic is in render_body.h.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <new>
#include <tuple>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "cpu/kernels.h"
#include "head3d.h"

namespace head3d {
namespace {

using torch::stable::contiguous;
using torch::stable::get_num_threads;
using torch::stable::new_empty;
using torch::stable::new_zeros;
using torch::stable::parallel_for;

using Grads7 = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using Grads6 = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

constexpr int64_t kRaysAtOnce = 64;    // forward: rays that a thread takes at a time
constexpr int64_t kRaysPerSum = 16;    // backward: rays that share one partial sum of the weights' gradients
constexpr int64_t kPointsPerSum = 768;  // the same for points
constexpr double kNegligible = 1e-6;    // share of a ray, in all, whose colours may be left out in float32

// Uninitialised, on a cache line. Large blocks are new pages at every call, and clearing 2 MiB at a time costs a fraction of the faults.
template <typename T>
struct Buffer {
  explicit Buffer(int64_t count)
      : bytes(sizeof(T) * (count + 16)),
        alignment(bytes > (int64_t(8) << 20) ? int64_t(2) << 20 : 64),
        data(static_cast<T*>(::operator new(bytes, std::align_val_t(alignment)))) {
#if defined(__linux__)
    if (alignment > 64) madvise(data, bytes, MADV_HUGEPAGE);
#endif
  }
  ~Buffer() { ::operator delete(data, std::align_val_t(alignment)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  int64_t bytes, alignment;
  T* data;
};

template <typename T>
const RenderKernels<T>& render_kernels();
template <>
const RenderKernels<float>& render_kernels<float>() {
  return *kernels().render_float;
}
template <>
const RenderKernels<double>& render_kernels<double>() {
  return *kernels().render_double;
}

int64_t round_up(int64_t count, int64_t lanes) { return (count + lanes - 1) / lanes * lanes; }

// Calls work(chunk, thread_scratch) for every chunk, whichever thread is free.
template <typename T, typename Work>
void for_each_chunk(int64_t chunks, int64_t scratch, const Work& work) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(get_num_threads(), chunks);
  parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      Buffer<T> mine(scratch);
      for (int64_t chunk; (chunk = next.fetch_add(1)) < chunks;) work(chunk, mine.data);
    }
  });
}

template <typename T>
struct PackedPlanes {
  PlanesView<T> view;
  std::unique_ptr<Buffer<T>> copy;  // unless the planes already have the layout that the kernels read
};

template <typename T>
PackedPlanes<T> pack_planes(const Tensor& planes, const PlaneSettings& settings, int64_t lanes) {
  const int64_t count = planes.size(1), channels = planes.size(2), height = planes.size(3), width = planes.size(4);
  const T* from = planes.const_data_ptr<T>();
  PackedPlanes<T> packed;
  PlanesView<T>& view = packed.view;
  view.height = height;
  view.width = width;
  view.channels = int(round_up(channels, lanes));
  view.plane_count = int(count);
  view.projection =
      make_projection<T>(settings.axes, settings.box_warp, settings.slice_half_distance, settings.slice_centre);
  if (planes.stride(2) == 1 && channels % lanes == 0) {
    view.data = from;
    view.image = planes.stride(0);
    view.plane = planes.stride(1);
    view.row = planes.stride(3);
    view.column = planes.stride(4);
    return packed;
  }
  view.column = view.channels;
  view.row = width * view.column;
  view.plane = height * view.row;
  view.image = count * view.plane;
  packed.copy = std::make_unique<Buffer<T>>(planes.size(0) * view.image);
  T* to = packed.copy->data;
  view.data = to;
  const int64_t image = planes.stride(0), plane = planes.stride(1), channel = planes.stride(2), row = planes.stride(3),
                column = planes.stride(4), padded = view.channels;
  parallel_for(0, planes.size(0) * count * height, 8, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t y = line % height, k = line / height % count, n = line / height / count;
      render_kernels<T>().pack_row({from + n * image + k * plane + y * row, channel, column, to + line * width * padded, width,
                                    int(channels), int(padded)});
    }
  });
  return packed;
}

template <typename T>
struct PackedDecoder {
  Decoder<T> view{};
  std::vector<T> data;
  int64_t channels, hidden, features;  // as given

  PackedDecoder(const Tensor& w0_in, const Tensor& b0_in, const Tensor& w1_in, const Tensor& b1_in, int64_t padded_channels,
                int64_t lanes)
      : channels(w0_in.size(1)), hidden(w0_in.size(0)), features(w1_in.size(0) - 1) {
    const Tensor w0_keep = contiguous(w0_in), b0_keep = contiguous(b0_in), w1_keep = contiguous(w1_in),
                 b1_keep = contiguous(b1_in);
    const T *w0 = w0_keep.const_data_ptr<T>(), *b0 = b0_keep.const_data_ptr<T>(), *w1 = w1_keep.const_data_ptr<T>(),
            *b1 = b1_keep.const_data_ptr<T>();
    const int64_t h = round_up(hidden, lanes), f = std::max(round_up(features, lanes), lanes);
    view.hidden = int(h);
    view.features = int(f);
    view.true_features = int(features);
    data.assign(2 * padded_channels * h + 2 * h + h * f + f + (f + 1) * h, T(0));
    T* at = data.data();
    auto take = [&at](int64_t count) {
      T* piece = at;
      at += count;
      return piece;
    };
    T *w0_columns = take(padded_channels * h), *w0_rows = take(padded_channels * h), *b0_copy = take(h), *sigma = take(h),
      *w1_columns = take(h * f), *b1_copy = take(f), *w1_rows = take((f + 1) * h);
    for (int64_t j = 0; j < hidden; ++j) {
      for (int64_t c = 0; c < channels; ++c) w0_columns[c * h + j] = w0_rows[j * padded_channels + c] = w0[j * channels + c] / T(3);
      b0_copy[j] = b0[j];
      sigma[j] = w1_rows[f * h + j] = w1[j];
      for (int64_t o = 0; o < features; ++o) w1_columns[j * f + o] = w1_rows[o * h + j] = w1[(o + 1) * hidden + j];
    }
    for (int64_t o = 0; o < features; ++o) b1_copy[o] = b1[o + 1];
    view.w0_columns = w0_columns;
    view.w0_rows = w0_rows;
    view.b0 = b0_copy;
    view.w1_columns = w1_columns;
    view.b1 = b1_copy;
    view.w1_sigma = sigma;
    view.b1_sigma = b1[0];
    view.w1_rows = w1_rows;
  }
};

// A gradient that nobody asked for: empty, and each a tensor of its own.
Tensor nothing(const Tensor& like) { return new_empty(like, {0}); }

// Gradients of the weights: partial sums of fixed groups of rays, added up in order and in double precision.
template <typename T>
struct WeightGradients {
  const Decoder<T>& decoder;
  int64_t channels, lanes;
  int64_t size_w0, size_w1, size;
  std::vector<double> total;

  WeightGradients(const Decoder<T>& decoder, int64_t channels, int64_t lanes)
      : decoder(decoder), channels(channels), lanes(lanes) {
    size_w0 = channels * decoder.hidden;
    size_w1 = int64_t(decoder.features + 1) * decoder.hidden;
    size = size_w0 + decoder.hidden + size_w1 + decoder.features + lanes;
    total.assign(size, 0.0);
  }
  WeightSums<T> sums(T* at) const {
    return {at, at + size_w0, at + size_w0 + decoder.hidden, at + size_w0 + decoder.hidden + size_w1};
  }
  void add(const T* partial) {
    for (int64_t i = 0; i < size; ++i) total[i] += double(partial[i]);
  }
  // w0, b0, w1, b1 in the caller's order: sigma first, no padding, the 1/3 of the mean put back.
  std::tuple<Tensor, Tensor, Tensor, Tensor> unpack(const Tensor& w0, const Tensor& b0, const Tensor& w1,
                                                    const Tensor& b1) const {
    const int64_t hidden = w0.size(0), true_channels = w0.size(1), outputs = w1.size(0), h = decoder.hidden;
    Tensor g_w0 = new_empty(w0, {hidden, true_channels}), g_b0 = new_empty(b0, {hidden}),
           g_w1 = new_empty(w1, {outputs, hidden}), g_b1 = new_empty(b1, {outputs});
    T *p_w0 = g_w0.mutable_data_ptr<T>(), *p_b0 = g_b0.mutable_data_ptr<T>(), *p_w1 = g_w1.mutable_data_ptr<T>(),
      *p_b1 = g_b1.mutable_data_ptr<T>();
    const double *t_w0 = total.data(), *t_b0 = t_w0 + size_w0, *t_w1 = t_b0 + h, *t_b1 = t_w1 + size_w1;
    for (int64_t j = 0; j < hidden; ++j) {
      for (int64_t c = 0; c < true_channels; ++c) p_w0[j * true_channels + c] = T(t_w0[j * channels + c] / 3);
      p_b0[j] = T(t_b0[j]);
      for (int64_t o = 0; o < outputs; ++o) p_w1[o * hidden + j] = T(t_w1[(o ? o - 1 : decoder.features) * h + j]);
    }
    for (int64_t o = 0; o < outputs; ++o) p_b1[o] = T(t_b1[o ? o - 1 : decoder.features]);
    return {g_w0, g_b0, g_w1, g_b1};
  }
};

// [N, P, H, W, C] gradient, gathered with the channels padded to the lanes.
template <typename T>
struct PlaneGradients {
  Tensor result;
  Tensor padded;
  int64_t channels, width;

  PlaneGradients(const Tensor& planes, bool needed, int64_t padded_channels)
      : result(), padded(), channels(planes.size(2)), width(padded_channels) {
    const int64_t n = needed ? planes.size(0) : 0;
    padded = new_zeros(planes, {n, planes.size(1), planes.size(3), planes.size(4), padded_channels});
  }
  T* data() { return padded.mutable_data_ptr<T>(); }
  Tensor finish(bool needed) {
    if (!needed) return nothing(padded);
    if (channels == width) return padded;
    result = new_empty(padded, {padded.size(0), padded.size(1), padded.size(2), padded.size(3), channels});
    T* to = result.mutable_data_ptr<T>();
    const T* from = padded.const_data_ptr<T>();
    const int64_t texels = padded.numel() / width;
    for (int64_t i = 0; i < texels; ++i)
      for (int64_t c = 0; c < channels; ++c) to[i * channels + c] = from[i * width + c];
    return result;
  }
};

// Runs `body(first, last, scratch, sums, splats, values)` over groups of `group` items, block after block: each block's
// gradients of the samples are kept, then added to the planes by all threads, each its own texel rows.
template <typename T, typename Body>
void backward_in_blocks(int64_t items, int64_t group, int64_t samples_per_item, int64_t scratch, const RenderKernels<T>& kernel,
                        const PlanesView<T>& planes, WeightGradients<T>& weights, PlaneGradients<T>& grad_planes,
                        const Body& body) {
  const int64_t threads = get_num_threads(), chunks = (items + group - 1) / group;
  const int64_t at_once = std::min<int64_t>(chunks, std::max<int64_t>(16, 2 * threads)), room = group * samples_per_item;
  if (chunks == 0) return;
  Buffer<T> values(at_once * room * planes.channels), partial(at_once * weights.size);
  Buffer<Splat<T>> splats(at_once * room);
  std::vector<int64_t> filled(at_once);
  for (int64_t first = 0; first < chunks; first += at_once) {
    const int64_t count = std::min(at_once, chunks - first);
    for_each_chunk<T>(count, scratch, [&](int64_t i, T* mine) {
      T* sums = partial.data + i * weights.size;
      for (int64_t j = 0; j < weights.size; ++j) sums[j] = 0;
      const int64_t begin = (first + i) * group;
      filled[i] = body(begin, std::min(items, begin + group), mine, weights.sums(sums), splats.data + i * room,
                       values.data + i * room * planes.channels);
    });
    for (int64_t i = 0; i < count; ++i) weights.add(partial.data + i * weights.size);
    parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part)
        for (int64_t i = 0; i < count; ++i) {
          if (filled[i] == 0) continue;
          kernel.scatter({splats.data + i * room, values.data + i * room * planes.channels, filled[i], grad_planes.data(),
                          planes.height, planes.width, planes.channels, planes.plane_count},
                         part, threads);
        }
    });
  }
}

// ---------------------------------------------------------------------------------------------------------------- rays

template <typename T>
struct RayInputs {  // keeps the packed and contiguous copies of one call alive
  Tensor origins, directions, near, far;
  std::optional<Tensor> seeds;
  PackedPlanes<T> planes;
  PackedDecoder<T> decoder;
  RayJob<T> job{};

  RayInputs(const Tensor& planes_in, const Tensor& w0, const Tensor& b0, const Tensor& w1, const Tensor& b1,
            const Tensor& origins_in, const Tensor& directions_in, const Tensor& near_in, const Tensor& far_in,
            const std::optional<Tensor>& seeds_in, const RenderSettings& settings)
      : origins(contiguous(origins_in)),
        directions(contiguous(directions_in)),
        near(contiguous(near_in)),
        far(contiguous(far_in)),
        planes(pack_planes<T>(planes_in, settings.projection, render_kernels<T>().lanes)),
        decoder(w0, b0, w1, b1, planes.view.channels, render_kernels<T>().lanes) {
    if (seeds_in.has_value()) seeds = contiguous(*seeds_in);
    job.planes = planes.view;
    job.decoder = decoder.view;
    job.origins = origins.const_data_ptr<T>();
    job.directions = directions.const_data_ptr<T>();
    job.near = near.const_data_ptr<T>();
    job.far = far.const_data_ptr<T>();
    job.seeds = seeds.has_value() ? seeds->const_data_ptr<int64_t>() : nullptr;
    job.rays = origins.size(1);
    const int64_t side = int64_t(std::llround(std::sqrt(double(job.rays))));
    job.side = side > 0 && side % 8 == 0 && side * side == job.rays ? side : 0;
    job.samples = int(settings.samples);
    job.fine_samples = int(settings.fine_samples);
    job.disparity = settings.disparity;
    job.white_back = settings.white_back;
    // Double precision leaves nothing out: it is there to check derivatives.
    job.negligible = sizeof(T) == 4 ? T(kNegligible / double(settings.samples + settings.fine_samples)) : T(0);
  }
};

template <typename T>
std::tuple<Tensor, Tensor, Tensor, Tensor> render_rays_typed(RayInputs<T>& in, const Tensor& like, bool keep_depths) {
  RayJob<T>& job = in.job;
  const int64_t n = in.origins.size(0), total = n * job.rays;
  Tensor features = new_empty(like, {n, job.rays, job.decoder.true_features}), depth = new_empty(like, {n, job.rays}),
         opacity = new_empty(like, {n, job.rays}),
         depths = keep_depths ? new_empty(like, {n, job.rays, job.samples + job.fine_samples}) : nothing(like);
  job.features = features.mutable_data_ptr<T>();
  job.depth = depth.mutable_data_ptr<T>();
  job.opacity = opacity.mutable_data_ptr<T>();
  job.depths = keep_depths ? depths.mutable_data_ptr<T>() : nullptr;
  const RenderKernels<T>& kernel = render_kernels<T>();
  for_each_chunk<T>((total + kRaysAtOnce - 1) / kRaysAtOnce, kernel.ray_scratch(job), [&](int64_t chunk, T* scratch) {
    kernel.render(job, chunk * kRaysAtOnce, std::min(total, (chunk + 1) * kRaysAtOnce), scratch);
  });
  return {features, depth, opacity, depths};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> render_rays(const Tensor& planes, const Tensor& w0, const Tensor& b0, const Tensor& w1,
                                               const Tensor& b1, const Tensor& origins, const Tensor& directions,
                                               const Tensor& near, const Tensor& far, std::optional<Tensor> seeds,
                                               int64_t samples, int64_t fine_samples, int64_t axes, double box_warp,
                                               bool disparity, bool white_back, int64_t precision, bool keep_depths,
                                               double slice_half_distance, double slice_centre) {
  const RenderSettings settings{samples,    fine_samples, {axes, box_warp, slice_half_distance, slice_centre}, disparity,
                                white_back, precision};
  check_planes(planes, settings.projection);
  check_decoder(planes, w0, b0, w1, b1);
  check_rays(planes, origins, directions, near, far, seeds, settings);
  if (planes.scalar_type() == ScalarType::Double) {
    RayInputs<double> in(planes, w0, b0, w1, b1, origins, directions, near, far, seeds, settings);
    return render_rays_typed(in, planes, keep_depths);
  }
  STD_TORCH_CHECK(planes.scalar_type() == ScalarType::Float, "render_rays takes float32 or float64 on the CPU, got ",
                  torch::headeronly::toString(planes.scalar_type()));
  RayInputs<float> in(planes, w0, b0, w1, b1, origins, directions, near, far, seeds, settings);
  return render_rays_typed(in, planes, keep_depths);
}

template <typename T>
Grads7 render_rays_backward_typed(RayInputs<T>& in, const Tensor& planes, const Tensor& w0, const Tensor& b0, const Tensor& w1,
                                  const Tensor& b1, const Tensor& grad_features, const Tensor& grad_depth,
                                  const Tensor& grad_opacity, bool needs_planes, bool needs_weights, bool needs_rays) {
  const RayJob<T>& job = in.job;
  const RenderKernels<T>& kernel = render_kernels<T>();
  const int64_t n = in.origins.size(0), rays = needs_rays ? job.rays : 0;
  Tensor features = contiguous(grad_features), depth = contiguous(grad_depth), opacity = contiguous(grad_opacity);
  Tensor g_origins = new_zeros(planes, {n, rays, 3}), g_directions = new_zeros(planes, {n, rays, 3});
  RayGradients<T> grads{features.const_data_ptr<T>(),
                        depth.const_data_ptr<T>(),
                        opacity.const_data_ptr<T>(),
                        needs_planes,
                        needs_weights,
                        needs_rays,
                        g_origins.mutable_data_ptr<T>(),
                        g_directions.mutable_data_ptr<T>()};
  WeightGradients<T> weights(job.decoder, job.planes.channels, kernel.lanes);
  PlaneGradients<T> grad_planes(planes, needs_planes, job.planes.channels);
  backward_in_blocks<T>(n * job.rays, kRaysPerSum, job.samples + job.fine_samples, kernel.ray_scratch(job), kernel, job.planes,
                        weights, grad_planes,
                        [&](int64_t begin, int64_t end, T* scratch, WeightSums<T> sums, Splat<T>* splats, T* values) {
                          return kernel.render_backward(job, grads, begin, end, scratch, sums, splats, values);
                        });
  Tensor g_planes = grad_planes.finish(needs_planes);
  if (!needs_rays) g_origins = nothing(planes), g_directions = nothing(planes);
  if (!needs_weights)
    return {g_planes, nothing(planes), nothing(planes), nothing(planes), nothing(planes), g_origins, g_directions};
  auto [g_w0, g_b0, g_w1, g_b1] = weights.unpack(w0, b0, w1, b1);
  return {g_planes, g_w0, g_b0, g_w1, g_b1, g_origins, g_directions};
}

Grads7 render_rays_backward(const Tensor& planes, const Tensor& w0, const Tensor& b0, const Tensor& w1, const Tensor& b1,
                            const Tensor& origins, const Tensor& directions, const Tensor& near, const Tensor& far,
                            std::optional<Tensor> seeds, int64_t samples, int64_t fine_samples, int64_t axes, double box_warp,
                            bool disparity, bool white_back, int64_t precision, const Tensor& /*features*/,
                            const Tensor& /*depth*/, const Tensor& /*opacity*/, const Tensor& depths, const Tensor& grad_features,
                            const Tensor& grad_depth, const Tensor& grad_opacity, bool needs_planes, bool needs_weights,
                            bool needs_rays, double slice_half_distance, double slice_centre) {
  const RenderSettings settings{samples,    fine_samples, {axes, box_warp, slice_half_distance, slice_centre}, disparity,
                                white_back, precision};
  check_planes(planes, settings.projection);
  check_decoder(planes, w0, b0, w1, b1);
  check_rays(planes, origins, directions, near, far, seeds, settings);
  check_depths(depths, origins, settings);
  STD_TORCH_CHECK(grad_features.dim() == 3 && grad_features.size(0) == origins.size(0) &&
                      grad_features.size(1) == origins.size(1) && grad_features.size(2) == w1.size(0) - 1,
                  "grad_features must be [N, R, F], got ", shape_of(grad_features));
  STD_TORCH_CHECK(grad_depth.numel() == near.numel() && grad_opacity.numel() == near.numel(),
                  "grad_depth and grad_opacity must be [N, R], got ", shape_of(grad_depth), " and ", shape_of(grad_opacity));
  if (planes.scalar_type() == ScalarType::Double) {
    RayInputs<double> in(planes, w0, b0, w1, b1, origins, directions, near, far, seeds, settings);
    return render_rays_backward_typed(in, planes, w0, b0, w1, b1, grad_features, grad_depth, grad_opacity, needs_planes,
                                      needs_weights, needs_rays);
  }
  STD_TORCH_CHECK(planes.scalar_type() == ScalarType::Float, "render_rays takes float32 or float64 on the CPU, got ",
                  torch::headeronly::toString(planes.scalar_type()));
  RayInputs<float> in(planes, w0, b0, w1, b1, origins, directions, near, far, seeds, settings);
  return render_rays_backward_typed(in, planes, w0, b0, w1, b1, grad_features, grad_depth, grad_opacity, needs_planes,
                                    needs_weights, needs_rays);
}

// -------------------------------------------------------------------------------------------------------------- points

template <typename T>
PointJob<T> point_job(const PackedPlanes<T>& planes, const Decoder<T>& decoder, const Tensor& points, bool decode,
                      int64_t channels) {
  PointJob<T> job{};
  job.planes = planes.view;
  job.decoder = decoder;
  job.points = points.const_data_ptr<T>();
  job.points_per_image = points.size(1);
  job.decode = decode;
  job.channels = int(channels);
  return job;
}

template <typename T>
void run_query(const PointJob<T>& job, int64_t total) {
  const RenderKernels<T>& kernel = render_kernels<T>();
  for_each_chunk<T>((total + kPointsPerSum - 1) / kPointsPerSum, kernel.point_scratch(job), [&](int64_t chunk, T* scratch) {
    kernel.query(job, chunk * kPointsPerSum, std::min(total, (chunk + 1) * kPointsPerSum), scratch);
  });
}

template <typename T>
void run_query_backward(const PointJob<T>& job, const PointGradients<T>& grads, int64_t total, WeightGradients<T>& weights,
                        PlaneGradients<T>& grad_planes) {
  const RenderKernels<T>& kernel = render_kernels<T>();
  backward_in_blocks<T>(total, kPointsPerSum, 1, kernel.point_scratch(job), kernel, job.planes, weights, grad_planes,
                        [&](int64_t begin, int64_t end, T* scratch, WeightSums<T> sums, Splat<T>* splats, T* values) {
                          return kernel.query_backward(job, grads, begin, end, scratch, sums, splats, values);
                        });
}

template <typename T>
Decoder<T> no_decoder(int64_t lanes) {
  Decoder<T> decoder{};
  decoder.hidden = decoder.features = int(lanes);
  return decoder;
}

template <typename T>
Tensor sample_planes_typed(const Tensor& planes, const Tensor& points_in, const PlaneSettings& settings) {
  const Tensor points = contiguous(points_in);
  const int64_t lanes = render_kernels<T>().lanes;
  const PackedPlanes<T> packed = pack_planes<T>(planes, settings, lanes);
  PointJob<T> job = point_job(packed, no_decoder<T>(lanes), points, false, planes.size(2));
  Tensor features = new_empty(planes, {points.size(0), points.size(1), planes.size(2)});
  job.features = features.mutable_data_ptr<T>();
  run_query(job, points.size(0) * points.size(1));
  return features;
}

Tensor sample_planes(const Tensor& planes, const Tensor& points, int64_t axes, double box_warp, double slice_half_distance,
                     double slice_centre) {
  const PlaneSettings settings{axes, box_warp, slice_half_distance, slice_centre};
  check_planes(planes, settings);
  check_points(planes, points);
  if (planes.scalar_type() == ScalarType::Double) return sample_planes_typed<double>(planes, points, settings);
  STD_TORCH_CHECK(planes.scalar_type() == ScalarType::Float, "sample_planes takes float32 or float64 on the CPU, got ",
                  torch::headeronly::toString(planes.scalar_type()));
  return sample_planes_typed<float>(planes, points, settings);
}

template <typename T>
std::tuple<Tensor, Tensor> sample_planes_backward_typed(const Tensor& planes, const Tensor& points_in,
                                                        const PlaneSettings& settings, const Tensor& grad_in,
                                                        bool needs_planes, bool needs_points) {
  const Tensor points = contiguous(points_in), grad = contiguous(grad_in);
  const int64_t lanes = render_kernels<T>().lanes;
  const PackedPlanes<T> packed = pack_planes<T>(planes, settings, lanes);
  const Decoder<T> decoder = no_decoder<T>(lanes);
  const PointJob<T> job = point_job(packed, decoder, points, false, planes.size(2));
  Tensor g_points = new_zeros(planes, {points.size(0), needs_points ? points.size(1) : 0, 3});
  const PointGradients<T> grads{nullptr, grad.const_data_ptr<T>(), needs_planes, false, needs_points,
                                g_points.mutable_data_ptr<T>()};
  WeightGradients<T> weights(decoder, packed.view.channels, lanes);
  PlaneGradients<T> grad_planes(planes, needs_planes, packed.view.channels);
  run_query_backward(job, grads, points.size(0) * points.size(1), weights, grad_planes);
  return {grad_planes.finish(needs_planes), needs_points ? g_points : nothing(planes)};
}

std::tuple<Tensor, Tensor> sample_planes_backward(const Tensor& planes, const Tensor& points, int64_t axes, double box_warp,
                                                  const Tensor& grad, bool needs_planes, bool needs_points,
                                                  double slice_half_distance, double slice_centre) {
  const PlaneSettings settings{axes, box_warp, slice_half_distance, slice_centre};
  check_planes(planes, settings);
  check_points(planes, points);
  check_like(grad, "grad", planes);
  STD_TORCH_CHECK(grad.dim() == 3 && grad.size(0) == points.size(0) && grad.size(1) == points.size(1) &&
                      grad.size(2) == planes.size(2),
                  "grad must be [N, M, C], got ", shape_of(grad));
  if (planes.scalar_type() == ScalarType::Double)
    return sample_planes_backward_typed<double>(planes, points, settings, grad, needs_planes, needs_points);
  STD_TORCH_CHECK(planes.scalar_type() == ScalarType::Float, "sample_planes takes float32 or float64 on the CPU, got ",
                  torch::headeronly::toString(planes.scalar_type()));
  return sample_planes_backward_typed<float>(planes, points, settings, grad, needs_planes, needs_points);
}

template <typename T>
std::tuple<Tensor, Tensor> query_planes_typed(const Tensor& planes, const Tensor& w0, const Tensor& b0, const Tensor& w1,
                                              const Tensor& b1, const Tensor& points_in, const PlaneSettings& settings) {
  const Tensor points = contiguous(points_in);
  const int64_t lanes = render_kernels<T>().lanes, n = points.size(0), m = points.size(1);
  const PackedPlanes<T> packed = pack_planes<T>(planes, settings, lanes);
  const PackedDecoder<T> decoder(w0, b0, w1, b1, packed.view.channels, lanes);
  PointJob<T> job = point_job(packed, decoder.view, points, true, planes.size(2));
  Tensor sigma = new_empty(planes, {n, m, 1}), features = new_empty(planes, {n, m, decoder.features});
  job.sigma = sigma.mutable_data_ptr<T>();
  job.features = features.mutable_data_ptr<T>();
  run_query(job, n * m);
  return {sigma, features};
}

std::tuple<Tensor, Tensor> query_planes(const Tensor& planes, const Tensor& w0, const Tensor& b0, const Tensor& w1,
                                        const Tensor& b1, const Tensor& points, int64_t axes, double box_warp,
                                        int64_t /*precision*/, double slice_half_distance, double slice_centre) {
  const PlaneSettings settings{axes, box_warp, slice_half_distance, slice_centre};
  check_planes(planes, settings);
  check_decoder(planes, w0, b0, w1, b1);
  check_points(planes, points);
  if (planes.scalar_type() == ScalarType::Double)
    return query_planes_typed<double>(planes, w0, b0, w1, b1, points, settings);
  STD_TORCH_CHECK(planes.scalar_type() == ScalarType::Float, "query_planes takes float32 or float64 on the CPU, got ",
                  torch::headeronly::toString(planes.scalar_type()));
  return query_planes_typed<float>(planes, w0, b0, w1, b1, points, settings);
}

template <typename T>
Grads6 query_planes_backward_typed(const Tensor& planes, const Tensor& w0, const Tensor& b0, const Tensor& w1, const Tensor& b1,
                                   const Tensor& points_in, const PlaneSettings& settings, const Tensor& grad_sigma,
                                   const Tensor& grad_features, bool needs_planes, bool needs_weights, bool needs_points) {
  const Tensor points = contiguous(points_in), sigma = contiguous(grad_sigma), features = contiguous(grad_features);
  const int64_t lanes = render_kernels<T>().lanes;
  const PackedPlanes<T> packed = pack_planes<T>(planes, settings, lanes);
  const PackedDecoder<T> decoder(w0, b0, w1, b1, packed.view.channels, lanes);
  const PointJob<T> job = point_job(packed, decoder.view, points, true, planes.size(2));
  Tensor g_points = new_zeros(planes, {points.size(0), needs_points ? points.size(1) : 0, 3});
  const PointGradients<T> grads{sigma.const_data_ptr<T>(), features.const_data_ptr<T>(), needs_planes,
                                needs_weights,             needs_points,                  g_points.mutable_data_ptr<T>()};
  WeightGradients<T> weights(decoder.view, packed.view.channels, lanes);
  PlaneGradients<T> grad_planes(planes, needs_planes, packed.view.channels);
  run_query_backward(job, grads, points.size(0) * points.size(1), weights, grad_planes);
  Tensor g_planes = grad_planes.finish(needs_planes);
  if (!needs_points) g_points = nothing(planes);
  if (!needs_weights) return {g_planes, nothing(planes), nothing(planes), nothing(planes), nothing(planes), g_points};
  auto [g_w0, g_b0, g_w1, g_b1] = weights.unpack(w0, b0, w1, b1);
  return {g_planes, g_w0, g_b0, g_w1, g_b1, g_points};
}

Grads6 query_planes_backward(const Tensor& planes, const Tensor& w0, const Tensor& b0, const Tensor& w1, const Tensor& b1,
                             const Tensor& points, int64_t axes, double box_warp, int64_t /*precision*/,
                             const Tensor& grad_sigma, const Tensor& grad_features, bool needs_planes, bool needs_weights,
                             bool needs_points, double slice_half_distance, double slice_centre) {
  const PlaneSettings settings{axes, box_warp, slice_half_distance, slice_centre};
  check_planes(planes, settings);
  check_decoder(planes, w0, b0, w1, b1);
  check_points(planes, points);
  check_like(grad_sigma, "grad_sigma", planes);
  check_like(grad_features, "grad_features", planes);
  STD_TORCH_CHECK(grad_sigma.numel() == points.numel() / 3 && grad_features.numel() == points.numel() / 3 * (w1.size(0) - 1),
                  "grad_sigma must be [N, M, 1] and grad_features [N, M, F], got ", shape_of(grad_sigma), " and ",
                  shape_of(grad_features));
  if (planes.scalar_type() == ScalarType::Double)
    return query_planes_backward_typed<double>(planes, w0, b0, w1, b1, points, settings, grad_sigma, grad_features,
                                               needs_planes, needs_weights, needs_points);
  STD_TORCH_CHECK(planes.scalar_type() == ScalarType::Float, "query_planes takes float32 or float64 on the CPU, got ",
                  torch::headeronly::toString(planes.scalar_type()));
  return query_planes_backward_typed<float>(planes, w0, b0, w1, b1, points, settings, grad_sigma, grad_features,
                                            needs_planes, needs_weights, needs_points);
}

}  // namespace
}  // namespace head3d

STABLE_TORCH_LIBRARY_IMPL(head3d, CPU, m) {
  m.impl("render_rays", TORCH_BOX(&head3d::render_rays));
  m.impl("render_rays_backward", TORCH_BOX(&head3d::render_rays_backward));
  m.impl("sample_planes", TORCH_BOX(&head3d::sample_planes));
  m.impl("sample_planes_backward", TORCH_BOX(&head3d::sample_planes_backward));
  m.impl("query_planes", TORCH_BOX(&head3d::query_planes));
  m.impl("query_planes_backward", TORCH_BOX(&head3d::query_planes_backward));
}
