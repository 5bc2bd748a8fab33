// FIR resampling and bias + activation on CUDA: the GAN's two operators that are all memory traffic.
#include "cuda/images.cuh"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>

namespace head3d {
namespace {

using torch::stable::contiguous;

constexpr int kThreads = 256;
constexpr double kSlope = 0.2;  // filters.SLOPE

// ---- bias and activation --------------------------------------------------------------------------------------------

struct Activation {
  double slope, gain, limit;
};

Activation activation_of(int64_t kind, double gain, std::optional<double> limit) {
  STD_TORCH_CHECK(kind == 0 || kind == 1, "activation must be 0 (linear) or 1 (lrelu), got ", kind);
  STD_TORCH_CHECK(gain > 0, "bias_act needs a positive gain, got ", gain);
  STD_TORCH_CHECK(!limit.has_value() || *limit > 0, "the limit of bias_act must be positive, got ", limit.value_or(0));
  return {kind == 1 ? kSlope : 1.0, gain, limit.value_or(std::numeric_limits<double>::infinity())};
}

// `inner` elements in a row share a bias; inner == 1: channels are innermost. All three are multiples of N where N > 1.
template <typename S, int N>
__global__ void bias_act_kernel(const S* x, const S* bias /* [channels] or null */, S* out, int64_t total, int64_t inner,
                                int channels, Activation act) {
  using W = Wide<S>;
  const W slope = W(act.slope), gain = W(act.gain), limit = W(act.limit);
  const int64_t step = int64_t(gridDim.x) * blockDim.x * N;
  for (int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * N; i < total; i += step) {
    auto values = *reinterpret_cast<const Pack<S, N>*>(x + i);
    const int channel = bias == nullptr ? 0 : static_cast<int>(i / inner % channels);
    const W shared = bias == nullptr ? W(0) : widen(bias[channel]);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      W v = widen(values.at[k]) + (inner == 1 && bias != nullptr ? widen(bias[channel + k]) : shared);
      v *= v > W(0) ? gain : gain * slope;
      v = v > limit ? limit : (v < -limit ? -limit : v);  // NaN stays
      values.at[k] = static_cast<S>(v);
    }
    *reinterpret_cast<Pack<S, N>*>(out + i) = values;
  }
}

template <typename S, int N>
__global__ void bias_act_backward_kernel(const S* grad, const S* output, S* out, int64_t total, Activation act) {
  using W = Wide<S>;
  // The limit as the output holds it: rounded to S, or a clamped output could look as if it were inside.
  const W slope = W(act.slope), gain = W(act.gain), limit = widen(static_cast<S>(W(act.limit)));
  const int64_t step = int64_t(gridDim.x) * blockDim.x * N;
  for (int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * N; i < total; i += step) {
    auto values = *reinterpret_cast<const Pack<S, N>*>(grad + i);
    const auto outputs = *reinterpret_cast<const Pack<S, N>*>(output + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const W y = widen(outputs.at[k]);
      const W g = widen(values.at[k]) * (y > W(0) ? gain : gain * slope);
      values.at[k] = static_cast<S>(y < limit && y > -limit ? g : W(0));
    }
    *reinterpret_cast<Pack<S, N>*>(out + i) = values;
  }
}

Tensor bias_act_cuda(Tensor x_in, std::optional<Tensor> bias_in, int64_t kind, double gain, std::optional<double> limit) {
  const Activation act = activation_of(kind, gain, limit);
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const bool last = channels_last(x_in);
  const Tensor x = in_layout(x_in, last);
  const Tensor out = empty_image(x, x.sizes(), last);
  const int64_t total = x.numel();
  int64_t inner = 1;
  int channels = 1;
  std::optional<Tensor> bias;
  if (bias_in.has_value()) {
    STD_TORCH_CHECK(x.dim() >= 2 && bias_in->dim() == 1 && bias_in->size(0) == x.size(1),
                    "bias must be [C] for x [N, C, ...], got ", shape_of(*bias_in), " and ", shape_of(x));
    STD_TORCH_CHECK(bias_in->scalar_type() == x.scalar_type(), "bias must have the type of x");
    STD_TORCH_CHECK(bias_in->is_cuda() && bias_in->get_device_index() == x.get_device_index(), "bias must be on the device of x");
  }
  if (total == 0) return out;
  if (bias_in.has_value()) {
    bias = contiguous(*bias_in);
    channels = static_cast<int>(x.size(1));
    inner = last ? 1 : total / (x.size(0) * x.size(1));
  }
  const int limit_blocks = multiprocessors(x.get_device_index()) * 32;
  with_type(x, "bias_act", [&](auto zero) {
    using S = decltype(zero);
    constexpr int N = 16 / sizeof(S);
    const S* from = data_of<S>(x);
    const S* add = bias.has_value() ? data_of<S>(*bias) : nullptr;
    S* to = data_of<S>(out);
    const bool wide = total % N == 0 && aligned(from) && aligned(to) && (add == nullptr || inner % N == 0 || (inner == 1 && channels % N == 0));
    const unsigned blocks = std::min<unsigned>(blocks_for(wide ? total / N : total, kThreads), limit_blocks);
    if (wide) {
      bias_act_kernel<S, N><<<blocks, kThreads, 0, current_stream(x)>>>(from, add, to, total, inner, channels, act);
    } else {
      bias_act_kernel<S, 1><<<blocks, kThreads, 0, current_stream(x)>>>(from, add, to, total, inner, channels, act);
    }
  });
  check_launch("bias_act");
  return out;
}

Tensor bias_act_backward_cuda(Tensor grad_in, Tensor output_in, int64_t kind, double gain, std::optional<double> limit) {
  const Activation act = activation_of(kind, gain, limit);
  STD_TORCH_CHECK(grad_in.scalar_type() == output_in.scalar_type() && grad_in.numel() == output_in.numel() &&
                      grad_in.dim() == output_in.dim(),
                  "grad must have the shape and type of output, got ", shape_of(grad_in), " and ", shape_of(output_in));
  const torch::stable::accelerator::DeviceGuard guard(output_in.get_device_index());
  const bool last = channels_last(output_in);
  const Tensor grad = in_layout(grad_in, last), output = in_layout(output_in, last);
  const Tensor out = empty_image(output, output.sizes(), last);
  const int64_t total = output.numel();
  if (total == 0) return out;
  const int limit_blocks = multiprocessors(output.get_device_index()) * 32;
  with_type(output, "bias_act_backward", [&](auto zero) {
    using S = decltype(zero);
    constexpr int N = 16 / sizeof(S);
    const S *from = data_of<S>(grad), *seen = data_of<S>(output);
    S* to = data_of<S>(out);
    const bool wide = total % N == 0 && aligned(from) && aligned(seen) && aligned(to);
    const unsigned blocks = std::min<unsigned>(blocks_for(wide ? total / N : total, kThreads), limit_blocks);
    if (wide) {
      bias_act_backward_kernel<S, N><<<blocks, kThreads, 0, current_stream(output)>>>(from, seen, to, total, act);
    } else {
      bias_act_backward_kernel<S, 1><<<blocks, kThreads, 0, current_stream(output)>>>(from, seen, to, total, act);
    }
  });
  check_launch("bias_act_backward");
  return out;
}

// ---- FIR resampling -------------------------------------------------------------------------------------------------

struct FirArgs {
  int images, channels, height, width, out_height, out_width;
  int kernel_height, kernel_width, up, down, pad_left, pad_top;
  double gain;
  bool flip, last;  // last: channels innermost
};

// Weight k of the correlation: a true convolution reads the kernel backwards.
template <typename K>
__device__ __forceinline__ K fir_weight(const K* kernel, const FirArgs& a, int row, int column) {
  return K(a.gain) * (a.flip ? kernel[row * a.kernel_width + column]
                             : kernel[(a.kernel_height - 1 - row) * a.kernel_width + a.kernel_width - 1 - column]);
}

// Which outputs a thread makes: a column of them, for V channels that lie together (V = 1 where channels do not).
struct Strip {
  int64_t in, out;  // offsets of the channel's (or channels') image
  int x;
  __device__ Strip(const FirArgs& a, unsigned index, int v) {
    const int64_t in_size = int64_t(a.height) * a.width, out_size = int64_t(a.out_height) * a.out_width;
    if (a.last) {
      const unsigned groups = a.channels / v, c = index % groups * v, rest = index / groups;
      x = static_cast<int>(rest % a.out_width);
      const int64_t n = rest / a.out_width;
      in = n * in_size * a.channels + c;
      out = n * out_size * a.channels + c;
    } else {
      x = static_cast<int>(index % a.out_width);
      const int64_t plane = index / a.out_width;
      in = plane * in_size;
      out = plane * out_size;
    }
  }
};

// Blocks of one channel a thread that a multiprocessor should hold: 48 registers a thread, in double more. Turing has room for 4.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <typename S>
constexpr int kNarrowBlocks = sizeof(S) == 8 ? 2 : 4;
#else
template <typename S>
constexpr int kNarrowBlocks = sizeof(S) == 8 ? 2 : 5;
#endif

// The weights that a thread needs of a 4 x 4 kernel. `separable`: they are down[phase][i] across[j], so that a thread with several
// channels filters a row of inputs once for all the outputs that it reaches.
template <typename W, int kUp>
struct FirWeights {
  static constexpr int kTaps = 4 / kUp;
  W all[kUp][kTaps][kTaps], down[kUp][kTaps], across[kTaps];
  bool separable;

