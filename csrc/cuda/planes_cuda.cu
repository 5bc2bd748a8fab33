// sample_planes and query_planes on CUDA: points anywhere, rather than along rays.
#include "cuda/simple.cuh"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>

#include "cuda/tile_backward.cuh"

namespace head3d {
namespace {

using torch::stable::contiguous;
using torch::stable::new_empty;
using torch::stable::new_zeros;

constexpr int kThreads = 128;

// One thread a channel of a point: neighbouring threads read neighbouring channels.
template <int kPlanes, typename T>
__global__ void sample_kernel(PlaneView<const T> planes, const T* points /* [N, M, 3] */, T* out /* [N, M, C] */, int64_t images,
                              int64_t count, Projection<T> at) {
  const int64_t total = images * count * planes.channels, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    const int64_t point = i / planes.channels, c = i % planes.channels;
    const T* image = planes.data + point / count * planes.image + c * planes.channel;
    const T front = front_of<kPlanes>(points[3 * point + 2], at);
    T sum = kPlanes == 4 ? front * T(0) : T(0);
    for (int plane = 0; plane < kPlanes; ++plane) {
      const T share = share_of<kPlanes>(plane, front);
      if (share == T(0)) continue;
      const PlaneTaps<T> taps(points + 3 * point, plane, at, planes.height, planes.width);
      for (int corner = 0; corner < 4; ++corner) {
        if (taps.inside(corner)) sum += share * taps.weight(corner) * image[taps.offset(planes, plane, corner)];
      }
    }
    out[i] = sum;
  }
}

template <int kPlanes, typename T>
__global__ void sample_planes_backward_kernel(PlaneView<T> grad_planes, const T* points, const T* grad /* [N, M, C] */,
                                              int64_t images, int64_t count, Projection<T> at) {
  const int64_t total = images * count * grad_planes.channels, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    const int64_t point = i / grad_planes.channels, c = i % grad_planes.channels;
    T* image = grad_planes.data + point / count * grad_planes.image + c * grad_planes.channel;
    const T front = front_of<kPlanes>(points[3 * point + 2], at);
    for (int plane = 0; plane < kPlanes; ++plane) {
      const T share = share_of<kPlanes>(plane, front);
      if (share == T(0)) continue;
      const PlaneTaps<T> taps(points + 3 * point, plane, at, grad_planes.height, grad_planes.width);
      for (int corner = 0; corner < 4; ++corner) {
        if (taps.inside(corner)) {
          atomicAdd(image + taps.offset(grad_planes, plane, corner), share * taps.weight(corner) * grad[i]);
        }
      }
    }
  }
}

// One thread a point.
template <int kPlanes, typename T>
__global__ void sample_points_backward_kernel(PlaneView<const T> planes, const T* points, const T* grad, T* grad_points,
                                              int64_t images, int64_t count, Projection<T> at) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  const PlaneView<T> none{};
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < images * count; i += step) {
    const T* image = planes.data + i / count * planes.image;
    read_point_backward<kPlanes>(planes, image, points + 3 * i, at, grad + i * planes.channels, none, static_cast<T*>(nullptr),
                                 grad_points + 3 * i);
  }
}

template <typename T>
struct QueryArgs {
  DecoderArgs<T> decoder;
  const T* points;  // [N, M, 3]
  int64_t images, count;
  Projection<T> projection;
};

template <int kPlanes, typename T>
__global__ void query_simple_kernel(PlaneView<const T> planes, QueryArgs<T> args, T* sigma /* [N, M, 1] */,
                                   T* colours /* [N, M, F] */) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  T x[kSimpleChannels], colour[kSimpleChannels];
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < args.images * args.count; i += step) {
    read_point<kPlanes>(planes, planes.data + i / args.count * planes.image, args.points + 3 * i, args.projection, x);
    sigma[i] = decode_point(args.decoder, x, colour);
    for (int f = 0; f < args.decoder.features; ++f) colours[i * args.decoder.features + f] = colour[f];
  }
}

