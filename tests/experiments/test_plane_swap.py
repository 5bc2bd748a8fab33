"""Exchange of planes: forced answers, symmetries, intervals that know that pairs share people, and the record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refuses, untrained_encoder, visible

import head3d_core as h3d
from head3d_core import cli
from head3d_core.checkpoints import weights as checkpoint
from head3d_core.config import Backend, preset
from head3d_core.experiments import plane_swap, swap_study
from head3d_core.experiments.plane_swap import FINISHED, RAW, Changes
from head3d_core.experiments.swap_study import SwapStudyArgs
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.model import cameras, seeds
from head3d_core.model.generator import Generator, RawOutput
from head3d_core.model.seeds import Heads


@pytest.fixture(scope="module")
def G() -> Generator:
    return visible()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return untrained_encoder()


@pytest.fixture(scope="module")
def heads(G: Generator) -> Heads:
    return seeds.heads_of_seeds(G, range(4), psi=1.0)


@pytest.mark.parametrize(
    ("slices", "name", "moved", "share"),
    [
        (1, "xy", {0}, 1 / 3),
        (1, "xz", {1}, 1 / 3),
        (1, "yz", {2}, 1 / 3),
        (2, "xy", {0, 3}, 1 / 3),
        (2, "yz", {2}, 1 / 3),
        (2, "xy_front", {0}, 1 / 6),
        (2, "xy_back", {3}, 1 / 6),
    ],
)
def test_mix_exchanges_one_plane(
    G: Generator, heads: Heads, slices: int, name: str, moved: set[int], share: float
) -> None:
    """ "xy" moves both slices, a slice's name one; a tri-plane joins with equal slices."""
    one = seeds.heads_of_seeds(G if slices == 1 else G.widened(), [0], psi=1.0)
    two = heads.take([1])
    mixed, ws = plane_swap.mix(one, two, plane_swap.exchange(name))
    for j in range(mixed.shape[1]):
        assert torch.equal(mixed[:, j], (two.planes[:, j % 3] if j in moved else one.planes[:, j]))
    assert torch.allclose(ws, torch.lerp(one.ws, two.ws, share))


def test_mix_has_the_heads_at_its_ends(heads: Heads) -> None:
    one, two = heads.take([0]), heads.take([1])
    assert plane_swap.exchange("zx") == plane_swap.exchange("yz") == (0.0, 0.0, 1.0)
    assert all(map(torch.equal, plane_swap.mix(one, two, (0, 0, 0)), (one.planes, one.ws)))
    assert all(map(torch.equal, plane_swap.mix(one, two, (1, 1, 1)), (two.planes, two.ws)))
    there, _ = plane_swap.mix(one, two, (0.25, 1, 0))
    back, _ = plane_swap.mix(two, one, (0.75, 0, 1))
    assert torch.allclose(there, back, atol=1e-6)


def test_changes_have_forced_answers() -> None:
    opacity = torch.zeros(2, 1, 8, 8)
    opacity[:, :, 2:6, 2:6] = 1
    a = RawOutput(torch.zeros(2, 3, 8, 8), torch.full((2, 1, 8, 8), 2.5), opacity)
    moved = opacity.clone()
    moved[1] = moved[1].roll(2, 2)
    b = RawOutput(torch.full((2, 3, 8, 8), 0.5), torch.full((2, 1, 8, 8), 2.6), moved)
    assert plane_swap.colour_change(a, b).tolist() == [0.25, 0.25]
    assert torch.allclose(plane_swap.depth_change(a, b), torch.tensor([0.1, 0.1]), atol=1e-6)
    # Two 4 x 4 squares, shifted by half: 8 pixels in common, 24 in all.
    assert torch.allclose(plane_swap.silhouette_change(a, b).float(), torch.tensor([0.0, 2 / 3]))
    nothing = RawOutput(a.raw, a.depth, torch.zeros(2, 1, 8, 8))
    assert torch.isnan(plane_swap.colour_change(a, nothing)).all()


