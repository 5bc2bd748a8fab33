// Reading the planes at points and the decoder on a handful of samples, forward and backward. Part of cpu/render_body.h.

#include "cpu/simd.h"

namespace head3d {
namespace HEAD3D_ISA {
namespace {

template <typename T>
HEAD3D_ALWAYS int rounded(int count) {
  return (count + Simd<T>::lanes - 1) / Simd<T>::lanes * Simd<T>::lanes;
}

// Hands out pieces of one allocation, each aligned like the allocation (64 bytes).
template <typename T>
struct Arena {
  T* base;
  int64_t used = 0;

  template <typename U = T>
  U* take(int64_t count) {
    static_assert(sizeof(U) <= sizeof(T), "the arena counts in T");
    T* piece = base == nullptr ? nullptr : base + used;
    used += (count + 15) / 16 * 16;
    return reinterpret_cast<U*>(piece);
  }
};

// Where points fall on the planes; entry i belongs to point i.
template <typename T>
struct Taps {
  Whole<T>*x[3], *y[3];   // upper left texel; -2 where that axis is outside
  Whole<T>* inside[3];    // bits: left column, right column, upper row, lower row exist
  T *fx[3], *fy[3];       // how far towards the right and the lower neighbour, in [0, 1)
  T* front;               // weight of the front slice of plane 0; filled with two slices only

  Taps(Arena<T>& arena, int capacity) {
    for (int k = 0; k < 3; ++k) {
      x[k] = arena.template take<Whole<T>>(capacity);
      y[k] = arena.template take<Whole<T>>(capacity);
      inside[k] = arena.template take<Whole<T>>(capacity);
      fx[k] = arena.take(capacity);
      fy[k] = arena.take(capacity);
    }
    front = arena.take(capacity);
  }
};

// One round of `transpose`: in each block of 2 kHalf rows, the upper right quarter and the lower left one change places.
template <typename T, int kHalf, size_t... I>
HEAD3D_ALWAYS void swap_quarters(Vec<T>* rows, std::index_sequence<I...>) {
  constexpr int V = Simd<T>::lanes;
#pragma GCC unroll 16
  for (int i = 0; i < V; ++i) {
    if (i & kHalf) continue;
    const Vec<T> upper = rows[i], lower = rows[i + kHalf];
    rows[i] = __builtin_shufflevector(upper, lower, (I & kHalf ? V + I - kHalf : I)...);
    rows[i + kHalf] = __builtin_shufflevector(upper, lower, (I & kHalf ? V + I : I + kHalf)...);
  }
}

// Turns a square of V rows over in registers.
template <typename T>
HEAD3D_ALWAYS void transpose(Vec<T>* rows) {
  constexpr int V = Simd<T>::lanes;
  constexpr std::make_index_sequence<V> lanes;
  swap_quarters<T, 1>(rows, lanes);
  if constexpr (V > 2) swap_quarters<T, 2>(rows, lanes);
  if constexpr (V > 4) swap_quarters<T, 4>(rows, lanes);
  if constexpr (V > 8) swap_quarters<T, 8>(rows, lanes);
}

template <typename T>
void pack_row(const PackJob<T>& job) {
  constexpr int V = Simd<T>::lanes;
  int64_t x0 = 0;
  if (job.column == 1)
    for (; x0 + V <= job.width; x0 += V)
      for (int c0 = 0; c0 < job.padded; c0 += V) {
        Vec<T> square[V];
#pragma GCC unroll 16
        for (int c = 0; c < V; ++c)
          square[c] = c0 + c < job.channels ? load(job.from + (c0 + c) * job.channel + x0) : Vec<T>{};
        transpose<T>(square);
#pragma GCC unroll 16
        for (int x = 0; x < V; ++x) store(job.to + (x0 + x) * job.padded + c0, square[x]);
      }
  for (; x0 < job.width; ++x0)
    for (int c = 0; c < job.padded; ++c)
      job.to[x0 * job.padded + c] = c < job.channels ? job.from[c * job.channel + x0 * job.column] : T(0);
}

// Everything that the samples of one ray, or one group of points, need. Rows of x, h, slope, ... belong to one sample.
template <typename T>
struct Samples {
  int capacity;
  T* position[3];  // [capacity]
  Taps<T> taps;
  T* x;      // [capacity, channels]  sum of the readings, the two slices' counting as one
  T* h;      // [capacity, hidden]    softplus(w0 x + b0)
  T* slope;  // [capacity, hidden]    its derivative (backward)
  T* sigma;  // [capacity]
  T* colour;       // [capacity, features]      logits, then sigmoids
  T* grad_out;     // [capacity, features + V]  of the logits, then of sigma
  T* grad_hidden;  // [capacity, hidden]

