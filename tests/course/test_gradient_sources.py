"""Which terms reach which planes, for every row of the comparison."""

from __future__ import annotations

from head3d_core.course.gradient_sources import PLACES, gradient_sources
from head3d_core.training.recipes import ROWS


def test_gradient_sources_of_every_row() -> None:
    """What section 2 of the notebook says, for every row."""
    heard = {name: gradient_sources(name, seed=1) for name in ROWS if not ROWS[name].untrained}
    assert list(heard["head3d"]) == list(PLACES)
    assert heard["head3d"]["front: F_xy"] == ["L_kd", "L_rgb", "L_lpips", "D_front"]
    assert heard["head3d"]["back: F_xz, F_yz"] == ["D_back"]
    assert heard["no-kd"]["back: F_xy"] == ["D_back"]
    assert heard["no-kd"]["front: F_xy"] == ["L_rgb", "L_lpips", "D_front"]
    assert heard["no-gan-front"]["front: F_xz, F_yz"] == ["L_rgb", "L_lpips"]
    assert heard["no-rgb-lpips"]["front: F_xz, F_yz"] == ["D_front"]
    assert heard["all-planes"]["back: F_xz, F_yz"] == ["L_kd", "D_back"]
    assert heard["single-d"]["back: F_xy"] == ["L_kd", "D_all"]
    assert heard["dft"]["front: F_xy"] == ["D_all"]