template <int kPlanes, typename T>
__global__ void query_simple_backward_kernel(PlaneView<const T> planes, PlaneView<T> grad_planes, QueryArgs<T> args,
                                            DecoderGrads<T> grads, const T* grad_sigma, const T* grad_colours, T* grad_points) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  const int features = args.decoder.features;
  T x[kSimpleChannels], colour[kSimpleChannels], grad_x[kSimpleChannels];
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < args.images * args.count; i += step) {
    const int64_t n = i / args.count;
    const T* image = planes.data + n * planes.image;
    read_point<kPlanes>(planes, image, args.points + 3 * i, args.projection, x);
    decode_point(args.decoder, x, colour);
    for (int f = 0; f < features; ++f) {
      const T s = (colour[f] + T(kColourShift)) / T(kColourScale);
      colour[f] = grad_colours[i * features + f] * T(kColourScale) * s * (T(1) - s);
    }
    decode_point_backward(args.decoder, grads, x, grad_sigma[i], colour, grad_x);
    read_point_backward<kPlanes>(planes, image, args.points + 3 * i, args.projection, grad_x, grad_planes,
                                 grad_planes.data == nullptr ? nullptr : grad_planes.data + n * grad_planes.image,
                                 grad_points == nullptr ? nullptr : grad_points + 3 * i);
  }
}

// Tensor cores: a warp takes 16 points. RenderArgs carries the decoder.
template <int kPlanes, typename P>
__global__ __launch_bounds__(128) void query_tiles_kernel(TileView<const P> planes, RenderArgs<float> decoder,
                                                          QueryArgs<float> args, float* sigma, float* colours) {
  __shared__ ForwardWeights<P> weights;
  load_decoder(weights, decoder);
  __syncthreads();
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const int64_t total = args.images * args.count, warps = int64_t(gridDim.x) * (blockDim.x / 32);
  for (int64_t tile = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; tile * kTile < total; tile += warps) {
    float x[2][kSlots];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t i = min(tile * kTile + g + 8 * half, total - 1);
      const float point[3] = {args.points[3 * i], args.points[3 * i + 1], args.points[3 * i + 2]};
      gather<kPlanes>(planes, planes.data + i / args.count * planes.image, point, args.projection, t, x[half]);
    }
    Decoded decoded;
    decode(weights, x[0], x[1], lane, true, decoded, [](int, const float(&)[4]) {});
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t i = tile * kTile + g + 8 * half;
      if (i >= total) continue;
      if (t == 0) sigma[i] = half ? decoded.sigma1 : decoded.sigma0;
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const float scale = static_cast<float>(kColourScale), shift = static_cast<float>(kColourShift);
        *reinterpret_cast<float2*>(colours + i * kFeatures + 8 * q + 2 * t) =
            make_float2(fmaf(scale, tile_sigmoid(decoded.logits[4 * q + 2 * half]), -shift),
                        fmaf(scale, tile_sigmoid(decoded.logits[4 * q + 2 * half + 1]), -shift));
      }
    }
  }
}

