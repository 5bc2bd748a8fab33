// What surrounds the convolutions of a style-based network, on CUDA: scale of each channel, noise, bias, activation, gain
// and limit in one pass, and all its gradients in another. Memory traffic is everything here.
//
// Sums over pixels are made without atomics: each block writes its own, and a second kernel adds them in a fixed order.
#include "cuda/images.cuh"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <tuple>

namespace head3d {
namespace {

using torch::stable::contiguous;

constexpr int kThreads = 256;
constexpr int kSums = 4;        // of the gradient g before the scale: g, g x, g noise; of the output's gradient: times y / after
constexpr double kSlope = 0.2;  // filters.SLOPE

// y = after[n, c] clamp(gain act(x scale[n, c] + strength noise[n, pixel] + bias[c])); pointers may be null.
template <typename W>
struct Layer {
  const W* scale;     // [N, C]
  const W* noise;     // [N or 1, pixels]
  const W* strength;  // [1]
  const W* bias;      // [C]
  const W* after;     // [N, C]
  int64_t noise_image;  // 0: one map for all
  int64_t pixels;
  int images, channels;
  W slope, gain, limit;
  bool scale_only() const {
    return scale && !noise && !bias && !after && slope == W(1) && gain == W(1) && limit == std::numeric_limits<W>::infinity();
  }
};

// Channels innermost: a block takes `chunk` pixels of an image and up to `groups` times V channels; each thread keeps its
// channels, so that scale and bias stay in registers.
struct Place {
  int lane, lanes, channel;
  int64_t image, chunk, first, last;
  bool active;
  template <typename W>
  __device__ Place(const Layer<W>& a, int groups, int chunks, int64_t chunk_pixels, int v) {
    const int group = threadIdx.x % groups;
    lane = threadIdx.x / groups;
    lanes = kThreads / groups;
    channel = (blockIdx.y * groups + group) * v;
    image = blockIdx.x / chunks;
    chunk = blockIdx.x % chunks;
    first = chunk * chunk_pixels;
    last = min(first + chunk_pixels, a.pixels);
    active = lane < lanes && channel < a.channels;
  }
};

template <typename W>
__device__ __forceinline__ W activate(W v, const Layer<W>& a) {
  v *= v > W(0) ? a.gain : a.gain * a.slope;
  return v > a.limit ? a.limit : (v < -a.limit ? -a.limit : v);  // NaN stays
}

// kScaleOnly: y = x scale. Half of all calls are that, and nothing but memory traffic.
template <typename S, int V, bool kScaleOnly>
__global__ __launch_bounds__(kThreads) void layer_inner_kernel(const S* __restrict__ x, S* __restrict__ out, Layer<Wide<S>> a,
                                                               int groups, int chunks, int64_t chunk_pixels) {
  using W = Wide<S>;
  const Place at(a, groups, chunks, chunk_pixels, V);
  if (!at.active) return;
  W scale[V], bias[V], after[V];
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int64_t own = at.image * a.channels + at.channel + k;
    scale[k] = a.scale ? a.scale[own] : W(1);
    bias[k] = a.bias ? a.bias[at.channel + k] : W(0);
    after[k] = a.after ? a.after[own] : W(1);
  }
  const W strength = a.noise ? *a.strength : W(0);
  const W* noise = a.noise + at.image * a.noise_image;
  const int64_t begin = (at.image * a.pixels + at.first + at.lane) * a.channels + at.channel;
  const int step = at.lanes * a.channels;
  const S* from = x + begin;
  S* to = out + begin;
#pragma unroll 4
  for (int64_t p = at.first + at.lane; p < at.last; p += at.lanes, from += step, to += step) {
    auto values = *reinterpret_cast<const Pack<S, V>*>(from);
    const W add = !kScaleOnly && a.noise ? strength * noise[p] : W(0);
    W wide[V];
    widen(values, wide);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const W scaled = wide[k] * scale[k];
      values.at[k] = static_cast<S>(kScaleOnly ? scaled : activate(scaled + (add + bias[k]), a) * after[k]);
    }
    *reinterpret_cast<Pack<S, V>*>(to) = values;
  }
}

