"""A small check that weights are the recorded ones: a few samples, measured again on a laptop.

The record holds, for every generator in the box, the frontal kernel distance of untruncated samples to 200 real
images, whose features lie beside it, and 32 means over the samples' features. The same weights give the same samples
and so the same numbers up to rounding; other weights do not, be they worse, better or just as good. The distance
itself is not the tables' (those take 10,000 samples): only figures of one number of samples compare.

    python -m head3d_core live-check --write       # records all bundled generators (and, with OpenGL, real features)
    python -m head3d_core live-check               # compares all of them
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.evaluation.samples import Model, cycled
from head3d_core.metrics.distances import KD_SCALE, kernel_distance
from head3d_core.metrics.features import extract, feature_network
from head3d_core.model.generator import Generator
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate
from head3d_core.utils.nested import parsed

COUNTS = FEW, COUNT = 50, 200
"""Numbers of samples that are recorded; the fewer are enough to find wrong weights out."""
RECORD = files.DATA / "results" / "live_check.json"
REAL = files.DATA / "results" / "live_check_real.npz"
RELATIVE, ABSOLUTE = 0.02, 0.02
"""A distance (times 100) may differ by this share of itself plus this much: GPU and CPU round differently."""
MEANS = 32
_BATCH = 4
SHIFT = 0.03
"""Means may differ by so many standard deviations over samples."""
COMMAND = "python -m head3d_core live-check --write"


@dataclass(frozen=True)
class LiveCheckArgs:
    """Measures a few samples of bundled generators and compares them with the record."""

    weights: tuple[str, ...] = ()
    """Bundled names; default: every bundled generator."""
    count: int = COUNT
    """Samples: 50 or 200."""
    write: bool = False
    """Write the record of these generators instead, for both numbers of samples."""
    record: Path = RECORD
    """The record."""
    device: str = "cpu"
    """cpu or cuda."""


@dataclass(frozen=True)
class Measured:
    """What is recorded of one generator and one number of samples."""

    kernel: Estimate
    """Kernel distance times 100."""
    means: tuple[float, ...]
    """[32] means of the features along fixed directions."""


@dataclass(frozen=True)
class Verdict:
    """What a live check found."""

    measured: Estimate
    """Kernel distance times 100."""
    recorded: Estimate
    allowed: float
    """Largest difference of the two values."""
    shift: float
    """Largest difference of the means, in standard deviations over samples."""

    @property
    def same(self) -> bool:
        """Whether the weights are the recorded ones, as far as these numbers tell."""
        return abs(self.measured.value - self.recorded.value) <= self.allowed and self.shift <= SHIFT

    def __str__(self) -> str:
        word = "as recorded" if self.same else "NOT as recorded"
        return (
            f"{word}: KD x100 {self.measured.value:.2f} now, {self.recorded.value:.2f} recorded "
            f"(allowed ± {self.allowed:.2f}); means shifted by {self.shift:.3f} sd at most (allowed {SHIFT})"
        )


def bundled() -> list[str]:
    """Every generator in the box: the folders of `data/weights` that hold one."""
    return sorted(path.parent.name for path in (files.DATA / "weights").glob("*/generator.safetensors"))


def load_real(path: Path = REAL) -> tuple[Tensor, Tensor]:
    """Features [200, 1280] of real frontal images, and their cameras [200, 25]."""
    if not path.is_file():
        raise Head3DError(f"{path} is not there: run `{COMMAND}` (needs OpenGL)")
    with np.load(path, allow_pickle=False) as stored:
        return torch.from_numpy(stored["features"].astype(np.float32)), torch.from_numpy(stored["camera"])


def write_real() -> None:
    """Renders the first frontal held-out faces and stores their features (float16). Needs OpenGL."""
    from head3d_core.evaluation.real import frontal_pictures
    from head3d_core.synth.make_data import render

    drawn = render("held_out_faces", frontal_pictures("held_out_faces", COUNT), 256)
    features = extract(feature_network("efflite0"), torch.from_numpy(drawn.images), 16)
    with files.atomic(REAL) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, features=features.numpy().astype(np.float16), camera=drawn.labels)


def sample_features(G: Generator, camera: Tensor, count: int) -> Tensor:
    """Features [count, 1280] of the first samples without truncation, seen from cameras [N, 25] in turn."""
    network = feature_network("efflite0", G.device)
    model, rows = Model(G), []
    for start in range(0, count, _BATCH):
        numbers = range(start, min(start + _BATCH, count))
        images, _ = model.view(model.heads(numbers, 0, 1.0), cycled(camera, numbers))
        rows.append(extract(network, images, _BATCH).cpu())
    return torch.cat(rows)


def summarise(features: Tensor, real: Tensor) -> tuple[Measured, Tensor]:
    """What is recorded of features [N, d] beside real ones, and the spreads [32] of the means over samples."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(features.shape[1], MEANS, generator=generator, dtype=torch.float64)
    along = features.double() @ directions
    distance = kernel_distance(real, features).times(KD_SCALE)
    return Measured(distance, tuple(along.mean(0).tolist())), along.std(0)


def check_live(G: Generator, name: str, count: int = COUNT, record: Path = RECORD) -> Verdict:
    """Measures `count` samples of G and compares them with what is recorded of the generator of that name.

    Raises:
        Head3DError: no record of it, or none with so many samples.
    """
    known = records.load(record, COMMAND)["generators"]
    if f"{count}" not in known.get(name, {}):
        there = ", ".join(f"{n} ({', '.join(k for k in one if k.isdigit())})" for n, one in known.items())
        raise Head3DError(
            f"{record} has nothing of {name!r} with {count} samples: it has {there or 'nothing'}"
        )
    recorded: Measured = parsed(Measured, known[name][f"{count}"], name)
    features, camera = load_real()
    measured, spreads = summarise(sample_features(G, camera, count), features)
    shift = (torch.tensor(measured.means) - torch.tensor(recorded.means)).abs() / spreads.clamp_min(1e-9)
    allowed = ABSOLUTE + RELATIVE * abs(recorded.kernel.value)
    return Verdict(measured.kernel, recorded.kernel, allowed, float(shift.max()))


def write_record(generators: dict[str, Generator], record: Path = RECORD) -> Path:
    """Writes the record of generators by name; those of other names that it held stay."""
    features, camera = load_real()
    known = records.load(record, COMMAND)["generators"] if record.is_file() else {}
    for name, G in generators.items():
        drawn = sample_features(G, camera, max(COUNTS))
        of = {f"{n}": asdict(summarise(drawn[:n], features)[0]) for n in COUNTS}
        known[name] = {"digest": Model(G).digest(), **of}
    device = next(iter(generators.values())).device
    about = records.provenance(COMMAND, device, generators=sorted(generators))
    return records.write(record, {"features": "EffLite0", "provenance": about, "generators": known})


def run(args: LiveCheckArgs) -> int:
    """The command `live-check`: exit status 1 if any weights are not the recorded ones."""
    names = args.weights or tuple(bundled())
    generators = {Path(name).name: checkpoint.load_generator(name, args.device) for name in names}
    if args.write:
        if not REAL.is_file():
            write_real()
        print(f"wrote {write_record(generators, args.record)}")
        return 0
    verdicts = {name: check_live(G, name, args.count, args.record) for name, G in generators.items()}
    for name, verdict in verdicts.items():
        print(f"{name}: {verdict}")
    return 0 if all(verdict.same for verdict in verdicts.values()) else 1