def test_swap_changes_by_hand(G: Generator, encoder: Encoder, heads: Heads) -> None:
    found = plane_swap.swap_changes(G, encoder, heads, batch=5)
    assert found.names == ("xy", "xz", "yz")
    assert set(found.apart) == {FINISHED, RAW, *plane_swap._PIXELS}
    camera = cameras.orbit(0.0)
    i, j, k = 2, 0, 1
    one, two = heads.take([i]), heads.take([j])
    drawn = [(one.planes, one.ws), (two.planes, two.ws), plane_swap.mix(one, two, plane_swap.exchange("xz"))]
    *views, mixed = (plane_swap.finish(G, planes, ws, camera) for planes, ws in drawn)
    for target, view in zip((found.to_first, found.to_second), views, strict=True):
        colour = float(plane_swap.colour_change(mixed, view))
        raw = 1 - float((encoder(mixed.raw, camera) * encoder(view.raw, camera)).sum())
        finished = 1 - float((encoder(mixed.image, camera) * encoder(view.image, camera)).sum())
        for measure, truth in {"colour, front": colour, RAW: raw, FINISHED: finished}.items():
            assert target[measure][k, i, j] == pytest.approx(truth, abs=1e-4)


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


def test_between_equal_generators_nothing_changes(G: Generator, encoder: Encoder) -> None:
    found = plane_swap.between_generators(G, G, encoder, range(3), batch=2)
    assert found.apart[FINISHED].shape == (3,)
    assert all(np.allclose(v, 0, atol=1e-5) for v in (*found.apart.values(), *found.to_first.values()))
    other = plane_swap.between_generators(G, visible(5), encoder, range(2))
    assert other.to_first[RAW].shape == (3, 2)
    assert other.apart["colour, front"].min() > 0.01


def test_generators_must_fit() -> None:
    tiny = preset("tiny").generator
    turned = replace(tiny, render=replace(tiny.render, axes="eg3d"))
    for says, other in {
        "plane_channels is 8 and 4": replace(tiny, plane_channels=4),
        "render.axes is xyz and eg3d": turned,
    }.items():
        refuses(says, plane_swap.check_exchangeable, Generator(tiny), Generator(other))


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
    below = np.random.default_rng(0).uniform(0.5, 1.5, (12, 12))
    above = 0.3 * below
    above[0, 1] = np.nan  # leaves the pair out of both
    found = swap_study.pair_ratio(above, below)
    assert (found.value, found.low) == pytest.approx((0.3, 0.3))


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
    assert float(view.raw.std()) > 0.3  # a head, no empty picture
    assert float((view.raw - truth.raw).abs().mean()) < 1e-4
    # Fine samples fall where rounding puts them: single rays at a silhouette may differ more.
    assert float((view.raw - truth.raw).abs().max()) < 0.02
    assert float((view.depth - truth.depth).abs().mean()) < 1e-4
    # The preview of a machine without the extension, half as many samples: mean 0.012 (face) to 0.016 (head3d).
    preview = plane_swap.look(G, heads.planes, camera, 24, backend, samples=12)
    assert float((preview.raw - truth.raw).abs().mean()) < 0.03
    assert float((preview.opacity - truth.opacity).abs().mean()) < 0.02


