// FIR resampling and bias + activation for one instruction set. Part of cpu/render_body.h's three compilations.

namespace head3d {
namespace HEAD3D_ISA {
namespace {

// S is how numbers are stored, Wide<S> what they are computed in.
template <typename S>
struct WideOf {
  using type = float;
};
template <>
struct WideOf<double> {
  using type = double;
};
template <typename S>
using Wide = typename WideOf<S>::type;

// A vector of wide numbers from storage, and back.
template <typename S>
HEAD3D_ALWAYS Vec<Wide<S>> load_wide(const S* p) {
  if constexpr (std::is_same_v<S, Wide<S>>) return load(p);
  Vec<Wide<S>> v;
  for (int i = 0; i < Simd<Wide<S>>::lanes; ++i) v[i] = widen(p[i]);
  return v;
}
template <typename S>
HEAD3D_ALWAYS void store_narrow(S* p, Vec<Wide<S>> v) {
  if constexpr (std::is_same_v<S, Wide<S>>) return store(p, v);
  for (int i = 0; i < Simd<Wide<S>>::lanes; ++i) p[i] = narrow<S>(Wide<S>(v[i]));
}

// What does not change from element to element, in registers.
template <typename W>
struct Activation {
  W gain, small_gain, limit;

  HEAD3D_ALWAYS explicit Activation(const BiasActJob& job)
      : gain(W(job.gain)), small_gain(W(job.gain * job.slope)), limit(W(job.limit)) {}
  HEAD3D_ALWAYS W operator()(W v) const {
    v *= v > W(0) ? gain : small_gain;
    v = v < -limit ? -limit : v;
    return v > limit ? limit : v;
  }
  HEAD3D_ALWAYS Vec<W> operator()(Vec<W> v) const {
    v *= v > W(0) ? splat<W>(gain) : splat<W>(small_gain);
    v = v < -limit ? splat<W>(-limit) : v;
    return v > limit ? splat<W>(limit) : v;
  }
};

// x [outer, channels, inner], rows [begin, end) of the first two dimensions; with inner == 1, of the first alone.
template <typename S>
void bias_act(const BiasActJob& job, int64_t begin, int64_t end) {
  using W = Wide<S>;
  const S *x = static_cast<const S*>(job.x), *bias = static_cast<const S*>(job.bias);
  S* out = static_cast<S*>(job.out);
  const Activation<W> activation(job);
  const int64_t channels = job.channels, inner = job.inner;
  if (inner == 1) {
    for (int64_t row = begin; row < end; ++row) {
      const S* from = x + row * channels;
      S* to = out + row * channels;
      if (bias == nullptr) {
        for (int64_t c = 0; c < channels; ++c) to[c] = narrow<S>(activation(widen(from[c])));
        continue;
      }
      int64_t c = 0;
      for (constexpr int V = Simd<W>::lanes; c + V <= channels; c += V)
        store_narrow(to + c, activation(load_wide(from + c) + load_wide(bias + c)));
      for (; c < channels; ++c) to[c] = narrow<S>(activation(widen(from[c]) + widen(bias[c])));
    }
    return;
  }
  for (int64_t row = begin; row < end; ++row) {
    const W b = bias == nullptr ? W(0) : W(widen(bias[row % channels]));
    const S* from = x + row * inner;
    S* to = out + row * inner;
    for (int64_t i = 0; i < inner; ++i) to[i] = narrow<S>(activation(widen(from[i]) + b));
  }
}

// x is the gradient, bias the output; elements [begin, end).
template <typename S>
void bias_act_backward(const BiasActJob& job, int64_t begin, int64_t end) {
  using W = Wide<S>;
  const S *grad = static_cast<const S*>(job.x), *output = static_cast<const S*>(job.bias);
  S* out = static_cast<S*>(job.out);
  const W gain = W(job.gain), small_gain = W(job.gain * job.slope);
  // The limit as the output holds it: rounded to S, or a clamped output could look as if it were inside.
  const W limit = widen(narrow<S>(W(job.limit)));
  for (int64_t i = begin; i < end; ++i) {
    const W y = widen(output[i]);
    W g = widen(grad[i]) * (y > W(0) ? gain : small_gain);
    g = ((y < limit) & (y > -limit)) ? g : W(0);
    out[i] = narrow<S>(g);
  }
}

template <typename T>
struct Term {
  const T* at;
  T weight;
};

// One image plane [height, width], contiguous. The rows are widened, padded with zeros and split by position modulo `down`;
// then every output of one position modulo `up` is a sum of the same few shifted rows.
template <typename S>
void fir_plane(const FirJob& job, int64_t plane, void* scratch) {
  using W = Wide<S>;
  constexpr int V = Simd<W>::lanes;
  const S* in = static_cast<const S*>(job.x) + plane * job.height * job.width;
  S* out = static_cast<S*>(job.out) + plane * job.out_height * job.out_width;
  const int64_t up = job.up, down = job.down, row_size = job.row_size, left = job.margin;
  W* rows = static_cast<W*>(scratch);                        // [height, down, row_size]
  W* result = rows + job.height * down * row_size;           // [up, row_size]
  Term<W>* terms = reinterpret_cast<Term<W>*>(result + up * row_size);
  for (int64_t y = 0; y < job.height; ++y) {
    W* to = rows + y * down * row_size;
    for (int64_t i = 0; i < down * row_size; ++i) to[i] = 0;
    const S* from = in + y * job.width;
    if (down == 1)
      for (int64_t x = 0; x < job.width; ++x) to[x + left] = widen(from[x]);
    else if (down == 2 && left % 2 == 0) {
      W *even = to + left / 2, *odd = to + row_size + left / 2;
      const int64_t pairs = job.width / 2;
      for (int64_t x = 0; x < pairs; ++x) {
        even[x] = widen(from[2 * x]);
        odd[x] = widen(from[2 * x + 1]);
      }
      if (job.width % 2) even[pairs] = widen(from[2 * pairs]);
    } else
      for (int64_t x = 0; x < job.width; ++x) {
        const int64_t place = x + left;
        to[place % down * row_size + place / down] = widen(from[x]);
      }
  }
  for (int64_t y = 0; y < job.out_height; ++y) {
    for (int64_t r = 0; r < up; ++r) {
      int count = 0;
      for (int64_t ky = 0; ky < job.kernel_height; ++ky) {
        const int64_t v = y * down + ky - job.pad_top;
        if (v < 0 || v % up != 0 || v / up >= job.height) continue;
        for (int64_t kx = 0; kx < job.kernel_width; ++kx) {
          const int64_t u = r * down + kx - job.pad_left;
          if (u % up != 0) continue;
          const int64_t place = u / up + left;
          terms[count++] = {rows + (v / up * down + place % down) * row_size + place / down,
                            W(job.kernel[ky * job.kernel_width + kx])};
        }
      }
      W* to = result + r * row_size;
      const int64_t outputs = (job.out_width - r + up - 1) / up;
      int64_t q = 0;
      for (; q + 2 * V <= outputs + V - 1; q += 2 * V) {
        Vec<W> a{}, b{};
        for (int t = 0; t < count; ++t) {
          a += terms[t].weight * load(terms[t].at + q);
          b += terms[t].weight * load(terms[t].at + q + V);
        }
        store(to + q, a);
        store(to + q + V, b);
      }
      for (; q < outputs; q += V) {
        Vec<W> a{};
        for (int t = 0; t < count; ++t) a += terms[t].weight * load(terms[t].at + q);
        store(to + q, a);
      }
    }
    S* to = out + y * job.out_width;
    if (up == 1)
      for (int64_t x = 0; x < job.out_width; ++x) to[x] = narrow<S>(result[x]);
    else if (up == 2) {
      const W *even = result, *odd = result + row_size;
      const int64_t pairs = job.out_width / 2;
      for (int64_t x = 0; x < pairs; ++x) {
        to[2 * x] = narrow<S>(even[x]);
        to[2 * x + 1] = narrow<S>(odd[x]);
      }
      if (job.out_width % 2) to[2 * pairs] = narrow<S>(even[pairs]);
    } else
      for (int64_t x = 0; x < job.out_width; ++x) to[x] = narrow<S>(result[x % up * row_size + x / up]);
  }
}

template <typename S>
struct RowTerm {
  const S* at;
  int64_t column;
  Wide<S> weight;
};

// One output row of one image, channels innermost. Outputs of one position modulo `up` read the same places, a shift apart.
template <typename S>
void fir_row(const FirJob& job, int64_t line, void* scratch) {
  using W = Wide<S>;
  constexpr int V = Simd<W>::lanes;
  const int64_t n = line / job.out_height, y = line % job.out_height, channels = job.channels;
  const S* in = static_cast<const S*>(job.x) + n * job.height * job.width * channels;
  S* out = static_cast<S*>(job.out) + line * job.out_width * channels;
  RowTerm<S>*terms = static_cast<RowTerm<S>*>(scratch), *inside = terms + job.kernel_height * job.kernel_width;
  for (int64_t r = 0; r < job.up; ++r) {
    int count = 0;
    for (int64_t ky = 0; ky < job.kernel_height; ++ky) {
      const int64_t v = y * job.down + ky - job.pad_top;
      if (v < 0 || v % job.up != 0 || v / job.up >= job.height) continue;
      for (int64_t kx = 0; kx < job.kernel_width; ++kx) {
        const int64_t u = r * job.down + kx - job.pad_left;
        if (u % job.up != 0) continue;
        terms[count++] = {in + v / job.up * job.width * channels, u / job.up, W(job.kernel[ky * job.kernel_width + kx])};
      }
    }
    for (int64_t x = r, shift = 0; x < job.out_width; x += job.up, shift += job.down) {
      int used = 0;
      for (int t = 0; t < count; ++t) {
        const int64_t column = terms[t].column + shift;
        if (column >= 0 && column < job.width) inside[used++] = {terms[t].at + column * channels, 0, terms[t].weight};
      }
      S* to = out + x * channels;
      int64_t c = 0;
      for (; c + V <= channels; c += V) {
        Vec<W> acc{};
        for (int t = 0; t < used; ++t) acc += inside[t].weight * load_wide(inside[t].at + c);
        store_narrow(to + c, acc);
      }
      for (; c < channels; ++c) {
        W acc = 0;
        for (int t = 0; t < used; ++t) acc += inside[t].weight * widen(inside[t].at[c]);
        to[c] = narrow<S>(acc);
      }
    }
  }
}

template <typename S>
constexpr FilterKernels kFilter = {bias_act<S>, bias_act_backward<S>, fir_plane<S>, fir_row<S>};
constexpr FilterKernels kFilters[4] = {kFilter<float>, kFilter<double>, kFilter<Half>, kFilter<BFloat16>};

}  // namespace
}  // namespace HEAD3D_ISA
}  // namespace head3d
