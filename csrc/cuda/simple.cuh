// One point, one thread: the arithmetic of planes and decoder for any size and type, forward and backward.
#pragma once

#include "common/march.h"
#include "common/planes.h"
#include "cuda/render.cuh"

namespace head3d {

template <typename T>
struct PlaneTaps {
  Taps<T> x, y;
  __device__ PlaneTaps(const T* point, int plane, const Projection<T>& at, int height, int width)
      : x(taps_at(texel_coordinate(point[plane_column(place_of(plane), at.axes)], at.scale, width), width)),
        y(taps_at(texel_coordinate(point[plane_row(place_of(plane), at.axes)], at.scale, height), height)) {}
  __device__ T weight(int corner) const {
    return (corner & 2 ? y.weight_high : y.weight_low) * (corner & 1 ? x.weight_high : x.weight_low) / T(3);
  }
  template <typename V>
  __device__ int64_t offset(const V& view, int plane, int corner) const {
    return plane * view.plane + (corner & 2 ? y.high : y.low) * view.row + (corner & 1 ? x.high : x.low) * view.column;
  }
  __device__ bool inside(int corner) const {
    return (corner & 1 ? x.high_inside : x.low_inside) && (corner & 2 ? y.high_inside : y.low_inside);
  }
};

// features [C] of a point: a third of the sum of the bilinear readings. NaN in z reaches the features through `front`.
template <int kPlanes, typename T>
__device__ void read_point(const PlaneView<const T>& planes, const T* image, const T* point, const Projection<T>& at, T* features) {
  const T front = front_of<kPlanes>(point[2], at);
  for (int c = 0; c < planes.channels; ++c) features[c] = kPlanes == 4 ? front * T(0) : T(0);
  for (int plane = 0; plane < kPlanes; ++plane) {
    const T share = share_of<kPlanes>(plane, front);
    if (share == T(0)) continue;
    const PlaneTaps<T> taps(point, plane, at, planes.height, planes.width);
    for (int corner = 0; corner < 4; ++corner) {
      if (!taps.inside(corner)) continue;
      const T weight = share * taps.weight(corner);
      const T* texel = image + taps.offset(planes, plane, corner);
      for (int c = 0; c < planes.channels; ++c) features[c] += weight * texel[c * planes.channel];
    }
  }
}

// The transpose: adds to the planes' gradient, and returns the gradient of the point. Either may be null.
template <int kPlanes, typename T>
__device__ void read_point_backward(const PlaneView<const T>& planes, const T* image, const T* point, const Projection<T>& at,
                                    const T* grad, const PlaneView<T>& grad_planes, T* grad_image, T* grad_point) {
  if (grad_point != nullptr) grad_point[0] = grad_point[1] = grad_point[2] = T(0);
  const T front = front_of<kPlanes>(point[2], at);
  for (int plane = 0; plane < kPlanes; ++plane) {
    const T share = share_of<kPlanes>(plane, front);
    if (share == T(0)) continue;
    const PlaneTaps<T> taps(point, plane, at, planes.height, planes.width);
    T reading[4], mean = 0;
    for (int corner = 0; corner < 4; ++corner) {
      const T weight = share * taps.weight(corner);
      reading[corner] = T(0);
      if (!taps.inside(corner)) continue;
      const T* texel = image + taps.offset(planes, plane, corner);
      T* grad_texel = grad_image == nullptr ? nullptr : grad_image + taps.offset(grad_planes, plane, corner);
      for (int c = 0; c < planes.channels; ++c) {
        reading[corner] += grad[c] * texel[c * planes.channel];
        if (grad_texel != nullptr) atomicAdd(grad_texel + c * grad_planes.channel, weight * grad[c]);
      }
      mean += taps.weight(corner) * reading[corner];
    }
    if (grad_point == nullptr) continue;
    const T across = (reading[1] - reading[0]) * taps.y.weight_low + (reading[3] - reading[2]) * taps.y.weight_high;
    const T down = (reading[2] - reading[0]) * taps.x.weight_low + (reading[3] - reading[1]) * taps.x.weight_high;
    const int k = place_of(plane);
    grad_point[plane_column(k, at.axes)] += share * across * at.scale * planes.width / T(6);
    grad_point[plane_row(k, at.axes)] += share * down * at.scale * planes.height / T(6);
    // Between the slices z moves weight from one to the other.
    if (kPlanes == 4 && k == 0 && between_slices(front)) grad_point[2] += (plane == 0 ? mean : -mean) * at.slice_scale;
  }
}

template <typename T>
struct DecoderArgs {
  const T* w0;  // [hidden, C]
  const T* b0;  // [hidden]
  const T* w1;  // [1 + F, hidden]
  const T* b1;  // [1 + F]
  int channels, hidden, features;
};

template <typename T>
struct DecoderGrads {
  T* w0;
  T* b0;
  T* w1;
  T* b1;  // all null: not wanted
};

template <typename T>
__device__ T simple_sigmoid(T x) {
  return T(1) / (T(1) + exp(-x));
}

template <typename T>
__device__ T before_hidden(const DecoderArgs<T>& w, const T* x, int unit) {
  T sum = w.b0[unit];
  for (int c = 0; c < w.channels; ++c) sum += w.w0[unit * w.channels + c] * x[c];
  return sum;
}

// Eq. 3. Returns sigma; colour [F] may be null.
template <typename T>
__device__ T decode_point(const DecoderArgs<T>& w, const T* x, T* colour) {
  T sigma = w.b1[0];
  if (colour != nullptr) {
    for (int f = 0; f < w.features; ++f) colour[f] = w.b1[1 + f];
  }
  for (int unit = 0; unit < w.hidden; ++unit) {
    const T h = softplus(before_hidden(w, x, unit));
    sigma += w.w1[unit] * h;
    if (colour == nullptr) continue;
    for (int f = 0; f < w.features; ++f) colour[f] += w.w1[(1 + f) * w.hidden + unit] * h;
  }
  if (colour != nullptr) {
    for (int f = 0; f < w.features; ++f) colour[f] = simple_sigmoid(colour[f]) * T(kColourScale) - T(kColourShift);
  }
  return sigma;
}

// Gradients from those of sigma and of the logits [F] (the colours before their sigmoid); grad_x [C] is written.
template <typename T>
__device__ void decode_point_backward(const DecoderArgs<T>& w, const DecoderGrads<T>& grads, const T* x, T grad_sigma,
                                      const T* grad_logits, T* grad_x) {
  for (int c = 0; c < w.channels; ++c) grad_x[c] = T(0);
  const bool wanted = grads.w0 != nullptr;
  if (wanted) {
    atomicAdd(grads.b1, grad_sigma);
    for (int f = 0; f < w.features; ++f) atomicAdd(grads.b1 + 1 + f, grad_logits[f]);
  }
  for (int unit = 0; unit < w.hidden; ++unit) {
    const T before = before_hidden(w, x, unit), h = softplus(before);
    T grad = grad_sigma * w.w1[unit];
    for (int f = 0; f < w.features; ++f) grad += grad_logits[f] * w.w1[(1 + f) * w.hidden + unit];
    grad *= simple_sigmoid(before);
    for (int c = 0; c < w.channels; ++c) grad_x[c] += grad * w.w0[unit * w.channels + c];
    if (!wanted) continue;
    atomicAdd(grads.w1 + unit, grad_sigma * h);
    for (int f = 0; f < w.features; ++f) atomicAdd(grads.w1 + (1 + f) * w.hidden + unit, grad_logits[f] * h);
    atomicAdd(grads.b0 + unit, grad);
    for (int c = 0; c < w.channels; ++c) atomicAdd(grads.w0 + unit * w.channels + c, grad * x[c]);
  }
}

}  // namespace head3d
