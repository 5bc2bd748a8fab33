// render_rays on CUDA: checks the inputs, chooses the kernel, brings the planes into the layout it reads.
#include "cuda/render.cuh"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>

namespace head3d {

bool readable_in_place(const Tensor& planes) {
  if (planes.stride(2) != 1 || reinterpret_cast<uintptr_t>(planes.const_data_ptr()) % 16 != 0) return false;
  const int64_t unit = planes.scalar_type() == ScalarType::Half ? 8 : 4;  // elements in 16 bytes
  int64_t reach = planes.size(2);
  for (const int64_t dim : {0, 1, 3, 4}) {
    if (planes.stride(dim) % unit != 0) return false;
    if (dim != 0) reach += planes.stride(dim) * (planes.size(dim) - 1);
  }
  return reach < (int64_t(1) << 31);
}

namespace {

constexpr int kRepackTile = 32, kRepackThreads = 256;

// A block moves 32 pixels x 32 channels of a plane through shared memory: reads run along the columns of the planes or,
// where channels are innermost already, along the channels.
template <typename P>
__global__ void repack_kernel(PlaneView<const float> planes, P* out) {
  __shared__ float block[kRepackTile][kRepackTile + 1];
  const int pixels = planes.height * planes.width;
  const int64_t image = blockIdx.z / planes.planes, plane = blockIdx.z % planes.planes;
  const float* in = planes.data + image * planes.image + plane * planes.plane;
  const int first_pixel = blockIdx.x * kRepackTile, first_channel = blockIdx.y * kRepackTile;
  const bool channels_first = planes.channel != 1;
  for (int i = threadIdx.y; i < kRepackTile; i += blockDim.y) {
    const int c = channels_first ? i : threadIdx.x, p = channels_first ? threadIdx.x : i;
    const int pixel = first_pixel + p;
    if (pixel < pixels && first_channel + c < planes.channels) {
      block[p][c] = in[(first_channel + c) * planes.channel + pixel / planes.width * planes.row +
                       pixel % planes.width * planes.column];
    }
  }
  __syncthreads();
  const int channel = first_channel + threadIdx.x;
  for (int p = threadIdx.y; p < kRepackTile; p += blockDim.y) {
    const int pixel = first_pixel + p;
    if (pixel < pixels && channel < planes.channels) {
      out[(int64_t(blockIdx.z) * pixels + pixel) * planes.channels + channel] = static_cast<P>(block[p][threadIdx.x]);
    }
  }
}

// Four channels a thread where they are innermost already: only the type changes.
template <typename P>
__global__ void repack_inner_kernel(PlaneView<const float> planes, P* out) {
  const int quads = planes.channels / 4, index = blockIdx.x * blockDim.x + threadIdx.x;
  const int pixel = index / quads, channel = index % quads * 4, row = pixel / planes.width;
  if (row >= planes.height) return;
  const int64_t image = blockIdx.y / planes.planes, plane = blockIdx.y % planes.planes;
  const float* from = planes.data + image * planes.image + plane * planes.plane + row * planes.row;
  const float4 four = *reinterpret_cast<const float4*>(from + (pixel - row * planes.width) * planes.column + channel);
  struct alignas(4 * sizeof(P)) Four {
    P at[4];
  };
  P* to = out + (int64_t(blockIdx.y) * planes.height * planes.width + pixel) * planes.channels + channel;
  *reinterpret_cast<Four*>(to) = {static_cast<P>(four.x), static_cast<P>(four.y), static_cast<P>(four.z), static_cast<P>(four.w)};
}

bool by_fours(const PlaneView<const float>& p) {
  return p.channel == 1 && reinterpret_cast<uintptr_t>(p.data) % 16 == 0 &&
         (p.channels | p.image | p.plane | p.row | p.column) % 4 == 0;
}

}  // namespace

template <typename P>
void launch_repack(const PlaneView<const float>& planes, int64_t images, P* out, cudaStream_t stream) {
  const int64_t pixels = int64_t(planes.height) * planes.width;
  const unsigned all_planes = static_cast<unsigned>(planes.planes * images);
  if (by_fours(planes)) {
    const dim3 grid(blocks_for(pixels * planes.channels / 4, kRepackThreads), all_planes);
    repack_inner_kernel<P><<<grid, kRepackThreads, 0, stream>>>(planes, out);
    check_launch("repack of planes");
    return;
  }
  const dim3 grid(static_cast<unsigned>((pixels + kRepackTile - 1) / kRepackTile),
                  static_cast<unsigned>((planes.channels + kRepackTile - 1) / kRepackTile),
                  all_planes);
  repack_kernel<P><<<grid, dim3(kRepackTile, 8), 0, stream>>>(planes, out);
  check_launch("repack of planes");
}

bool tiles_compiled() {
  cudaFuncAttributes found;
  check_cuda(cudaFuncGetAttributes(&found, repack_kernel<float>), "attributes of a kernel");
  return found.ptxVersion >= 80;
}

template void launch_repack(const PlaneView<const float>&, int64_t, __half*, cudaStream_t);
template void launch_repack(const PlaneView<const float>&, int64_t, float*, cudaStream_t);

namespace {

using torch::stable::new_empty;
using torch::stable::new_zeros;

constexpr int64_t kSimpleThreads = 16384;  // rays that the simple kernels have in hand at once: bounds their scratch

// The inputs of a call, contiguous and checked; keeps the tensors alive.
struct Call {
  Tensor planes, w0, b0, w1, b1, origins, directions, near, far;
  std::optional<Tensor> seeds;
  RenderSettings settings;

