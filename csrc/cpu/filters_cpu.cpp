// FIR resampling and bias + activation on the CPU: tensors in, tensors out. The arithmetic is in filters_body.h.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/kernels.h"
#include "head3d.h"

namespace head3d {
namespace {

using torch::headeronly::MemoryFormat;
using torch::stable::contiguous;
using torch::stable::parallel_for;

constexpr int64_t kGrain = 32768;  // elements worth a thread
constexpr double kSlope = 0.2;     // filters.SLOPE

const FilterKernels& filter_kernels(const Tensor& x, const char* op) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return kernels().filters[0];
    case ScalarType::Double:
      return kernels().filters[1];
    case ScalarType::Half:
      return kernels().filters[2];
    case ScalarType::BFloat16:
      return kernels().filters[3];
    default:
      STD_TORCH_CHECK(false, op, " takes float32, float64, float16 or bfloat16, got ",
                      torch::headeronly::toString(x.scalar_type()));
  }
}

// The layout rule of both operators: channels-last stays channels-last, everything else becomes contiguous.
bool channels_last(const Tensor& x) { return x.dim() == 4 && x.size(1) > 1 && x.stride(1) == 1; }

Tensor in_layout(const Tensor& x, bool last) {
  return last ? contiguous(x, MemoryFormat::ChannelsLast) : contiguous(x);
}

Tensor empty_image(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef size, bool last) {
  return torch::stable::empty(size, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                              last ? std::optional(MemoryFormat::ChannelsLast) : std::nullopt);
}

BiasActJob bias_act_job(int64_t activation, double gain, std::optional<double> limit) {
  STD_TORCH_CHECK(activation == 0 || activation == 1, "activation must be 0 (linear) or 1 (lrelu), got ", activation);
  STD_TORCH_CHECK(gain > 0, "bias_act needs a positive gain, got ", gain);
  STD_TORCH_CHECK(!limit.has_value() || *limit > 0, "the limit of bias_act must be positive, got ", limit.value_or(0));
  BiasActJob job{};
  job.slope = activation == 1 ? kSlope : 1.0;
  job.gain = gain;
  job.limit = limit.value_or(std::numeric_limits<double>::infinity());
  return job;
}

Tensor bias_act(const Tensor& x_in, std::optional<Tensor> bias_in, int64_t activation, double gain,
                std::optional<double> limit) {
  BiasActJob job = bias_act_job(activation, gain, limit);
  const FilterKernels& kernel = filter_kernels(x_in, "bias_act");
  const bool last = channels_last(x_in);
  const Tensor x = in_layout(x_in, last);
  Tensor out = empty_image(x, x.sizes(), last);
  job.x = x.const_data_ptr();
  job.out = out.mutable_data_ptr();
  const int64_t total = x.numel();
  if (total == 0) return out;
  std::optional<Tensor> bias;
  if (bias_in.has_value()) {
    STD_TORCH_CHECK(x.dim() >= 2 && bias_in->dim() == 1 && bias_in->size(0) == x.size(1),
                    "bias must be [C] for x [N, C, ...], got ", shape_of(*bias_in), " and ", shape_of(x));
    STD_TORCH_CHECK(bias_in->scalar_type() == x.scalar_type(), "bias must have the type of x");
    bias = contiguous(*bias_in);
    job.bias = bias->const_data_ptr();
    job.channels = x.size(1);
    job.inner = last ? 1 : total / (x.size(0) * x.size(1));
  } else {  // one long row, cut so that threads share it
    job.channels = std::min(total, kGrain);
    job.inner = 1;
    const int64_t whole = total / job.channels, rest = total % job.channels;
    parallel_for(0, whole, 1, [&](int64_t begin, int64_t end) { kernel.bias_act(job, begin, end); });
    if (rest > 0) {
      const int64_t done = (total - rest) * int64_t(x.element_size());
      job.x = static_cast<const char*>(job.x) + done;
      job.out = static_cast<char*>(job.out) + done;
      job.channels = rest;
      kernel.bias_act(job, 0, 1);
    }
    return out;
  }
  const int64_t row = job.inner == 1 ? job.channels : job.inner;
  parallel_for(0, total / row, std::max<int64_t>(1, kGrain / row),
               [&](int64_t begin, int64_t end) { kernel.bias_act(job, begin, end); });
  return out;
}

Tensor bias_act_backward(const Tensor& grad_in, const Tensor& output_in, int64_t activation, double gain,
                         std::optional<double> limit) {
  BiasActJob job = bias_act_job(activation, gain, limit);
  STD_TORCH_CHECK(grad_in.scalar_type() == output_in.scalar_type() && grad_in.numel() == output_in.numel(),
                  "grad must have the shape and type of output, got ", shape_of(grad_in), " and ", shape_of(output_in));
  const bool last = channels_last(output_in);
  const Tensor grad = in_layout(grad_in, last), output = in_layout(output_in, last);
  Tensor out = empty_image(output, output.sizes(), last);
  job.x = grad.const_data_ptr();
  job.bias = output.const_data_ptr();
  job.out = out.mutable_data_ptr();
  const FilterKernels& kernel = filter_kernels(grad, "bias_act_backward");
  parallel_for(0, grad.numel(), kGrain, [&](int64_t begin, int64_t end) { kernel.bias_act_backward(job, begin, end); });
  return out;
}

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b != 0 && a < 0); }

