// Equations of the marcher and of importance sampling: head3d_core/model/volume.py, which explains them, line by line.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/macros.h"

namespace head3d {

constexpr double kTransmittanceFloor = 1e-10;  // transmittance_i = prod_{j<i} (1 - alpha_j + 1e-10)
constexpr double kColourScale = 1.002;         // colour = 1.002 sigmoid(t) - 0.001
constexpr double kColourShift = 0.001;
constexpr double kSoftplusThreshold = 20.0;  // torch's softplus is the identity above it

// Depth of the sample that lies `fraction` of the way: volume._depth_at.
template <typename T>
HEAD3D_INLINE T depth_at(T near, T far, T fraction, bool disparity) {
  return disparity ? T(1) / ((T(1) - fraction) / near + fraction / far) : near + (far - near) * fraction;
}

// softplus(x) = log(1 + e^x)
template <typename T>
HEAD3D_INLINE T softplus(T x) {
  return x > T(kSoftplusThreshold) ? x : log1p(exp(x));
}

// alpha of an interval of length delta whose mid-point has the raw sigma `sigma`: 1 - exp(-softplus(sigma - 1) delta).
template <typename T>
HEAD3D_INLINE T alpha_of(T sigma, T delta) {
  return T(1) - exp(-softplus(sigma - T(1)) * delta);
}

// What an interval leaves of the light; its weight is alpha times the light before it.
template <typename T>
HEAD3D_INLINE T light_behind(T transmittance, T alpha) {
  return transmittance * (T(1) - alpha + T(kTransmittanceFloor));
}

// Importance sampling of one ray: volume.importance_depths.
//   depths   [samples], ascending
//   weights  [samples - 1]
//   cdf      [samples - 2], filled by make_cdf; cdf[0] = 0. The mid-points (depths[i] + depths[i+1]) / 2 are its edges.
template <typename T>
HEAD3D_INLINE void make_cdf(const T* weights, int samples, T* cdf) {
  // a_i = max of the neighbouring weights, b_i = (a_i + a_{i+1}) / 2 + 0.01; the pdf is b_1 .. b_{S-3} + 1e-5.
  const int bins = samples - 3;
  T sum = 0;
  cdf[0] = 0;
  T before = weights[0] > weights[1] ? weights[0] : weights[1];  // a_1
  for (int i = 0; i < bins; ++i) {
    const T left = weights[i + 1], right = weights[i + 2];
    const T after = left > right ? left : right;  // a_{i+2}
    sum += (before + after) * T(0.5) + T(0.01) + T(1e-5);
    cdf[i + 1] = sum;
    before = after;
  }
  const T inverse = T(1) / sum;
  for (int i = 1; i <= bins; ++i) cdf[i] *= inverse;
}

// Depth for u in [0, 1). `start` is a hint: the first entry to look at (0 is always right; for ascending u the last
// answer's), and is updated.
template <typename T>
HEAD3D_INLINE T invert_cdf(const T* cdf, const T* depths, int samples, T u, int& start) {
  const int last = samples - 3;  // index of the last entry of cdf
  int k = start;                 // first entry greater than u ("right" search)
  while (k <= last && !(cdf[k] > u)) ++k;
  start = k;
  const int low = k > 0 ? k - 1 : 0, high = k < last ? k : last;
  T width = cdf[high] - cdf[low];
  if (width < T(1e-5)) width = T(1);
  const T edge_low = (depths[low] + depths[low + 1]) * T(0.5), edge_high = (depths[high] + depths[high + 1]) * T(0.5);
  return edge_low + (u - cdf[low]) / width * (edge_high - edge_low);
}

}  // namespace head3d
