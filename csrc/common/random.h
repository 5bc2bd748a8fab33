// Counter-based uniform numbers: the same lines as head3d_core/ops/random.py, which explains them.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace head3d {

constexpr uint32_t kGolden = 0x9E3779B9u;
constexpr uint32_t kStreamDepth = 0;       // random.STREAM_DEPTH: offsets of the stratified samples
constexpr uint32_t kStreamImportance = 1;  // random.STREAM_IMPORTANCE: positions of the importance samples

// C. Wellons' "lowbias32" finaliser (public domain).
HEAD3D_INLINE uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  return x ^ (x >> 16);
}

HEAD3D_INLINE uint32_t seed_key(int64_t seed) {
  const uint64_t bits = static_cast<uint64_t>(seed);
  return mix(mix(static_cast<uint32_t>(bits) + kGolden) ^ static_cast<uint32_t>(bits >> 32));
}

// `row` is the ray, `stream` one of the constants above.
HEAD3D_INLINE uint32_t row_key(uint32_t key, uint32_t row, uint32_t stream) {
  return mix(key ^ mix(row + kGolden * (stream + 1)));
}

// A multiple of 2^-24 in [0, 1); `column` is the sample along the ray.
HEAD3D_INLINE float uniform(uint32_t row_key, uint32_t column) {
  return static_cast<float>(mix(row_key + kGolden * column) >> 8) * 5.9604644775390625e-8f;
}

}  // namespace head3d
