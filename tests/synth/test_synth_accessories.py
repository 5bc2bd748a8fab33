"""Glasses, hats and clothes: where they sit, what they press down, what they leave alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from head3d_core.synth.accessories import build_glasses, join, paint, sheet, tube
from head3d_core.synth.assets import asset
from head3d_core.synth.hats import build_hat, fit_hat, squash
from head3d_core.synth.heads import base_shape, build_head, skin_colour
from head3d_core.synth.identity import Skin, identity
from head3d_core.synth.wardrobe import GLASSES, HATS, NECKLINES, Glasses, Hat, cloth_mask, neckline

HAT = Hat("cap", (0.1, 0.4, 0.5), (0.6, 0.4, 0.5), 0.5)


def test_skin_darkens_with_melanin_and_reddens_with_blood() -> None:
    skin = Skin(0.0, 0.5, 0.0, 0, 0, 0, 0, 0, 0)
    tones = [skin_colour(replace(skin, melanin=m)) for m in np.linspace(0, 1, 15)]
    assert (np.diff([t.sum() for t in tones]) < 0).all()
    pale, ruddy = (skin_colour(replace(skin, melanin=0.2, haemoglobin=h)) for h in (0.1, 0.9))
    assert ruddy[1] / ruddy[0] < pale[1] / pale[0]


def test_accessories_and_clothes_do_not_move_the_face() -> None:
    person = replace(identity(12), hat=None, glasses=None)
    other = replace(person.clothes, neckline=(person.clothes.neckline + 1) % 3)
    dressed = replace(person, hat=HAT, glasses=Glasses("round", "gold", 0.27, 0.2, 0.016))
    a, b, c = map(build_head, (person, dressed, replace(person, clothes=other)))
    np.testing.assert_array_equal(a.skin.vertices, b.skin.vertices)
    np.testing.assert_array_equal(a.eyes.vertices, b.eyes.vertices)
    assert len(b.solids.vertices) > len(a.solids.vertices)
    assert len(b.occluder.vertices) > len(a.occluder.vertices)
    assert a.material == b.material
    face = a.skin.rest[:, 1] > 6.4
    np.testing.assert_array_equal(a.skin.vertices[face], c.skin.vertices[face])
    assert np.abs(a.skin.vertices - c.skin.vertices).max() > 0.02


@pytest.mark.parametrize("kind", GLASSES)
@pytest.mark.parametrize("seed", [2, 13])
def test_glasses_sit_before_the_eyes_and_on_the_ears(kind: str, seed: int) -> None:
    data = asset()
    base = base_shape(identity(seed), data)
    skin = data.subdivide @ base
    solid = build_glasses(Glasses(kind, "black", 0.27, 0.2, 0.016), base, skin, data)
    assert np.isfinite(solid.vertices).all()
    np.testing.assert_allclose(np.linalg.norm(solid.normals, axis=1), 1, atol=1e-6)
    for centre, radius in data.eyeballs(base):
        frame = solid.vertices[np.abs(solid.vertices[:, 0] - centre[0]) < 0.2]
        front = frame[np.abs(frame[:, 1] - centre[1]) < 0.3]
        assert front[:, 2].min() > centre[2] + radius
        assert front[:, 1].min() < centre[1] < front[:, 1].max()
    assert solid.vertices[:, 2].min() < 0.8  # the arms reach the ears
    tinted = (solid.colour[:, 3] < 0.2).any()
    assert tinted == (kind == "sunglasses")


@pytest.mark.parametrize("kind", HATS)
@pytest.mark.parametrize("seed", [3, 8, 21])
def test_hats_enclose_the_skull_and_squash_the_hair(kind: str, seed: int) -> None:
    data = asset()
    person = identity(seed)
    skin = data.subdivide @ base_shape(person, data)
    hat = replace(HAT, kind=kind)
    fit = fit_hat(hat, skin, 7.284, data)
    solid = build_hat(hat, fit)
    assert np.isfinite(solid.vertices).all()
    scaled = (skin[data.skull] - fit.centre) / fit.axes
    scaled[:, 1] = np.clip(scaled[:, 1], 0, None)
    assert np.quantile(np.linalg.norm(scaled, axis=1), 0.99) < 1.0
    if kind != "headband":
        assert solid.vertices[:, 1].max() > skin[:, 1].max()
    # radial strands of 0.8 dm all over the skull
    roots = skin[data.skull].astype(np.float32)
    out = (roots - fit.centre.astype(np.float32)) / np.linalg.norm(roots - fit.centre, axis=1, keepdims=True)
    steps = np.linspace(0, 0.8, 8, dtype=np.float32)[None, :, None]
    strands = np.concatenate([roots[:, None] + steps * out[:, None], np.full((len(roots), 8, 1), 0.015)], 2)
    pressed = squash(strands.astype(np.float32), fit)
    q = pressed[..., :3] - fit.centre
    above = pressed[..., 1] - fit.rim_height(np.arctan2(q[..., 0], q[..., 2]))
    covered = (above > 0.02) & (above < fit.band - 0.05)
    q = q / fit.axes
    q[..., 1] = np.clip(q[..., 1], 0, None)
    assert covered.sum() > 100
    # hair released above a headband may fall back over it
    share = 1.0 if np.isinf(fit.band) else 0.6
    assert np.quantile(np.linalg.norm(q, axis=-1)[covered], share) < 0.961
    np.testing.assert_array_equal(pressed[..., 3], strands[..., 3].astype(np.float32))


def test_hats_stay_above_the_eyes_and_the_ears() -> None:
    data = asset()
    for seed in range(12):
        base = base_shape(identity(seed), data)
        skin = data.subdivide @ base
        eye = float(np.mean([c[1] for c, _ in data.eyeballs(base)]))
        for kind in HATS:
            fit = fit_hat(replace(HAT, kind=kind), skin, eye, data)
            assert fit.rim_height(np.array(0.0)) > eye + 0.25, kind
            assert fit.rim_height(np.array(np.pi / 2)) > eye, kind


def test_solids_are_oriented_outwards_and_join_keeps_indices() -> None:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    t = np.linspace(0.05, np.pi - 0.05, 9)
    rings = ((np.sin(t), np.cos(angle)), (np.cos(t), 1 + 0 * angle), (np.sin(t), np.sin(angle)))
    ball = np.stack([np.outer(*ring) for ring in rings], -1)
    solid = sheet(ball, paint(np.ones(3), 0.5, 9 * 24), closed=True)
    assert np.einsum("ij,ij->i", solid.normals, solid.vertices).min() > 0.8
    ring = tube(np.stack([np.cos(angle), 0 * angle, np.sin(angle)], 1), 0.1, np.ones(3), 0.5, closed=True)
    np.testing.assert_allclose(np.linalg.norm(ring.normals, axis=1), 1)
    both = join([solid, ring])
    assert len(both.vertices) == len(solid.vertices) + len(ring.vertices)
    assert both.triangles.max() == len(both.vertices) - 1
    assert both.triangles[len(solid.triangles) :].min() == len(solid.vertices)


@pytest.mark.parametrize("kind", range(len(NECKLINES)))
def test_cloth_covers_the_shoulders_and_not_the_face(kind: int) -> None:
    data = asset()
    mask = cloth_mask(data.rest, kind)
    assert mask[data.rest[:, 1] > 6.4].max() == 0
    assert mask[data.rest[:, 1] < 4.85].min() == 1
    np.testing.assert_allclose(mask, mask[data.mirror], atol=1e-6)
    assert np.isfinite(neckline(data.rest, kind)).all()
