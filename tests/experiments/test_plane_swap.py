"""Exchange of planes: forced answers, symmetries, and intervals that know that pairs share people."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import refuses, visible

import head3d_core as h3d
from head3d_core.config import Backend, preset
from head3d_core.experiments import plane_swap, swap_study
from head3d_core.experiments.plane_swap import FINISHED, RAW
from head3d_core.metrics.identity_encoder import Encoder, IdentityNet
from head3d_core.model import cameras, seeds
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import Heads


@pytest.fixture(scope="module")
def G() -> Generator:
    return visible()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(1)
    return Encoder(IdentityNet().eval().requires_grad_(False), "untrained").eval()


@pytest.fixture(scope="module")
def heads(G: Generator) -> Heads:
    return seeds.heads_of_seeds(G, range(4), psi=1.0)


def test_mix_exchanges_one_plane(heads: Heads) -> None:
    one, two = heads.take([0]), heads.take([1])
    for k, name in enumerate(("xy", "xz", "yz")):
        mixed, ws = plane_swap.mix(one, two, plane_swap.exchange(name))
        for j in range(3):
            assert torch.equal(mixed[:, j], (two if j == k else one).planes[:, j])
        assert torch.allclose(ws, torch.lerp(one.ws, two.ws, 1 / 3))
    assert plane_swap.exchange("zx") == plane_swap.exchange("yz") == (0.0, 0.0, 1.0)


def test_mix_of_two_slices(G: Generator, heads: Heads) -> None:
    """ "xy" moves both slices, a slice's name one; a tri-plane joins with equal slices."""
    one, two = seeds.heads_of_seeds(G.widened(), [0], psi=1.0), heads.take([1])
    for name, moved in (("xy", {0, 3}), ("xy_front", {0}), ("xy_back", {3}), ("yz", {2})):
        mixed, ws = plane_swap.mix(one, two, plane_swap.exchange(name))
        assert {j for j in range(4) if torch.equal(mixed[:, j], two.planes[:, j % 3])} == moved
        share = 1 / 6 if "_" in name else 1 / 3
        assert torch.allclose(ws, torch.lerp(one.ws, two.ws, share))


def test_mix_has_the_heads_at_its_ends(heads: Heads) -> None:
    one, two = heads.take([0]), heads.take([1])
    assert all(map(torch.equal, plane_swap.mix(one, two, (0, 0, 0)), (one.planes, one.ws)))
    assert all(map(torch.equal, plane_swap.mix(one, two, (1, 1, 1)), (two.planes, two.ws)))
    there, _ = plane_swap.mix(one, two, (0.25, 1, 0))
    back, _ = plane_swap.mix(two, one, (0.75, 0, 1))
    assert torch.allclose(there, back, atol=1e-6)


def test_look_and_picture_equal_the_generators(G: Generator, heads: Heads) -> None:
    camera = cameras.orbit(torch.tensor([0.4, 0.4, 0.4, 0.4]), 0.1)
    with torch.no_grad():
        truth = G.render(heads.planes, heads.ws, camera)
    view = plane_swap.look(G, heads.planes, camera[:1])
    assert torch.allclose(view.rgb, truth.raw, atol=1e-4)
    assert torch.allclose(view.opacity, truth.opacity[:, 0], atol=1e-4)
    made = plane_swap.picture(G, heads.planes, heads.ws, camera[:1])
    assert torch.allclose(made, truth.image, atol=1e-3)


def test_changes_have_forced_answers() -> None:
    opacity = torch.zeros(2, 8, 8)
    opacity[:, 2:6, 2:6] = 1
    a = plane_swap.View(torch.zeros(2, 3, 8, 8), torch.full((2, 8, 8), 2.5), opacity)
    moved = opacity.clone()
    moved[1] = moved[1].roll(2, 1)
    b = plane_swap.View(torch.full((2, 3, 8, 8), 0.5), torch.full((2, 8, 8), 2.6), moved)
    assert plane_swap.colour_change(a, b).tolist() == [0.25, 0.25]
    assert torch.allclose(plane_swap.depth_change(a, b), torch.tensor([0.1, 0.1]), atol=1e-6)
    # Two 4 x 4 squares, shifted by half: 8 pixels in common, 24 in all.
    assert torch.allclose(plane_swap.silhouette_change(a, b).float(), torch.tensor([0.0, 2 / 3]))
    nothing = plane_swap.View(a.rgb, a.depth, torch.zeros(2, 8, 8))
    assert torch.isnan(plane_swap.colour_change(a, nothing)).all()


def test_swap_changes_by_hand(G: Generator, encoder: Encoder, heads: Heads) -> None:
    found = plane_swap.swap_changes(G, encoder, heads, batch=5)
    assert found.names == ("xy", "xz", "yz")
    assert set(found.apart) == {FINISHED, RAW, *plane_swap._PIXELS}
    camera = cameras.orbit(0.0)
    i, j, k = 2, 0, 1
    mixed, ws = plane_swap.mix(heads.take([i]), heads.take([j]), plane_swap.exchange(found.names[k]))
    views = {
        n: plane_swap.look(G, p, camera)
        for n, p in ((i, heads.planes[[i]]), (j, heads.planes[[j]]), (-1, mixed))
    }
    faces = {n: encoder(v.rgb, camera) for n, v in views.items()}
    for target, n in ((found.to_first, i), (found.to_second, j)):
        assert target[RAW][k, i, j] == pytest.approx(1 - float((faces[-1] * faces[n]).sum()), abs=1e-4)
        colour = float(plane_swap.colour_change(views[-1], views[n]))
        assert target["colour, front"][k, i, j] == pytest.approx(colour, abs=1e-4)
    shown = [
        plane_swap.picture(G, p, w, camera) for p, w in ((mixed, ws), (heads.planes[[i]], heads.ws[[i]]))
    ]
    one, other = (encoder(x, camera) for x in shown)
    assert found.to_first[FINISHED][k, i, j] == pytest.approx(1 - float((one * other).sum()), abs=1e-4)


