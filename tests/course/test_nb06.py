"""Figures of the plane-swap lab: drawn, small, and standing where the planes stand."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from helpers import visible
from test_plane_swap import made_up

from head3d_core.course import nb06, swap_lab
from head3d_core.experiments import plane_swap, swap_study
from head3d_core.model import cameras, seeds
from head3d_core.model.generator import Generator


@pytest.fixture(scope="module")
def G() -> Generator:
    return visible()


@pytest.fixture(scope="module")
def heads(G: Generator) -> seeds.Heads:
    return seeds.heads_of_seeds(G, range(3))


def drawn(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    mpl.pyplot.close(figure)
    return pixels


def test_figures_are_drawn(G: Generator, heads: seeds.Heads) -> None:
    found = swap_study.tables(made_up())
    state = swap_lab.LabState(shares=(1, 0, 0))
    shown = swap_lab.show(swap_lab.couple({"face": G}, state), state)
    for figure in (
        nb06.shown_states([shown, shown], ["A", "B"]),
        nb06.carried_dots(found),
        nb06.carried_dots({**found, "axes": "xyz"}, {**found, "axes": "eg3d"}),
        nb06.planes_flat(G, heads.take([0, 1])),
    ):
        assert drawn(figure).std() > 5, "the figure is blank"


def test_a_row_holds_both_heads_and_the_mixtures(G: Generator, heads: seeds.Heads) -> None:
    one, two, view = heads.take([0]), heads.take([1]), cameras.orbit(1.0)
    row = nb06.swap_row(G, one, visible(5), two, view)
    planes = heads.planes[:1].clone()
    planes[:, 2] = heads.planes[1, 2]
    _, ws = plane_swap.mix(one, two, (0, 0, 1))
    for k, picture in {
        0: plane_swap.finish(G, one.planes, one.ws, view).image,
        4: plane_swap.finish(G, planes, ws, view).image,
    }.items():
        assert torch.allclose(row[k], picture[0], atol=1e-5)
    assert not torch.allclose(row[1], plane_swap.finish(G, two.planes, two.ws, view).image[0]), (
        "by its own generator"
    )


def test_table_beside_the_papers() -> None:
    rows = {"axes": "xyz", "identities": 9, "table_1": {"x": swap_study.table_rows(made_up())}}
    lines = nb06.table_beside_paper([rows, rows], "x").splitlines()
    assert len(lines) == 6
    assert lines[1].split()[:7] == ["ID", "2,", "ID", "1,", "ID", "1", "0.968"]
    assert lines[5].split()[-1] == "1.000"


def test_redrawing_people_gives_the_wider_interval() -> None:
    """Values that belong to people, not to pairs: 132 pairs of 12 people are 12 independent things."""
    person = torch.randn(12, generator=torch.Generator().manual_seed(1))
    values = person[:, None] + person
    found = nb06.two_bootstraps(values, nb06.pair_mean.truth)
    assert found["people redrawn"].std() > 2 * found["pairs redrawn"].std()
    assert abs(found["people redrawn"].mean() - float(nb06.pair_mean.truth(values))) < 0.2


def test_equal_features_get_equal_colours() -> None:
    planes = torch.zeros(2, 4, 96, 96)
    planes[0, 0, :40], planes[1, 0, 50:], planes[:, 1, :, :30] = 1.0, 1.0, 2.0
    colours = nb06.plane_colours(planes)
    assert colours.shape == (2, 96, 96, 3)
    assert np.allclose(colours[0, 10, 60], colours[1, 60, 60], atol=1e-3)
    assert np.abs(colours[0, 10, 60] - colours[0, 60, 60]).max() > 0.2


def test_the_table_between_generators_names_every_plane() -> None:
    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "count": 9}

    planes = {name: {"to second": estimate(0.1 * (k + 3))} for k, name in enumerate(("xy", "xz", "yz"))}
    found = {
        "identities": 9,
        "second": "face",
        "measures": {"identity": {"apart": estimate(0.9), "planes": planes}},
    }
    lines = nb06.between_table(found).splitlines()
    assert "9 seeds" in lines[0]
    assert lines[1].split()[-3:] == ["0.90", "[0.80,", "1.00]"]
    assert lines[2].startswith("F_xy from face")
    assert lines[2].split()[-3] == "0.30"
    assert len(lines) == 5
    assert len(nb06.between_table().splitlines()) == 5, "the record in the box"