template <int kPlanes, typename P>
__global__ __launch_bounds__(32 * kBackwardWarps) void query_tiles_backward_kernel(
    TileView<const P> planes, TileView<float> grad_planes, RenderArgs<float> decoder, QueryArgs<float> args,
    DecoderGrads<float> grads, const float* grad_sigma, const float* grad_colours, float* grad_points) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& forward = *reinterpret_cast<ForwardWeights<P>*>(shared);
  auto& backward = *reinterpret_cast<BackwardWeights<P>*>(shared + sizeof(forward));
  auto* tiles = reinterpret_cast<TileMemory<P>*>(shared + sizeof(forward) + sizeof(backward));
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  TileMemory<P>& tile = tiles[warp];
  load_decoder(forward, decoder);
  load_backward(backward, decoder);
  for (int i = lane; i < static_cast<int>(sizeof(TileMemory<P>) / 4); i += 32) reinterpret_cast<float*>(&tile)[i] = 0.f;
  __syncthreads();
  const int64_t total = args.images * args.count;
  WeightSums sums;
  for (int64_t block = blockIdx.x; block * kTile * kBackwardWarps < total; block += gridDim.x) {
    const int64_t first = (block * kBackwardWarps + warp) * kTile;
    float x[2][kSlots], points[2][3], sigmas[2] = {};
    const P* images[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t i = min(first + g + 8 * half, total - 1);
      images[half] = planes.data + i / args.count * planes.image;
#pragma unroll
      for (int k = 0; k < 3; ++k) points[half][k] = args.points[3 * i + k];
      gather<kPlanes>(planes, images[half], points[half], args.projection, t, x[half]);
    }
    store_inputs(tile, x[0], x[1], lane);
    Decoded decoded;
    decode(forward, x[0], x[1], lane, true, decoded,
           [&](int j, const float(&h)[4]) { store_hidden(tile, j, h, lane); });
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t i = first + g + 8 * half;
      if (i < total) sigmas[half] = grad_sigma[i];
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const int place = (k >> 1) * 4 + (k & 1) + 2 * half;
        const float s = tile_sigmoid(decoded.logits[place]);
        const float grad = i < total ? grad_colours[i * kFeatures + 8 * (k >> 1) + 2 * t + (k & 1)] : 0.f;
        decoded.logits[place] = grad * static_cast<float>(kColourScale) * s * (1.f - s);
      }
    }
    float grad[2][kSlots];
    decode_backward(forward, backward, tile, decoded.logits, sigmas[0], sigmas[1], lane, grad[0], grad[1]);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t i = first + g + 8 * half;
      if (grad_planes.data != nullptr && i < total) {
        scatter<kPlanes>(grad_planes, grad_planes.data + i / args.count * grad_planes.image, points[half], args.projection, t,
                         grad[half]);
      }
      if (grad_points != nullptr) {
        float by_point[3] = {};
        grad_point<kPlanes>(planes, images[half], points[half], args.projection, t, grad[half], by_point);
#pragma unroll
        for (int k = 0; k < 3; ++k) {
          const float sum = quad_sum(by_point[k]);
          if (t == 0 && i < total) grad_points[3 * i + k] = sum;
        }
      }
    }
    if (grads.w0 != nullptr) {
      __syncthreads();
      sums.add<P>(tiles, warp, lane);
      __syncthreads();
    }
  }
  if (grads.w0 != nullptr) sums.flush<P>(grads.w0, grads.b0, grads.w1, grads.b1, warp, lane);
}

void check_kind(const Tensor& planes, const char* op) {
  const auto type = planes.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double, op, " on CUDA takes float or double planes, got ",
                  torch::headeronly::toString(type));
}

