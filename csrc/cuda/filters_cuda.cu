// FIR resampling and bias + activation on CUDA: the GAN's two operators that are all memory traffic.
#include "cuda/images.cuh"

#include <cuda_pipeline.h>

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>

namespace head3d {
namespace {

using torch::stable::contiguous;

constexpr int kThreads = 256;
constexpr double kSlope = 0.2;  // filters.SLOPE
constexpr int kMostGroups = 8;  // 16 bytes of channels that lie side by side in a block of fir4_rows_kernel, at most
constexpr int kMostRows = 32;   // rows of outputs that such a block makes, at most

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
    W wide[N];
    widen(values, wide);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      W v = wide[k] + (inner == 1 && bias != nullptr ? widen(bias[channel + k]) : shared);
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
    W grads[N], seen[N];
    widen(values, grads);
    widen(outputs, seen);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const W y = seen[k], g = grads[k] * (y > W(0) ? gain : gain * slope);
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

// Weights of a 4 x 4 kernel for one phase of columns. With up = 2 only every other one meets an input that is not an inserted zero:
// kTaps = 2, and rows of outputs have two phases.
template <typename W, int kUp>
struct FirWeights {
  static constexpr int kTaps = 4 / kUp;
  W at[kUp][kTaps][kTaps];
  __device__ __forceinline__ FirWeights(const W* kernel, const FirArgs& a, int column_phase) {
#pragma unroll
    for (int phase = 0; phase < kUp; ++phase)
#pragma unroll
      for (int i = 0; i < kTaps; ++i)
#pragma unroll
        for (int j = 0; j < kTaps; ++j) at[phase][i][j] = fir_weight(kernel, a, i * kUp + phase, j * kUp + column_phase);
  }
};

// The same where they are down[phase][i] across[j], so that a row of inputs is filtered once for all outputs that it reaches.
template <typename W, int kUp>
struct SeparableWeights {
  static constexpr int kTaps = 4 / kUp;
  W down[kUp][kTaps], across[kTaps];
  bool holds;
  __device__ __forceinline__ SeparableWeights(const W* kernel, const FirArgs& a, int column_phase) {
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
    holds = total != W(0);
    const W near = fabs(total) * largest * W(1e-7), share = W(1) / total;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) holds = holds && fabs(rows[i] * columns[j] - total * fir_weight(kernel, a, i, j)) <= near;
#pragma unroll
    for (int i = 0; i < kTaps; ++i) {
      const W even = columns[i * kUp], odd = columns[i * kUp + kUp - 1];
      across[i] = (column_phase ? odd : even) * share;
#pragma unroll
      for (int phase = 0; phase < kUp; ++phase) down[phase][i] = rows[i * kUp + phase];
    }
  }
};

// The first input column that output x meets, and with up = 2 whether that is one column on: phase of the weights.
template <int kUp, int kDown>
__device__ __forceinline__ int first_column(int x, const FirArgs& a, int& phase) {
  const int first = x * kDown - a.pad_left;
  phase = kUp == 2 ? first & 1 : 0;
  return kUp == 2 ? (first + phase) >> 1 : first;
}

// Rows: strips of outputs start where the first up-sampled row holds an input, so that phases are known when this is compiled.
template <int kUp, int kDown>
__device__ __forceinline__ int first_row(int strip, int rows, const FirArgs& a, int& input_row) {
  const int y0 = strip * rows - (kUp == 2 ? a.pad_top & 1 : 0);
  input_row = kUp == 2 ? (y0 - a.pad_top) / 2 : y0 * kDown - a.pad_top;  // even where it is halved
  return y0;
}

// Neighbouring columns that a thread of the kernel below makes: two share most of what they read.
template <int kUp, int kDown>
constexpr int kColumns = kUp == 1 && kDown == 1 ? 2 : 1;

// 4 x 4 kernels, up and down 1 or 2, 16 bytes of channels a thread. A block makes 256 / groups columns of `rows` outputs for
// `groups` times 16 bytes of channels and walks down the image. Rows of inputs come into shared memory asynchronously, before they
// are needed, and each value once a block. What holds blurs back is the number of instructions, hence their two columns.
template <typename S, int kUp, int kDown>
__global__ __launch_bounds__(kThreads / kColumns<kUp, kDown>, kColumns<kUp, kDown> == 2 ? 4 : 3) void fir4_rows_kernel(
    const S* __restrict__ x, const Wide<S>* __restrict__ kernel, S* __restrict__ out, FirArgs a, int group_bits, int rows) {
  using W = Wide<S>;
  constexpr int V = 16 / sizeof(S), kTaps = 4 / kUp, kSide = kColumns<kUp, kDown>, kBlock = kThreads / kSide;
  constexpr int kAhead = kDown == 2 ? 4 : 8;                        // rows in shared memory, a power of two
  constexpr int kStep = kDown == 2 ? 1 : 2;                         // rows between two barriers
  constexpr int kPacks = kThreads * kDown / kUp + kMostGroups * 4;  // packs of a row, at most
  constexpr int kLoads = (kPacks + kBlock - 1) / kBlock;            // and for a thread
  constexpr int kLive = kTaps / kDown;                              // rows of outputs (with up = 2 pairs of them) under way
  __shared__ Pack<S, V> shared[kAhead][kPacks];

  const int groups = 1 << group_bits, columns = kThreads >> group_bits;
  const int group = threadIdx.x & (groups - 1), column = (threadIdx.x >> group_bits) * kSide;
  const int tiles = a.channels / (groups * V), strips = (a.out_width + columns - 1) / columns;
  const int tile = blockIdx.x % tiles, strip = blockIdx.x / tiles % strips;
  const int64_t image = blockIdx.x / tiles / strips, row_size = int64_t(a.width) * a.channels;
  const int first_channel = tile * groups * V;
  const int out_x = strip * columns + column;

  int phase, tile_phase, input_row;
  const int tile_column = first_column<kUp, kDown>(strip * columns, a, tile_phase);
  const int local = (first_column<kUp, kDown>(out_x, a, phase) - tile_column) * groups + group;
  const int y0 = first_row<kUp, kDown>(blockIdx.y, rows, a, input_row);
  const int input_rows = kUp == 2 ? rows / 2 + 2 : (rows - 1) * kDown + 4;

  // Where this thread's packs of a row come from, -1: from outside the image, where zeros are.
  const int packs = (kUp == 2 ? columns / 2 + 2 : (columns - 1) * kDown + 4) * groups;
  int from[kLoads];
#pragma unroll
  for (int k = 0; k < kLoads; ++k) {
    const int i = threadIdx.x + k * kBlock, c = tile_column + (i >> group_bits);
    from[k] = c >= 0 && c < a.width ? c * a.channels + first_channel + (i & (groups - 1)) * V : -1;
  }
  int loaded = 0;
  const S* next = x + (image * a.height + input_row) * row_size;
  const auto load = [&] {  // the next kStep rows
#pragma unroll
    for (int step = 0; step < kStep; ++step, ++loaded, next += row_size) {
      const bool inside = loaded < input_rows && static_cast<unsigned>(input_row + loaded) < static_cast<unsigned>(a.height);
#pragma unroll
      for (int k = 0; k < kLoads; ++k) {
        const int i = threadIdx.x + k * kBlock;
        const bool read = inside && from[k] >= 0;
        if (i < packs) copy_16_bytes(&shared[loaded & (kAhead - 1)][i], read ? next + from[k] : x, !read);
      }
    }
    __pipeline_commit();
  };

  // Row r ends row r - 3 of the strip's outputs (with down = 2, if r is odd, half of that; with up = 2 rows 2 r - 2 and
  // 2 r - 3); `to` is there.
  const int first = max(0, -y0), made_rows = min(rows, a.out_height - y0) - first;
  const int64_t out_row = int64_t(a.out_width) * a.channels;
  S* to = out + (image * a.out_height * a.out_width + out_x) * a.channels + first_channel + group * V +
          (y0 - (kUp == 2 ? 2 : kDown == 2 ? 1 : 3)) * out_row;
  const SeparableWeights<W, kUp> separable(kernel, a, phase);

  const auto walk = [&](const auto& weights) {
    constexpr bool kSeparable = std::is_same_v<decltype(weights), const SeparableWeights<W, kUp>&>;
    constexpr int kRead = kTaps + kSide - 1;
    W sums[kLive][kUp][kSide][V] = {};
    const Pack<S, V>* mine = &shared[0][local];
    for (int step = 0; step < kAhead / kStep - 1; ++step) load();
    for (int base = 0; base < input_rows; base += 4) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {  // four rows bring `sums` round to where they were
        const int r = base + k;
        if (k % kStep == 0) {
          __pipeline_wait_prior(kAhead / kStep - 2);
          __syncthreads();  // these rows are there, and no one reads the ones before them any more
          load();
        }
        S* here = to;
        if (kDown == 1 || k % 2 == 1) to += kUp * out_row;
        if (out_x >= a.out_width) continue;
        const Pack<S, V>* row = mine + (r & (kAhead - 1)) * kPacks;
        W values[kRead][V], filtered[kSide][V] = {};
#pragma unroll
        for (int j = 0; j < kRead; ++j) widen(row[j * groups], values[j]);
        if constexpr (kSeparable) {
#pragma unroll
          for (int q = 0; q < kSide; ++q)
#pragma unroll
            for (int j = 0; j < kTaps; ++j)
#pragma unroll
              for (int v = 0; v < V; ++v) filtered[q][v] += weights.across[j] * values[q + j][v];
        }
#pragma unroll
        for (int tap = 0; tap < kTaps; ++tap) {
          if ((k + 4 - tap) % kDown != 0) continue;
          const int live = (k + 4 - tap) / kDown % kLive;  // which row (or pair of rows) of outputs this input belongs to
#pragma unroll
          for (int p = 0; p < kUp; ++p) {
            const int made = (kUp == 2 ? 2 * (r - tap) - p : (r - tap) / kDown) - first;
            const bool ends = tap == kTaps - 1 && r >= tap && static_cast<unsigned>(made) < static_cast<unsigned>(made_rows);
#pragma unroll
            for (int q = 0; q < kSide; ++q) {
              W(&sum)[V] = sums[live][p][q];
              Pack<S, V> pack;
#pragma unroll
              for (int v = 0; v < V; ++v) {
                if (tap == 0) sum[v] = W(0);
                if constexpr (kSeparable) {
                  sum[v] += weights.down[p][tap] * filtered[q][v];
                } else {
#pragma unroll
                  for (int j = 0; j < kTaps; ++j) sum[v] += weights.at[p][tap][j] * values[q + j][v];
                }
                pack.at[v] = static_cast<S>(sum[v]);
              }
              if (ends && out_x + q < a.out_width) *reinterpret_cast<Pack<S, V>*>(here + q * a.channels - p * out_row) = pack;
            }
          }
        }
      }
    }
    __pipeline_wait_prior(0);
  };
  if (separable.holds) {  // or not: of all threads, for only the phase differs between them
    walk(separable);
  } else {
    walk(FirWeights<W, kUp>(kernel, a, phase));
  }
}

