"""Notebook 14: the map of the ghost, representations from the side."""

from __future__ import annotations

import matplotlib as mpl
import torch

from head3d_core.course import nb14
from head3d_core.metrics import ghost


def test_the_map_is_dark_where_the_picture_is() -> None:
    image = torch.full((1, 3, 256, 256), 180, dtype=torch.uint8)
    for x in (127 - ghost.EYE_COLUMN, 128 + ghost.EYE_COLUMN):
        image[:, :, ghost.EYE_ROW - 3 : ghost.EYE_ROW + 4, x - 3 : x + 4] = 60
    figure = nb14.ghost_maps(image, torch.ones(1, 64, 64), ["a"])
    above, below = figure.axes
    detail = below.images[0].get_array()
    assert detail[ghost.EYE_ROW, 128 + ghost.EYE_COLUMN] < -0.1
    assert abs(detail[60, 60]) < 0.01
    assert above.get_title() == "a"
    assert len(below.patches) == 2
    assert abs(below.patches[0].center[0] + below.patches[1].center[0] - 255) < 1e-9, (
        "left and right of the middle"
    )


def test_only_the_tri_plane_has_one_sheet_for_two_points() -> None:
    figure = nb14.representations_figure()
    assert [len([line for line in axis.lines if len(line.get_xdata()) == 2]) for axis in figure.axes] == [
        1,
        2,
        3,
        0,
        1,
    ]
    mpl.pyplot.close("all")
