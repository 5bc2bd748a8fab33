"""Execute the notebooks in reading order, headless; executed copies and HTML go to out/notebooks/.

    python tests/run_notebooks.py              # all of them
    python tests/run_notebooks.py 02 06        # those whose names start so
    python tests/run_notebooks.py --in-place   # store the outputs in notebooks/ (what gets committed)
    python tests/run_notebooks.py --record     # keep the run times for the syllabus (then make pages)

The exit status is 1 if any cell failed; the others still run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "notebooks" / "site"))
import build_site  # noqa: E402

OUT = ROOT / "out" / "notebooks"
SECONDS = ROOT / "data" / "results" / "notebook_seconds.json"


def chosen(prefixes: list[str]) -> list[Path]:
    """The numbered notebooks, in order; all of them or those with one of the prefixes."""
    every = sorted((ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
    unknown = [p for p in prefixes if not any(n.name.startswith(p) for n in every)]
    if unknown:
        raise SystemExit(
            f"no notebook starts with {', '.join(unknown)}; there are {', '.join(n.stem for n in every) or 'none'}."
        )
    return [n for n in every if not prefixes or n.name.startswith(tuple(prefixes))]


def execute(path: Path, timeout: int, in_place: bool) -> str | None:
    """Run one notebook and write its copies; returns the error, or None."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from tqdm import tqdm

    notebook = nbformat.read(path, as_version=4)
    bar = tqdm(
        total=sum(c.cell_type == "code" for c in notebook.cells), desc=path.stem, unit="cell", leave=False
    )
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_executed=lambda **_: bar.update(),
    )
    error = None
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as problem:
        error = re.sub(r"\x1b\[[0-9;]*m", "", str(problem)).strip()  # without terminal colours
    finally:
        bar.close()
    settle(notebook)
    text = nbformat.writes(notebook)
    text += "" if text.endswith("\n") else "\n"
    write(OUT / path.name, text)
    write(OUT / path.with_suffix(".html").name, build_site.standalone(notebook))
    if in_place and error is None:
        write(path, text)
    return error


def settle(notebook: Any) -> None:
    """Takes out what belongs to one run: time stamps, the version of Python, and widgets, whose stills stay."""
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


def write(path: Path, text: str) -> None:
    """Write through a temporary file, so that an interruption leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf8")
    os.replace(partial, path)


def record(seconds: dict[str, float]) -> None:
    """Keep run times and what they were measured on: with the extension, or without where it is missing or off."""
    from head3d_core import ops
    from head3d_core.utils import records

    kept = json.loads(SECONDS.read_text(encoding="utf8")) if SECONDS.is_file() else {}
    entry = kept.setdefault("extension" if ops.available() else "without", {})
    hidden = "" if ops.available() else "HEAD3D_DISABLE_NATIVE=1 "
    entry["provenance"] = records.provenance(f"{hidden}python tests/run_notebooks.py --record")
    entry["provenance"]["cores"] = len(os.sched_getaffinity(0))
    there = {path.stem for path in chosen([])}
    every = {**entry.get("seconds", {}), **seconds}
    entry["seconds"] = {name: every[name] for name in sorted(every) if name in there}
    write(SECONDS, json.dumps(kept, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("prefixes", nargs="*", metavar="NN", help="run those only")
    parser.add_argument("--in-place", action="store_true", help="also store the outputs in notebooks/")
    parser.add_argument("--record", action="store_true", help="keep the run times in data/results/")
    parser.add_argument("--timeout", type=int, default=900, help="seconds for one cell (default 900)")
    args = parser.parse_args()

    os.environ.setdefault("HEAD3D_PREDICTIONS", "")  # stored outputs are without anybody's guesses
    paths = chosen(args.prefixes)
    seconds: dict[str, float] = {}
    failures = 0
    for number, path in enumerate(paths, 1):
        start = time.perf_counter()
        error = execute(path, args.timeout, args.in_place)
        seconds[path.stem] = round(time.perf_counter() - start, 1)
        print(
            f"{number}/{len(paths)} {path.stem}: {'failed' if error else 'ok'}, {seconds[path.stem]:.0f} s",
            flush=True,
        )
        if error:
            failures += 1
            print("    " + "\n    ".join(error.splitlines()[-12:]), flush=True)
    write(OUT / "seconds.json", json.dumps(seconds, indent=2) + "\n")
    if args.record and not failures:
        record(seconds)
    print(f"{len(paths) - failures} of {len(paths)} notebooks ran; copies in {OUT.relative_to(ROOT)}.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