// Blocks of the kernel below that a multiprocessor should hold: 48 registers a thread, in double more. Turing has room for 4.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <typename S>
constexpr int kNarrowBlocks = sizeof(S) == 8 ? 2 : 4;
#else
template <typename S>
constexpr int kNarrowBlocks = sizeof(S) == 8 ? 2 : 5;
#endif

// The same for any layout and number of channels: a thread walks down kRows outputs of one channel and keeps the input rows they
// share in registers.
template <typename S, int kUp, int kDown>
__global__ __launch_bounds__(kThreads, kNarrowBlocks<S>) void fir4_kernel(const S* __restrict__ x,
                                                                          const Wide<S>* __restrict__ kernel,
                                                                          S* __restrict__ out, FirArgs a, unsigned strips) {
  using W = Wide<S>;
  constexpr int kTaps = 4 / kUp, kRows = kDown == 1 ? 16 : 8, kAhead = 3;
  constexpr int kInputRows = kUp == 2 ? kRows / 2 + 2 : (kRows - 1) * kDown + 4;
  const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= strips) return;
  const int64_t in_size = int64_t(a.height) * a.width, out_size = int64_t(a.out_height) * a.out_width;
  const unsigned c = a.last ? index % a.channels : 0, rest = a.last ? index / a.channels : index;
  const int out_x = static_cast<int>(rest % a.out_width);
  const int64_t plane = rest / a.out_width, depth = a.last ? a.channels : 1;  // an image, or a channel of one
  const int64_t row = depth * a.width, out_row = depth * a.out_width;

  int phase, input_row;
  const int column = first_column<kUp, kDown>(out_x, a, phase);
  const int y0 = first_row<kUp, kDown>(blockIdx.y, kRows, a, input_row);
  const FirWeights<W, kUp> weights(kernel, a, phase);
  const S* from = x + plane * in_size * depth + c + column * depth;
  S* to = out + plane * out_size * depth + c + out_x * depth;
  W sums[kRows];
  S ahead[kAhead][kTaps];  // rows on their way from memory
  const auto load = [&](int r) {
    const bool row_inside = static_cast<unsigned>(input_row + r) < static_cast<unsigned>(a.height);
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
      const bool inside = row_inside && static_cast<unsigned>(column + j) < static_cast<unsigned>(a.width);
      ahead[r % kAhead][j] = inside ? from[(input_row + r) * row + j * depth] : static_cast<S>(0.f);
    }
  };
