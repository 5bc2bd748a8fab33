// 16-bit floats as the filters' CPU kernels store them. Plain bit arithmetic, so that every compiler vectorises it.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/macros.h"

namespace head3d {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

HEAD3D_INLINE float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
HEAD3D_INLINE uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

HEAD3D_INLINE float widen(float x) { return x; }
HEAD3D_INLINE double widen(double x) { return x; }
HEAD3D_INLINE float widen(BFloat16 x) { return bits_to_float(uint32_t(x.bits) << 16); }
HEAD3D_INLINE float widen(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7FFF;
  // Shift exponent and mantissa into place; a product by 2^112 mends the bias, subnormals included.
  const float value = bits_to_float(magnitude << 13) * bits_to_float(0x77800000u);
  const uint32_t special = magnitude >= 0x7C00 ? 0x7F800000u | ((magnitude & 0x3FF) << 13) : float_to_bits(value);
  return bits_to_float(sign | special);
}

HEAD3D_INLINE BFloat16 to_bfloat16(float x) {
  const uint32_t bits = float_to_bits(x);
  const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  return {uint16_t((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded)};
}
HEAD3D_INLINE Half to_half(float x) {
  const uint32_t bits = float_to_bits(x), magnitude = bits & 0x7FFFFFFF;
  // Normal: mend the bias and round to nearest even. Subnormal: adding 0.5 lets the addition do the rounding.
  const uint32_t normal = (magnitude - 0x38000000 + 0xFFF + ((magnitude >> 13) & 1)) >> 13;
  const uint32_t subnormal = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3F000000;
  uint32_t result = magnitude < 0x38800000 ? subnormal : normal;
  result = magnitude >= 0x477FF000 ? 0x7C00 : result;
  result = magnitude > 0x7F800000 ? 0x7E00 : result;
  return {uint16_t(((bits >> 16) & 0x8000) | result)};
}

// x in the type S in which it is stored.
template <typename S, typename W>
HEAD3D_INLINE S narrow(W x) {
  if constexpr (std::is_same_v<S, Half>)
    return to_half(x);
  else if constexpr (std::is_same_v<S, BFloat16>)
    return to_bfloat16(x);
  else
    return x;
}

}  // namespace head3d