// Pixels innermost; V divides them.
template <typename S, int V>
__global__ __launch_bounds__(kThreads) void layer_outer_kernel(const S* __restrict__ x, S* __restrict__ out, Layer<Wide<S>> a) {
  using W = Wide<S>;
  const int64_t total = int64_t(a.images) * a.channels * a.pixels, step = int64_t(gridDim.x) * kThreads * V;
  const W strength = a.noise ? *a.strength : W(0);
  for (int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V; i < total; i += step) {
    const int64_t plane = i / a.pixels, pixel = i - plane * a.pixels, image = plane / a.channels;
    const W scale = a.scale ? a.scale[plane] : W(1), bias = a.bias ? a.bias[plane - image * a.channels] : W(0);
    const W after = a.after ? a.after[plane] : W(1);
    auto values = *reinterpret_cast<const Pack<S, V>*>(x + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const W add = a.noise ? strength * a.noise[image * a.noise_image + pixel + k] : W(0);
      values.at[k] = static_cast<S>(activate(widen(values.at[k]) * scale + (add + bias), a) * after);
    }
    *reinterpret_cast<Pack<S, V>*>(out + i) = values;
  }
}

// The gradient before the scale. kFromOutput: `x` is the layer's output, whose sign and size tell all.
template <bool kFromOutput, typename W>
__device__ __forceinline__ W gradient(W grad, W x, W scale, W shift, const Layer<W>& a) {
  if constexpr (kFromOutput) {
    const W g = grad * (x > W(0) ? a.gain : a.gain * a.slope);
    return x < a.limit && x > -a.limit ? g : W(0);
  } else {
    const W v = x * scale + shift, factor = v > W(0) ? a.gain : a.gain * a.slope;
    return fabs(v * factor) <= a.limit ? grad * factor : W(0);
  }
}

// sums: [kSums, N, chunks, C]
template <typename S, int V, bool kFromOutput, bool kScaleOnly, bool kAfter>
__global__ __launch_bounds__(kThreads) void layer_backward_inner_kernel(const S* __restrict__ grad, const S* __restrict__ x,
                                                                        S* __restrict__ out, Wide<S>* __restrict__ sums,
                                                                        Layer<Wide<S>> a, int groups, int chunks,
                                                                        int64_t chunk_pixels) {
  using W = Wide<S>;
  __shared__ W shared[V * (kThreads + kThreads / 4)];  // at most kThreads / 4 groups, see Division
  const Place at(a, groups, chunks, chunk_pixels, V);
  W scale[V], bias[V], after[V], sum[kSums][V];
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int64_t own = at.image * a.channels + at.channel + k;
    scale[k] = at.active && a.scale ? a.scale[own] : W(1);
    bias[k] = at.active && a.bias ? a.bias[at.channel + k] : W(0);
    after[k] = at.active && kAfter ? a.after[own] : W(1);
    for (int s = 0; s < kSums; ++s) sum[s][k] = W(0);
  }
  const W strength = a.noise ? *a.strength : W(0);
  const W* noise = a.noise + at.image * a.noise_image;
  if (at.active) {
    const int64_t begin = (at.image * a.pixels + at.first + at.lane) * a.channels + at.channel;
    const int step = at.lanes * a.channels;
    const S *given = grad + begin, *from = x + begin;
    S* to = out + begin;
#pragma unroll 2
    for (int64_t p = at.first + at.lane; p < at.last; p += at.lanes, given += step, from += step, to += step) {
      auto grads = *reinterpret_cast<const Pack<S, V>*>(given);
      const auto values = *reinterpret_cast<const Pack<S, V>*>(from);
      const W drawn = !kScaleOnly && a.noise ? noise[p] : W(0), add = strength * drawn;
      W seen[V], wide[V];
      widen(values, seen);
      widen(grads, wide);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const W value = seen[k];
        W incoming = wide[k];
        if (kAfter) {
          sum[3][k] += incoming * activate(value * scale[k] + (add + bias[k]), a);
          incoming *= after[k];
        }
        const W g = kScaleOnly ? incoming : gradient<kFromOutput>(incoming, value, scale[k], add + bias[k], a);
        sum[0][k] += g;
        if (!kFromOutput) sum[1][k] += g * value;
        if (!kFromOutput && !kScaleOnly) sum[2][k] += g * drawn;
        grads.at[k] = static_cast<S>(kFromOutput ? g : g * scale[k]);
      }
      *reinterpret_cast<Pack<S, V>*>(to) = grads;
    }
  }
  // Over the lanes of the block. Rows are kThreads + groups long, so that threads read different banks.
  const int row = kThreads + groups, width = min(groups * V, a.channels - static_cast<int>(blockIdx.y) * groups * V);
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    __syncthreads();
#pragma unroll
    for (int k = 0; k < V; ++k) shared[k * row + threadIdx.x] = sum[s][k];
    __syncthreads();
    for (int t = threadIdx.x; t < groups * V; t += kThreads) {
      const int k = t / groups, group = t % groups;
      W total = 0;
      for (int lane = 0; lane < at.lanes; ++lane) total += shared[k * row + lane * groups + group];
      const int channel = group * V + k;
      if (channel < width) {
        sums[((int64_t(s) * a.images + at.image) * chunks + at.chunk) * a.channels + blockIdx.y * groups * V + channel] = total;
      }
    }
  }
}