#pragma unroll
  for (int r = 0; r < kAhead - 1; ++r) load(r);
#pragma unroll
  for (int r = 0; r < kInputRows; ++r) {
    if (r + kAhead - 1 < kInputRows) load(r + kAhead - 1);
#pragma unroll
    for (int o = 0; o < kRows; ++o) {  // outputs that this row reaches
      const int p = kUp == 2 ? o & 1 : 0;
      const int tap = kUp == 2 ? r - (o + 1) / 2 : r - o * kDown;
      if (tap < 0 || tap >= kTaps) continue;
      if (tap == 0) sums[o] = W(0);
#pragma unroll
      for (int j = 0; j < kTaps; ++j) sums[o] += weights.at[p][tap][j] * widen(ahead[r % kAhead][j]);
      const int out_y = y0 + o;
      if (tap == kTaps - 1 && out_y >= 0 && out_y < a.out_height) to[out_y * out_row] = static_cast<S>(sums[o]);
    }
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

template <typename S>
void launch_fir4(const S* x, const Wide<S>* kernel, S* out, const FirArgs& a, cudaStream_t stream) {
  const int64_t strips = int64_t(a.images) * a.channels * a.out_width;
  const int rows = a.down == 1 ? 16 : 8, shift = a.up == 2 ? a.pad_top & 1 : 0;
  const dim3 grid(blocks_for(strips, kThreads), static_cast<unsigned>((a.out_height + shift + rows - 1) / rows));
  const unsigned count = static_cast<unsigned>(strips);
  if (a.up == 1 && a.down == 1) fir4_kernel<S, 1, 1><<<grid, kThreads, 0, stream>>>(x, kernel, out, a, count);
  if (a.up == 2 && a.down == 1) fir4_kernel<S, 2, 1><<<grid, kThreads, 0, stream>>>(x, kernel, out, a, count);
  if (a.up == 1 && a.down == 2) fir4_kernel<S, 1, 2><<<grid, kThreads, 0, stream>>>(x, kernel, out, a, count);
}

template <typename S>
void launch_fir4_rows(const S* x, const Wide<S>* kernel, S* out, const FirArgs& a, int processors, cudaStream_t stream) {
  const int packs = a.channels * static_cast<int>(sizeof(S)) / 16;
  int bits = 0;
  while (2 << bits <= kMostGroups && packs % (2 << bits) == 0) ++bits;
  const int columns = kThreads >> bits, shift = a.up == 2 ? a.pad_top & 1 : 0;
  const int64_t across = int64_t(a.images) * (packs >> bits) * ((a.out_width + columns - 1) / columns);
  int rows = kMostRows;  // fewer where the multiprocessors would not be filled
  while (rows > 8 && across * ((a.out_height + rows - 1) / rows) < 6 * processors) rows /= 2;
  const dim3 grid(static_cast<unsigned>(across), static_cast<unsigned>((a.out_height + shift + rows - 1) / rows));
  const auto launch = [&](auto up, auto down) {
    constexpr int kUp = decltype(up)::value, kDown = decltype(down)::value;
    if (a.up != kUp || a.down != kDown) return;
    fir4_rows_kernel<S, kUp, kDown><<<grid, kThreads / kColumns<kUp, kDown>, 0, stream>>>(x, kernel, out, a, bits, rows);
  };
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  launch(One{}, One{}), launch(Two{}, One{}), launch(One{}, Two{});
}

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
  STD_TORCH_CHECK(x_in.size(0) * x_in.size(1) * std::max(out_width, x_in.size(3)) < most && x_in.size(3) * up < most &&
                      x_in.size(2) * up < most && out_height < 8 * 65535,
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
    } else if (sizeof(S) < 8 && last && args.channels * sizeof(S) % 16 == 0 && aligned(from) && aligned(to)) {
      if constexpr (sizeof(S) < 8) launch_fir4_rows(from, weights, to, args, multiprocessors(x.get_device_index()), stream);
    } else {
      launch_fir4(from, weights, to, args, stream);
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
