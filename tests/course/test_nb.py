"""What notebooks call from the modules of their numbers: the functions behind figures, and what figures hold."""

from __future__ import annotations

import json
import math

import matplotlib as mpl
import numpy as np
import pytest
import torch
import trimesh
from helpers import refuses, visible

from head3d_core.config import preset
from head3d_core.experiments import known_heads, plane_swap
from head3d_core.geometry import pointclouds
from head3d_core.metrics import ghost
from head3d_core.model import cameras, seeds
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import ws_of_seeds
from head3d_core.synth.light import Light
from head3d_course import nb00, nb01, nb02, nb04, nb06, nb12, nb13, nb14

# --- figures ----------------------------------------------------------------------------------------------------------


def test_ray_image_is_row_major() -> None:
    features = torch.arange(4.0)[:, None].expand(4, 5)
    assert nb02.ray_image(features)[0].tolist() == [[0, 1], [2, 3]]


def test_axes_view_points_at_the_viewer() -> None:
    def spread(colour: tuple[int, int, int], yaw: float) -> float:
        picture = nb01.axes_view(yaw, 0.3).astype(int)
        where = np.argwhere(np.abs(picture - colour).sum(-1) < 30)
        return float(np.ptp(where[:, 1]))

    red, blue = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)
    assert spread(blue, 0.0) < spread(red, 0.0)
    assert spread(red, math.pi / 2) < spread(blue, math.pi / 2)


def test_stored_heads_turn() -> None:
    turn = nb00.stored_turn()
    assert turn(0).shape == (256, 512, 3)
    assert np.array_equal(turn(-90), turn(270))
    front, side = turn(0).astype(int), turn(90).astype(int)
    assert np.abs(front - side).mean() > 5
    behind = turn(180).astype(int)[:, :256], turn(180).astype(int)[:, 256:]
    assert np.abs(behind[0] - behind[1]).mean() > 5, "two different backs"
    fronts = front[:, :256], front[:, 256:]
    assert np.abs(fronts[0] - fronts[1]).mean() < np.abs(behind[0] - behind[1]).mean()


# --- nb04 -------------------------------------------------------------------------------------------------------------


def test_views_and_back_share() -> None:
    camera = cameras.orbit(torch.deg2rad(torch.tensor([0.0, -44.0, 46.0, -134.0, 136.0, -179.0])))
    assert nb04.views_by_side(camera) == [2, 2, 2]
    yaw = torch.tensor([math.pi, 3 * math.pi, 0.0, 2 * math.pi, math.radians(134.9)])
    assert nb04.back_share.truth(yaw) == pytest.approx(0.4)


def test_nearest_view_shows_the_closest_picture() -> None:
    camera = cameras.orbit(torch.tensor([0.0, 2.0, -2.0]))
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 3, 4, 5)
    draw = nb04.nearest_view(images, camera)
    assert draw(0.1, 0.3).shape == (4, 5, 3)
    assert [int(draw(yaw, 0.0)[0, 0, 0]) for yaw in (0.2, 1.5, -1.5, 2 * math.pi - 1.9)] == [0, 1, 2, 2]
    refuses("one camera per picture", nb04.nearest_view, images[:0], camera)


def test_light_ball() -> None:
    """Even light gives a flat disc of the right grey; a key light brightens the side that it comes from."""
    sky = np.zeros((9, 3), np.float32)
    sky[0] = 3.544907  # radiance 1 from everywhere
    dark = np.zeros(3, np.float32)
    even, mask = nb04.light_ball(Light(sky, np.array([0, 0, 1], np.float32), dark, 1.0))
    inside = even[:, mask > 0]
    assert inside.min() == inside.max() == round(255 * 0.2 ** (1 / 2.2))
    assert (even[:, mask == 0] == 255).all()
    right = np.array([1, 0, 0], np.float32)
    lit, mask = nb04.light_ball(Light(sky, right, np.full(3, 0.5, np.float32), 1.0))
    assert nb04.side_light.truth(nb04.brightness(lit), mask).item() < -0.05
    assert lit[0, 32, 60] > lit[0, 32, 4] == even[0, 32, 4]


