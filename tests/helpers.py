"""What several test files share: paths, refusals, processes, small generators, recorded numbers and a web server."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from head3d_core.config import preset
from head3d_core.evaluation import rows
from head3d_core.evaluation.rows import Behind, Distance, Ghost, Identity, People, Row
from head3d_core.metrics.ghost import SCORES
from head3d_core.metrics.identity_encoder import Encoder, IdentityNet
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PACKAGE = ROOT / "head3d_core"
COURSE = ROOT / "notebooks" / "head3d_course"
SAMPLES = ROOT / "data" / "samples"


def refused(sentence: str) -> pytest.RaisesExc[Head3DError]:
    """Expects a Head3DError whose text matches the regular expression `sentence`."""
    return pytest.raises(Head3DError, match=sentence)


def refuses(sentence: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Checks that a call ends in a Head3DError of one line, whose text matches the regular expression `sentence`."""
    with refused(sentence) as info:
        function(*args, **kwargs)
    assert "\n" not in str(info.value)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python with `arguments` in a process of its own, which must end with status 0."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address under which a folder is served over HTTP."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Writes nothing to stderr."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def project(points: Tensor, camera: Tensor) -> Tensor:
    """Image coordinates (0 to 1) of world points [N, 3] or [3], each in one of the cameras [N, 25]: [N, 2]."""
    cam2world, intrinsics = cameras.unpack(camera)
    seen = torch.einsum("nji,nj->ni", cam2world[:, :3, :3], points - cam2world[:, :3, 3])
    return torch.einsum("nij,nj->ni", intrinsics, seen / seen[:, 2:])[:, :2]


# -- small networks ------------------------------------------------------------------------------------------------


def visible(seed: int = 0) -> Generator:
    """A tiny untrained generator whose density varies in space, so that silhouettes differ between seeds."""
    torch.manual_seed(seed)
    G = Generator(preset("tiny").generator).eval().requires_grad_(False)
    points = torch.rand(1, 2000, 3) - 0.5
    ws = G.mapping(torch.randn(1, G.z_dim), cameras.frontal())
    sigma, _ = G.query(G.planes(ws), points)
    # Scaled so that about half of the cube is solid (raw sigma 10 and more) and half of it empty.
    last: Any = G.decoder.net["2"]
    scale = 20 / float(sigma.std())
    last.bias[0] = scale * float(last.bias[0] - sigma.median()) + 5
    last.weight[0] *= scale
    return G


def untrained_encoder(seed: int = 1) -> Encoder:
    """An identity encoder with random weights."""
    torch.manual_seed(seed)
    return Encoder(IdentityNet().eval().requires_grad_(False), "untrained").eval()


# -- EG3D's numbers ------------------------------------------------------------------------------------------------


@functools.cache
def golden() -> dict[str, Any]:
    """The parity file's arrays by name, and "meta"."""
    with np.load(TESTS / "golden" / "eg3d_parity_a.npz", allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files if name != "meta"}
        return {"meta": json.loads(str(file["meta"])), **arrays}


def state(prefix: str) -> dict[str, Tensor]:
    """The parameters of one network in the parity file: "G." or "D."."""
    return {k[2:]: v.float() for k, v in golden().items() if k.startswith(prefix)}


# -- records of evaluations ----------------------------------------------------------------------------------------


def estimate(value: float, spread: float = 0.01, count: int = 1000) -> Estimate:
    """An estimate with a symmetric interval."""
    return Estimate(value, value - spread, value + spread, count)


def rate(found: int, count: int = 1000) -> Estimate:
    """A share with an interval of one per cent to either side."""
    return estimate(found / count, 0.01, count)


def named(records: dict[str, Row]) -> dict[str, Row]:
    """The records with row, seed, start and run of the stored records of their names."""
    known = rows.load_rows()
    names = {name: known.get(name, Row(name, start="fitted")) for name in records}
    return {
        name: replace(found, row=of.row, seed=of.seed, start=of.start, run=of.run)
        for (name, found), of in zip(records.items(), names.values(), strict=True)
    }


def distance(kd: float, spread: float = 0.01, **more: Any) -> Distance:
    """A recorded distance."""
    return Distance("EffLite0", 1000, 500, estimate(kd, spread), estimate(0.0), **more)


def identity(cosine: float = 0.85, tar: float = 0.95, auc: float = 0.97) -> Identity:
    """What is recorded of the same z."""
    return Identity(estimate(auc), estimate(tar), 0.4, 0.9, 1000, 10_000, estimate(cosine), estimate(0.1))


def behind(ghosts: int = 50, hair: float = 0.9, count: int = 1000) -> Behind:
    """What is recorded of backs: so many of each ghost score above the limit, one correlation of hair colour."""
    one = Ghost(rate(ghosts, count), rate(0, count))
    colours = {name: estimate(hair, count=count) for name in ("L*", "a*", "b*")}
    every = dict.fromkeys(SCORES, (0.5,) * count)
    return Behind(
        dict.fromkeys(SCORES, one), every, estimate(0.5, count=count), colours, colours, rate(20, count)
    )


def record(kd: float, back: float = 1.0, spread: float = 0.01, **changes: Any) -> Row:
    """What `evaluate` writes, with a few chosen numbers."""
    floors = {"frechet": estimate(60.0, 1.0), "frechet_floor": estimate(20.0, 1.0)}
    sides = {"front": distance(kd, spread, **floors), "back": distance(back, spread, real_heads=50, **floors)}
    made = Row(
        "head3d",
        start="bundled",
        distance=sides | {"front, truncated": distance(kd + 1, spread)},
        detector={"front": rate(980), "back": rate(10)},
        identity=identity(),
        people=People(estimate(0.9), estimate(0.0, 0.0005)),
        behind=behind(),
        silhouettes={"front": rate(0), "back": rate(5)},
        weights={"images": 200_000, "minutes": 12.3},
    )
    return replace(made, **changes)