  __device__ __forceinline__ FirWeights(const W* kernel, const FirArgs& a, int column_phase) {
    W rows[4], columns[4] = {}, total = 0, largest = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      rows[i] = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const W weight = fir_weight(kernel, a, i, j);
        rows[i] += weight;
        columns[j] += weight;
        largest = fmax(largest, fabs(weight));
      }
      total += rows[i];
    }
    separable = total != W(0);
    const W near = fabs(total) * largest * (sizeof(W) == 8 ? W(1e-15) : W(1e-7)), share = W(1) / total;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        separable = separable && fabs(rows[i] * columns[j] - total * fir_weight(kernel, a, i, j)) <= near;
#pragma unroll
    for (int i = 0; i < kTaps; ++i) {
      const W even = columns[i * kUp], odd = columns[i * kUp + kUp - 1];
      across[i] = (column_phase ? odd : even) * share;
#pragma unroll
      for (int phase = 0; phase < kUp; ++phase) {
        down[phase][i] = rows[i * kUp + phase];
#pragma unroll
        for (int j = 0; j < kTaps; ++j) all[phase][i][j] = fir_weight(kernel, a, i * kUp + phase, j * kUp + column_phase);
      }
    }
  }
};

// 4 x 4 kernels, up and down 1 or 2. A thread walks down kRows outputs and keeps the input rows they share in registers.
// With up = 2 only every other weight meets an input that is not an inserted zero: kTaps = 2.
template <typename S, int V, int kUp, int kDown>
__global__ __launch_bounds__(kThreads, V > 1 ? 2 : kNarrowBlocks<S>) void fir4_kernel(
    const S* __restrict__ x, const Wide<S>* __restrict__ kernel, S* __restrict__ out, FirArgs a, unsigned strips) {
  using W = Wide<S>;
  constexpr int kTaps = 4 / kUp, kRows = kDown == 1 ? 16 : 8, kAhead = 3;
  constexpr int kInputRows = kUp == 2 ? kRows / 2 + 2 : (kRows - 1) * kDown + 4;
  const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= strips) return;
  const Strip strip(a, index, V);
  const int64_t pixel = a.last ? a.channels : 1, row = pixel * a.width, out_row = pixel * a.out_width;

  // Columns: output x meets up-sampled columns x down - pad_left + 0 .. 3; the first that holds an input is column_phase on.
  const int first_column = strip.x * kDown - a.pad_left, column_phase = kUp == 2 ? first_column & 1 : 0;
  const int column = kUp == 2 ? (first_column + column_phase) >> 1 : first_column;
  // Rows: strips start where the first up-sampled row holds an input, so that phases are known when this is compiled.
  const int y0 = static_cast<int>(blockIdx.y) * kRows - (kUp == 2 ? a.pad_top & 1 : 0);
  const int input_row = kUp == 2 ? (y0 - a.pad_top) / 2 : y0 * kDown - a.pad_top;  // even where it is halved

  const FirWeights<W, kUp> weights(kernel, a, column_phase);
  // With several channels what lies outside is read at the border and then set to zero: loads without branches can overtake
  // each other. With one, branches cost less than the addresses.
  bool inside[kTaps];
  const S* from[kTaps];
