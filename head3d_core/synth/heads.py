"""`build_head(identity)`: from parameters to everything the renderer needs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from head3d_core.synth import masks
from head3d_core.synth.accessories import build_glasses, join, paint
from head3d_core.synth.assets import Asset, asset, eyeballs
from head3d_core.synth.colours import COLOURS, LASH, fabric, hair_colours, skin_colour, srgb_hex
from head3d_core.synth.draws import stream_key, uniforms
from head3d_core.synth.hats import Fit, build_hat, fit_hat, squash
from head3d_core.synth.identity import Identity
from head3d_core.synth.shape import base_shape, eye_sphere, gaze_rotation
from head3d_core.synth.strands import (
    Float32,
    beard_mask,
    brow_mask,
    fit,
    grow_beard,
    grow_brows,
    grown_style,
    resample,
)
from head3d_core.synth.subdivision import Array, Index, unit, vertex_normals
from head3d_core.synth.types import EyeMesh, HeadGeometry, Material, Mesh, SkinMesh, SolidMesh, single
from head3d_core.synth.wardrobe import THICKNESS, cloth_mask

MOST_STRANDS = 16384
FEWEST_POINTS = 8
"""Points of the shortest strands: brows and beard curve enough to need them."""


@lru_cache(maxsize=4)
def _cloth(neckline: int) -> tuple[Array, Array]:
    """Cloth mask of the base [B] and of the subdivided vertices [V]."""
    data = asset()
    return cloth_mask(data.base, neckline) * data.base_skin, cloth_mask(data.rest, neckline) * data.body


def _skin_mesh(vertices: Array, normals: Array, brows: Array, identity: Identity, data: Asset) -> SkinMesh:
    # The first vertices are the base mesh's: smoothing there is four times cheaper.
    smooth = data.smooth @ normals[: data.smooth.shape[1]].astype(np.float32)
    hair, man = identity.hair, identity.person.gender > 0.5
    painted: Array = np.zeros(len(vertices))
    if hair.style != "bald":
        painted = masks.scalp_at(data.rest, *data.azimuth_elevation, hair.recession, hair.peak)
        bald = {"balding": 1.0}.get(hair.style, hair.thinning)
        painted = painted * (1 - bald * data.crown) * data.body
        if hair.style == "mohawk":
            painted = painted * (0.35 + 0.65 * np.exp(-((data.rest[:, 0] / 0.24) ** 4)))
    mask = np.stack(
        [
            np.where(data.lips > 0.02, data.lips, -data.lids),
            np.maximum(painted, 0.5 * brows),
            beard_mask("none", data) if man else np.zeros(len(vertices)),
            _cloth(identity.clothes.neckline)[1],
        ],
        1,
    )
    return SkinMesh(vertices, normals, data.triangles, unit(smooth), data.rest, mask, data.vertex_part)


def _eye_mesh(base: Array, identity: Identity, data: Asset) -> EyeMesh:
    points, sphere = eye_sphere()
    turned = points @ gaze_rotation(*identity.eyes.gaze).T
    eyes = eyeballs(base, data.eye_vertices)
    vertices = np.concatenate([centre + radius * turned for centre, radius in eyes])
    triangles = np.concatenate([sphere, sphere + len(turned)])
    return EyeMesh(vertices, np.tile(turned, (2, 1)), triangles, np.tile(points, (2, 1)))


def _lashes(base: Array, data: Asset) -> SolidMesh:
    used, triangles = data.lash_faces
    points = base[used]
    return SolidMesh(points, unit(points - [0, 7.3, 0.6]), triangles, paint(np.array(LASH), 0.6, len(points)))


def _kept_strands(identity: Identity, data: Asset) -> Index | slice:
    """Strands that the identity's own hairline and thinning leave of its style."""
    hair = identity.hair
    style = grown_style(hair.style, hair.length, hair.curl)
    if hair.recession == 0 and hair.peak == 0 and hair.thinning == 0:
        return slice(None)
    edge = masks.above_hairline(style.azimuth, style.elevation, hair.recession, hair.peak)
    keep = masks.smoothstep(-7.0, 5.0, edge) > style.chance * 0.9
    keep &= style.chance < 1 - 0.92 * hair.thinning * style.crown
    return np.flatnonzero(keep)