def made_up(count: int = 8, carries: tuple[float, float, float] = (0.9, 0.2, 0.1)) -> Changes:
    """Distances of a world in which each plane carries a known share of a difference."""
    apart = np.random.default_rng(0).uniform(0.8, 1.2, (count, count))
    apart = (apart + apart.T) / 2
    np.fill_diagonal(apart, np.nan)
    share = np.array(carries)[:, None, None]
    measures = (FINISHED, RAW, "colour, front")
    return Changes(
        ("xy", "xz", "yz"),
        dict.fromkeys(measures, share * apart),
        dict.fromkeys(measures, (1 - share) * apart),
        dict.fromkeys(measures, apart),
    )


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tiny generators and an encoder where the command looks for it."""
    checkpoint.save_generator(visible(0), tmp_path / "face", notes={"images": 7})
    checkpoint.save_generator(visible(5), tmp_path / "head")
    monkeypatch.setattr(swap_study, "load_encoder", lambda *_: untrained_encoder())
    return tmp_path


def test_rows_are_the_papers() -> None:
    changes = made_up()
    rows = swap_study.table_rows(changes)
    assert [tuple(r["from"].values()) for r in rows] == [p[0] for p in swap_study.PAPER_TABLE_1]
    apart = float(np.nanmean(changes.apart[FINISHED]))
    assert rows[0]["to ID 1"]["value"] == pytest.approx(1 - 0.9 * apart)
    assert rows[0]["to ID 2"]["value"] == pytest.approx(1 - 0.1 * apart)
    assert rows[3]["to ID 1"]["value"] == rows[4]["to ID 2"]["value"] == 1
    assert rows[3]["to ID 2"]["value"] == pytest.approx(1 - apart)
    share = rows[1]["to ID 2, (1+cos)/2"]
    assert share["value"] == pytest.approx((1 + rows[1]["to ID 2"]["value"]) / 2)
    assert share["low"] < share["value"] < share["high"]
    assert share["count"] == 8


def test_carried_and_strongest() -> None:
    found = swap_study.tables(made_up())
    carried = [found["measures"][RAW]["planes"][n]["carried"]["value"] for n in ("xy", "xz", "yz")]
    assert carried == pytest.approx([0.9, 0.2, 0.1])
    assert swap_study.strongest(found, RAW) == ("xy", True)
    equal = swap_study.tables(made_up(carries=(0.4, 0.4, 0.4)))
    assert swap_study.strongest(equal, RAW)[1] is False
    assert "0.90 [0.90, 0.90]" in swap_study.carried_text(found)


def test_studies_under_both_axes_stand_side_by_side() -> None:
    seen = {"provenance": {"weights": {"face": {"images": 1_000_000}}}}
    both = []
    for axes, names, carries in (
        ("xyz", ("xy", "xz", "yz"), (0.9, 0.2, 0.1)),
        ("eg3d", ("xy", "xz", "zx"), (0.4, 0.3, 0.6)),
    ):
        made = swap_study.tables(replace(made_up(carries=carries), names=names))
        both.append(made | {"axes": axes, **seen})
    _, true, twin = swap_study.carried_by_axes(both, RAW).splitlines()
    assert true.split()[:4] == ["xyz", "1,000,000", "8", "0.90"]
    assert true.endswith("0.10 [0.10, 0.10]  F_yz")
    assert twin.startswith("eg3d")
    assert twin.endswith("0.60 [0.60, 0.60]  F_zx")


def test_command_records_and_prints(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = weights / "swap.json"
    face = str(weights / "face")
    assert cli.main(["swap-study", "--weights", face, "--count", "3", "--batch", "4", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    found = json.loads(out.read_text(encoding="utf8"))
    assert (found["axes"], found["ordered_pairs"]) == ("xyz", 6)
    assert set(found["table_1"]) == {FINISHED, RAW}
    assert "silhouette, side" in found["measures"]
    notes = found["provenance"]
    assert notes["weights"][face]["images"] == 7
    assert notes["encoder"] == "untrained"
    assert {"date", "commit", "device", "torch", "seconds"} <= set(notes)
    assert f"--weights {face} --count 3" in notes["command"]
    assert swap_study.as_text(found, RAW) in text


def test_between_two_generators(weights: Path) -> None:
    args = SwapStudyArgs(str(weights / "head"), weights / "b.json", second=str(weights / "face"), count=3)
    swap_study.run(args)
    found = json.loads((weights / "b.json").read_text(encoding="utf8"))
    assert found["second"] == args.second
    row = found["measures"][RAW]["planes"]["xy"]
    assert set(row) == {"to first", "to second", "carried"}
    assert row["carried"]["count"] == 3


def test_live_study_is_the_raw_half(weights: Path) -> None:
    encoder = swap_study.load_encoder("auto", "cpu")
    G = checkpoint.load_generator(weights / "face")
    live = swap_study.live_study(G, encoder, 3)
    args = SwapStudyArgs(str(weights / "face"), count=3, batch=2, device="cpu")
    whole = swap_study.measure(args)
    assert set(live["table_1"]) == {RAW}
    for a, b in zip(live["table_1"][RAW], whole["table_1"][RAW], strict=True):
        assert a["to ID 2"]["value"] == pytest.approx(b["to ID 2"]["value"], abs=1e-4)
    assert RAW in live["measures"]
    refuses("at least two identities", swap_study.measure, replace(args, count=1))
