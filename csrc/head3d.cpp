// Schemas of every operator, and nothing else. Kernels register themselves in cpu/*_cpu.cpp and cuda/*_cuda.cu; what runs
// without data ("fakes") and the derivative formulas are registered in head3d_core/ops/.
//
// Shapes: planes [N, P, C, H, W] with any strides (fast where the channels are innermost), P = 3 or, with two slices of the
// first plane, 4 (the fourth is the back slice); w0 [hidden, C], b0 [hidden],
// w1 [1 + F, hidden], b1 [1 + F], row 0 of w1 giving sigma; origins, directions [N, R, 3]; near, far [N, R];
// seeds [N] int64 or none; points [N, M, 3].
//   axes       0: "eg3d" (x,y) (x,z) (z,x)   1: "xyz" (x,y) (x,z) (y,z), each as (column, row)
//   slice_half_distance, slice_centre  the slices stand at z = centre +- half distance; three planes ignore both
//   precision  0: strict, everything in the inputs' type   1: mixed (CUDA: tensor cores; the CPU computes strictly)
// Gradients of planes come back as [N, P, H, W, C], contiguous: channels innermost, as the kernels write them. A gradient
// that was not asked for is an empty tensor (each its own). near and far are constants to the derivative, as are the importance samples.

#include <torch/csrc/stable/library.h>

#include <string>

namespace {

#define HEAD3D_RENDER_INPUTS                                                                                     \
  "Tensor planes, Tensor w0, Tensor b0, Tensor w1, Tensor b1, Tensor origins, Tensor directions, Tensor near, "   \
  "Tensor far, Tensor? seeds, int samples, int fine_samples, int axes, float box_warp, bool disparity, "          \
  "bool white_back, int precision"
#define HEAD3D_QUERY_INPUTS                                                                                      \
  "Tensor planes, Tensor w0, Tensor b0, Tensor w1, Tensor b1, Tensor points, int axes, float box_warp, int precision"
#define HEAD3D_SLICES "float slice_half_distance=0.1, float slice_centre=0."

bool has_cuda() {
#ifdef HEAD3D_WITH_CUDA
  return true;
#else
  return false;
#endif
}

}  // namespace

STABLE_TORCH_LIBRARY(head3d, m) {
  // features [N, R, F] (already 2 x - 1), depth [N, R] (+inf where opacity is 0, not clamped), opacity [N, R], and with
  // keep_depths all samples' depths in order [N, R, samples + fine_samples], which the backward pass asks for (else empty)
  m.def("render_rays(" HEAD3D_RENDER_INPUTS ", bool keep_depths, " HEAD3D_SLICES ") -> (Tensor, Tensor, Tensor, Tensor)");
  // features, depth, opacity, depths are the forward results; grads: planes, w0, b0, w1, b1, origins, directions
  m.def("render_rays_backward(" HEAD3D_RENDER_INPUTS
        ", Tensor features, Tensor depth, Tensor opacity, Tensor depths, Tensor grad_features, Tensor grad_depth, "
        "Tensor grad_opacity, bool needs_planes, bool needs_weights, bool needs_rays, " HEAD3D_SLICES ") -> "
        "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");

  // [N, M, C]: a third of the sum of the bilinear readings; the two slices share one reading
  m.def("sample_planes(Tensor planes, Tensor points, int axes, float box_warp, " HEAD3D_SLICES ") -> Tensor");
  // grad [N, M, C]; grads: planes, points
  m.def("sample_planes_backward(Tensor planes, Tensor points, int axes, float box_warp, Tensor grad, bool needs_planes, "
        "bool needs_points, " HEAD3D_SLICES ") -> (Tensor, Tensor)");

  // sigma [N, M, 1] (raw), colour features [N, M, F] in (-0.001, 1.001)
  m.def("query_planes(" HEAD3D_QUERY_INPUTS ", " HEAD3D_SLICES ") -> (Tensor, Tensor)");
  // grads: planes, w0, b0, w1, b1, points
  m.def("query_planes_backward(" HEAD3D_QUERY_INPUTS
        ", Tensor grad_sigma, Tensor grad_features, bool needs_planes, bool needs_weights, bool needs_points, " HEAD3D_SLICES
        ") -> "
        "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");

  // x [N, C, H, W], kernel [kh, kw], padding (left, right, top, bottom) in up-sampled pixels, negative = crop.
  // flip false: true convolution; true: correlation. Its derivative is itself: up and down swapped, flip negated.
  m.def("upfirdn2d(Tensor x, Tensor kernel, int up, int down, int[4] padding, float gain, bool flip) -> Tensor");

  // x [N, C, ...], bias [C] or none; activation 0: linear, 1: leaky ReLU of slope 0.2; then * gain, then clamp to +-limit
  m.def("bias_act(Tensor x, Tensor? bias, int activation, float gain, float? limit) -> Tensor");
  // grad * d output / d x, told from the sign and size of `output`; linear in grad, so it is its own derivative
  m.def("bias_act_backward(Tensor grad, Tensor output, int activation, float gain, float? limit) -> Tensor");

  // [N, rows, columns] float32 of seeds [N] int64, as head3d_core/ops/random.py defines them; CUDA only
  m.def("uniform(Tensor seeds, int rows, int columns, int stream) -> Tensor");
  m.def("normal(Tensor seeds, int rows, int columns, int stream) -> Tensor");

  // As above for x [N, C, H, W], with the sums over pixels [4, N, C] of grad_x, 0, 0 and 0; CUDA only
  m.def("bias_act_gradients(Tensor grad, Tensor output, int activation, float gain, float? limit) -> (Tensor, Tensor)");

  // after[n, c] clamp(gain act(x scale[n, c] + strength noise[n, 0, y, x] + bias[c])): x [N, C, H, W], scale and after [N, C],
  // noise [N or 1, 1, H, W] and strength [] together or neither, bias [C]; all but x in float32 (float64 if x is). CUDA only
  m.def("layer_epilogue(Tensor x, Tensor? scale, Tensor? noise, Tensor? strength, Tensor? bias, Tensor? after, int activation, "
        "float gain, float? limit) -> Tensor");
  // grad_x and the sums over pixels [4, N, C] of g, g x and g noise, g being the gradient before the scale, and of grad y / after
  m.def("layer_epilogue_backward(Tensor grad, Tensor x, Tensor? scale, Tensor? noise, Tensor? strength, Tensor? bias, "
        "Tensor? after, int activation, float gain, float? limit) -> (Tensor, Tensor)");

  // "avx512", "avx2", "neon" or "scalar": the path that the next CPU call takes
  m.def("instruction_set() -> str");
  m.def("has_cuda() -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(head3d, CompositeExplicitAutograd, m) { m.impl("has_cuda", TORCH_BOX(&has_cuda)); }
