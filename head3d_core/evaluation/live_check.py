"""A small check that weights are the recorded ones: 200 samples, measured again on a laptop.

The record holds the frontal kernel distance of 200 untruncated samples to 200 real pictures, whose features lie beside
it, and 32 means over the samples' features. The same weights give the same samples and so the same numbers up to
rounding; other weights do not, be they worse, better or just as good. The distance itself is not the tables' (those
take 10,000 samples): only records of one N compare.

    python -m head3d_core live-check --write       # makes the record (and, with OpenGL, the real features)
    python -m head3d_core live-check               # compares
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.evaluation.sampling import Model
from head3d_core.metrics.distances import KD_SCALE, kernel_distance
from head3d_core.metrics.features import extract, feature_network
from head3d_core.model.generator import Generator
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate

COUNT = 200
RECORD = files.DATA / "results" / "live_check.json"
REAL = files.DATA / "results" / "live_check_real.npz"
FEW = 50
"""Samples that are enough to find wrong weights out."""
RECORD_OF_FEW = RECORD.with_name(f"live_check_{FEW}.json")
"""`live-check --write --count 50 --record data/results/live_check_50.json`."""
RELATIVE, ABSOLUTE = 0.02, 0.02
"""A distance (times 100) may differ by this share of itself plus this much: GPU and CPU round differently."""
MEANS = 32
SHIFT = 0.03
"""Means may differ by so many standard deviations over samples."""


@dataclass(frozen=True)
class LiveCheckArgs:
    """Measures 200 samples and compares them with the record."""

    weights: str = "head3d"
    """A bundled name or a path."""
    count: int = COUNT
    """Samples; only a record of the same number compares."""
    write: bool = False
    """Write the record instead."""
    record: Path = RECORD
    """The record."""
    device: str = "cpu"
    """cpu or cuda."""


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
            f"(N = {self.measured.count}); means moved by {self.shift:.2f} standard deviations, {SHIFT} are allowed"
        )


def load_real(path: Path = REAL) -> tuple[Tensor, Tensor]:
    """Features float32 [N, 1280] and cameras [N, 25] of real frontal pictures (held-out faces)."""
    if not path.is_file():
        raise Head3DError(f"{path} is not there: python -m head3d_core live-check --write makes it (OpenGL)")
    with np.load(path, allow_pickle=False) as stored:
        return torch.from_numpy(stored["features"].astype(np.float32)), torch.from_numpy(stored["camera"])


def write_real(path: Path = REAL, count: int = COUNT, workers: int = 0) -> Path:
    """Renders the first `count` frontal held-out faces and stores their features (float16). Needs OpenGL."""
    from head3d_core.evaluation.references import frontal_pictures
    from head3d_core.synth.make_data import render

    drawn = render("held_out_faces", frontal_pictures("held_out_faces", count), 256, workers)
    return store_real(torch.from_numpy(drawn.images), torch.from_numpy(drawn.labels), path)


def store_real(images: Tensor, camera: Tensor, path: Path = REAL) -> Path:
    """Stores features of uint8 [N, 3, 256, 256] with their cameras [N, 25]."""
    features = extract(feature_network("efflite0"), images, 16).numpy().astype(np.float16)
    with files.atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, features=features, camera=camera.numpy().astype(np.float32))
    return path


def sample_features(
    G: Generator, camera: Tensor, count: int = COUNT, batch: int = 4, seed: int = 0
) -> Tensor:
    """Features [count, 1280] of the first samples without truncation, seen from cameras [N, 25] in turn."""
    network = feature_network("efflite0", G.device)
    model, rows = Model(G), []
    for start in range(0, count, batch):
        numbers = range(start, min(start + batch, count))
        cameras = camera[torch.arange(numbers.start, numbers.stop) % len(camera)]
        rows.append(extract(network, model.view(model.heads(numbers, seed, 1.0), cameras)[0], batch).cpu())
    return torch.cat(rows)


def summarise(features: Tensor, real: Tensor) -> tuple[Estimate, Tensor, Tensor]:
    """Kernel distance times 100 of features [N, d] to real ones; means [32] and spreads [32] along fixed directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(features.shape[1], MEANS, generator=generator, dtype=torch.float64)
    along = features.double() @ directions
    return kernel_distance(real, features).times(KD_SCALE), along.mean(0), along.std(0)


def check_live(
    G: Generator, record: Path = RECORD, count: int = COUNT, real: tuple[Tensor, Tensor] | None = None
) -> Verdict:
    """Measures `count` samples of G and compares them with the record.

    Raises:
        Head3DError: no record, or one of another number of samples.
    """
    known = records.load(record, "python -m head3d_core live-check --write")
    if known["count"] != count:
        raise Head3DError(
            f"{record} was made with {known['count']} samples, this check has {count}: "
            "distances compare only at one N"
        )
    features, camera = load_real() if real is None else real
    measured, means, spreads = summarise(sample_features(G, camera, count), features)
    recorded = Estimate(**known["kernel x100"])
    shift = (means - torch.tensor(known["means"])).abs() / spreads.clamp_min(1e-9)
    return Verdict(measured, recorded, ABSOLUTE + RELATIVE * abs(recorded.value), float(shift.max()))


def write_record(G: Generator, args: LiveCheckArgs, real: tuple[Tensor, Tensor] | None = None) -> Estimate:
    """Writes the record of G."""
    features, camera = load_real() if real is None else real
    found, means, _ = summarise(sample_features(G, camera, args.count), features)
    text = {
        "weights": args.weights,
        "digest": Model(G).digest(),
        "count": args.count,
        "kernel x100": {k: round(v, 5) for k, v in asdict(found).items()},
        "means": [round(float(x), 5) for x in means],
        "features": "EffLite0",
        **records.provenance(
            f"python -m head3d_core live-check --weights {args.weights} --count {args.count} --write",
            G.device,
        ),
    }
    records.write(args.record, text)
    return found


def run(args: LiveCheckArgs) -> int:
    """The command `live-check`: exit status 1 if the weights are not the recorded ones."""
    G = checkpoint.load_generator(args.weights, args.device)
    if args.write:
        if not REAL.is_file():
            write_real()
        print(f"{args.weights}: KD x100 {write_record(G, args)}")
        return 0
    verdict = check_live(G, args.record, args.count)
    print(f"{args.weights}: {verdict}")
    return 0 if verdict.same else 1
