"""Pictures and curves of walks through the latent space."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import torch

from head3d_core.config import preset
from head3d_core.course import nb13
from head3d_core.experiments import known_heads
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import ws_of_seeds


def test_views_are_pictures_of_each_head() -> None:
    G = Generator(preset("tiny").generator).eval()
    ws = ws_of_seeds(G, [0, 1])
    seen = nb13.views(G, ws, 30.0, 32)
    assert [tuple(s.shape) for s in seen] == [(3, 32, 32)] * 2
    assert not torch.equal(seen[0], seen[1])
    (same,) = nb13.views(G, ws[:1], size=32, camera=cameras.orbit(np.pi / 6, 0.1))
    assert torch.allclose(same, seen[0], atol=1e-5)


def test_curves_of_records_are_drawn() -> None:
    sides = dict.fromkeys(known_heads.SIDES, 0.1)
    row = {"other sides": [{"iteration": k, **sides} for k in (0, 20)], "yaw error": [3.0, -1.0]}
    record = {"about": {"steps": 10}, "models": {"face": {"known camera": [row], "unknown camera": [row]}}}
    figures = [
        nb13.path_curves({"models": {"face": {"path": {"mean curve": [0, 0.6, 1]}}}}),
        nb13.inversion_curves(record),
    ]
    for figure in figures:
        figure.canvas.draw()
        assert np.asarray(figure.canvas.buffer_rgba())[..., :3].std() > 5, "the figure is blank"
        mpl.pyplot.close(figure)


def test_inversion_curves_show_every_head_and_the_mean() -> None:
    def row(error: float) -> dict[str, object]:
        sides = dict.fromkeys(known_heads.SIDES, error)
        return {
            "other sides": [{"iteration": k, **sides} for k in (0, 20)],
            "yaw error": [-10 * error, error],
        }

    rows = [row(0.1), row(0.3)]
    record = {"about": {"steps": 10}, "models": {"face": {"known camera": rows, "unknown camera": rows}}}
    figure = nb13.inversion_curves(record)
    panels = [axis.lines[:3] for axis in figure.axes]
    assert [[float(line.get_ydata()[0]) for line in lines] for lines in panels[:3]] == [[0.1, 0.3, 0.2]] * 3
    assert [float(line.get_ydata()[0]) for line in panels[3]] == [1, 3, 2], (
        "the size of the error, not its sign"
    )
    mpl.pyplot.close(figure)