  Call(Tensor planes_, const Tensor& w0_, const Tensor& b0_, const Tensor& w1_, const Tensor& b1_, const Tensor& origins_,
       const Tensor& directions_, const Tensor& near_, const Tensor& far_, const std::optional<Tensor>& seeds_,
       const RenderSettings& settings_)
      : planes(planes_), settings(settings_) {
    check_planes(planes, settings.projection);
    check_decoder(planes, w0_, b0_, w1_, b1_);
    check_rays(planes, origins_, directions_, near_, far_, seeds_, settings);
    const auto type = planes.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double,
                    "render_rays on CUDA takes float or double planes, got ", torch::headeronly::toString(type));
    STD_TORCH_CHECK(planes.size(2) <= kSimpleChannels && w1_.size(0) <= kSimpleChannels,
                    "render_rays on CUDA takes at most ", kSimpleChannels, " channels and ", kSimpleChannels - 1,
                    " features, got ", planes.size(2), " and ", w1_.size(0) - 1);
    check_launch_limits(planes);
    using torch::stable::contiguous;
    w0 = contiguous(w0_);
    b0 = contiguous(b0_);
    w1 = contiguous(w1_);
    b1 = contiguous(b1_);
    origins = contiguous(origins_);
    directions = contiguous(directions_);
    near = contiguous(near_);
    far = contiguous(far_);
    if (seeds_.has_value()) seeds = contiguous(*seeds_);
  }

  int64_t rays() const { return origins.size(1); }
  int64_t features() const { return w1.size(0) - 1; }
  bool empty() const { return planes.size(0) == 0 || rays() == 0; }

  // Whether the tensor-core kernels take this decoder.
  bool tiles() const {
    return planes.scalar_type() == ScalarType::Float && planes.size(2) == kChannels && w0.size(0) == kHidden &&
           features() == kFeatures && settings.samples + settings.fine_samples <= kMostSamples && tiles_compiled();
  }

  template <typename T>
  RenderArgs<T> args() const {
    return {w0.const_data_ptr<T>(),
            b0.const_data_ptr<T>(),
            w1.const_data_ptr<T>(),
            b1.const_data_ptr<T>(),
            origins.const_data_ptr<T>(),
            directions.const_data_ptr<T>(),
            near.const_data_ptr<T>(),
            far.const_data_ptr<T>(),
            seeds.has_value() ? seeds->const_data_ptr<int64_t>() : nullptr,
            planes.size(0),
            rays(),
            static_cast<int>(settings.samples),
            static_cast<int>(settings.fine_samples),
            static_cast<int>(w0.size(0)),
            static_cast<int>(features()),
            static_cast<T>(settings.projection.box_warp),
            projection_of<T>(settings.projection),
            settings.disparity,
            settings.white_back};
  }

  template <typename T>
  PlaneView<const T> view() const {
    return view_of<const T>(planes, planes.const_data_ptr<T>());
  }