// A warp for each plane; sums: [kSums, N, C].
template <typename S, bool kFromOutput>
__global__ __launch_bounds__(kThreads) void layer_backward_outer_kernel(const S* __restrict__ grad, const S* __restrict__ x,
                                                                        S* __restrict__ out, Wide<S>* __restrict__ sums,
                                                                        Layer<Wide<S>> a) {
  using W = Wide<S>;
  const int64_t plane = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32, planes = int64_t(a.images) * a.channels;
  if (plane >= planes) return;  // whole warps
  const int64_t image = plane / a.channels;
  const W scale = a.scale ? a.scale[plane] : W(1), bias = a.bias ? a.bias[plane - image * a.channels] : W(0);
  const W strength = a.noise ? *a.strength : W(0), after = a.after ? a.after[plane] : W(1);
  W sum[kSums] = {};
  for (int64_t p = threadIdx.x % 32; p < a.pixels; p += 32) {
    const int64_t i = plane * a.pixels + p;
    const W value = widen(x[i]), drawn = a.noise ? a.noise[image * a.noise_image + p] : W(0);
    const W incoming = widen(grad[i]), shift = strength * drawn + bias;
    const W g = gradient<kFromOutput>(incoming * after, value, scale, shift, a);
    sum[0] += g;
    if (!kFromOutput) sum[1] += g * value;
    sum[2] += g * drawn;
    if (!kFromOutput) sum[3] += incoming * activate(value * scale + shift, a);
    out[i] = static_cast<S>(g * scale);
  }
  for (int s = 0; s < kSums; ++s) {
    for (int step = 16; step > 0; step /= 2) sum[s] += __shfl_xor_sync(kAllLanes, sum[s], step);
    if (threadIdx.x % 32 == 0) sums[s * planes + plane] = sum[s];
  }
}

// [rows, chunks, channels] -> [rows, channels]
template <typename W>
__global__ __launch_bounds__(kThreads) void add_chunks_kernel(const W* __restrict__ parts, W* __restrict__ out, int chunks,
                                                              int channels) {
  __shared__ W shared[kThreads];
  const int column = threadIdx.x % 32, channel = blockIdx.y * 32 + column;
  const int64_t row = blockIdx.x;
  W total = 0;
  if (channel < channels) {
    for (int c = threadIdx.x / 32; c < chunks; c += kThreads / 32) total += parts[(row * chunks + c) * channels + channel];
  }
  shared[threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.x >= 32 || channel >= channels) return;
  for (int k = 1; k < kThreads / 32; ++k) total += shared[k * 32 + column];
  out[row * channels + channel] = total;
}

// ---- tensors in, tensors out ----------------------------------------------------------------------------------------

using Maybe = std::optional<Tensor>;

