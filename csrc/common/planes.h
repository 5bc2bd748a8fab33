// Where a point falls on the planes. One arithmetic for the CPU and CUDA kernels; planes.py is the annotated reference.
//
// Planes 0, 1, 2 are those of planes.PROJECTION. With two slices of the first plane, plane 0 is the front slice and plane 3
// the back one: both are read at plane 0's place, with the weights `front_share` and 1 - `front_share`.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace head3d {

// How the points of a call are projected; made once a call from the op's arguments.
template <typename T>
struct Projection {
  int axes;        // 0: "eg3d", 1: "xyz"
  T scale;         // 2 / box_warp
  T slice_scale;   // front_share = clamp(slice_scale z + slice_offset, 0, 1); used with two slices only
  T slice_offset;
};

template <typename T>
HEAD3D_INLINE Projection<T> make_projection(int64_t axes, double box_warp, double slice_half_distance, double slice_centre) {
  return {static_cast<int>(axes), static_cast<T>(2.0 / box_warp), static_cast<T>(0.5 / slice_half_distance),
          static_cast<T>(0.5 - 0.5 * slice_centre / slice_half_distance)};
}

// Weight of the front slice: 1 where z >= centre + half distance, 0 where z <= centre - half distance. NaN stays NaN.
template <typename T>
HEAD3D_INLINE T front_share(T z, const Projection<T>& projection) {
  const T share = z * projection.slice_scale + projection.slice_offset;
  return share < T(0) ? T(0) : (share > T(1) ? T(1) : share);
}

// The same for kernels compiled for kPlanes planes: 1 if there is one slice only.
template <int kPlanes, typename T>
HEAD3D_INLINE T front_of(T z, const Projection<T>& projection) {
  return kPlanes == 4 ? front_share(z, projection) : T(1);
}

// Whether a point reads both slices, and its z moves weight from one to the other.
template <typename T>
HEAD3D_INLINE bool between_slices(T front) {
  return front > T(0) && front < T(1);
}

// What is read at a point, in turn: the planes 0, 1, 2, and with two slices (kPlanes = 4) plane 3, at the place of plane 0.
HEAD3D_INLINE int place_of(int plane) { return plane == 3 ? 0 : plane; }

// Weight of a plane's reading in the sum; `front` is the point's front_share. What weighs 0 is not read.
template <int kPlanes, typename T>
HEAD3D_INLINE T share_of(int plane, T front) {
  if (kPlanes == 3 || plane == 1 || plane == 2) return T(1);
  return plane == 0 ? front : T(1) - front;
}

// (column, row) coordinate of planes 0, 1, 2: planes.PROJECTION.
HEAD3D_INLINE int plane_column(int plane, int axes) { return axes == 0 ? (plane == 2 ? 2 : 0) : (plane == 2 ? 1 : 0); }
HEAD3D_INLINE int plane_row(int plane, int axes) {
  return plane == 0 ? 1 : (plane == 1 ? 2 : (axes == 0 ? 0 : 2));
}

// Texel coordinate of a world coordinate: u = 2 p / box_warp, texel j has its centre at u = (2 j + 1) / size - 1.
template <typename T>
HEAD3D_INLINE T texel_coordinate(T p, T scale /* 2 / box_warp */, int64_t size) {
  return ((p * scale + T(1)) * T(size) - T(1)) * T(0.5);
}

}  // namespace head3d
