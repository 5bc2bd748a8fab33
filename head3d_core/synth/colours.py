"""Colour tables and conversions. Tables are sRGB hex; everything handed on is linear RGB."""

from __future__ import annotations

import colorsys

import numpy as np

from head3d_core.synth.identity import Hair, Skin
from head3d_core.synth.subdivision import Array
from head3d_core.synth.wardrobe import Hsv

SKIN = ("eec9b2", "e6b999", "d6a27f", "bd8864", "97674a", "6e4a37", "4b3329")
"""Skin from the least to the most melanin."""
HAIR = {
    "black": ("0c0806", "1a110c"),
    "black_brown": ("1c110b", "32200f"),
    "dark_brown": ("2c1a10", "4b3018"),
    "brown": ("4a2e18", "70491f"),
    "light_brown": ("6b4a26", "9a7340"),
    "dark_blond": ("8a6a3c", "b8935a"),
    "blond": ("a98c58", "dcc48e"),
    "auburn": ("4e2412", "7e3a1a"),
    "red": ("653318", "935032"),
}
"""Root and tip."""
IRIS = {
    "dark_brown": ("3a2210", "150a05"),
    "black_brown": ("2a180c", "0e0704"),
    "brown": ("5a3a1a", "2c1a0a"),
    "hazel": ("6a6a3a", "38401e"),
    "blue_grey": ("5e7a8c", "2c4658"),
    "blue": ("7a94a4", "3a5468"),
    "green_grey": ("6d7868", "3a4438"),
}
"""Inner and outer iris."""
LIPSTICKS = ("a03040", "8a2030", "b05a58", "94484c", "c04a5a")
FRAMES = {
    "black": "101010",
    "brown": "3a2010",
    "tortoise": "4a2a14",
    "silver": "8a8a90",
    "gold": "a88a4a",
    "navy": "20304a",
    "red": "601a20",
}
GREY_HAIR = "b4b0aa"
LASH = (0.022, 0.016, 0.014)


def linear(srgb: Array) -> Array:
    """sRGB in [0, 1] to linear (IEC 61966-2-1)."""
    return np.where(srgb < 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def srgb_hex(text: str) -> Array:
    """Linear RGB [3] of "rrggbb"."""
    return linear(np.array([int(text[k : k + 2], 16) for k in (0, 2, 4)]) / 255)


def fabric(hsv: Hsv) -> Array:
    """Linear RGB [3] of a (hue, saturation, value) triple."""
    return linear(np.array(colorsys.hsv_to_rgb(*hsv)))


def skin_colour(skin: Skin) -> Array:
    """Linear RGB [3]: melanin places the colour between the anchors, haemoglobin and undertone tint it."""
    anchors = np.stack([srgb_hex(c) for c in SKIN])
    at = skin.melanin * (len(anchors) - 1)
    low = min(int(at), len(anchors) - 2)
    colour = anchors[low] + (at - low) * (anchors[low + 1] - anchors[low])
    red = 0.09 * (skin.haemoglobin - 0.5)
    return colour * (1 + np.array([0.0, -red, -red]) + 0.045 * skin.undertone * np.array([0.0, 0.5, -1.0]))


def hair_colours(hair: Hair) -> tuple[Array, Array]:
    """Linear RGB of root and tip, before grey."""
    root, tip = HAIR[hair.colour]
    return srgb_hex(root) * hair.brightness, srgb_hex(tip) * hair.brightness
