"""The quick renderer against the reference: the same numbers, several times faster."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import head3d_core as h3d
from head3d_core.config import Axes, Backend, RenderOptions
from head3d_core.experiments import plane_swap
from head3d_core.model import cameras, quick, seeds
from head3d_core.model.decoder import Decoder
from head3d_core.model.planes import DecoderWeights, sample_planes
from head3d_core.model.rays import camera_rays
from head3d_core.model.volume import render_rays

OPTIONS = RenderOptions(depth_resolution=12, depth_resolution_importance=12, white_back=True)


def scene(count: int = 2) -> tuple[torch.Tensor, DecoderWeights, torch.Tensor, torch.Tensor]:
    """Planes, decoder and rays of a lively volume: density comes and goes along a ray."""
    planes = 3 * torch.randn(count, 3, 8, 20, 24, dtype=torch.float64)
    weights = DecoderWeights(*(4 * w.detach().double() for w in Decoder(8, 16, 6).weights()))
    origins, directions = camera_rays(cameras.orbit(torch.tensor([0.3, 2.0])[:count], 0.2).double(), 9)
    return planes, weights, origins, directions


@pytest.mark.parametrize("axes", ["xyz", "eg3d"])
def test_rows_read_what_grid_sample_reads(axes: Axes) -> None:
    planes = torch.randn(2, 3, 5, 7, 9, dtype=torch.float64)
    points = 1.6 * (torch.rand(2, 200, 3, dtype=torch.float64) - 0.5)  # some beyond the border
    points[0, :3] = torch.tensor([[0.5, 0.5, 0.5], [-0.5, 0.5, -0.5], [3.0, 0.0, 0.0]])
    truth = sample_planes(planes, points, axes, 1.1, backend="reference")
    assert torch.allclose(quick.sample_rows(planes, points, axes, 1.1), truth, atol=1e-12)
    channels_last = planes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert torch.allclose(quick.sample_rows(channels_last, points, axes, 1.1), truth, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        dataclasses.replace(OPTIONS, axes="eg3d", white_back=False, box_warp=1.3),
        dataclasses.replace(OPTIONS, depth_resolution_importance=0),
        dataclasses.replace(OPTIONS, ray_start="auto", ray_end="auto", disparity=True),
    ],
)
def test_rays_equal_the_reference(options: RenderOptions) -> None:
    planes, weights, origins, directions = scene()
    truth = render_rays(planes, weights, origins, directions, options, backend="reference")
    found = quick.quick_rays(planes, weights, origins, directions, options, backend="reference")
    assert 0.02 < float(truth.opacity.mean()) < 0.98
    for a, b in zip(found, truth, strict=True):
        assert torch.allclose(a, b, atol=24 * quick.NEGLIGIBLE)


def test_three_colours_are_the_first_features() -> None:
    planes, weights, origins, directions = scene()
    whole = quick.quick_rays(planes, weights, origins, directions, OPTIONS, backend="reference")
    three = quick.three_colours(weights)
    colours = quick.quick_rays(planes, three, origins, directions, OPTIONS, backend="reference")
    assert colours.features.shape[-1] == 3
    assert torch.allclose(colours.features, whole.features[..., :3])
    assert torch.equal(colours.opacity, whole.opacity)


@pytest.mark.parametrize("name", ["face", "head", "head3d"])
@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=pytest.mark.native)])
def test_bundled_weights_look_alike_with_and_without_the_extension(name: str, backend: Backend) -> None:
    """What the swap lab calls, on real decoders: their hidden units reach 199 to 260, which random ones never do."""
    G = h3d.load_generator(name)
    heads = seeds.heads_of_seeds(G, [3, 11])
    camera = cameras.orbit(0.4, 0.1)
    origins, directions = (x.expand(2, -1, -1) for x in camera_rays(camera, 24))
    options = G.config.render
    with torch.no_grad():
        truth = render_rays(
            heads.planes, G.decoder.weights(), origins, directions, options, backend="reference"
        )
    view = plane_swap.look(G, heads.planes, camera, 24, backend)
    rgb = truth.features[..., :3].transpose(1, 2).unflatten(-1, (24, 24))
    assert float(view.rgb.std()) > 0.3  # a head, no empty picture
    assert float((view.rgb - rgb).abs().mean()) < 1e-4
    # Fine samples fall where rounding puts them: single rays at a silhouette may differ more.
    assert float((view.rgb - rgb).abs().max()) < 0.02
    assert float((view.depth.flatten(1) - truth.depth).abs().mean()) < 1e-4


@pytest.mark.native
def test_native_is_taken_where_it_is_built() -> None:
    planes, exact, origins, directions = scene()
    planes, origins, directions = planes.float(), origins.float(), directions.float()
    weights = DecoderWeights(*(w.float() for w in exact))
    truth = render_rays(planes, weights, origins, directions, OPTIONS, backend="native")
    found = quick.quick_rays(planes, weights, origins, directions, OPTIONS)
    assert torch.equal(found.features, truth.features)