// Calls run(T{}) with the type of the planes.
template <typename Run>
void with_type(const Tensor& planes, Run run) {
  if (planes.scalar_type() == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
}

Tensor sample_planes_cuda(Tensor planes, Tensor points, int64_t axes, double box_warp, double slice_half_distance,
                          double slice_centre) {
  const PlaneSettings settings{axes, box_warp, slice_half_distance, slice_centre};
  check_planes(planes, settings);
  check_points(planes, points);
  check_kind(planes, "sample_planes");
  const torch::stable::accelerator::DeviceGuard guard(planes.get_device_index());
  const int64_t n = planes.size(0), m = points.size(1), c = planes.size(2);
  const Tensor out = new_empty(planes, {n, m, c}), at = contiguous(points);
  if (n * m == 0) return out;
  with_type(planes, [&](auto zero) {
    using T = decltype(zero);
    const auto kernel = planes.size(1) == 4 ? sample_kernel<4, T> : sample_kernel<3, T>;
    kernel<<<blocks_for(n * m * c, kThreads), kThreads, 0, current_stream(planes)>>>(
        view_of<const T>(planes, planes.const_data_ptr<T>()), at.const_data_ptr<T>(), out.mutable_data_ptr<T>(), n, m,
        projection_of<T>(settings));
  });
  check_launch("sample_planes");
  return out;
}

std::tuple<Tensor, Tensor> sample_planes_backward_cuda(Tensor planes, Tensor points, int64_t axes, double box_warp, Tensor grad,
                                                       bool needs_planes, bool needs_points, double slice_half_distance,
                                                       double slice_centre) {
  const PlaneSettings settings{axes, box_warp, slice_half_distance, slice_centre};
  check_planes(planes, settings);
  check_points(planes, points);
  check_kind(planes, "sample_planes");
  check_like(grad, "grad", planes);
  const torch::stable::accelerator::DeviceGuard guard(planes.get_device_index());
  const int64_t n = planes.size(0), m = points.size(1), c = planes.size(2);
  STD_TORCH_CHECK(grad.dim() == 3 && grad.size(0) == n && grad.size(1) == m && grad.size(2) == c,
                  "grad must be [N, M, C] like the features, got ", shape_of(grad));
  const Tensor at = contiguous(points), in = contiguous(grad);
  const Tensor grad_planes =
      needs_planes ? new_zeros(planes, {n, planes.size(1), planes.size(3), planes.size(4), c}) : new_empty(planes, {0});
  const Tensor grad_points = needs_points ? new_zeros(planes, {n, m, 3}) : new_empty(planes, {0});
  if (n * m == 0) return {grad_planes, grad_points};
  const cudaStream_t stream = current_stream(planes);
  with_type(planes, [&](auto zero) {
    using T = decltype(zero);
    const bool slices = planes.size(1) == 4;
    if (needs_planes) {
      const auto kernel = slices ? sample_planes_backward_kernel<4, T> : sample_planes_backward_kernel<3, T>;
      kernel<<<blocks_for(n * m * c, kThreads), kThreads, 0, stream>>>(
          channels_last_view<T>(planes, grad_planes.mutable_data_ptr<T>()), at.const_data_ptr<T>(), in.const_data_ptr<T>(), n, m,
          projection_of<T>(settings));
    }
    if (needs_points) {
      const auto kernel = slices ? sample_points_backward_kernel<4, T> : sample_points_backward_kernel<3, T>;
      kernel<<<blocks_for(n * m, kThreads), kThreads, 0, stream>>>(
          view_of<const T>(planes, planes.const_data_ptr<T>()), at.const_data_ptr<T>(), in.const_data_ptr<T>(),
          grad_points.mutable_data_ptr<T>(), n, m, projection_of<T>(settings));
    }
  });
  check_launch("sample_planes_backward");
  return {grad_planes, grad_points};
}

// Inputs of a query, checked and contiguous.
struct Query {
  Tensor planes, w0, b0, w1, b1, points;
  PlaneSettings settings;
  bool mixed;

  Query(const Tensor& planes_, const Tensor& w0_, const Tensor& b0_, const Tensor& w1_, const Tensor& b1_, const Tensor& points_,
        const PlaneSettings& settings_, int64_t precision)
      : planes(planes_), settings(settings_), mixed(precision == 1) {
    check_planes(planes, settings);
    check_decoder(planes, w0_, b0_, w1_, b1_);
    check_points(planes, points_);
    check_kind(planes, "query_planes");
    STD_TORCH_CHECK(planes.size(2) <= kSimpleChannels && w1_.size(0) <= kSimpleChannels, "query_planes on CUDA takes at most ",
                    kSimpleChannels, " channels and ", kSimpleChannels - 1, " features, got ", planes.size(2), " and ",
                    w1_.size(0) - 1);
    check_launch_limits(planes);
    w0 = contiguous(w0_);
    b0 = contiguous(b0_);
    w1 = contiguous(w1_);
    b1 = contiguous(b1_);
    points = contiguous(points_);
  }

  int64_t images() const { return planes.size(0); }
  bool slices() const { return planes.size(1) == 4; }
  int64_t count() const { return points.size(1); }
  int64_t features() const { return w1.size(0) - 1; }
  bool tiles() const {
    return planes.scalar_type() == ScalarType::Float && planes.size(2) == kChannels && w0.size(0) == kHidden &&
           features() == kFeatures && tiles_compiled();
  }

  template <typename T>
  QueryArgs<T> args() const {
    return {{w0.const_data_ptr<T>(), b0.const_data_ptr<T>(), w1.const_data_ptr<T>(), b1.const_data_ptr<T>(),
             static_cast<int>(planes.size(2)), static_cast<int>(w0.size(0)), static_cast<int>(features())},
            points.const_data_ptr<T>(),
            images(),
            count(),
            projection_of<T>(settings)};
  }

  RenderArgs<float> decoder() const {
    RenderArgs<float> args{};
    args.w0 = w0.const_data_ptr<float>();
    args.b0 = b0.const_data_ptr<float>();
    args.w1 = w1.const_data_ptr<float>();
    args.b1 = b1.const_data_ptr<float>();
    return args;
  }

  // Calls run(view) with planes in half or float, channels innermost. Few points do not pay for a copy in half.
  template <typename Run>
  void with_tile_planes(cudaStream_t stream, Run run) const {
    const auto view = view_of<const float>(planes, planes.const_data_ptr<float>());
    const int64_t h = planes.size(3), w = planes.size(4);
    if (mixed && count() > h * w / 4) {
      const Tensor packed = new_empty(planes, {images(), planes.size(1), h, w, kChannels}, ScalarType::Half);
      __half* data = static_cast<__half*>(packed.mutable_data_ptr());
      launch_repack(view, images(), data, stream);
      run(tile_view(channels_last_view<const __half>(planes, data)));
    } else if (readable_in_place(planes)) {
      run(tile_view(view));
    } else {
      const Tensor packed = new_empty(planes, {images(), planes.size(1), h, w, kChannels});
      float* data = static_cast<float*>(packed.mutable_data_ptr());
      launch_repack(view, images(), data, stream);
      run(tile_view(channels_last_view<const float>(planes, data)));
    }
  }

  // Blocks that keep the device busy: each warp takes 16 points at a time.
  unsigned blocks(int warps, int per_multiprocessor) const {
    const int64_t wanted = (images() * count() + kTile * warps - 1) / (kTile * warps);
    return static_cast<unsigned>(
        std::min<int64_t>(wanted, int64_t(multiprocessors(planes.get_device_index())) * per_multiprocessor));
  }
};

std::tuple<Tensor, Tensor> query_planes_cuda(Tensor planes, Tensor w0, Tensor b0, Tensor w1, Tensor b1, Tensor points,
                                             int64_t axes, double box_warp, int64_t precision, double slice_half_distance,
                                             double slice_centre) {
  const Query query(planes, w0, b0, w1, b1, points, {axes, box_warp, slice_half_distance, slice_centre}, precision);
  const torch::stable::accelerator::DeviceGuard guard(planes.get_device_index());
  const int64_t n = query.images(), m = query.count();
  const Tensor sigma = new_empty(planes, {n, m, 1}), colours = new_empty(planes, {n, m, query.features()});
  if (n * m == 0) return {sigma, colours};
  const cudaStream_t stream = current_stream(planes);
  if (query.tiles()) {
    query.with_tile_planes(stream, [&]<typename P>(const TileView<const P>& view) {
      const auto kernel = query.slices() ? query_tiles_kernel<4, P> : query_tiles_kernel<3, P>;
      kernel<<<query.blocks(4, 4), 128, 0, stream>>>(view, query.decoder(), query.args<float>(), sigma.mutable_data_ptr<float>(),
                                                     colours.mutable_data_ptr<float>());
    });
  } else {
    with_type(planes, [&](auto zero) {
      using T = decltype(zero);
      const auto kernel = query.slices() ? query_simple_kernel<4, T> : query_simple_kernel<3, T>;
      kernel<<<blocks_for(n * m, 64), 64, 0, stream>>>(view_of<const T>(planes, planes.const_data_ptr<T>()), query.args<T>(),
                                                       sigma.mutable_data_ptr<T>(), colours.mutable_data_ptr<T>());
    });
  }
  check_launch("query_planes");
  return {sigma, colours};
}

template <typename P>
void launch_query_tiles_backward(const Query& query, const TileView<const P>& view, const TileView<float>& grad_view,
                                 const DecoderGrads<float>& grads, const Tensor& grad_sigma, const Tensor& grad_colours,
                                 float* grad_points, cudaStream_t stream) {
  const size_t memory = sizeof(ForwardWeights<P>) + sizeof(BackwardWeights<P>) + kBackwardWarps * sizeof(TileMemory<P>);
  const auto kernel = query.slices() ? query_tiles_backward_kernel<4, P> : query_tiles_backward_kernel<3, P>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(memory)),
             "shared memory for query_planes_backward");
  kernel<<<query.blocks(kBackwardWarps, 2), 32 * kBackwardWarps, memory, stream>>>(
      view, grad_view, query.decoder(), query.args<float>(), grads, grad_sigma.const_data_ptr<float>(),
      grad_colours.const_data_ptr<float>(), grad_points);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> query_planes_backward_cuda(
    Tensor planes, Tensor w0, Tensor b0, Tensor w1, Tensor b1, Tensor points, int64_t axes, double box_warp, int64_t precision,
    Tensor grad_sigma, Tensor grad_features, bool needs_planes, bool needs_weights, bool needs_points, double slice_half_distance,
    double slice_centre) {
  const Query query(planes, w0, b0, w1, b1, points, {axes, box_warp, slice_half_distance, slice_centre}, precision);
  const torch::stable::accelerator::DeviceGuard guard(planes.get_device_index());
  const int64_t n = query.images(), m = query.count();
  check_like(grad_sigma, "grad_sigma", planes);
  check_like(grad_features, "grad_features", planes);
  STD_TORCH_CHECK(grad_sigma.numel() == n * m && grad_features.numel() == n * m * query.features(),
                  "grad_sigma and grad_features must have the shapes of the results, got ", shape_of(grad_sigma), " and ",
                  shape_of(grad_features));
  const Tensor in_sigma = contiguous(grad_sigma), in_colours = contiguous(grad_features);
  const auto zeros = [&](bool wanted, const Tensor& like) {
    return wanted ? new_zeros(like, like.sizes()) : new_empty(planes, {0});
  };
  const Tensor grad_planes =
      needs_planes ? new_zeros(planes, {n, planes.size(1), planes.size(3), planes.size(4), planes.size(2)}) : new_empty(planes, {0});
  const Tensor grad_w0 = zeros(needs_weights, query.w0), grad_b0 = zeros(needs_weights, query.b0);
  const Tensor grad_w1 = zeros(needs_weights, query.w1), grad_b1 = zeros(needs_weights, query.b1);
  const Tensor grad_points = zeros(needs_points, query.points);
  const std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> out{grad_planes, grad_w0, grad_b0,
                                                                       grad_w1,     grad_b1, grad_points};
  if (n * m == 0 || !(needs_planes || needs_weights || needs_points)) return out;
  const cudaStream_t stream = current_stream(planes);
  with_type(planes, [&](auto zero) {
    using T = decltype(zero);
    const auto data = [](const Tensor& t, bool wanted) { return wanted ? t.mutable_data_ptr<T>() : nullptr; };
    const DecoderGrads<T> grads{data(grad_w0, needs_weights), data(grad_b0, needs_weights), data(grad_w1, needs_weights),
                                data(grad_b1, needs_weights)};
    const auto grad_view = channels_last_view<T>(planes, data(grad_planes, needs_planes));
    if constexpr (std::is_same_v<T, float>) {
      if (query.tiles()) {
        query.with_tile_planes(stream, [&](const auto& view) {
          launch_query_tiles_backward(query, view, tile_view(grad_view), grads, in_sigma, in_colours,
                                      data(grad_points, needs_points), stream);
        });
        return;
      }
    }
    const auto kernel = query.slices() ? query_simple_backward_kernel<4, T> : query_simple_backward_kernel<3, T>;
    kernel<<<blocks_for(n * m, 64), 64, 0, stream>>>(
        view_of<const T>(planes, planes.const_data_ptr<T>()), grad_view, query.args<T>(), grads, in_sigma.const_data_ptr<T>(),
        in_colours.const_data_ptr<T>(), data(grad_points, needs_points));
  });
  check_launch("query_planes_backward");
  return out;
}

}  // namespace
}  // namespace head3d

STABLE_TORCH_LIBRARY_IMPL(head3d, CUDA, m) {
  m.impl("sample_planes", TORCH_BOX(&head3d::sample_planes_cuda));
  m.impl("sample_planes_backward", TORCH_BOX(&head3d::sample_planes_backward_cuda));
  m.impl("query_planes", TORCH_BOX(&head3d::query_planes_cuda));
  m.impl("query_planes_backward", TORCH_BOX(&head3d::query_planes_backward_cuda));
}