// Correlation kernel times gain, in double precision: flipped for a true convolution.
std::vector<double> fir_weights(const Tensor& kernel_in, double gain, bool flip) {
  const Tensor kernel = contiguous(torch::stable::to(kernel_in, ScalarType::Double));
  const double* k = kernel.const_data_ptr<double>();
  std::vector<double> weights(kernel.numel());
  for (int64_t i = 0; i < kernel.numel(); ++i) weights[i] = gain * k[flip ? i : kernel.numel() - 1 - i];
  return weights;
}

Tensor upfirdn2d(const Tensor& x_in, const Tensor& kernel_in, int64_t up, int64_t down, std::vector<int64_t> padding, double gain,
                 bool flip) {
  STD_TORCH_CHECK(x_in.dim() == 4 && kernel_in.dim() == 2 && kernel_in.numel() > 0,
                  "upfirdn2d takes x [N, C, H, W] and kernel [kh, kw], got ", shape_of(x_in), " and ", shape_of(kernel_in));
  STD_TORCH_CHECK(up >= 1 && down >= 1 && padding.size() == 4,
                  "upfirdn2d needs up >= 1, down >= 1 and four paddings, got ", up, ", ", down, " and ", padding.size());
  const FilterKernels& kernel = filter_kernels(x_in, "upfirdn2d");
  const std::vector<double> weights = fir_weights(kernel_in, gain, flip);
  FirJob job{};
  job.channels = x_in.size(1);
  job.height = x_in.size(2);
  job.width = x_in.size(3);
  job.kernel = weights.data();
  job.kernel_height = kernel_in.size(0);
  job.kernel_width = kernel_in.size(1);
  job.up = up;
  job.down = down;
  job.pad_left = padding[0];
  job.pad_top = padding[2];
  job.out_width = floor_divide(job.width * up + padding[0] + padding[1] - job.kernel_width, down) + 1;
  job.out_height = floor_divide(job.height * up + padding[2] + padding[3] - job.kernel_height, down) + 1;
  STD_TORCH_CHECK(job.out_width > 0 && job.out_height > 0, "upfirdn2d: x with its padding is smaller than the kernel, got ",
                  shape_of(x_in), " and ", shape_of(kernel_in));
  const bool last = channels_last(x_in);
  const Tensor x = in_layout(x_in, last);
  const int64_t size[4] = {x.size(0), x.size(1), job.out_height, job.out_width};
  Tensor out = empty_image(x, {size, 4}, last);
  job.x = x.const_data_ptr();
  job.out = out.mutable_data_ptr();
  if (out.numel() == 0) return out;
  if (last) {
    const int64_t row = job.out_width * job.channels;
    parallel_for(0, x.size(0) * job.out_height, std::max<int64_t>(1, kGrain / row), [&](int64_t begin, int64_t end) {
      std::vector<double> scratch(6 * job.kernel_height * job.kernel_width);  // two terms of three words a tap
      for (int64_t line = begin; line < end; ++line) kernel.fir_row(job, line, scratch.data());
    });
    return out;
  }
  // Positions u / up + margin that the outputs read, see fir_plane; the margin is a multiple of `down`.
  const int64_t lowest = floor_divide(-job.pad_left, up), per_phase = (job.out_width + up - 1) / up;
  job.margin = (std::max<int64_t>(0, -lowest) + down - 1) / down * down;
  const int64_t highest = floor_divide((up - 1) * down + job.kernel_width - 1 - job.pad_left, up) + (per_phase - 1) * down;
  const int64_t last_place = std::max(highest, job.width - 1) + job.margin;
  job.row_size = last_place / down + 1 + 64;  // whole vectors may be read
  const int64_t room = (job.height * down + up) * job.row_size + 4 * job.kernel_height * job.kernel_width;
  parallel_for(0, x.size(0) * x.size(1), std::max<int64_t>(1, kGrain / (job.out_width * job.out_height)),
               [&](int64_t begin, int64_t end) {
                 std::vector<double> scratch(room);
                 for (int64_t plane = begin; plane < end; ++plane) kernel.fir_plane(job, plane, scratch.data());
               });
  return out;
}

}  // namespace
}  // namespace head3d

STABLE_TORCH_LIBRARY_IMPL(head3d, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&head3d::bias_act));
  m.impl("bias_act_backward", TORCH_BOX(&head3d::bias_act_backward));
  m.impl("upfirdn2d", TORCH_BOX(&head3d::upfirdn2d));
}
