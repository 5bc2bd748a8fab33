"""Colour conversions. Tables are sRGB hex; everything handed on is linear RGB."""

from __future__ import annotations

import colorsys

import numpy as np

from head3d_core.synth.identity import Hair, Skin
from head3d_core.synth.subdivision import Array
from head3d_core.synth.tables import TABLES
from head3d_core.synth.wardrobe import Hsv
from head3d_core.utils.srgb import linear_light

COLOURS = TABLES["colours"]
LASH = (0.022, 0.016, 0.014)
"""Linear RGB."""


def srgb_hex(text: str) -> Array:
    """Linear RGB [3] of "rrggbb"."""
    return linear_light(np.array(list(bytes.fromhex(text))) / 255)


def fabric(hsv: Hsv) -> Array:
    """Linear RGB [3] of a (hue, saturation, value) triple."""
    return linear_light(np.array(colorsys.hsv_to_rgb(*hsv)))


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