def test_swap_changes_are_symmetric_where_they_must_be(G: Generator, encoder: Encoder, heads: Heads) -> None:
    found = plane_swap.swap_changes(G, encoder, heads, finished=False)
    assert FINISHED not in found.apart
    for measure, apart in found.apart.items():
        assert np.allclose(apart, apart.T, atol=1e-5, equal_nan=True), measure
        assert np.isnan(np.diag(apart)).all()
        assert found.to_first[measure].shape == (3, 4, 4)
    # The heads are different, and an exchange changes something.
    assert np.nanmin(found.apart["colour, front"]) > 0
    assert np.nanmean(found.to_first["silhouette, side"]) > 0


def test_equal_heads_do_not_change(G: Generator, encoder: Encoder, heads: Heads) -> None:
    found = plane_swap.swap_changes(G, encoder, heads.take([1, 1]))
    for measure, values in found.to_first.items():
        off = values[:, [0, 1], [1, 0]]
        assert np.allclose(off, 0, atol=1e-5), measure


def test_between_equal_generators_nothing_changes(G: Generator, encoder: Encoder) -> None:
    found = plane_swap.between_generators(G, G, encoder, range(3), batch=2)
    assert found.apart[FINISHED].shape == (3,)
    assert all(np.allclose(v, 0, atol=1e-5) for v in (*found.apart.values(), *found.to_first.values()))
    other = plane_swap.between_generators(G, visible(5), encoder, range(2))
    assert other.to_first[RAW].shape == (3, 2)
    assert other.apart["colour, front"].min() > 0.01


def test_generators_must_fit() -> None:
    tiny = Generator(preset("tiny").generator)
    other = Generator(type(tiny.config).from_dict({**tiny.config.to_dict(), "plane_channels": 4}))
    refuses("plane_channels is 8 and 4", plane_swap.check_exchangeable, tiny, other)
    render = {**tiny.config.to_dict()["render"], "axes": "eg3d"}
    turned = Generator(type(tiny.config).from_dict({**tiny.config.to_dict(), "render": render}))
    refuses(r"render.axes is xyz and eg3d", plane_swap.check_exchangeable, tiny, turned)


def test_pair_mean_is_over_ordered_pairs() -> None:
    values = np.array([[99.0, 1, 2], [3, 99, 4], [5, 6, 99]])
    found = swap_study.pair_mean(values)
    assert found.value == pytest.approx(3.5)
    assert found.low <= found.value <= found.high
    assert found.count == 3
    values[0, 1] = np.nan
    assert swap_study.pair_mean(values).value == pytest.approx(4.0)
    refuses("no pair has a finite value", swap_study.pair_mean, np.full((3, 3), np.nan))
    refuses(r"\[N, N\]", swap_study.pair_mean, np.zeros((3, 2)))


def test_interval_of_pairs_covers_and_is_not_that_of_independent_pairs() -> None:
    """Values u_i + u_j: the mean's error is that of N people, not of N (N - 1) pairs."""
    generator = np.random.default_rng(0)
    inside, widths = 0, []
    for _ in range(100):
        u = generator.normal(size=30)
        values = u[:, None] + u[None]
        found = swap_study.pair_mean(values, replicates=200)
        inside += found.low <= 0 <= found.high
        widths.append(found.high - found.low)
    assert 85 <= inside <= 100
    # Independent pairs would give 2 * 1.96 * sqrt(2 / 870) = 0.19; people give 4 * 1.96 / sqrt(30) = 1.43.
    assert 1.1 < np.mean(widths) < 1.7


def test_pair_ratio() -> None:
    generator = np.random.default_rng(0)
    below = generator.uniform(0.5, 1.5, (12, 12))
    found = swap_study.pair_ratio(0.3 * below, below)
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3)
    above = 0.3 * below
    above[0, 1] = np.nan  # leaves the pair out of both
    assert swap_study.pair_ratio(above, below).value == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["face", "head", "head3d"])
@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=pytest.mark.native)])
def test_bundled_weights_look_alike_with_and_without_the_extension(name: str, backend: Backend) -> None:
    """What the swap lab calls, on real decoders: their hidden units reach 199 to 260, which random ones never do."""
    G = h3d.load_generator(name)
    heads = seeds.heads_of_seeds(G, [3, 11])
    camera = cameras.orbit(0.4, 0.1)
    with torch.no_grad():
        truth = G.render_raw(heads.planes, camera.expand(2, -1), 24, "reference")
    view = plane_swap.look(G, heads.planes, camera, 24, backend)
    assert float(view.rgb.std()) > 0.3  # a head, no empty picture
    assert float((view.rgb - truth.raw).abs().mean()) < 1e-4
    # Fine samples fall where rounding puts them: single rays at a silhouette may differ more.
    assert float((view.rgb - truth.raw).abs().max()) < 0.02
    assert float((view.depth - truth.depth[:, 0]).abs().mean()) < 1e-4
    # The preview of a machine without the extension, half as many samples: mean 0.012 (face) to 0.016 (head3d).
    preview = plane_swap.look(G, heads.planes, camera, 24, backend, samples=12)
    assert float((preview.rgb - truth.raw).abs().mean()) < 0.03
    assert float((preview.opacity - truth.opacity[:, 0]).abs().mean()) < 0.02