  Samples(Arena<T>& arena, int count, const PlanesView<T>& planes, const Decoder<T>& decoder, bool backward)
      : capacity(rounded<T>(count) + 2 * Simd<T>::lanes),
        position{arena.take(capacity), arena.take(capacity), arena.take(capacity)},
        taps(arena, capacity) {
    x = arena.take(int64_t(capacity) * planes.channels);
    h = arena.take(int64_t(capacity) * decoder.hidden);
    slope = backward ? arena.take(int64_t(capacity) * decoder.hidden) : nullptr;
    sigma = arena.take(capacity);
    colour = arena.take(int64_t(capacity) * decoder.features);
    grad_out = backward ? arena.take(int64_t(capacity) * (decoder.features + Simd<T>::lanes)) : nullptr;
    grad_hidden = backward ? arena.take(int64_t(capacity) * decoder.hidden) : nullptr;
  }
};

// One axis of a tap: texel below the coordinate and the way to the next. NaN and everything outside give -2.
template <typename T>
struct Texel {
  Int<T> low;
  Vec<T> fraction;
};
template <typename T>
HEAD3D_ALWAYS Texel<T> find_texel(Vec<T> at, T size) {
  const Int<T> touches = (at > T(-1)) & (at < size);
  const Vec<T> safe = touches ? at : splat<T>(T(-2));
  Int<T> low = __builtin_convertvector(safe, Int<T>);  // towards zero
  low += __builtin_convertvector(low, Vec<T>) > safe;  // true is -1
  return {low, safe - __builtin_convertvector(low, Vec<T>)};
}

template <typename T>
void find_taps(const PlanesView<T>& planes, Samples<T>& samples, int from, int count) {
  constexpr int V = Simd<T>::lanes;
  const T width = T(planes.width), height = T(planes.height);
  const Projection<T>& projection = planes.projection;
  if (planes.plane_count == 4)
    for (int i = from; i < from + count; i += V) {  // front_share, V points at a time
      Vec<T> share = load(samples.position[2] + i) * projection.slice_scale + projection.slice_offset;
      share = share < T(0) ? Vec<T>{} : share;
      store(samples.taps.front + i, share > T(1) ? splat<T>(T(1)) : share);
    }
  for (int i = from; i < from + count; i += V) {
    for (int k = 0; k < 3; ++k) {
      Vec<T> column = load(samples.position[plane_column(k, projection.axes)] + i) * projection.scale;
      Vec<T> row = load(samples.position[plane_row(k, projection.axes)] + i) * projection.scale;
      column = ((column + T(1)) * width - T(1)) * T(0.5);
      row = ((row + T(1)) * height - T(1)) * T(0.5);
      const Texel<T> across = find_texel<T>(column, width), down = find_texel<T>(row, height);
      const Int<T> x = across.low, y = down.low;
      const Int<T> inside = ((x >= 0) & 1) | ((x >= -1) & (x + 1 < Whole<T>(planes.width)) & 2) | ((y >= 0) & 4) |
                            ((y >= -1) & (y + 1 < Whole<T>(planes.height)) & 8);
      store_int<T>(samples.taps.x[k] + i, x);
      store_int<T>(samples.taps.y[k] + i, y);
      store_int<T>(samples.taps.inside[k] + i, inside);
      store(samples.taps.fx[k] + i, across.fraction);
      store(samples.taps.fy[k] + i, down.fraction);
    }
  }
}

template <typename T>
HEAD3D_ALWAYS const T* texel_of(const PlanesView<T>& planes, const T* image, const Taps<T>& taps, int plane, int i) {
  const int k = place_of(plane);
  return image + plane * planes.plane + int64_t(taps.y[k][i]) * planes.row + int64_t(taps.x[k][i]) * planes.column;
}

// Sum of the bilinear readings of point i, NV vectors of channels.
template <typename T, int NV, int kPlanes>
HEAD3D_ALWAYS void read_point(const PlanesView<T>& planes, const T* image, const Taps<T>& taps, int i, int channel, T* out) {
  constexpr int V = Simd<T>::lanes;
  Vec<T> acc[NV];
#pragma GCC unroll 16
  for (int v = 0; v < NV; ++v) acc[v] = Vec<T>{};
  if (kPlanes == 4)  // NaN in z gives NaN, even where no texel is read
    for (int v = 0; v < NV; ++v) acc[v] = splat<T>(taps.front[i] * T(0));
  for (int plane = 0; plane < kPlanes; ++plane) {
    const T share = share_of<kPlanes>(plane, taps.front[i]);
    if (share == T(0)) continue;
    const int k = place_of(plane), inside = int(taps.inside[k][i]);
    const T fy = taps.fy[k][i], right_half = share * taps.fx[k][i], lower_half = share * fy;
    const T w11 = right_half * fy, w01 = right_half - w11, w10 = lower_half - w11, w00 = (share - right_half) - w10;
    const T* at = texel_of(planes, image, taps, plane, i) + channel;
    if (inside == 15) {
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) {
        acc[v] += w00 * load(at + v * V);
        acc[v] += w01 * load(at + planes.column + v * V);
        acc[v] += w10 * load(at + planes.row + v * V);
        acc[v] += w11 * load(at + planes.row + planes.column + v * V);
      }
      continue;
    }
    const bool left = inside & 1, right = inside & 2, upper = inside & 4, lower = inside & 8;
    if (upper && left)
      for (int v = 0; v < NV; ++v) acc[v] += w00 * load(at + v * V);
    if (upper && right)
      for (int v = 0; v < NV; ++v) acc[v] += w01 * load(at + planes.column + v * V);
    if (lower && left)
      for (int v = 0; v < NV; ++v) acc[v] += w10 * load(at + planes.row + v * V);
    if (lower && right)
      for (int v = 0; v < NV; ++v) acc[v] += w11 * load(at + planes.row + planes.column + v * V);
  }
#pragma GCC unroll 16
  for (int v = 0; v < NV; ++v) store(out + v * V, acc[v]);
}

template <typename T, int NV, int kPlanes>
HEAD3D_ALWAYS void read_points(const PlanesView<T>& planes, const T* image, Samples<T>& samples, int from, int count) {
  constexpr int V = Simd<T>::lanes, kAhead = 3, kLine = 64 / int(sizeof(T));
  for (int i = from; i < from + count; ++i) {
    // The planes do not fit the inner caches: ask for the texels of a later point in time.
    if (i + kAhead < from + count)
      for (int plane = 0; plane < kPlanes; ++plane)
        if (samples.taps.inside[place_of(plane)][i + kAhead] == 15 &&
            share_of<kPlanes>(plane, samples.taps.front[i + kAhead]) != T(0)) {
          const T* at = texel_of(planes, image, samples.taps, plane, i + kAhead);
#pragma GCC unroll 8
          for (int v = 0; v < NV; v += kLine / V > 0 ? kLine / V : 1) {
            __builtin_prefetch(at + v * V);
            __builtin_prefetch(at + planes.column + v * V);
            __builtin_prefetch(at + planes.row + v * V);
            __builtin_prefetch(at + planes.row + planes.column + v * V);
          }
        }
    for (int channel = 0; channel < planes.channels; channel += NV * V)
      read_point<T, NV, kPlanes>(planes, image, samples.taps, i, channel, samples.x + int64_t(i) * planes.channels + channel);
  }
}

template <typename T, int kPlanes>
void read_all(const PlanesView<T>& planes, const T* image, Samples<T>& samples, int from, int count) {
  const int vectors = planes.channels / Simd<T>::lanes;
  if (vectors % 8 == 0)
    read_points<T, 8, kPlanes>(planes, image, samples, from, count);
  else if (vectors % 4 == 0)
    read_points<T, 4, kPlanes>(planes, image, samples, from, count);
  else if (vectors % 2 == 0)
    read_points<T, 2, kPlanes>(planes, image, samples, from, count);
  else
    read_points<T, 1, kPlanes>(planes, image, samples, from, count);
}

// samples.x[from : from + count] from samples.position.
template <typename T>
void look_up(const PlanesView<T>& planes, int64_t image, Samples<T>& samples, int from, int count) {
  find_taps(planes, samples, from, count);
  const T* data = planes.data + image * planes.image;
  if (planes.plane_count == 4)
    read_all<T, 4>(planes, data, samples, from, count);
  else
    read_all<T, 3>(planes, data, samples, from, count);
}

// h = softplus(w0 x + b0) and sigma = w1[0] h + b1[0]; the colours wait until somebody asks for them.
template <typename T, bool kSlope>
void decode_sigma(const Decoder<T>& decoder, int channels, Samples<T>& samples, int from, int count) {
  constexpr int V = Simd<T>::lanes;
  const int hidden = decoder.hidden;
  T* h = samples.h + int64_t(from) * hidden;
  gemm<T, Start::kRow>(count, hidden, channels, samples.x + int64_t(from) * channels, channels, 1, decoder.w0_columns, hidden,
                       decoder.b0, h, hidden);
  for (int i = 0; i < count; ++i, h += hidden) {
    Vec<T> acc{};
#pragma GCC unroll 4
    for (int j = 0; j < hidden; j += V) {
      Vec<T> value;
      if constexpr (kSlope) {
        const Softplus<T> both = soft_plus_and_slope(load(h + j));
        value = both.value;
        store(samples.slope + int64_t(from + i) * hidden + j, both.slope);
      } else {
        value = soft_plus(load(h + j));
      }
      store(h + j, value);
      acc += value * load(decoder.w1_sigma + j);
    }
    samples.sigma[from + i] = sum<T>(acc) + decoder.b1_sigma;
  }
}

// Sigmoids of the colour logits of the first `count` rows of h.
template <typename T>
void decode_colour(const Decoder<T>& decoder, Samples<T>& samples, int count) {
  gemm<T, Start::kRow>(count, decoder.features, decoder.hidden, samples.h, decoder.hidden, 1, decoder.w1_columns,
                       decoder.features, decoder.b1, samples.colour, decoder.features);
  const int64_t total = int64_t(count) * decoder.features;
  for (int64_t i = 0; i < total; i += Simd<T>::lanes) store(samples.colour + i, logistic(load(samples.colour + i)));
}

// From grad_out (first `count` rows) to the weights' sums and to grad_x [count, channels]: the decoder's chain rule.
template <typename T>
void decode_backward(const Decoder<T>& decoder, int channels, Samples<T>& samples, int count, bool needs_weights,
                     WeightSums<T> sums, T* grad_x) {
  constexpr int V = Simd<T>::lanes;
  const int hidden = decoder.hidden, outputs = decoder.features + 1, stride = decoder.features + V;
  gemm<T, Start::kZero>(count, hidden, outputs, samples.grad_out, stride, 1, decoder.w1_rows, hidden, decoder.w1_rows,
                        samples.grad_hidden, hidden);
  for (int64_t i = 0; i < int64_t(count) * hidden; i += V)
    store(samples.grad_hidden + i, load(samples.grad_hidden + i) * load(samples.slope + i));
  if (needs_weights) {
    for (int i = 0; i < count; ++i) {
      for (int j = 0; j < stride; j += V) store(sums.b1 + j, load(sums.b1 + j) + load(samples.grad_out + int64_t(i) * stride + j));
      for (int j = 0; j < hidden; j += V)
        store(sums.b0 + j, load(sums.b0 + j) + load(samples.grad_hidden + int64_t(i) * hidden + j));
    }
    gemm<T, Start::kAccumulate>(outputs, hidden, count, samples.grad_out, 1, stride, samples.h, hidden, sums.w1, sums.w1, hidden);
    gemm<T, Start::kAccumulate>(hidden, channels, count, samples.grad_hidden, 1, hidden, samples.x, channels, sums.w0, sums.w0,
                                channels);
  }
  gemm<T, Start::kZero>(count, channels, hidden, samples.grad_hidden, hidden, 1, decoder.w0_rows, channels, decoder.w0_rows,
                        grad_x, channels);
}

// Derivative of the reading of point i by its position, times grad_x: added to grad[3]. With two slices z also moves
// weight from one to the other: d/dz [t B(front) + (1 - t) B(back)] has (B(front) - B(back)) / (2 half distance) where 0 < t < 1.
template <typename T, int kPlanes>
void point_gradient_in(const PlanesView<T>& planes, int64_t image, const Taps<T>& taps, int i, const T* grad_x, T* grad) {
  constexpr int V = Simd<T>::lanes;
  const Projection<T>& projection = planes.projection;
  const T* data = planes.data + image * planes.image;
  for (int plane = 0; plane < kPlanes; ++plane) {
    const T share = share_of<kPlanes>(plane, taps.front[i]);
    if (share == T(0)) continue;
    const int k = place_of(plane), inside = int(taps.inside[k][i]);
    const bool left = inside & 1, right = inside & 2, upper = inside & 4, lower = inside & 8;
    const T* at = texel_of(planes, data, taps, plane, i);
    Vec<T> dot[4] = {};  // grad_x . texel for the four corners
    for (int c = 0; c < planes.channels; c += V) {
      const Vec<T> g = load(grad_x + c);
      if (upper && left) dot[0] += g * load(at + c);
      if (upper && right) dot[1] += g * load(at + planes.column + c);
      if (lower && left) dot[2] += g * load(at + planes.row + c);
      if (lower && right) dot[3] += g * load(at + planes.row + planes.column + c);
    }
    const T v00 = sum<T>(dot[0]), v01 = sum<T>(dot[1]), v10 = sum<T>(dot[2]), v11 = sum<T>(dot[3]);
    const T fx = taps.fx[k][i], fy = taps.fy[k][i];
    const T by_column = (T(1) - fy) * (v01 - v00) + fy * (v11 - v10), by_row = (T(1) - fx) * (v10 - v00) + fx * (v11 - v01);
    grad[plane_column(k, projection.axes)] += share * by_column * projection.scale * T(planes.width) * T(0.5);
    grad[plane_row(k, projection.axes)] += share * by_row * projection.scale * T(planes.height) * T(0.5);
    if (kPlanes == 4 && k == 0 && between_slices(taps.front[i])) {
      const T reading = (T(1) - fy) * ((T(1) - fx) * v00 + fx * v01) + fy * ((T(1) - fx) * v10 + fx * v11);
      grad[2] += plane == 0 ? projection.slice_scale * reading : -projection.slice_scale * reading;
    }
  }
}

template <typename T>
void point_gradient(const PlanesView<T>& planes, int64_t image, const Taps<T>& taps, int i, const T* grad_x, T* grad) {
  if (planes.plane_count == 4)
    point_gradient_in<T, 4>(planes, image, taps, i, grad_x, grad);
  else
    point_gradient_in<T, 3>(planes, image, taps, i, grad_x, grad);
}

template <typename T>
HEAD3D_ALWAYS void fill_splat(const PlanesView<T>& planes, const Taps<T>& taps, int i, int64_t image, Splat<T>& splat) {
  for (int k = 0; k < 3; ++k) {
    splat.x[k] = int32_t(taps.x[k][i]);
    splat.y[k] = int32_t(taps.y[k][i]);
    splat.fx[k] = taps.fx[k][i];
    splat.fy[k] = taps.fy[k][i];
  }
  splat.front = planes.plane_count == 4 ? taps.front[i] : T(1);
  splat.image = int32_t(image);
}

// Adds the splats of the texel rows that are `part` modulo `parts`, in order: no two parts meet, and the result does not
// depend on their number.
template <typename T, int kPlanes>
void scatter_in(const ScatterJob<T>& job, int64_t part, int64_t parts) {
  constexpr int V = Simd<T>::lanes;
  const int64_t row_stride = job.width * job.channels, plane_stride = job.height * row_stride;
  for (int64_t i = 0; i < job.count; ++i) {
    const Splat<T>& splat = job.splats[i];
    const T* value = job.values + i * job.channels;
    for (int plane = 0; plane < kPlanes; ++plane) {
      const int k = place_of(plane);
      const T share = share_of<kPlanes>(plane, splat.front);
      if (share == T(0)) continue;
      T* data = job.planes + (int64_t(splat.image) * kPlanes + plane) * plane_stride;
      for (int dy = 0; dy < 2; ++dy) {
        const int64_t y = int64_t(splat.y[k]) + dy;
        if (y < 0 || y >= job.height || uint32_t(y) % uint32_t(parts) != uint32_t(part)) continue;
        const T wy = share * (dy ? splat.fy[k] : T(1) - splat.fy[k]);
        for (int dx = 0; dx < 2; ++dx) {
          const int64_t x = int64_t(splat.x[k]) + dx;
          if (x < 0 || x >= job.width) continue;
          const T w = wy * (dx ? splat.fx[k] : T(1) - splat.fx[k]);
          T* texel = data + y * row_stride + x * job.channels;
          for (int c = 0; c < job.channels; c += V) store(texel + c, load(texel + c) + w * load(value + c));
        }
      }
    }
  }
}

template <typename T>
void scatter(const ScatterJob<T>& job, int64_t part, int64_t parts) {
  if (job.plane_count == 4)
    scatter_in<T, 4>(job, part, parts);
  else
    scatter_in<T, 3>(job, part, parts);
}

}  // namespace
}  // namespace HEAD3D_ISA
}  // namespace head3d