  // Calls run(view) with planes that the tensor-core kernels can read: in half or float, channels innermost.
  template <typename Run>
  void with_tile_planes(cudaStream_t stream, Run run) const {
    const auto float_view = view<float>();
    const int64_t h = planes.size(3), w = planes.size(4);
    if (settings.precision == 1) {
      const Tensor packed = new_empty(planes, {planes.size(0), planes.size(1), h, w, kChannels}, ScalarType::Half);
      __half* data = static_cast<__half*>(packed.mutable_data_ptr());
      launch_repack(float_view, planes.size(0), data, stream);
      run(channels_last_view<const __half>(planes, data));
    } else if (readable_in_place(planes)) {
      run(float_view);
    } else {
      const Tensor packed = new_empty(planes, {planes.size(0), planes.size(1), h, w, kChannels});
      float* data = static_cast<float*>(packed.mutable_data_ptr());
      launch_repack(float_view, planes.size(0), data, stream);
      run(channels_last_view<const float>(planes, data));
    }
  }

  template <typename T, typename Run>
  void with_scratch(Run run) const {
    const int64_t per_ray = simple_scratch_per_ray(static_cast<int>(settings.samples), static_cast<int>(settings.fine_samples));
    const int64_t threads = (std::min(planes.size(0) * rays(), kSimpleThreads) + 63) / 64 * 64;
    const Tensor scratch = new_empty(planes, {threads * per_ray});
    run(static_cast<T*>(scratch.mutable_data_ptr()), threads);
  }
};

using Rendered = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Grads = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
RenderOutput<T> output_of(const Rendered& out, bool keep_depths) {
  return {std::get<0>(out).mutable_data_ptr<T>(), std::get<1>(out).mutable_data_ptr<T>(), std::get<2>(out).mutable_data_ptr<T>(),
          keep_depths ? std::get<3>(out).mutable_data_ptr<T>() : nullptr};
}

Rendered render_rays_cuda(Tensor planes, Tensor w0, Tensor b0, Tensor w1, Tensor b1, Tensor origins, Tensor directions,
                          Tensor near, Tensor far, std::optional<Tensor> seeds, int64_t samples, int64_t fine_samples,
                          int64_t axes, double box_warp, bool disparity, bool white_back, int64_t precision, bool keep_depths,
                          double slice_half_distance, double slice_centre) {
  const Call call(planes, w0, b0, w1, b1, origins, directions, near, far, seeds,
                  {samples, fine_samples, {axes, box_warp, slice_half_distance, slice_centre}, disparity, white_back, precision});
  const torch::stable::accelerator::DeviceGuard guard(planes.get_device_index());
  const int64_t n = planes.size(0), rays = call.rays();
  const Tensor depths = keep_depths ? new_empty(planes, {n, rays, samples + fine_samples}) : new_empty(planes, {0});
  const Rendered out{new_empty(planes, {n, rays, call.features()}), new_empty(planes, {n, rays}), new_empty(planes, {n, rays}),
                     depths};
  if (call.empty()) return out;
  const cudaStream_t stream = current_stream(planes);
  if (call.tiles()) {
    call.with_tile_planes(stream, [&](const auto& view) {
      launch_render_tiles(view, call.args<float>(), output_of<float>(out, keep_depths), planes.get_device_index(), stream);
    });
    return out;
  }
  const auto simple = [&](auto zero) {
    using T = decltype(zero);
    call.with_scratch<T>([&](T* scratch, int64_t threads) {
      launch_render_simple(call.view<T>(), call.args<T>(), output_of<T>(out, keep_depths), scratch, threads, stream);
    });
  };
  if (planes.scalar_type() == ScalarType::Double) {
    simple(double{});
  } else {
    simple(float{});
  }
  return out;
}

Grads render_rays_backward_cuda(Tensor planes, Tensor w0, Tensor b0, Tensor w1, Tensor b1, Tensor origins, Tensor directions,
                                Tensor near, Tensor far, std::optional<Tensor> seeds, int64_t samples, int64_t fine_samples,
                                int64_t axes, double box_warp, bool disparity, bool white_back, int64_t precision,
                                Tensor features, Tensor depth, Tensor opacity, Tensor depths, Tensor grad_features,
                                Tensor grad_depth, Tensor grad_opacity, bool needs_planes, bool needs_weights,
                                bool needs_rays, double slice_half_distance, double slice_centre) {
  const Call call(planes, w0, b0, w1, b1, origins, directions, near, far, seeds,
                  {samples, fine_samples, {axes, box_warp, slice_half_distance, slice_centre}, disparity, white_back, precision});
  const int64_t n = planes.size(0), rays = call.rays();
  const auto contiguous_like = [&](const Tensor& t, const char* name, std::vector<int64_t> shape) {
    check_like(t, name, planes);
    bool same = t.dim() == static_cast<int64_t>(shape.size());
    for (size_t i = 0; same && i < shape.size(); ++i) same = t.size(static_cast<int64_t>(i)) == shape[i];
    STD_TORCH_CHECK(same, name, " must have the shape of the forward result, got ", shape_of(t));
    return torch::stable::contiguous(t);
  };
  const Tensor out_features = contiguous_like(features, "features", {n, rays, call.features()});
  const Tensor out_depth = contiguous_like(depth, "depth", {n, rays});
  const Tensor out_opacity = contiguous_like(opacity, "opacity", {n, rays});
  check_depths(depths, call.origins, call.settings);
  const Tensor all_depths = torch::stable::contiguous(depths);
  const Tensor in_features = contiguous_like(grad_features, "grad_features", {n, rays, call.features()});
  const Tensor in_depth = contiguous_like(grad_depth, "grad_depth", {n, rays});
  const Tensor in_opacity = contiguous_like(grad_opacity, "grad_opacity", {n, rays});

  const torch::stable::accelerator::DeviceGuard guard(planes.get_device_index());
  const auto zeros = [&](bool wanted, const Tensor& like) {
    return wanted ? new_zeros(like, like.sizes()) : new_empty(planes, {0});
  };
  const Grads out{needs_planes ? new_zeros(planes, {n, planes.size(1), planes.size(3), planes.size(4), planes.size(2)})
                               : new_empty(planes, {0}),
                  zeros(needs_weights, call.w0),
                  zeros(needs_weights, call.b0),
                  zeros(needs_weights, call.w1),
                  zeros(needs_weights, call.b1),
                  zeros(needs_rays, call.origins),
                  zeros(needs_rays, call.directions)};
  if (call.empty() || !(needs_planes || needs_weights || needs_rays)) return out;
  const cudaStream_t stream = current_stream(planes);
  const auto grads_of = [&](auto zero) {
    using T = decltype(zero);
    const auto data = [](const Tensor& t, bool wanted) { return wanted ? t.mutable_data_ptr<T>() : nullptr; };
    return RenderGrads<T>{out_features.const_data_ptr<T>(),
                          out_depth.const_data_ptr<T>(),
                          out_opacity.const_data_ptr<T>(),
                          all_depths.const_data_ptr<T>(),
                          in_features.const_data_ptr<T>(),
                          in_depth.const_data_ptr<T>(),
                          in_opacity.const_data_ptr<T>(),
                          data(std::get<0>(out), needs_planes),
                          data(std::get<1>(out), needs_weights),
                          data(std::get<2>(out), needs_weights),
                          data(std::get<3>(out), needs_weights),
                          data(std::get<4>(out), needs_weights),
                          data(std::get<5>(out), needs_rays),
                          data(std::get<6>(out), needs_rays)};
  };
  if (call.tiles()) {
    call.with_tile_planes(stream, [&](const auto& view) {
      launch_render_tiles_backward(view, call.args<float>(), grads_of(float{}), planes.get_device_index(), stream);
    });
    return out;
  }
  const auto simple = [&](auto zero) {
    using T = decltype(zero);
    call.with_scratch<T>([&](T* scratch, int64_t threads) {
      launch_render_simple_backward(call.view<T>(), call.args<T>(), grads_of(zero), scratch, threads, stream);
    });
  };
  if (planes.scalar_type() == ScalarType::Double) {
    simple(double{});
  } else {
    simple(float{});
  }
  return out;
}

}  // namespace
}  // namespace head3d

STABLE_TORCH_LIBRARY_IMPL(head3d, CUDA, m) {
  m.impl("render_rays", TORCH_BOX(&head3d::render_rays_cuda));
  m.impl("render_rays_backward", TORCH_BOX(&head3d::render_rays_backward_cuda));
}