// How the channels-last kernels divide an image: `tiles` of `groups` packs of channels, `chunks` of `pixels`.
struct Division {
  int groups, tiles, chunks;
  int64_t pixels;
  dim3 grid;
  Division(const Tensor& x, int v) {
    const int64_t all = x.size(2) * x.size(3), packs = x.size(1) / v;
    tiles = static_cast<int>((packs + kThreads / 4 - 1) / (kThreads / 4));
    groups = static_cast<int>((packs + tiles - 1) / tiles);
    const int64_t lanes = kThreads / groups, wanted = multiprocessors(x.get_device_index()) * 8;
    const int64_t fill = (wanted + x.size(0) * tiles - 1) / (x.size(0) * tiles), most = (all + lanes * 4 - 1) / (lanes * 4);
    chunks = static_cast<int>(std::max<int64_t>(1, std::min(fill, most)));
    pixels = (all + chunks - 1) / chunks;
    grid = dim3(static_cast<unsigned>(x.size(0) * chunks), static_cast<unsigned>(tiles));
  }
};

void check_parts(const Tensor& x, const Maybe& scale, const Maybe& noise, const Maybe& strength, const Maybe& bias,
                 const Maybe& after) {
  STD_TORCH_CHECK(x.dim() == 4, "x must be [N, C, H, W], got ", shape_of(x));
  const int64_t n = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3);
  STD_TORCH_CHECK(n < (1 << 20) && c < (1 << 20), "x must have less than 2^20 images and channels, got ", shape_of(x));
  for (const Maybe* part : {&scale, &after}) {
    STD_TORCH_CHECK(!*part || ((*part)->dim() == 2 && (*part)->size(0) == n && (*part)->size(1) == c),
                    part == &scale ? "scale" : "after", " must be [N, C] = [", n, ", ", c, "], got ",
                    shape_of(part->value_or(x)));
  }
  STD_TORCH_CHECK(!noise || (noise->dim() == 4 && (noise->size(0) == n || noise->size(0) == 1) && noise->size(1) == 1 &&
                             noise->size(2) == h && noise->size(3) == w),
                  "noise must be [N or 1, 1, H, W] for x ", shape_of(x), ", got ", shape_of(noise.value_or(x)));
  STD_TORCH_CHECK(noise.has_value() == strength.has_value() && (!strength || strength->numel() == 1),
                  "noise comes with its strength, one number");
  STD_TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == c), "bias must be [C] = [", c, "], got ",
                  shape_of(bias.value_or(x)));
  const ScalarType wide = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  for (const Maybe* part : {&scale, &noise, &strength, &bias, &after}) {
    if (!part->has_value()) continue;
    STD_TORCH_CHECK((*part)->scalar_type() == wide, "scale, noise, strength, bias and after must be ",
                    torch::headeronly::toString(wide), " for x in ", torch::headeronly::toString(x.scalar_type()));
    STD_TORCH_CHECK((*part)->is_cuda() && (*part)->get_device_index() == x.get_device_index(),
                    "scale, noise, strength, bias and after must be on the device of x");
  }
}

// Contiguous copies (or the tensors themselves) that must outlive the launch's arguments.
struct Parts {
  Maybe scale, noise, strength, bias, after;
  Parts(const Maybe& s, const Maybe& n, const Maybe& t, const Maybe& b, const Maybe& a) {
    if (s) scale = contiguous(*s);
    if (n) noise = contiguous(*n);
    if (t) strength = contiguous(*t);
    if (b) bias = contiguous(*b);
    if (a) after = contiguous(*a);
  }
};