# --- nb06 -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def G() -> Generator:
    return visible()


@pytest.fixture(scope="module")
def heads(G: Generator) -> seeds.Heads:
    return seeds.heads_of_seeds(G, range(3))


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


# --- nb12 -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ball() -> trimesh.Trimesh:
    """81,920 triangles, red above and blue below."""
    ball = trimesh.creation.icosphere(subdivisions=6, radius=0.3)
    up = ball.vertices[:, 1] > 0
    rgba = np.where(up[:, None], [255, 0, 0, 255], [0, 0, 255, 255]).astype(np.uint8)
    ball.visual = trimesh.visual.ColorVisuals(ball, vertex_colors=rgba)
    return ball


def test_decimation_keeps_colours(ball: trimesh.Trimesh) -> None:
    small = nb12.decimated(ball, 500)
    assert len(small.faces) <= 500
    colours = np.asarray(small.visual.vertex_colors)
    assert (colours[small.vertices[:, 1] > 0.05, 0] == 255).all()
    assert (colours[small.vertices[:, 1] < -0.05, 2] == 255).all()
    assert nb12.decimated(small, 500) is small


def _bytes(figure: object) -> int:
    return len(figure.to_json())  # type: ignore[attr-defined]


def test_stored_figures_are_light(ball: trimesh.Trimesh) -> None:
    planes = torch.rand(3, 8, 64, 64)
    space = nb12.head_in_space(ball, planes, pointclouds.look_around(12, (0.0,)))
    backs = nb12.side_by_side([ball, ball], ["teacher", "Head3D"])
    for figure in (space, backs):
        assert _bytes(figure) < 0.5e6
        assert json.loads(figure.to_json())["data"]
    assert [t.type for t in space.data] == ["mesh3d", "surface", "surface", "surface", *["scatter3d"] * 4]
    assert backs.data[0].vertexcolor is None, "grey, so that shape is seen"
    assert backs.layout.scene.camera.eye.z < 0, "from behind"
    assert backs.layout.scene2.camera.eye.z < 0


def test_no_side_of_a_surface_lies_in_the_dark(ball: trimesh.Trimesh) -> None:
    grey = nb12.surface_trace(ball, "ball", coloured=False)
    shown = np.asarray(grey.intensity) / 255
    z = np.asarray(grey.z)
    front, back = shown[z > 0.1], shown[z < -0.1]
    assert front.mean() == pytest.approx(back.mean(), abs=0.03)
    assert back.mean() > 0.5
    assert back.std() > 0.1, "relief"
    assert grey.lighting.ambient == 1
    assert grey.lighting.diffuse == 0
    coloured = nb12.surface_trace(ball, "ball").lighting
    assert coloured.ambient >= 0.9, "what the lamp does not reach keeps its colour"


def test_from_above_the_face_looks_down_the_page() -> None:
    grid = np.full((24, 24, 24), -20, np.float32)
    grid[10:14, 10:14, 10:22] = 20  # a nose: it reaches towards +z
    figure = nb12.density_slices(grid, 1.0, 0.0)
    above = figure.axes[2]
    assert above.get_title() == "y = 0, from above"
    assert above.get_xlim()[0] < above.get_xlim()[1]
    (_, tip), (_, nape) = above.transData.transform([(0, 0.4), (0, -0.1)])
    assert tip < nape
    mpl.pyplot.close(figure)


# --- nb13 -------------------------------------------------------------------------------------------------------------


def test_views_are_pictures_of_each_head() -> None:
    G = Generator(preset("tiny").generator).eval()
    ws = ws_of_seeds(G, [0, 1])
    seen = nb13.views(G, ws, 30.0, 32)
    assert [tuple(s.shape) for s in seen] == [(3, 32, 32)] * 2
    assert not torch.equal(seen[0], seen[1])
    (same,) = nb13.views(G, ws[:1], size=32, camera=cameras.orbit(np.pi / 6, 0.1))
    assert torch.allclose(same, seen[0], atol=1e-5)


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


# --- nb14 -------------------------------------------------------------------------------------------------------------


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