#pragma unroll
  for (int j = 0; j < kTaps; ++j) {
    inside[j] = static_cast<unsigned>(column + j) < static_cast<unsigned>(a.width);
    from[j] = x + strip.in + min(max(column + j, 0), a.width - 1) * pixel;
  }
  const S* single = x + strip.in + column * pixel;

  const auto walk = [&](auto separable) {
    W sums[kRows][V];
    Pack<S, V> ahead[kAhead][kTaps];  // rows on their way from memory
    bool seen[kAhead][kTaps];
    const auto load = [&](int r) {
      const bool row_inside = static_cast<unsigned>(input_row + r) < static_cast<unsigned>(a.height);
      const int64_t offset = min(max(input_row + r, 0), a.height - 1) * row;
#pragma unroll
      for (int j = 0; j < kTaps; ++j) {
        if constexpr (V > 1) {
          ahead[r % kAhead][j] = *reinterpret_cast<const Pack<S, V>*>(from[j] + offset);
          seen[r % kAhead][j] = row_inside && inside[j];
        } else {
          Pack<S, V> pack{static_cast<S>(0.f)};
          if (row_inside && inside[j]) pack.at[0] = single[(input_row + r) * row + j * pixel];
          ahead[r % kAhead][j] = pack;
        }
      }
    };
#pragma unroll
    for (int r = 0; r < kAhead - 1; ++r) load(r);
#pragma unroll
    for (int r = 0; r < kInputRows; ++r) {
      if (r + kAhead - 1 < kInputRows) load(r + kAhead - 1);
      W values[kTaps][V], filtered[V] = {};
#pragma unroll
      for (int j = 0; j < kTaps; ++j) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          values[j][v] = V == 1 || seen[r % kAhead][j] ? widen(ahead[r % kAhead][j].at[v]) : W(0);
          filtered[v] += weights.across[j] * values[j][v];
        }
      }