template <typename S>
Layer<Wide<S>> layer_of(const Tensor& x, const Parts& parts, int64_t activation, double gain, std::optional<double> limit) {
  using W = Wide<S>;
  STD_TORCH_CHECK(activation == 0 || activation == 1, "activation must be 0 (linear) or 1 (lrelu), got ", activation);
  STD_TORCH_CHECK(gain > 0, "a layer needs a positive gain, got ", gain);
  STD_TORCH_CHECK(!limit.has_value() || *limit > 0, "the limit must be positive, got ", limit.value_or(0));
  const auto pointer = [](const Maybe& t) { return t ? static_cast<const W*>(t->const_data_ptr()) : nullptr; };
  const int64_t pixels = x.size(2) * x.size(3);
  return {pointer(parts.scale),
          pointer(parts.noise),
          pointer(parts.strength),
          pointer(parts.bias),
          pointer(parts.after),
          parts.noise && parts.noise->size(0) > 1 ? pixels : 0,
          pixels,
          static_cast<int>(x.size(0)),
          static_cast<int>(x.size(1)),
          W(activation == 1 ? kSlope : 1.0),
          W(gain),
          W(limit.value_or(std::numeric_limits<double>::infinity()))};
}

Tensor layer_epilogue_cuda(Tensor x_in, Maybe scale, Maybe noise, Maybe strength, Maybe bias, Maybe after, int64_t activation,
                           double gain, std::optional<double> limit) {
  check_parts(x_in, scale, noise, strength, bias, after);
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const bool last = channels_last(x_in);
  const Tensor x = in_layout(x_in, last);
  const Tensor out = empty_image(x, x.sizes(), last);
  const Parts parts(scale, noise, strength, bias, after);
  with_type(x, "layer_epilogue", [&](auto zero) {
    using S = decltype(zero);
    constexpr int V = 16 / sizeof(S);
    const auto layer = layer_of<S>(x, parts, activation, gain, limit);
    if (x.numel() == 0) return;
    const S* from = data_of<S>(x);
    S* to = data_of<S>(out);
    const cudaStream_t stream = current_stream(x);
    const auto inner = [&](auto v) {
      constexpr int N = decltype(v)::value;
      const Division d(x, N);
      const auto kernel = layer.scale_only() ? layer_inner_kernel<S, N, true> : layer_inner_kernel<S, N, false>;
      kernel<<<d.grid, kThreads, 0, stream>>>(from, to, layer, d.groups, d.chunks, d.pixels);
    };
    const auto outer = [&](auto v) {
      constexpr int N = decltype(v)::value;
      const unsigned blocks = std::min<unsigned>(blocks_for(x.numel() / N, kThreads), multiprocessors(x.get_device_index()) * 32);
      layer_outer_kernel<S, N><<<blocks, kThreads, 0, stream>>>(from, to, layer);
    };
    const bool whole = aligned(from) && aligned(to) && (last ? layer.channels : layer.pixels) % V == 0;
    using Packed = std::integral_constant<int, V>;
    using Single = std::integral_constant<int, 1>;
    if (last) {
      whole ? inner(Packed{}) : inner(Single{});
    } else {
      whole ? outer(Packed{}) : outer(Single{});
    }
  });
  check_launch("layer_epilogue");
  return out;
}

