"""Hair: masks, growth, strands, their fit, hairlines, beards and brows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from head3d_core.synth import masks
from head3d_core.synth.assets import asset
from head3d_core.synth.heads import build_head
from head3d_core.synth.identity import STYLES, Beard, Identity, identity
from head3d_core.synth.strands import beard_mask, brow_mask, fit, grown_style, resample, scatter_roots


def styled(style: str, **changes: object) -> Identity:
    """A head of the head set with another hairstyle."""
    person = identity(4, "heads")
    hair = replace(person.hair, style=style, recession=0.0, peak=0.0, thinning=0.0, mirrored=False)
    return replace(person, hair=replace(hair, **changes), beard=Beard("none", 0.0, 0.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("style", [s for s in STYLES if s != "bald"])
def test_every_style_grows_outside_the_template(style: str) -> None:
    data = asset()
    grown = grown_style(style, 1, 0)
    points = grown.points[::40, :, :3].astype(float)
    assert np.isfinite(points).all()
    assert len(points) > 100
    roots = grown.roots @ data.template
    np.testing.assert_allclose(grown.points[:, 0, :3], roots, atol=1e-4)
    distance, _ = data.distance(points.reshape(-1, 3))
    assert np.mean(distance < -0.06) < 0.02
    step = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    assert step.max() < 1.0


def test_bald_heads_have_brows_only() -> None:
    hair = build_head(styled("bald")).hair
    assert len(hair) == identity(4, "heads").brows.strands
    assert (hair[..., 3] < 0).all()
    full = build_head(styled("crop")).hair
    assert (full[..., 3] > 0).any(1).sum() > 10000


def test_strands_keep_their_roots_on_every_head() -> None:
    data = asset()
    for seed in (0, 7):
        skin = build_head(identity(seed)).skin.vertices.astype(float)
        style = grown_style("long", 1, 0)
        strands = fit(style, skin, mirrored=False)
        np.testing.assert_allclose(strands[:, 0, :3], style.roots @ skin, atol=1e-5)
    at_home = fit(style, data.template, mirrored=False)
    np.testing.assert_allclose(at_home, style.points, atol=1e-5)


def test_mirrored_hair_is_the_mirror_image() -> None:
    data = asset()
    style = grown_style("side_part", 1, 0)
    symmetric = 0.5 * (data.template + data.template[data.mirror] * [-1, 1, 1])
    plain, mirrored = fit(style, symmetric, False), fit(style, symmetric, True)
    np.testing.assert_allclose(mirrored * np.float32([-1, 1, 1, 1]), plain, atol=1e-5)
    assert np.abs(plain[..., 0].mean()) > 0.005  # a side parting is not symmetric itself


def test_length_levels_lengthen_and_curl_bends() -> None:
    def mean_length(style: str, level: int) -> float:
        p = grown_style(style, level, 0).points[::20, :, :3]
        return float(np.linalg.norm(np.diff(p, axis=1), axis=-1).sum(1).mean())

    for style in ("crop", "long", "ponytail", "afro"):
        lengths = [mean_length(style, k) for k in range(3)]
        assert lengths == sorted(lengths)
        assert lengths[2] > 1.15 * lengths[0]

    def bend(curl: int) -> float:
        second = np.diff(grown_style("long", 1, curl).points[::20, :, :3], 2, axis=1)
        return float(np.linalg.norm(second, axis=-1).mean())

    assert bend(1) > 1.1 * bend(0)


def test_receding_and_thinning_take_strands_where_they_should() -> None:
    full = build_head(styled("crop")).hair
    receded = build_head(styled("crop", recession=12.0)).hair
    thin = build_head(styled("crop", thinning=0.7)).hair
    assert len(receded) < len(full) - 300
    assert len(thin) < len(full) - 1000
    front = [np.sum((h[:, 0, 2] > 1.1) & (h[:, 0, 1] > 7.6)) for h in (full, receded)]
    assert front[1] < 0.8 * front[0]
    assert np.sum(receded[:, 0, 2] < 0) > 0.98 * np.sum(full[:, 0, 2] < 0)


def test_fringes_stay_above_the_eyes_and_throats_stay_clear() -> None:
    for style in ("fringe", "pixie", "long", "bob"):
        for length in range(3):
            p = grown_style(style, length, 0).points[..., :3]
            x, y, z = np.moveaxis(p, -1, 0)
            over_eyes = (np.abs(x) < 0.45) & (z > 1.2) & (y < 7.40)
            assert over_eyes.any(1).mean() < 0.01, (style, length)
            throat = (np.abs(x) < 0.55) & (z > 0.75) & (y < 6.7)
            assert not throat.any()


def test_hairline_moves_as_named() -> None:
    forehead = np.array([0.0, 40.0]), np.array([34.0, 40.0])
    plain = masks.above_hairline(*forehead)
    assert (masks.above_hairline(*forehead, recession=5.0) < plain + 1e-9).all()
    assert masks.above_hairline(*forehead, peak=4.0)[0] == pytest.approx(plain[0] + 4)
    back = np.array([170.0]), np.array([0.0])
    assert masks.above_hairline(*back, recession=5.0) == masks.above_hairline(*back)


def test_masks_are_symmetric_and_where_they_belong() -> None:
    data = asset()
    brows = brow_mask(identity(1).brows, data)
    for mask in (
        masks.scalp(data.rest, data.azimuth_elevation),
        masks.crown(data.rest),
        masks.beard(data.rest),
        brows,
    ):
        assert mask.min() >= 0
        assert 0.5 < mask.max() <= 1
        np.testing.assert_allclose(mask, mask[data.mirror], atol=1e-6)
    assert 7.3 < data.rest[brows > 0.3, 1].min() < data.rest[brows > 0.3, 1].max() < 7.7
    assert beard_mask("none", data)[data.rest[:, 1] > 7.2].max() < 0.3
    for kind in ("goatee", "moustache", "circle"):
        assert (beard_mask(kind, data) <= beard_mask("full", data) + 1e-12).all()
        assert beard_mask(kind, data).max() > 0.5


@pytest.mark.parametrize("kind", ["full", "short", "goatee", "moustache", "circle"])
def test_beards_grow_below_the_nose(kind: str) -> None:
    plain, bearded = styled("bald"), replace(styled("bald"), beard=Beard(kind, 0.12, 0.5))
    before, after = build_head(plain).hair, build_head(bearded).hair
    beard = after[(after[..., 3] > 0).all(1)]
    assert len(after) == len(before) + len(beard)
    assert len(beard) >= 1500
    assert beard[:, 0, 1].max() < 7.25
    np.testing.assert_array_equal(after[(after[..., 3] < 0).all(1)], before)


def test_a_full_head_and_beard_stay_within_the_texture() -> None:
    person = replace(styled("buzz"), beard=Beard("full", 0.3, 0.7))
    hair = build_head(person).hair
    assert len(hair) == 16384
    assert (hair[..., 3] < 0).all(1).sum() == person.brows.strands


def test_roots_follow_the_mask_and_resampling_keeps_ends() -> None:
    data = asset()
    mask = (data.rest[:, 1] > 8.0) * data.body * 1.0
    roots = scatter_roots(mask, 500, 3, data)
    np.testing.assert_allclose(roots.sum(1), 1)
    assert (roots @ data.rest)[:, 1].min() > 7.85
    line = np.linspace(0, 1, 5)[None, :, None] * np.ones((2, 1, 3))
    again = resample(line, 9)
    np.testing.assert_allclose(again, np.linspace(0, 1, 9)[None, :, None] * np.ones((2, 1, 3)), atol=1e-12)
