// What the operators' CPU and CUDA files share: the options of a call and the checks of its inputs. One sentence an error.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace head3d {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

struct PlaneSettings {
  int64_t axes;  // 0: "eg3d", 1: "xyz"
  double box_warp;
  double slice_half_distance, slice_centre;  // where the two slices of four planes stand; three planes ignore both
};

struct RenderSettings {
  int64_t samples;       // stratified samples of a ray
  int64_t fine_samples;  // importance samples of a ray
  PlaneSettings projection;
  bool disparity;
  bool white_back;
  int64_t precision;  // 0: strict, 1: mixed
};

inline std::string shape_of(const Tensor& t) {
  std::string text = "[";
  for (int64_t i = 0; i < t.dim(); ++i) text += (i ? ", " : "") + std::to_string(t.size(i));
  return text + "]";
}

inline void check_like(const Tensor& t, const char* name, const Tensor& planes) {
  STD_TORCH_CHECK(t.scalar_type() == planes.scalar_type(), name, " must have the type of planes, ",
                  torch::headeronly::toString(planes.scalar_type()), ", got ", torch::headeronly::toString(t.scalar_type()));
  STD_TORCH_CHECK(t.is_cuda() == planes.is_cuda() && t.get_device_index() == planes.get_device_index(), name,
                  " must be on the device of planes");
}

inline void check_planes(const Tensor& planes, const PlaneSettings& settings) {
  STD_TORCH_CHECK(planes.dim() == 5 && (planes.size(1) == 3 || planes.size(1) == 4),
                  "planes must be [N, 3, C, H, W] or, with two slices, [N, 4, C, H, W], got ", shape_of(planes));
  STD_TORCH_CHECK(planes.size(3) < (int64_t(1) << 24) && planes.size(4) < (int64_t(1) << 24),
                  "planes must be less than 2^24 texels high and wide, got ", shape_of(planes));
  STD_TORCH_CHECK(planes.numel() == 0 ? planes.size(0) == 0 : true,
                  "planes must have at least one channel and one texel, got ", shape_of(planes));
  STD_TORCH_CHECK(settings.axes == 0 || settings.axes == 1, "axes must be 0 (eg3d) or 1 (xyz), got ", settings.axes);
  STD_TORCH_CHECK(settings.box_warp > 0, "box_warp must be positive, got ", settings.box_warp);
  STD_TORCH_CHECK(settings.slice_half_distance > 0, "slice_half_distance must be positive, got ",
                  settings.slice_half_distance);
}

inline void check_points(const Tensor& planes, const Tensor& points) {
  STD_TORCH_CHECK(points.dim() == 3 && points.size(2) == 3 && points.size(0) == planes.size(0),
                  "points must be [N, M, 3] with N = ", planes.size(0), " as in planes, got ", shape_of(points));
  check_like(points, "points", planes);
}

inline void check_decoder(const Tensor& planes, const Tensor& w0, const Tensor& b0, const Tensor& w1, const Tensor& b1) {
  STD_TORCH_CHECK(w0.dim() == 2 && w0.size(0) > 0 && w0.size(1) == planes.size(2), "w0 must be [hidden, C] with C = ",
                  planes.size(2), " as in planes, got ", shape_of(w0));
  STD_TORCH_CHECK(b0.dim() == 1 && b0.size(0) == w0.size(0), "b0 must be [hidden] with hidden = ", w0.size(0), ", got ",
                  shape_of(b0));
  STD_TORCH_CHECK(w1.dim() == 2 && w1.size(0) > 0 && w1.size(1) == w0.size(0),
                  "w1 must be [1 + features, hidden] with hidden = ", w0.size(0), ", got ", shape_of(w1));
  STD_TORCH_CHECK(b1.dim() == 1 && b1.size(0) == w1.size(0), "b1 must be [1 + features] = [", w1.size(0), "], got ",
                  shape_of(b1));
  check_like(w0, "w0", planes);
  check_like(b0, "b0", planes);
  check_like(w1, "w1", planes);
  check_like(b1, "b1", planes);
}

inline void check_rays(const Tensor& planes, const Tensor& origins, const Tensor& directions, const Tensor& near,
                       const Tensor& far, const std::optional<Tensor>& seeds, const RenderSettings& settings) {
  STD_TORCH_CHECK(origins.dim() == 3 && origins.size(2) == 3 && origins.size(0) == planes.size(0),
                  "origins must be [N, R, 3] with N = ", planes.size(0), " as in planes, got ", shape_of(origins));
  const int64_t n = origins.size(0), rays = origins.size(1);
  STD_TORCH_CHECK(directions.dim() == 3 && directions.size(0) == n && directions.size(1) == rays && directions.size(2) == 3,
                  "directions must have the shape of origins, ", shape_of(origins), ", got ", shape_of(directions));
  STD_TORCH_CHECK(near.dim() == 2 && near.size(0) == n && near.size(1) == rays, "near must be [N, R] = [", n, ", ", rays,
                  "], got ", shape_of(near));
  STD_TORCH_CHECK(far.dim() == 2 && far.size(0) == n && far.size(1) == rays, "far must be [N, R] = [", n, ", ", rays,
                  "], got ", shape_of(far));
  STD_TORCH_CHECK(rays < (int64_t(1) << 31), "at most 2^31 - 1 rays an image, got ", rays);
  check_like(origins, "origins", planes);
  check_like(directions, "directions", planes);
  check_like(near, "near", planes);
  check_like(far, "far", planes);
  if (seeds.has_value()) {
    STD_TORCH_CHECK(seeds->dim() == 1 && seeds->size(0) == n && seeds->scalar_type() == ScalarType::Long,
                    "seeds must be [N] int64, got ", shape_of(*seeds), " ", torch::headeronly::toString(seeds->scalar_type()));
    STD_TORCH_CHECK(seeds->is_cuda() == planes.is_cuda(), "seeds must be on the device of planes");
  }
  STD_TORCH_CHECK(settings.samples >= 4 && settings.samples <= 4096, "samples must be 4 to 4096, got ", settings.samples);
  STD_TORCH_CHECK(settings.fine_samples >= 0 && settings.fine_samples <= 4096, "fine_samples must be 0 to 4096, got ",
                  settings.fine_samples);
}

// The depths that the forward pass kept for the backward one.
inline void check_depths(const Tensor& depths, const Tensor& origins, const RenderSettings& settings) {
  const int64_t n = origins.size(0), rays = origins.size(1), count = settings.samples + settings.fine_samples;
  STD_TORCH_CHECK(depths.dim() == 3 && depths.size(0) == n && depths.size(1) == rays && depths.size(2) == count,
                  "depths must be [N, R, samples + fine_samples] = [", n, ", ", rays, ", ", count,
                  "] as render_rays gives them with keep_depths, got ", shape_of(depths));
  check_like(depths, "depths", origins);
}

}  // namespace head3d