// grad_x, and the sums [kSums, N, C] over pixels. kFromOutput: of g, 0, 0 and 0.
template <bool kFromOutput>
std::tuple<Tensor, Tensor> backward(const char* op, const Tensor& grad_in, const Tensor& x_in, const Parts& parts,
                                    int64_t activation, double gain, std::optional<double> limit) {
  STD_TORCH_CHECK(grad_in.scalar_type() == x_in.scalar_type() && grad_in.dim() == 4 && x_in.dim() == 4 &&
                      grad_in.size(0) == x_in.size(0) && grad_in.size(1) == x_in.size(1) && grad_in.size(2) == x_in.size(2) &&
                      grad_in.size(3) == x_in.size(3),
                  "grad must have the shape and type of the layer, got ", shape_of(grad_in), " and ", shape_of(x_in));
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const bool last = channels_last(x_in);
  const Tensor grad = in_layout(grad_in, last), x = in_layout(x_in, last);
  const Tensor out = empty_image(x, x.sizes(), last);
  const ScalarType wide = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const int64_t n = x.size(0), c = x.size(1);
  const auto empty = [&](int64_t chunks) {
    const int64_t size[4] = {kSums, n, chunks, c};
    return torch::stable::empty({size, 4}, wide, std::nullopt, x.device());
  };
  const int64_t size[3] = {kSums, n, c};
  const Tensor sums = torch::stable::empty({size, 3}, wide, std::nullopt, x.device());
  if (x.numel() == 0) {
    torch::stable::zero_(const_cast<Tensor&>(sums));
    return {out, sums};
  }
  with_type(x, op, [&](auto zero) {
    using S = decltype(zero);
    using W = Wide<S>;
    constexpr int V = 16 / sizeof(S);
    auto layer = layer_of<S>(x, parts, activation, gain, limit);
    // The limit as the output holds it: rounded to S, or a clamped output could look as if it were inside.
    if (kFromOutput) layer.limit = static_cast<W>(static_cast<S>(layer.limit));
    const S *given = data_of<S>(grad), *from = data_of<S>(x);
    S* to = data_of<S>(out);
    W* totals = data_of<W>(sums);
    const cudaStream_t stream = current_stream(x);
    const auto inner = [&](auto v) {
      constexpr int N = decltype(v)::value;
      const Division d(x, N);
      const Maybe parts_of_sums = d.chunks > 1 ? Maybe(empty(d.chunks)) : std::nullopt;
      W* chunk_sums = d.chunks > 1 ? data_of<W>(*parts_of_sums) : totals;
      auto kernel = layer_backward_inner_kernel<S, N, kFromOutput, false, false>;
      if (!kFromOutput && layer.after) kernel = layer_backward_inner_kernel<S, N, kFromOutput, false, !kFromOutput>;
      if (!kFromOutput && layer.scale_only()) kernel = layer_backward_inner_kernel<S, N, kFromOutput, !kFromOutput, false>;
      kernel<<<d.grid, kThreads, 0, stream>>>(given, from, to, chunk_sums, layer, d.groups, d.chunks, d.pixels);
      if (d.chunks == 1) return;
      const dim3 grid(static_cast<unsigned>(kSums * n), static_cast<unsigned>((c + 31) / 32));
      add_chunks_kernel<W><<<grid, kThreads, 0, stream>>>(chunk_sums, totals, d.chunks, static_cast<int>(c));
    };
    if (!last) {
      layer_backward_outer_kernel<S, kFromOutput>
          <<<blocks_for(n * c * 32, kThreads), kThreads, 0, stream>>>(given, from, to, totals, layer);
    } else if (layer.channels % V == 0 && aligned(given) && aligned(from) && aligned(to)) {
      // With another sum for each channel, 16 bytes of channels a thread would leave room for few threads.
      constexpr int kFewer = kFromOutput || V == 2 ? V : V / 2;
      layer.after ? inner(std::integral_constant<int, kFewer>{}) : inner(std::integral_constant<int, V>{});
    } else {
      inner(std::integral_constant<int, 1>{});
    }
  });
  check_launch(op);
  return {out, sums};
}

std::tuple<Tensor, Tensor> layer_epilogue_backward_cuda(Tensor grad, Tensor x, Maybe scale, Maybe noise, Maybe strength,
                                                        Maybe bias, Maybe after, int64_t activation, double gain,
                                                        std::optional<double> limit) {
  check_parts(x, scale, noise, strength, bias, after);
  const Parts parts(scale, noise, strength, bias, after);
  return backward<false>("layer_epilogue_backward", grad, x, parts, activation, gain, limit);
}

std::tuple<Tensor, Tensor> bias_act_gradients_cuda(Tensor grad, Tensor output, int64_t activation, double gain,
                                                   std::optional<double> limit) {
  const Parts none(std::nullopt, std::nullopt, std::nullopt, std::nullopt, std::nullopt);
  return backward<true>("bias_act_gradients", grad, output, none, activation, gain, limit);
}

}  // namespace
}  // namespace head3d

STABLE_TORCH_LIBRARY_IMPL(head3d, CUDA, m) {
  m.impl("layer_epilogue", TORCH_BOX(&head3d::layer_epilogue_cuda));
  m.impl("layer_epilogue_backward", TORCH_BOX(&head3d::layer_epilogue_backward_cuda));
  m.impl("bias_act_gradients", TORCH_BOX(&head3d::bias_act_gradients_cuda));
}
