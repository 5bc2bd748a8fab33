"""Straight lines, mixed layers and principal directions of w."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import refuses, visible

from head3d_core.config import preset
from head3d_core.experiments import latent
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import ws_of_seeds


@pytest.fixture(scope="module")
def G() -> Generator:
    return visible()


def test_interpolation_is_a_straight_line() -> None:
    a, b = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    path = latent.interpolate(a, b, 5)
    assert torch.equal(path[0], a[0])
    assert torch.allclose(path[-1], b[0])
    assert torch.allclose(path[1:] - path[:-1], ((b - a) / 4).expand(4, -1, -1), atol=1e-6)


def test_mixing_takes_the_layers_asked_for() -> None:
    a, b = torch.zeros(2, 6, 3), torch.ones(2, 6, 3)
    mixed = latent.mix_layers(a, b, [0, 5])
    assert mixed[:, :, 0].tolist() == [[1, 0, 0, 0, 0, 1]] * 2
    assert torch.equal(latent.mix_layers(a, b, []), a)
    assert torch.equal(latent.mix_layers(a, b, range(6)), b)
    assert float(a.max()) == 0, "the input is left alone"


@pytest.mark.parametrize("name", ["tiny", "classroom", "paper"])
def test_layer_sides_match_what_a_code_changes(name: str, G: Generator) -> None:
    config = preset(name).generator
    sides = latent.layer_sides(config.num_ws)
    assert len(sides) == config.num_ws
    assert sides[0] == 4
    assert sides[-1] == config.plane_resolution
    if name == "tiny":
        ws = ws_of_seeds(G, [0, 1])
        changed = []
        for layer in range(G.num_ws):
            seen: list[int] = []
            hooks = [
                block.register_forward_hook(lambda m, i, o, s=seen: s.append(o[0]))
                for block in G.backbone.synthesis.children()
            ]
            with torch.no_grad():
                G.planes(ws[:1])
                G.planes(latent.mix_layers(ws[:1], ws[1:], [layer]))
            for hook in hooks:
                hook.remove()
            half = len(seen) // 2
            differs = [
                a.shape[-1] for a, b in zip(seen[:half], seen[half:], strict=True) if not torch.equal(a, b)
            ]
            changed.append(min(differs, default=sides[-1]))
        assert changed == sides


def test_linearity_of_known_paths() -> None:
    angle = torch.linspace(0, 1.0, 11)
    arc = torch.stack([angle.cos(), angle.sin()], 1)
    found = latent.path_linearity(arc)
    assert found.unevenness == pytest.approx(1, abs=1e-5)
    assert found.detour == pytest.approx(1, abs=1e-5)
    assert found.distance[-1] == pytest.approx(1 - math.cos(1), abs=1e-6)
    straight = (1 - torch.cos(angle)) / (1 - math.cos(1)) - angle
    assert found.bend == pytest.approx(float(straight.abs().max()), abs=1e-5)
    jump = torch.stack([arc[0]] * 5 + [arc[-1]] * 6)
    assert latent.path_linearity(jump).unevenness == pytest.approx(10, rel=1e-3)
    assert latent.path_linearity(jump).bend == pytest.approx(0.5, abs=0.01)
    loop = torch.stack([angle.mul(4).cos(), angle.mul(4).sin()], 1)
    assert latent.path_linearity(loop).detour > 1.5


def test_principal_directions_of_a_known_cloud(G: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = torch.ones(G.config.w_dim) * 0.1
    scale[5], scale[2] = 3.0, 2.0

    def mapping(z: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
        return (z * scale + 7)[:, None].expand(-1, G.num_ws, -1)

    monkeypatch.setattr(G, "mapping", mapping)
    found = latent.principal_directions(G, 4, samples=4000)
    assert found.axes.abs().argmax(1)[:2].tolist() == [5, 2]
    assert float(found.axes[0, 5]) > 0.99, "signs are fixed"
    assert found.deviation[:2].tolist() == pytest.approx([3, 2], rel=0.05)
    assert float(found.share[0]) == pytest.approx(9 / (9 + 4 + 0.01 * (G.config.w_dim - 2)), rel=0.05)
    assert torch.allclose(found.axes @ found.axes.T, torch.eye(4), atol=1e-5)
    ws = torch.zeros(1, G.num_ws, G.config.w_dim)
    moved = found.move(ws, [0.0, 2.0], layers=[1])
    assert float(moved[0, 1, 2]) == pytest.approx(4, rel=0.05)
    assert float(moved[0, 0].abs().max()) == 0
    assert torch.allclose(found.move(found.move(ws, [1.5]), [-1.5]), ws, atol=1e-6)


def test_bad_input(G: Generator) -> None:
    a = torch.zeros(1, 4, 8)
    refuses("at least 2 heads", latent.interpolate, a, a, 1)
    refuses("head by head", latent.interpolate, a, torch.zeros(2, 4, 8), 3)
    refuses("layers must lie in 0 to 3", latent.mix_layers, a, a, [4])
    refuses("same identity", latent.path_linearity, torch.ones(4, 3))
    refuses("at least 3 heads", latent.path_linearity, torch.eye(2))
    refuses("count must be", latent.principal_directions, G, 0)
    refuses("there are 2 directions", latent.principal_directions(G, 2, 64).move, a, [1, 2, 3])