#pragma unroll
      for (int o = 0; o < kRows; ++o) {  // outputs that this row reaches
        const int phase = kUp == 2 ? o & 1 : 0;
        const int tap = kUp == 2 ? r - (o + 1) / 2 : r - o * kDown;
        if (tap < 0 || tap >= kTaps) continue;
#pragma unroll
        for (int v = 0; v < V; ++v) {
          W sum = tap == 0 ? W(0) : sums[o][v];
          if constexpr (separable) {
            sum += weights.down[phase][tap] * filtered[v];
          } else {
#pragma unroll
            for (int j = 0; j < kTaps; ++j) sum += weights.all[phase][tap][j] * values[j][v];
          }
          sums[o][v] = sum;
        }
        const int out_y = y0 + o;
        if (tap == kTaps - 1 && out_y >= 0 && out_y < a.out_height) {
          Pack<S, V> pack;
#pragma unroll
          for (int v = 0; v < V; ++v) pack.at[v] = static_cast<S>(sums[o][v]);
          *reinterpret_cast<Pack<S, V>*>(out + strip.out + out_y * out_row + strip.x * pixel) = pack;
        }
      }
    }
  };
  if (V > 1 && weights.separable) {
    walk(std::true_type{});
  } else {
    walk(std::false_type{});
  }
}

// Any kernel and factors: one output a thread.
template <typename S>
__global__ void fir_kernel(const S* x, const Wide<S>* kernel, S* out, FirArgs a) {
  using W = Wide<S>;
  const int64_t total = int64_t(a.images) * a.channels * a.out_height * a.out_width, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    int64_t rest = i;
    int c = 0;
    if (a.last) c = static_cast<int>(rest % a.channels), rest /= a.channels;
    const int ox = static_cast<int>(rest % a.out_width);
    rest /= a.out_width;
    const int oy = static_cast<int>(rest % a.out_height);
    rest /= a.out_height;
    if (!a.last) c = static_cast<int>(rest % a.channels), rest /= a.channels;
    const int64_t pixel = a.last ? a.channels : 1, plane = int64_t(a.height) * a.width;
    const S* from = x + (a.last ? rest * plane * a.channels + c : (rest * a.channels + c) * plane);
    W sum = 0;
    for (int ky = 0; ky < a.kernel_height; ++ky) {
      const int uy = oy * a.down - a.pad_top + ky;
      if (uy < 0 || uy % a.up != 0 || uy / a.up >= a.height) continue;
      for (int kx = 0; kx < a.kernel_width; ++kx) {
        const int ux = ox * a.down - a.pad_left + kx;
        if (ux < 0 || ux % a.up != 0 || ux / a.up >= a.width) continue;
        sum += fir_weight(kernel, a, ky, kx) * widen(from[(int64_t(uy / a.up) * a.width + ux / a.up) * pixel]);
      }
    }
    out[i] = static_cast<S>(sum);
  }
}

template <typename S, int V>
void launch_fir4(const S* x, const Wide<S>* kernel, S* out, const FirArgs& a, cudaStream_t stream) {
  const int64_t strips = int64_t(a.images) * (a.channels / V) * a.out_width;
  const int rows = a.down == 1 ? 16 : 8, shift = a.up == 2 ? a.pad_top & 1 : 0;
  const dim3 grid(blocks_for(strips, kThreads), static_cast<unsigned>((a.out_height + shift + rows - 1) / rows));
  const unsigned count = static_cast<unsigned>(strips);
  if (a.up == 1 && a.down == 1) fir4_kernel<S, V, 1, 1><<<grid, kThreads, 0, stream>>>(x, kernel, out, a, count);
  if (a.up == 2 && a.down == 1) fir4_kernel<S, V, 2, 1><<<grid, kThreads, 0, stream>>>(x, kernel, out, a, count);
  if (a.up == 1 && a.down == 2) fir4_kernel<S, V, 1, 2><<<grid, kThreads, 0, stream>>>(x, kernel, out, a, count);
}

