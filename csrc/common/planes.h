// Where a point falls on the three planes. One arithmetic for the CPU and CUDA kernels; planes.py is the annotated twin.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace head3d {

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
