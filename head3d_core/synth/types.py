"""What the head factory's two halves exchange: geometry in, images out.

`heads.py` (shape, hair, accessories) builds a `HeadGeometry` from an `Identity`; `renderer.py` lights
and draws it. Lengths are decimetres of the base mesh (y up, the face looks along +z, the subject's left
is +x); `world = (v - CENTRE) * SCALE` gives EG3D's world units.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np

from head3d_core.synth.subdivision import Array, Index

CENTRE = (0.0, 7.33, 0.45)
"""Base-mesh point (dm) that becomes the world origin."""
SCALE = 0.165
"""World units per decimetre: a head is about 0.40 world units tall."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: vertices [V, 3] (dm), unit normals [V, 3], triangles [T, 3]. See `single` for the types."""

    vertices: Array
    normals: Array
    triangles: Index


@dataclass(frozen=True)
class SkinMesh(Mesh):
    """Body, teeth, tongue and the clothed part of the bust, with what the skin shader reads."""

    smooth_normals: Array
    """[V, 3] normals averaged over the neighbourhood: cheap subsurface scattering."""
    rest: Array
    """[V, 3] the same vertices on the base mesh (dm): procedural textures stick to features."""
    mask: Array
    """[V, 4] lip (negative: lid margin), painted scalp or brow, beard area, cloth; each in [0, 1]."""
    part: Array
    """[V] 0 body, 3 upper teeth, 4 lower teeth, 5 tongue."""


@dataclass(frozen=True)
class EyeMesh(Mesh):
    """Both eyeballs; the iris is drawn by angle from the gaze axis."""

    local: Array
    """[V, 3] unit vectors in the eyeball's frame, +z = gaze."""


@dataclass(frozen=True)
class SolidMesh(Mesh):
    """Glasses, hats and lashes, apart or together."""

    colour: Array
    """[V, 4] linear RGB and roughness."""


M = TypeVar("M", bound=Mesh)


def single(mesh: M) -> M:
    """The mesh as the graphics card takes it: float32 values and int32 triangles."""
    arrays = {field.name: getattr(mesh, field.name) for field in fields(mesh)}
    kinds = {name: np.int32 if name == "triangles" else np.float32 for name in arrays}
    return replace(mesh, **{name: a.astype(kinds[name], copy=False) for name, a in arrays.items()})


@dataclass(frozen=True)
class Material:
    """Shading parameters of one head, by the names of the shaders' uniforms. Colours are linear RGB in [0, 1]."""

    skin_colour: tuple[float, float, float]
    lip_colour: tuple[float, float, float]
    scalp_colour: tuple[float, float, float]
    shirt: tuple[float, float, float]
    shirt_second: tuple[float, float, float]
    iris_inner: tuple[float, float, float]
    iris_outer: tuple[float, float, float]
    hair_root: tuple[float, float, float]
    hair_tip: tuple[float, float, float]
    brow_colour: tuple[float, float, float]
    neckline: int
    """Which neckline function the cloth edge follows (see accessories)."""
    shirt_pattern: int
    """0 plain, 1 vertical stripes, 2 check."""
    scalp_paint: float
    stubble: float
    freckles: float
    blush: float
    oil: float
    ageing: float
    """0 young to 1 old: wrinkles, spots, eye whites."""
    lipstick: float
    eyeshadow: float
    hair_gloss: float
    grey: float
    texture_offset: float
    """Shift of the procedural noise, so that two skins differ."""


@dataclass(frozen=True)
class HeadGeometry:
    """Everything the renderer needs to draw one head from any side."""

    skin: SkinMesh
    eyes: EyeMesh
    solids: SolidMesh
    """Lashes, glasses, hat."""
    occluder: Mesh
    """Coarse mesh for light and shadow (unsubdivided bust and accessories)."""
    hair: Array
    """[S, P, 4] strands: xyz (dm) and width (dm; negative marks brows; the renderer tapers it to the tip). P >= 2;
    S may be 0."""
    material: Material