// Channels a thread takes where they are innermost: 16 bytes, in double 8.
template <typename S>
constexpr int kWideChannels = sizeof(S) == 8 ? 1 : 16 / sizeof(S);

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b != 0 && a < 0); }

Tensor upfirdn2d_cuda(Tensor x_in, Tensor kernel_in, int64_t up, int64_t down, std::vector<int64_t> padding, double gain,
                      bool flip) {
  STD_TORCH_CHECK(x_in.dim() == 4 && kernel_in.dim() == 2 && kernel_in.numel() > 0,
                  "upfirdn2d takes x [N, C, H, W] and kernel [kh, kw], got ", shape_of(x_in), " and ", shape_of(kernel_in));
  STD_TORCH_CHECK(up >= 1 && down >= 1 && padding.size() == 4,
                  "upfirdn2d needs up >= 1, down >= 1 and four paddings, got ", up, ", ", down, " and ", padding.size());
  STD_TORCH_CHECK(kernel_in.is_cuda() && kernel_in.get_device_index() == x_in.get_device_index(),
                  "the kernel of upfirdn2d must be on the device of x");
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const int64_t kh = kernel_in.size(0), kw = kernel_in.size(1);
  const int64_t out_width = floor_divide(x_in.size(3) * up + padding[0] + padding[1] - kw, down) + 1;
  const int64_t out_height = floor_divide(x_in.size(2) * up + padding[2] + padding[3] - kh, down) + 1;
  STD_TORCH_CHECK(out_width > 0 && out_height > 0, "upfirdn2d: x with its padding is smaller than the kernel, got ",
                  shape_of(x_in), " and ", shape_of(kernel_in));
  const int64_t most = int64_t(1) << 31;
  STD_TORCH_CHECK(x_in.size(0) * x_in.size(1) * out_width < most && x_in.size(3) * up < most && x_in.size(2) * up < most &&
                      out_height < 8 * 65535,
                  "upfirdn2d on CUDA takes images of less than 2^31 columns together, got ", shape_of(x_in));
  const bool last = channels_last(x_in);
  const Tensor x = in_layout(x_in, last);
  const int64_t size[4] = {x.size(0), x.size(1), out_height, out_width};
  const Tensor out = empty_image(x, {size, 4}, last);
  if (out.numel() == 0) return out;
  if (x.numel() == 0) {  // padding alone: there is no border to read
    torch::stable::zero_(const_cast<Tensor&>(out));
    return out;
  }
  const FirArgs args{static_cast<int>(x.size(0)), static_cast<int>(x.size(1)), static_cast<int>(x.size(2)),
                     static_cast<int>(x.size(3)), static_cast<int>(out_height), static_cast<int>(out_width),
                     static_cast<int>(kh),        static_cast<int>(kw),        static_cast<int>(up),
                     static_cast<int>(down),      static_cast<int>(padding[0]), static_cast<int>(padding[2]),
                     gain,                        flip,                        last};
  const cudaStream_t stream = current_stream(x);
  const Tensor kernel =
      contiguous(torch::stable::to(kernel_in, x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float));
  with_type(x, "upfirdn2d", [&](auto zero) {
    using S = decltype(zero);
    const S* from = data_of<S>(x);
    S* to = data_of<S>(out);
    const Wide<S>* weights = data_of<Wide<S>>(kernel);
    const bool usual = kh == 4 && kw == 4 && up <= 2 && down <= 2 && up + down <= 3;
    if (!usual) {
      fir_kernel<S><<<std::min(blocks_for(out.numel(), kThreads), 1u << 20), kThreads, 0, stream>>>(from, weights, to, args);
    } else if (last && args.channels % kWideChannels<S> == 0 && aligned(from)) {
      launch_fir4<S, kWideChannels<S>>(from, weights, to, args, stream);
    } else if (last && args.channels % 2 == 0 && aligned(from)) {
      launch_fir4<S, 2>(from, weights, to, args, stream);
    } else {
      launch_fir4<S, 1>(from, weights, to, args, stream);
    }
  });
  check_launch("upfirdn2d");
  return out;
}

}  // namespace
}  // namespace head3d

STABLE_TORCH_LIBRARY_IMPL(head3d, CUDA, m) {
  m.impl("bias_act", TORCH_BOX(&head3d::bias_act_cuda));
  m.impl("bias_act_backward", TORCH_BOX(&head3d::bias_act_backward_cuda));
  m.impl("upfirdn2d", TORCH_BOX(&head3d::upfirdn2d_cuda));
}
