"""`build_head(identity)`: from parameters to everything the renderer needs. Its shape, hair, colours; lengths in dm."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from head3d_core.synth import masks
from head3d_core.synth.accessories import COLOURS, build_glasses, fabric, join, paint, srgb_hex
from head3d_core.synth.assets import Asset, asset
from head3d_core.synth.draws import stream_key, uniforms
from head3d_core.synth.hats import Fit, build_hat, fit_hat, squash
from head3d_core.synth.identity import Hair, Identity, Skin
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
from head3d_core.synth.subdivision import Array, Index, grid_triangles, unit, vertex_normals
from head3d_core.synth.targets import blend, macro_weights
from head3d_core.synth.types import EyeMesh, HeadGeometry, Material, Mesh, SkinMesh, SolidMesh, single
from head3d_core.synth.wardrobe import THICKNESS, cloth_mask

MOST_STRANDS = 16384
FEWEST_POINTS = 8
"""Points of the shortest strands: brows and beard curve enough to need them."""
LASH = (0.022, 0.016, 0.014)
"""Linear RGB."""
UPPER_TEETH_SHIFT = (0.0, -0.095, 0.03)
LOWER_TEETH_SHIFT = (0.0, 0.03, 0.0)
"""The base mesh's teeth sit too deep: an open mouth would be a black hole (dm)."""
HEIGHT_KEPT = 0.2
"""Share of the difference in face height that alignment leaves."""
EYE_RINGS, EYE_SECTORS = 20, 28


# -- shape


def base_shape(identity: Identity, data: Asset) -> Array:
    """The identity's base vertices [B, 3] (dm), aligned to the template."""
    weights = macro_weights(identity.person)
    for name, w in (*identity.features, *identity.expression):
        weights[name] = weights.get(name, 0.0) + w
    vertices = blend(data.base, data.targets, data.target_names, weights)
    vertices[data.vertices_of[3]] += UPPER_TEETH_SHIFT
    vertices[data.vertices_of[4]] += LOWER_TEETH_SHIFT
    return align(vertices, data)


def align(vertices: Array, data: Asset) -> Array:
    """Moves and scales a head so that eyes, jaw and crown sit as on the template; 80 % of the height goes."""

    def frame(v: Array) -> tuple[Array, float]:
        left, right, _, crown, _, jaw, _ = v[data.joints].mean(1)
        return (left + right + crown + jaw) / 4, float(np.linalg.norm(crown - jaw))

    centre, height = frame(data.template_base)
    own_centre, own_height = frame(vertices)
    return (vertices - own_centre) * (height / own_height) ** (1 - HEIGHT_KEPT) + centre


@lru_cache(maxsize=1)
def eye_sphere() -> tuple[Array, Index]:
    """An eyeball: unit points [E, 3] in the front three quarters of a sphere, +z the gaze, and triangles."""
    theta = np.linspace(0, 0.75 * np.pi, EYE_RINGS)[:, None]
    phi = np.linspace(0, 2 * np.pi, EYE_SECTORS, endpoint=False)[None]
    points = np.stack(
        np.broadcast_arrays(np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)), -1
    )
    return points.reshape(-1, 3), grid_triangles(EYE_RINGS, EYE_SECTORS, closed=True)


def gaze_rotation(yaw: float, pitch: float) -> Array:
    """[3, 3] rotation of +z by yaw (about y) and pitch (about x), radians."""
    cy, sy, cp, sp_ = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return turn @ np.array([[1, 0, 0], [0, cp, -sp_], [0, sp_, cp]])


# -- skin, eyes, hair


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
        painted = masks.scalp(data.rest, data.azimuth_elevation, hair.recession, hair.peak)
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
    eyes = data.eyeballs(base)
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
    edge = masks.above_hairline(*style.place, hair.recession, hair.peak)
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


# -- colours


def skin_colour(skin: Skin) -> Array:
    """Linear RGB [3]: melanin places the colour between the anchors, haemoglobin and undertone tint it."""
    anchors = np.stack([srgb_hex(c) for c in COLOURS["skin"]])
    at = skin.melanin * (len(anchors) - 1)
    low = min(int(at), len(anchors) - 2)
    colour = anchors[low] + (at - low) * (anchors[low + 1] - anchors[low])
    red = 0.09 * (skin.haemoglobin - 0.5)
    return colour * (1 + np.array([0.0, -red, -red]) + 0.045 * skin.undertone * np.array([0.0, 0.5, -1.0]))


def hair_colours(hair: Hair) -> tuple[Array, Array]:
    """Linear RGB of root and tip, before grey."""
    root, tip = COLOURS["hair"][hair.colour]
    return srgb_hex(root) * hair.brightness, srgb_hex(tip) * hair.brightness


def _material(identity: Identity) -> Material:
    hair, skin, clothes = identity.hair, identity.skin, identity.clothes
    root, tip = hair_colours(hair)
    middle = 0.6 * root + 0.4 * tip
    grey = srgb_hex(COLOURS["grey_hair"])
    tone = skin_colour(skin)
    dark = hair.colour in ("black", "black_brown", "dark_brown", "brown")
    brow = (0.6 if dark else 0.7) * root + 0.006
    visible = middle + hair.grey * (0.55 * grey - middle)
    inner, outer = (srgb_hex(c) * identity.eyes.brightness for c in COLOURS["iris"][identity.eyes.iris])
    colours: dict[str, Any] = {
        "skin_colour": tone,
        "lip_colour": srgb_hex(COLOURS["lipsticks"][skin.lip_colour]),
        "scalp_colour": 0.5 * visible + 0.04 * tone,
        "shirt": fabric(clothes.colour),
        "shirt_second": fabric(clothes.second),
        "iris_inner": inner,
        "iris_outer": outer,
        "hair_root": root,
        "hair_tip": tip,
        "brow_colour": brow + 0.22 * hair.grey * (0.4 * grey - brow),
    }
    return Material(
        **{name: tuple(c.tolist()) for name, c in colours.items()},
        neckline=clothes.neckline,
        shirt_pattern=clothes.pattern,
        scalp_paint=0.15 if hair.style == "bald" else 0.88,
        stubble=identity.beard.stubble,
        freckles=skin.freckles,
        blush=skin.haemoglobin,
        oil=skin.oil,
        ageing=float(np.clip((identity.person.years - 25) / 55, 0, 1)),
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
        eye_height = float(np.mean([centre[1] for centre, _ in data.eyeballs(base)]))
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
