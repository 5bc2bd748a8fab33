// Vectors of T for one instruction set, in the compilers' own vector notation: one source for AVX-512, AVX2, NEON and SSE2.
// Included by cpu/render_body.h after HEAD3D_VECTOR_BYTES, HEAD3D_ISA (a namespace) and the compiler's target are set.

namespace head3d {
namespace HEAD3D_ISA {
namespace {

#define HEAD3D_ALWAYS inline __attribute__((always_inline, unused))

template <typename T>
struct Simd;

template <>
struct Simd<float> {
  static constexpr int lanes = HEAD3D_VECTOR_BYTES / 4;
  typedef int32_t Scalar;  // integer of the same width
  typedef float Vec __attribute__((vector_size(HEAD3D_VECTOR_BYTES)));
  typedef float Loose __attribute__((vector_size(HEAD3D_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t Int __attribute__((vector_size(HEAD3D_VECTOR_BYTES)));
  typedef int32_t LooseInt __attribute__((vector_size(HEAD3D_VECTOR_BYTES), aligned(4), may_alias));
};

template <>
struct Simd<double> {
  static constexpr int lanes = HEAD3D_VECTOR_BYTES / 8;
  typedef int64_t Scalar;
  typedef double Vec __attribute__((vector_size(HEAD3D_VECTOR_BYTES)));
  typedef double Loose __attribute__((vector_size(HEAD3D_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t Int __attribute__((vector_size(HEAD3D_VECTOR_BYTES)));
  typedef int64_t LooseInt __attribute__((vector_size(HEAD3D_VECTOR_BYTES), aligned(8), may_alias));
};

template <typename T>
using Vec = typename Simd<T>::Vec;
template <typename T>
using Int = typename Simd<T>::Int;
template <typename T>
using Whole = typename Simd<T>::Scalar;

template <typename T>
HEAD3D_ALWAYS Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::Loose*>(p);
}
template <typename T>
HEAD3D_ALWAYS void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename Simd<T>::Loose*>(p) = v;
}
template <typename T>
HEAD3D_ALWAYS void store_int(Whole<T>* p, Int<T> v) {
  *reinterpret_cast<typename Simd<T>::LooseInt*>(p) = v;
}
template <typename T>
HEAD3D_ALWAYS Vec<T> splat(T x) {
  return x - Vec<T>{};
}
template <typename T>
HEAD3D_ALWAYS T sum(Vec<T> v) {
  // Pairwise, so that the compiler may halve the vector again and again.
  T parts[Simd<T>::lanes];
  store<T>(parts, v);
#pragma GCC unroll 8
  for (int width = Simd<T>::lanes / 2; width > 0; width /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) parts[i] += parts[i + width];
  return parts[0];
}

// e^x for x in [-87, 88], to about 1e-7 relative.
HEAD3D_ALWAYS Vec<float> exponential_in_range(Vec<float> x) {
  using V = Vec<float>;
  const V shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum's last bits are round(x / ln 2)
  const V n = shifted - 12582912.0f;
  V r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  // Least-maximum fit on [-ln 2 / 2, ln 2 / 2], degree 6, relative error 1.9e-9 before rounding.
  V p = r * 1.3836846e-3f + 8.3748158e-3f;
  p = p * r + 4.1668226e-2f;
  p = p * r + 1.6666420e-1f;
  p = p * r + 4.9999992e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Int<float> scale = ((Int<float>)shifted << 23) + 0x3F800000;
  return p * (V)scale;
}

// e^x; outside [-87, 88], the value at that end. NaN stays NaN.
HEAD3D_ALWAYS Vec<float> exponential(Vec<float> x) {
  x = x < -87.0f ? splat<float>(-87.0f) : x;
  return exponential_in_range(x > 88.0f ? splat<float>(88.0f) : x);
}

// log(1 + e) for e in [0, 1], relative error about 2e-7: e times a least-maximum polynomial of degree 8.
HEAD3D_ALWAYS Vec<float> log_one_plus(Vec<float> e) {
  using V = Vec<float>;
  V p = e * 5.2326266e-3f + -2.9504996e-2f;
  p = p * e + 7.8225563e-2f;
  p = p * e + -1.3663214e-1f;
  p = p * e + 1.9105993e-1f;
  p = p * e + -2.4842979e-1f;
  p = p * e + 3.3319096e-1f;
  p = p * e + -4.9999493e-1f;
  p = p * e + 9.9999997e-1f;
  return p * e;
}

// e^-|x|, at least e^-87; NaN stays NaN
HEAD3D_ALWAYS Vec<float> decay(Vec<float> x) {
  const Vec<float> minus = (Vec<float>)((Int<float>)x | INT32_MIN);
  return exponential_in_range(minus < -87.0f ? splat<float>(-87.0f) : minus);
}

// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
HEAD3D_ALWAYS Vec<float> soft_plus(Vec<float> x) {
  const Vec<float> positive = x < 0.0f ? Vec<float>{} : x;
  return positive + log_one_plus(decay(x));
}

// softplus, and its derivative 1 / (1 + e^-x)
template <typename T>
struct Softplus {
  Vec<T> value, slope;
};
HEAD3D_ALWAYS Softplus<float> soft_plus_and_slope(Vec<float> x) {
  const Vec<float> positive = x < 0.0f ? Vec<float>{} : x;
  const Vec<float> e = decay(x);
  const Vec<float> slope = (x < 0.0f ? e : splat<float>(1.0f)) / (1.0f + e);
  return {positive + log_one_plus(e), slope};
}

HEAD3D_ALWAYS Vec<float> logistic(Vec<float> x) { return 1.0f / (1.0f + exponential(-x)); }

// Double precision serves gradcheck: lane by lane, with torch's threshold.
HEAD3D_ALWAYS Vec<double> exponential(Vec<double> x) {
  for (int i = 0; i < Simd<double>::lanes; ++i) x[i] = ::exp(x[i]);
  return x;
}
HEAD3D_ALWAYS Vec<double> soft_plus(Vec<double> x) {
  for (int i = 0; i < Simd<double>::lanes; ++i) x[i] = x[i] > kSoftplusThreshold ? x[i] : ::log1p(::exp(x[i]));
  return x;
}
HEAD3D_ALWAYS Softplus<double> soft_plus_and_slope(Vec<double> x) {
  Vec<double> slope{};
  for (int i = 0; i < Simd<double>::lanes; ++i) {
    const double z = ::exp(x[i]);
    slope[i] = x[i] > kSoftplusThreshold ? 1.0 : z / (1.0 + z);
    x[i] = x[i] > kSoftplusThreshold ? x[i] : ::log1p(z);
  }
  return {x, slope};
}
HEAD3D_ALWAYS Vec<double> logistic(Vec<double> x) { return 1.0 / (1.0 + exponential(-x)); }

// C[m, n] = initial + sum_k A[m, k] B[k, n], for m < MR and NV vectors of n; A is a scalar at a[m * am + k * ak], the rows
// of B and C are vectors. The initial value is a row vector (a bias), zero, or C itself.
enum class Start { kRow, kZero, kAccumulate };

template <typename T, int MR, int NV, Start kStart>
HEAD3D_ALWAYS void gemm_tile(int depth, const T* a, int64_t am, int64_t ak, const T* b, int64_t ldb, const T* row, T* c,
                             int64_t ldc) {
  constexpr int V = Simd<T>::lanes;
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) {
      if constexpr (kStart == Start::kRow) acc[m][v] = load(row + v * V);
      if constexpr (kStart == Start::kZero) acc[m][v] = Vec<T>{};
      if constexpr (kStart == Start::kAccumulate) acc[m][v] = load(c + m * ldc + v * V);
    }
  for (int k = 0; k < depth; ++k) {
    Vec<T> bv[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) bv[v] = load(b + k * ldb + v * V);
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      const T scalar = a[m * am + k * ak];
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) acc[m][v] += scalar * bv[v];
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) store(c + m * ldc + v * V, acc[m][v]);
}

template <typename T, int MR, int NV, Start kStart>
HEAD3D_ALWAYS void gemm_rows(int rows, int depth, const T* a, int64_t am, int64_t ak, const T* b, int64_t ldb, const T* row,
                             T* c, int64_t ldc) {
  int m = 0;
  for (; m + MR <= rows; m += MR) gemm_tile<T, MR, NV, kStart>(depth, a + m * am, am, ak, b, ldb, row, c + m * ldc, ldc);
  for (; m < rows; ++m) gemm_tile<T, 1, NV, kStart>(depth, a + m * am, am, ak, b, ldb, row, c + m * ldc, ldc);
}

// `columns` is a multiple of the lanes. Tiles fill the registers: 32 under AVX-512 (and NEON), 16 otherwise.
template <typename T, Start kStart>
__attribute__((noinline)) void gemm(int rows, int columns, int depth, const T* a, int64_t am, int64_t ak, const T* b,
                                    int64_t ldb, const T* row, T* c, int64_t ldc) {
  constexpr int V = Simd<T>::lanes;
  int n = 0;
#if HEAD3D_REGISTERS >= 32
  for (; n + 4 * V <= columns; n += 4 * V) gemm_rows<T, 6, 4, kStart>(rows, depth, a, am, ak, b + n, ldb, row + n, c + n, ldc);
  for (; n + 2 * V <= columns; n += 2 * V) gemm_rows<T, 12, 2, kStart>(rows, depth, a, am, ak, b + n, ldb, row + n, c + n, ldc);
  for (; n < columns; n += V) gemm_rows<T, 8, 1, kStart>(rows, depth, a, am, ak, b + n, ldb, row + n, c + n, ldc);
#else
  for (; n + 2 * V <= columns; n += 2 * V) gemm_rows<T, 6, 2, kStart>(rows, depth, a, am, ak, b + n, ldb, row + n, c + n, ldc);
  for (; n < columns; n += V) gemm_rows<T, 8, 1, kStart>(rows, depth, a, am, ak, b + n, ldb, row + n, c + n, ldc);
#endif
}

}  // namespace
}  // namespace HEAD3D_ISA
}  // namespace head3d