def _hair(
    skin: Array, normals: Array, brows: Array, identity: Identity, hat: Fit | None, data: Asset
) -> Float32:
    hair = identity.hair
    parts: list[Float32] = []
    steps = FEWEST_POINTS
    if hair.style != "bald":
        style = grown_style(hair.style, hair.length, hair.curl)
        strands = fit(style, skin, hair.mirrored, _kept_strands(identity, data))
        if hat is not None:
            strands = squash(strands, hat)
        steps = max(steps, strands.shape[1])
        parts.append(resample(strands, steps).astype(np.float32, copy=False))
    small = [grow_brows(identity.brows, brows, identity.seed, steps, skin, normals, data)]
    beard = grow_beard(identity.beard, identity.seed, steps, skin, normals, data)
    if beard is not None:
        small.append(beard)
    room = MOST_STRANDS - sum(len(p) for p in small)
    if parts and len(parts[0]) > room:  # a full beard under full hair: the hair gives way, evenly
        order = np.argsort(uniforms(stream_key(identity.seed, "spare"), len(parts[0])), kind="stable")
        parts[0] = parts[0][np.sort(order[:room])]
    return np.concatenate([*parts, *small])


def _triple(colour: Array) -> tuple[float, float, float]:
    r, g, b = (float(c) for c in colour)
    return r, g, b


def _material(identity: Identity) -> Material:
    hair, skin = identity.hair, identity.skin
    root, tip = hair_colours(hair)
    middle = 0.6 * root + 0.4 * tip
    grey = srgb_hex(COLOURS["grey_hair"])
    tone = skin_colour(skin)
    dark = hair.colour in ("black", "black_brown", "dark_brown", "brown")
    brow = (0.6 if dark else 0.7) * root + 0.006
    brow = brow + 0.22 * hair.grey * (0.4 * grey - brow)
    inner, outer = (srgb_hex(c) * identity.eyes.brightness for c in COLOURS["iris"][identity.eyes.iris])
    visible = middle + hair.grey * (0.55 * grey - middle)
    ageing = float(np.clip((identity.person.years - 25) / 55, 0, 1))
    return Material(
        skin_colour=_triple(tone),
        lip_colour=_triple(srgb_hex(COLOURS["lipsticks"][skin.lip_colour])),
        scalp_colour=_triple(0.5 * visible + 0.04 * tone),
        shirt=_triple(fabric(identity.clothes.colour)),
        shirt_second=_triple(fabric(identity.clothes.second)),
        iris_inner=_triple(inner),
        iris_outer=_triple(outer),
        hair_root=_triple(root),
        hair_tip=_triple(tip),
        brow_colour=_triple(brow),
        neckline=identity.clothes.neckline,
        shirt_pattern=identity.clothes.pattern,
        scalp_paint=0.15 if hair.style == "bald" else 0.88,
        stubble=identity.beard.stubble,
        freckles=skin.freckles,
        blush=skin.haemoglobin,
        oil=skin.oil,
        ageing=ageing,
        lipstick=skin.lipstick,
        eyeshadow=skin.eyeshadow,
        hair_gloss=hair.gloss,
        grey=hair.grey,
        texture_offset=skin.noise,
    )


def build_head(identity: Identity) -> HeadGeometry:
    """Geometry and material of an identity.

    Vertices are computed in float64 and rounded to float32, strands in float32; they agree within 1e-5 dm across
    machines. Costs a few hundredths of a second, and 0.1 to 0.2 s more when a hairstyle is met for the first time
    in a process (`strands.grown_style` keeps it).
    """
    data = asset()
    bare = base_shape(identity, data)
    cloth, _ = _cloth(identity.clothes.neckline)
    out = vertex_normals(bare, data.coarse_triangles, data.coarse_corners)
    base = bare + out * (THICKNESS * cloth)[:, None]
    vertices = data.subdivide @ base
    normals = vertex_normals(vertices, data.triangles, data.corners)
    brows = brow_mask(identity.brows, data)
    accessories: list[SolidMesh] = []
    hat = None
    if identity.hat is not None:
        eye_height = float(np.mean([centre[1] for centre, _ in eyeballs(base, data.eye_vertices)]))
        hat = fit_hat(identity.hat, vertices, eye_height, data)
        accessories.append(build_hat(identity.hat, hat))
    if identity.glasses is not None:
        accessories.append(build_glasses(identity.glasses, base, vertices, data))
    shade = join([SolidMesh(base, base, data.coarse_triangles, np.zeros((len(base), 4))), *accessories])
    return HeadGeometry(
        skin=single(_skin_mesh(vertices, normals, brows, identity, data)),
        eyes=single(_eye_mesh(base, identity, data)),
        solids=single(join([_lashes(base, data), *accessories])),
        occluder=single(Mesh(shade.vertices, unit(shade.vertices - shade.vertices.mean(0)), shade.triangles)),
        hair=_hair(vertices, normals, brows, identity, hat, data),
        material=_material(identity),
    )
