"""Notebook 11a: which losses reach which plane, and a card for each row: picture, numbers, verdict."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from head3d_core.config import preset
from head3d_core.evaluation.rows import Rows
from head3d_core.evaluation.samples import FACE_YAWS, ROWS, TURN
from head3d_core.evaluation.tables import TABLE_3, load_paper
from head3d_core.model.cameras import frontal, orbit
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.training import losses
from head3d_core.training.distillation import Sample, distillation_terms
from head3d_core.training.perceptual import RandomVGG
from head3d_core.training.recipes import recipe
from head3d_course import ablations, evidence, figures
from head3d_course.ablations import COSINE, FRONT, FULL, FULL_FITTED, JANUS, Measure, label
from head3d_course.exercises import Exercise, vector
from head3d_course.recorded import cells, larger, recorded_picture


def short(row: str, width: int = 19) -> str:
    """A row's name in lines of about `width` letters; what stands in brackets is not broken."""
    whole = re.sub(r"\(.*?\)", lambda brackets: brackets[0].replace(" ", "\u00a0"), label(row))
    return "\n".join(textwrap.wrap(whole, width, break_long_words=False))


def speakers_table(found: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """The terms that reach each plane, by row (Markdown); against the full method, struck if gone and bold if new."""
    places = list(found[FULL])
    lines = [f"| | {' | '.join(places)} |", "|---" * (len(places) + 1) + "|"]
    for row, here in found.items():
        cells = [label(row)]
        for place in places:
            before = found[FULL][place]
            terms = [name if name in here[place] else f"~~{name}~~" for name in before]
            cells.append(", ".join(terms + [f"**{name}**" for name in here[place] if name not in before]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


PLACES = ("front: F_xy", "front: F_xz, F_yz", "back: F_xy", "back: F_xz, F_yz")
"""Views and planes of `gradient_sources`."""


def terms_and_planes(row: str, yaw: float, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Every weighted term of Eq. 10 for one sample, and the student's planes that they depend on.

    Networks of preset `tiny`, not trained at all, are enough to see which gradients exist.

    Args:
        row: of the comparison.
        yaw: of the rendering camera, radians; it decides which discriminator judges and whether the gate is open.
    """
    scale, how = preset("tiny"), recipe("distill", "tiny", row)
    camera, ahead = orbit(yaw), frontal(1)
    torch.manual_seed(seed)
    nets = [Generator(scale.generator).eval() for _ in range(2)]
    judge, z, sides = Discriminator(scale.discriminator), torch.randn(1, nets[0].z_dim), []
    for net, learns in zip(nets, (False, True), strict=True):
        with torch.no_grad():
            ws = net.mapping(z, ahead)
            planes = net.planes(ws)
        planes.requires_grad_(learns)
        sides.append(Sample(ws, planes, net.render(planes, ws, camera)))
    terms = distillation_terms(how, sides[0], sides[1], camera, RandomVGG())
    terms = {f"L_{name}": term for name, term in terms.items()}
    domain = how.domains[-1 if abs(yaw) > how.split_angle else 0]
    if domain.weight:
        output = sides[1].output
        assert output is not None
        loss = losses.generator_loss(judge(output.image, output.raw, camera))
        terms[f"D_{'all' if how.one_discriminator else domain.name}"] = domain.weight * loss
    return terms, sides[1].planes


def gradient_sources(row: str, seed: int = 0) -> dict[str, list[str]]:
    """Terms whose gradient is not 0 in a frontal view and in one from behind, at F_xy and at the other planes."""
    found: dict[str, list[str]] = {place: [] for place in PLACES}
    for side, yaw in (("front", 0.0), ("back", math.pi)):
        terms, planes = terms_and_planes(row, yaw, seed)
        for name, term in terms.items():
            if not term.requires_grad:
                continue
            (pull,) = torch.autograd.grad(term, planes, retain_graph=True, allow_unused=True)
            for which, part in (("F_xy", slice(0, 1)), ("F_xz, F_yz", slice(1, 3))):
                if pull is not None and bool(pull[:, part].any()):
                    found[f"{side}: {which}"].append(name)
    return found


# --- images -----------------------------------------------------------------------------------------------------------


def recorded_views(row: str, yaws: Sequence[float]) -> Tensor | None:
    """Recorded samples of a row: [8, V, 3, s, s] from `yaws` (degrees), or None if they are not there.

    The same number is the same z in every row.
    """
    sheet = recorded_picture(f"{row}_views.jpg")
    if sheet is None:
        return None
    columns = ROWS * sheet.shape[2] // sheet.shape[1]
    there: tuple[int, ...] = TURN if columns == len(TURN) else FACE_YAWS
    return cells(sheet, ROWS, columns)[:, [there.index(round(yaw)) for yaw in yaws]]


def all_around(rows: Sequence[str], codes: Sequence[int], yaws: Sequence[float] = (0.0,)) -> Any | None:
    """Figs. 6, 8 and 9: a few codes from some sides, one row of the comparison a line. None if nothing is recorded."""
    found = {row: recorded_views(row, yaws) for row in rows}
    lines = {
        short(row, 17): larger(views[list(codes)].flatten(0, 1))
        for row, views in found.items()
        if views is not None
    }
    if not lines:
        return None
    columns = [f"z {k}, {yaw:.0f}°" if len(yaws) > 1 else f"z {k}" for k in codes for yaw in yaws]
    return figures.image_grid(list(lines.values()), columns, size=1.3, rows=list(lines))


# --- cards ------------------------------------------------------------------------------------------------------------

FIGURE_8: dict[str, tuple[str, dict[Measure, str]]] = {
    "plane-swap": ("identity is kept, the shape of the head is lost", {FRONT: "worse"}),
    "all-planes": ("incomplete heads", {evidence.BEHIND: "worse"}),
    "single-d": ("a stitching of two faces", {JANUS: "worse", evidence.BEHIND: "worse"}),
}
"""What the paper's Fig. 8 shows, in its words and as directions of our measures."""


def expected(row: str) -> tuple[str, dict[Measure, str]]:
    """What the paper says of a row, in words and as "worse" or "better" than Head3D for each measure it prints."""
    if row in FIGURE_8:
        return FIGURE_8[row]
    paper = load_paper()["table 3"]
    if row not in paper:
        return "not in the paper", {}
    words, signs = [], {}
    for measure in (FRONT, COSINE):
        mine, full = (paper[name][measure.paper] for name in (row, FULL))
        words.append(f"{measure.paper.replace('x100', '× 100')} {mine:.2f} (Head3D {full:.2f})")
        signs[measure] = "worse" if (mine > full) == (measure.better == "low") else "better"
    return ", ".join(words), signs


def card(row: str, records: Rows) -> str:
    """A row's card as Markdown: what the paper says, our numbers for each seed, and the verdict of each measure."""
    words, signs = expected(row)
    place = ""
    if row in TABLE_3:
        rows = [name for name in TABLE_3 if name != FULL] + [FULL_FITTED]
        ours = {name: e.value for name, e in ablations.measured(rows, FRONT, records).items()}
        theirs = ablations.printed(rows, FRONT, load_paper()["table 3"], records)
        places = [ablations.ranks(found, "low").get(row, "–") for found in (theirs, ours)]
        place = f" Place in frontal distance: {places[0]} of {len(rows)} in the paper, {places[1]} of {len(rows)} here."
    return f"**The paper:** {words}.{place}\n\n{evidence.evidence_table(records, row, expected=signs)}"


def card_picture(row: str, records: Rows) -> Any | None:
    """A row below the full method of its start and seed, a few codes from the front and from behind."""
    runs = ablations.runs_of(row, records)[:1]
    return all_around([FULL_FITTED, *runs], (0, 1, 5, 6), (0.0, 180.0)) if runs else None


def front_gap(row: str, records: Rows) -> float:
    """Mean absolute difference between a row's recorded fronts and the full method's, of 255."""
    names = (FULL_FITTED, ablations.runs_of(row, records)[0])
    a, b = (views for name in names if (views := recorded_views(name, (0.0,))) is not None)
    return 127.5 * float((a - b).abs().mean())


# --- exercises --------------------------------------------------------------------------------------------------------

_TERMS = [("L_kd", 0.0, 0), ("L_kd", 180.0, 0), ("L_kd", 0.0, 1), ("L_rgb", 30.0, 2), ("L_rgb", -120.0, 0)]
_TERMS += [("L_rgb", -30.0, 1), ("D_front", 60.0, 1), ("D_front", 120.0, 0), ("D_back", -120.0, 0)]


def _speaks(term: str, yaw: float, plane: int) -> bool:
    if term == "L_kd":
        return plane == 0
    return {"L_rgb": abs(yaw) <= 45, "D_front": abs(yaw) <= 90, "D_back": abs(yaw) > 90}[term]


speaks = Exercise(
    truth=_speaks,
    cases=[*_TERMS, ("D_back", 0.0, 2)],
    mistakes={
        "L_kd compares planes before anything is rendered: no camera closes it": lambda t, y, p: (
            p == 0 and abs(y) <= 45 if t == "L_kd" else _speaks(t, y, p)
        ),
        "an image is made of all three planes": lambda t, y, p: _speaks(t, y, p) and p == 0,
        "a camera at -30 degrees is as near to the front as one at +30: take |yaw|": lambda t, y, p: (
            y >= 0 and _speaks(t, y, p) if t == "L_rgb" else _speaks(t, y, p)
        ),
        "beyond 90° D_front gives no gradient": lambda t, y, p: True if t == "D_front" else _speaks(t, y, p),
    },
)


def _verdict(low: Tensor, high: Tensor) -> int:
    signs = torch.sign(low) * (torch.sign(low) == torch.sign(high))
    if not bool((signs != 0).any()) or len(signs[signs != 0].unique()) > 1:
        return 0
    return 2 if len(low) > 1 and bool((signs != 0).all()) else 1


verdict = Exercise(
    truth=_verdict,
    cases=[
        (vector(0.4, 0.1), vector(0.9, 0.8)),
        (vector(0.4, -0.1), vector(0.9, 0.8)),
        (vector(0.4), vector(0.9)),
        (vector(-0.4, -0.2), vector(0.1, 0.3)),
        (vector(0.4, -0.9), vector(0.9, -0.2)),
        (vector(-0.9, -0.8), vector(-0.2, -0.1)),
    ],
    mistakes={
        "one run can at best *suggest*": lambda *ends: _verdict(*(e.repeat(2) for e in ends)),
        "two runs on different sides of 0 contradict each other": lambda low, high: _verdict(
            low.abs().minimum(high.abs()) * ((low > 0) == (high > 0)), low.abs() + high.abs()
        ),
        "a difference below 0 counts as well": lambda *ends: _verdict(*(e.clamp_min(0) for e in ends)),
        "the mean difference alone says nothing: look whether its interval contains 0": lambda low, high: (
            2 if bool((low + high > 0).all()) or bool((low + high < 0).all()) else 0
        ),
    },
)
