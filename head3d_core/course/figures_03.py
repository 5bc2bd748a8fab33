"""Figures and recorded tables of notebook 03: what a fused kernel saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from head3d_core import ops
from head3d_core.config import RenderOptions
from head3d_core.course.figures import PALETTE
from head3d_core.model import cameras, rays
from head3d_core.model.decoder import Decoder
from head3d_core.model.volume import render_rays
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import DATA


def recorded(name: str) -> dict[str, Any]:
    """A table of `data/results/` by its file name without ending."""
    path = DATA / "results" / f"{name}.json"
    if not path.exists():
        raise Head3DError(f"no recorded table {path.name} in data/results: was the repository cloned whole?")
    return dict(json.loads(path.read_text(encoding="utf8")))


def provenance(table: dict[str, Any]) -> str:
    """One line: device, instruction set, torch, date and commit of a recorded table."""
    parts = [
        str(table.get("device", "")),
        str(table.get("instruction_set", "")),
        f"torch {table.get('torch', '?')}",
    ]
    return (
        ", ".join([p for p in parts if p and p != "none"])
        + f", {table.get('date')}, commit {table.get('commit')}"
    )


def agreement(resolution: int = 16) -> float:
    """Largest difference between the fused renderer and the reference over the largest value.

    Measured here where the extension is built; elsewhere the recorded figure of the same comparison.
    """
    if not ops.available():
        return float(recorded("fused_cpu")["agreement"])
    torch.manual_seed(0)
    weights = Decoder(32, 64, 32).weights()
    planes = torch.randn(1, 3, 32, 64, 64)
    origins, directions = rays.camera_rays(cameras.orbit(0.3), resolution)
    with torch.no_grad():
        slow, fast = (
            render_rays(planes, weights, origins, directions, RenderOptions(), backend=b).features
            for b in ("reference", "native")
        )
    return float((slow - fast).abs().max() / slow.abs().max())


def fused_curves(table: dict[str, Any]) -> Any:
    """Time and memory against resolution, reference and fused, from a recorded table."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axis, key, scale, label in (
        (axes[0], "seconds", 1e3, "time (ms)"),
        (axes[1], "bytes", 2.0**-20, "extra memory (MiB)"),
    ):
        for k, (backend, name) in enumerate((("reference", "reference"), ("native", "fused C++"))):
            rows = [r for r in table["rows"] if r["backend"] == backend]
            x = [r["resolution"] for r in rows]
            y = [max(r[key] * scale, 0.05) for r in rows]
            axis.plot(x, y, ("-o", "--s")[k], color=PALETTE[k], label=name)
        axis.set(xscale="log", yscale="log", xlabel="resolution (pixels per side)", ylabel=label)
        axis.set_xticks(x, [f"{v}²" for v in x])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def speedups(table: dict[str, Any], key: str = "seconds") -> dict[int, float]:
    """Reference over fused, by resolution."""
    value = {(r["backend"], r["resolution"]): float(r[key]) for r in table["rows"]}
    return {r: value["reference", r] / value["native", r] for b, r in value if b == "native"}


def show_code(path: Path | str, first: str, last: str) -> None:
    """Shows a C++ or CUDA file from the line that contains `first` through the next that contains `last`."""
    from IPython.display import Markdown, display

    display(Markdown(f"```cpp\n{code_between(path, first, last)}\n```"))


def code_between(path: Path | str, first: str, last: str) -> str:
    """The text that `show_code` shows.

    Raises:
        Head3DError: if either marker is not in the file.
    """
    lines = Path(path).read_text(encoding="utf8").splitlines()
    start = next((k for k, line in enumerate(lines) if first in line), None)
    end = None if start is None else next((k for k in range(start, len(lines)) if last in lines[k]), None)
    if start is None or end is None:
        raise Head3DError(f"{path} has no lines from {first!r} to {last!r}")
    return "\n".join(lines[start : end + 1])


def gpu_lines(table: dict[str, Any], scene: str = "haze") -> list[str]:
    """The renderer's rows of a recorded GPU table as text: milliseconds, memory, and factors against two peers."""
    rows = [r for r in table["rows"] if str(r["op"]).startswith("render") and r.get("scene") == scene]
    reference = {r["op"]: r for r in rows if r["case"] == "reference"}
    lines = [f"{'':24s}{'case':>10s}{'ms':>8s}{'GiB':>7s}{'vs reference':>14s}{'vs EG3D':>9s}"]
    for row in rows:
        if row["case"] not in ("reference", "strict", "mixed"):
            continue
        slower = reference[row["op"]]["ms"] / row["ms"]
        lines.append(
            f"{row['op']:24s}{row['case']:>10s}{row['ms']:8.1f}{row['gib']:7.2f}{slower:13.1f}x"
            f"{row['eg3d_ms'] / row['ms']:8.1f}x"
        )
    released = {r["op"]: r["eg3d_ms"] for r in rows if "eg3d_ms" in r}
    lines.append("EG3D's released code: " + ", ".join(f"{op} {ms:.1f} ms" for op, ms in released.items()))
    return lines
