"""Notebook 03: what a fused kernel saves."""

from __future__ import annotations

from typing import Any

import torch

from head3d_core import ops
from head3d_core.config import RenderOptions
from head3d_core.model import cameras, rays
from head3d_core.model.planes import Decoder
from head3d_core.model.volume import render_rays
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError
from head3d_course import figures, recorded
from head3d_course.exercises import Exercise, choice, vector


def provenance(table: dict[str, Any]) -> str:
    """One line: device, instruction set, torch, date and commit of a recorded table."""
    parts = [str(table.get(key, "")) for key in ("device", "instruction_set")]
    named = [p for p in (*parts, f"torch {table.get('torch', '?')}") if p and p != "none"]
    return f"{', '.join(named)}, {table.get('date')}, commit {table.get('commit')}"


def agreement() -> float:
    """Largest difference between the fused renderer and the reference over the largest value.

    Measured here where the extension is built; elsewhere the recorded figure of the same comparison.
    """
    if not ops.available():
        return float(recorded.record("fused_cpu")["agreement"])
    torch.manual_seed(0)
    weights = Decoder(32, 64, 32).weights()
    planes = torch.randn(1, 3, 32, 64, 64)
    ray = rays.camera_rays(cameras.orbit(0.3), 16)
    with torch.no_grad():
        slow, fast = (
            render_rays(planes, weights, *ray, RenderOptions(), backend=backend).features
            for backend in ("reference", "native")
        )
    return float((slow - fast).abs().max() / slow.abs().max())


def fused_curves(table: dict[str, Any]) -> Any:
    """Time and memory against resolution, reference and fused, from a recorded table."""
    figure, axes = figures.panels(10, 3.8, 1, 2)
    quantities = (("seconds", 1e3, "time (ms)"), ("bytes", 2.0**-20, "extra memory (MiB)"))
    for axis, (key, scale, label) in zip(axes, quantities, strict=True):
        for k, (backend, name) in enumerate((("reference", "reference"), ("native", "fused C++"))):
            rows = [r for r in table["rows"] if r["backend"] == backend]
            x = [r["resolution"] for r in rows]
            figures.curve(axis, k, x, [max(r[key] * scale, 0.05) for r in rows], name)
        axis.set(xscale="log", yscale="log", xlabel="resolution (pixels per side)", ylabel=label)
        axis.set_xticks(x, [f"{v}²" for v in x])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def speedups(table: dict[str, Any]) -> dict[int, float]:
    """Seconds of the reference over those of the fused renderer, by resolution."""
    value = {(r["backend"], r["resolution"]): float(r["seconds"]) for r in table["rows"]}
    return {r: value["reference", r] / value["native", r] for b, r in value if b == "native"}


def show_code(path: str, first: str, last: str) -> None:
    """Shows a file below csrc/ from the line that contains `first` through the next that contains `last`."""
    from IPython.display import Markdown, display

    source = files.DATA.parent / "csrc" / path
    if not source.is_file():
        raise Head3DError(f"no {source}: an installed package has no C++ sources, work in a clone")
    lines = source.read_text(encoding="utf8").splitlines()
    start = next((k for k, line in enumerate(lines) if first in line), len(lines))
    end = next((k for k in range(start, len(lines)) if last in lines[k]), None)
    if end is None:
        raise Head3DError(f"{path} has no lines from {first!r} to {last!r}")
    code = "\n".join(lines[start : end + 1])
    display(Markdown(f"```cpp\n{code}\n```"))


def gpu_lines(table: dict[str, Any]) -> list[str]:
    """The renderer's rows of a recorded GPU table as text: milliseconds, memory, and factors against two peers."""
    rows = [r for r in table["rows"] if str(r["op"]).startswith("render") and r.get("scene") == "haze"]
    reference = {r["op"]: r for r in rows if r["case"] == "reference"}
    lines = [f"{'':24s}{'case':>20s}{'ms':>8s}{'GiB':>7s}{'vs reference':>14s}{'vs EG3D':>9s}"]
    for row in rows:
        if row["op"] not in reference or row["case"] not in (
            "compiled reference",
            "reference",
            "strict",
            "mixed",
        ):
            continue
        name, slower, eg3d = row["op"], reference[row["op"]]["ms"] / row["ms"], row["eg3d_ms"] / row["ms"]
        lines.append(
            f"{name:24s}{row['case']:>20s}{row['ms']:8.1f}{row['gib']:7.2f}{slower:13.1f}x{eg3d:8.1f}x"
        )
    released = {r["op"]: r["eg3d_ms"] for r in reference.values()}
    lines.append("EG3D's released code: " + ", ".join(f"{op} {ms:.1f} ms" for op, ms in released.items()))
    return lines


# --- exercises --------------------------------------------------------------------------------------------------------


share_of_traffic = choice("03.share_of_traffic")


texel_offset = Exercise(
    truth=lambda plane, row, column, channel, channels, height, width: (
        ((plane * height + row) * width + column) * channels + channel
    ),
    cases=[(0, 0, 0, 1, 32, 256, 256), (1, 2, 3, 4, 32, 16, 8), (2, 7, 0, 0, 8, 8, 16)],
    mistakes={
        "that is channels first": lambda p, r, q, k, c, h, w: ((p * c + k) * h + r) * w + q,
        "row and column are exchanged": lambda p, r, q, k, c, h, w: ((p * h + q) * w + r) * c + k,
        "where do planes 1 and 2 start? Count whole planes": lambda p, r, q, k, c, h, w: (r * w + q) * c + k,
    },
)


# Fewest samples whose colour must be computed so that the rest weighs at most `tolerance` together.
colours_needed = Exercise(
    truth=lambda weights, tolerance: int((weights.sort().values.cumsum(0) > tolerance).sum()),
    cases=[
        (vector(0.0, 0.0, 0.5, 0.3, 0.2, 0.0), 0.01),
        (vector(0.004, 0.9, 0.004, 0.004), 0.009),
        (vector(0.25, 0.25, 0.25, 0.25), 0.6),
    ],
    mistakes={
        "each one is below the tolerance, but bound their sum": lambda w, t: int((w > t).sum()),
        "tiny weights may be dropped too, up to that sum": lambda w, t: int((w > 0).sum()),
    },
)
