"""`evaluate WEIGHTS`: everything that the tables, the model cards and notebooks 08 to 15 say about a generator.

One row is one JSON file and a few picture grids. The terms (frontal, back, detection, near-duplicate) are those of
`completeness.py` and `verification.py`; the real pictures are `references.py`'s, the samples `sampling.py`'s. Distances
are measured on samples without truncation, everything else at truncation 0.7.

    python -m head3d_core evaluate head3d
    python -m head3d_core evaluate plane-swap        # the head generator with the teacher's F_xy put in, untrained
    python -m head3d_core evaluate real              # the real data's own figures
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from tyro.conf import Positional, arg

from head3d_core import ops
from head3d_core.evaluation.figures import (
    detected_share,
    figures_by_yaw,
    people_figures,
    real_pairs,
    row_figures,
    set_distance,
    silhouette_spans,
)
from head3d_core.evaluation.pictures import write_pictures
from head3d_core.evaluation.references import Networks, Tensors, Wanted, real_reference
from head3d_core.evaluation.sampling import Model, Sampling, draw_samples
from head3d_core.metrics import distances, identity_encoder
from head3d_core.metrics.features import INCEPTION_FILE, EffLite0, feature_network, inception_path
from head3d_core.metrics.identity_encoder import FACENET_FILE, Encoder, facenet_path, load_encoder
from head3d_core.metrics.verification import FEWEST_ROWS
from head3d_core.model.generator import Generator
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.training.snapshots import open_run
from head3d_core.utils import files, records
from head3d_core.utils.devices import usable_device
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate

SWAP = "plane-swap"
REAL = "real"


@dataclass(frozen=True)
class EvaluateArgs:
    """Measures a generator and writes one JSON and its picture grids."""

    weights: Positional[Annotated[str, arg(metavar="WEIGHTS")]]
    """A bundled name, a path, a training run's folder, "plane-swap", or "real" for the real data's own figures."""
    row: str | None = None
    """Row of the comparison; default: what the weights say, else their name."""
    start: str | None = None
    """What a distillation's discriminators started from: "trained" with their generators, or "fitted" to them."""
    run: int = 1
    """Number of the run with this seed."""
    name: str | None = None
    """Name of the files; default: the row, with seed and run where these are not 0 and 1."""
    teacher: str = "face"
    """The face generator that same-z samples are compared with."""
    head: str = "head"
    """The fine-tuned head generator, for plane-swap and the side-by-side grid; without it there is neither."""
    wanted: Wanted = dataclasses.field(default_factory=Wanted)
    """The real pictures."""
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    """The samples."""
    replicates: int = 200
    """Of the bootstrap."""
    batch: int = 32
    """Pictures at a time; changes nothing but speed and memory."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    encoder: str = "auto"
    """"auto", "ours", "facenet", or "none": identity is then not measured."""
    encoder_file: Path = identity_encoder.WEIGHTS
    """Weights of our own encoder."""
    cache: Path | None = Path("out/evaluation")
    """Folder that keeps what was rendered and measured on real pictures and on the teacher."""
    out: Path = Path("out/evaluation/rows")
    """Folder for the results; the tables read data/results/evaluation."""
    minutes: float | None = None
    """GPU minutes that training took, where the weights do not say."""


def small_args(weights: str, **changes: Any) -> EvaluateArgs:
    """A few of everything at the size of preset `tiny`: a check that it runs, in a minute or two on a CPU."""
    wanted = Wanted("synth:faces:24", "synth:heads:24", 24, 40, 6, 2, resolution=64, workers=1)
    how = Sampling(count=24, detector=24, around=3, turned=1, closed=2, again=12, straight=12)
    return EvaluateArgs(
        weights, **{"wanted": wanted, "sampling": how, "replicates": 50, "batch": 8, **changes}
    )


def open_weights(name: str, device: torch.device | str) -> tuple[Generator, dict[str, Any]]:
    """A generator and what is known about it: of weights, or the averaged one of a training run's folder."""
    run = open_run(name, device)
    return run.generator, run.notes | (_log_facts(Path(name)) if Path(name).is_dir() else {})


def _log_facts(folder: Path) -> dict[str, Any]:
    """Minutes, device and preset of a run, from its log.jsonl (a resumed one starts anew); nothing without one."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return {}
    seconds, last, facts = 0.0, 0.0, {}
    for line in path.read_text(encoding="utf8").splitlines():
        event = json.loads(line)
        if event["event"] == "start":
            seconds, last, facts = seconds + last, 0.0, {"trained_on": event.get("device")}
            facts |= {k: v for k, v in event.get("args", {}).items() if k == "preset"}
        last = float(event.get("seconds", last))
    return facts | {"minutes": round((seconds + last) / 60, 2)}


def _device(name: str) -> str:
    return str(usable_device(name))


def open_networks(args: EvaluateArgs) -> tuple[Networks, dict[str, str]]:
    """The fixed networks and, by name, why something cannot be measured."""
    missing = {}
    encoder: Encoder | None = None
    if args.encoder == "none":
        missing["identity"] = "not asked for"
    else:
        try:
            encoder = load_encoder(args.encoder, _device(args.device), args.encoder_file)  # type: ignore[arg-type]
        except Head3DError as error:
            if args.encoder != "auto":
                raise
            missing["identity"] = str(error)
    device = _device(args.device)
    features = feature_network("auto", device)
    # Named without the folder: a record does not tell where its maker's home is; `run` says it.
    if features.name == EffLite0.name:
        missing["FID, KID"] = f"{INCEPTION_FILE} is not there; measured with {features.name} instead"
    if encoder is not None and not encoder.name.startswith("facenet"):
        missing["identity by facenet"] = f"{FACENET_FILE} is not there; measured with {encoder.name} instead"
    return Networks(features, encoder, device, args.batch), missing


def other_looks(
    encoder: Encoder | None, weights: Path, record: Path = files.DATA / "results" / "identity_roc.json"
) -> float | None:
    """Median cosine of two frontal pictures of one real person, most pairs in two looks, as recorded of these weights.

    None for another encoder, or for weights that the record is not about.
    """
    if (
        encoder is None
        or encoder.name != identity_encoder.NAME
        or not (weights.is_file() and record.is_file())
    ):
        return None
    known = records.load(record, "python data/scripts/identity_train.py")
    about_these = known["provenance"]["sha256"] == files.sha256(weights)
    return float(known["frontal"]["same_median"]) if about_these else None


def command_of(args: EvaluateArgs) -> str:
    """The command line that measures the same: every option that is not the default, but for places on this machine.

    >>> command_of(EvaluateArgs("face", sampling=Sampling(count=200)))
    'python -m head3d_core evaluate face --sampling.count 200'
    """

    def options(one: Any, plain: Any, prefix: str) -> list[str]:
        found = []
        for field in dataclasses.fields(one):
            value, default = getattr(one, field.name), getattr(plain, field.name)
            name = f"{prefix}{field.name}"
            if dataclasses.is_dataclass(value):
                found += options(value, default, f"{name}.")
            elif value != default and name not in ("out", "cache", "encoder_file"):
                found += [f"--{name.replace('_', '-')}", shlex.quote(str(value))]
        return found

    return shlex.join(["python", "-m", "head3d_core", "evaluate", args.weights]) + "".join(
        f" {x}" for x in options(args, EvaluateArgs(args.weights), "")
    )


def provenance(args: EvaluateArgs, networks: Networks) -> dict[str, Any]:
    """What a record was made with."""
    used = {k: v for k, v in dataclasses.asdict(args).items() if k not in ("out", "cache", "encoder_file")}
    return records.provenance(
        command_of(args),
        networks.device,
        arguments=json.loads(json.dumps(used, default=str)),
        native=ops.available(),
        encoder=None if networks.encoder is None else networks.encoder.name,
        sampler_version=SAMPLER_VERSION,
        terms="frontal |yaw| <= 20°, |pitch| <= 15°; back |yaw| >= 135°; detection: MTCNN above 0.9 at 256²; "
        "distances: truncation 1; all else: truncation 0.7; intervals: bootstrap, rates Wilson, 95 %",
    )


def _left_out(wanted: Wanted) -> dict[str, str]:
    """What is not measured because no pictures for it were asked for, and why."""
    if wanted.training:
        return {}
    why = "no training pictures were asked for (Wanted.training = 0)"
    return {"nearest training people": why, "hats and glasses": why}


def evaluate_real(args: EvaluateArgs) -> dict[str, Any]:
    """The figures of real pictures, under the same names as a model's: what "as good as real" would be.

    Distances are those of *training* pictures to held-out ones, which a generator that repeats its data would reach.
    """
    start = time.perf_counter()
    networks, missing = open_networks(args)
    missing |= _left_out(args.wanted)
    reference = real_reference(args.wanted, networks, args.cache)
    facts = {"row": REAL, "seed": 0, "start": "none", "run": 1}
    record: dict[str, Any] = {**facts, "provenance": provenance(args, networks), "missing": missing}
    distance = {}
    for name, theirs in (("front", "faces"), ("back", "heads_back")):
        if reference.has(theirs):
            distance[name] = set_distance(
                reference[f"{name}.features"],
                reference[f"{theirs}.features"],
                networks,
                args.replicates,
                groups=(reference.heads(name), reference.heads(theirs)),
            )
    record["distance"] = distance
    record["detector"] = {k: detected_share(reference[f"{k}.found"]) for k in ("front", "back")}
    if networks.encoder is not None:
        pairs = real_pairs(reference, args.replicates)
        training = reference["faces.face"] if reference.has("faces") else None
        held_out = reference["front.face"][: args.sampling.detector]
        looks = other_looks(networks.encoder, args.encoder_file)
        record["people"] = people_figures(held_out, training, pairs, args.replicates, looks)
        if pairs is not None:
            record["identity"] = pairs.to_dict()
    if reference.has("around"):
        own = {k: reference[k] for k in ("around.features", "around.face", "around.found")}
        record["by_yaw"] = figures_by_yaw(reference, own, networks, args.replicates)
    record["silhouettes"] = {
        "limit": {name: span.limit for name, span in silhouette_spans(reference).items()}
    }
    return _written(record, args, REAL, start)


def _model_of(args: EvaluateArgs, device: str) -> tuple[Model, dict[str, Any]]:
    if args.weights == SWAP:
        G, notes = open_weights(args.head, device)
        T, _ = open_weights(args.teacher, device)
        return Model(G, T), {"row": SWAP, "images": 0, "starts_from": notes.get("images"), "minutes": 0.0}
    G, notes = open_weights(args.weights, device)
    return Model(G), notes


def about_weights(notes: dict[str, Any]) -> dict[str, Any]:
    """What the notes of weights say of their training; seed 0 and 0 images are said, too.

    >>> about_weights({"images": 0, "seed": 0, "row": None, "recipe": {"stage": "head"}})
    {'stage': 'head', 'images': 0, 'seed': 0}
    """
    known = {**notes, "stage": notes.get("stage") or notes.get("recipe", {}).get("stage")}
    names = ("stage", "images", "starts_from", "preset", "seed", "row", "trained_on")
    return {k: known[k] for k in names if known.get(k) is not None}


def facts_of(args: EvaluateArgs, notes: dict[str, Any]) -> dict[str, Any]:
    """What tells this record from others: row, seed, what its discriminators started from, and number of the run.

    >>> facts_of(
    ...     EvaluateArgs("runs/a", start="trained"), {"row": "dft", "seed": 1, "recipe": {"stage": "distill"}}
    ... )
    {'row': 'dft', 'seed': 1, 'start': 'trained', 'run': 1}
    """
    row = args.row or notes.get("row") or Path(args.weights).name
    stage = notes.get("stage") or notes.get("recipe", {}).get("stage")
    start = "untrained" if row == SWAP else args.start if args.start and stage == "distill" else "none"
    return {"row": row, "seed": notes.get("seed") or 0, "start": start, "run": args.run}


def name_of(facts: dict[str, Any]) -> str:
    """Name of a record's files.

    >>> name_of({"row": "dft", "seed": 1, "start": "trained", "run": 2})
    'dft-seed1-run2'
    """
    seed = f"-seed{facts['seed']}" if facts["seed"] else ""
    return facts["row"] + seed + (f"-run{facts['run']}" if facts["run"] > 1 else "")


def _optional(name: str, device: str, like: Model) -> Model | None:
    """Another generator of the same architecture, or None where there is none of that name."""
    try:
        G, _ = open_weights(name, device)
    except Head3DError:
        return None
    return Model(G) if G.config.image_resolution == like.resolution else None


def evaluate_weights(
    args: EvaluateArgs, say: Callable[[str], None] = lambda text: print(text, flush=True)
) -> dict[str, Any]:
    """Measures a generator; writes `<row>.json` and grids into `args.out` and returns the record.

    Raises:
        Head3DError: no such weights, another resolution than the real pictures', pictures that are not finite, or
            too few of something.
    """
    _check(args)
    if args.weights == REAL:
        return evaluate_real(args)
    start = time.perf_counter()
    networks, missing = open_networks(args)
    missing |= _left_out(args.wanted)
    model, notes = _model_of(args, networks.device)
    facts = facts_of(args, notes)
    row = args.name or name_of(facts)
    reference = real_reference(args.wanted, networks, args.cache)
    say(f"{row}: real pictures described, {time.perf_counter() - start:.0f} s")
    samples = draw_samples(model, reference, networks, args.sampling, args.cache)
    teacher = _optional(args.teacher, networks.device, model)
    is_teacher = teacher is not None and teacher.digest() == model.digest()
    theirs: Tensors | None = None
    if teacher is not None and not is_teacher:
        theirs = draw_samples(teacher, reference, networks, args.sampling, args.cache)
    elif teacher is None:
        missing["same z"] = f"no teacher called {args.teacher!r} here"
    say(f"{row}: samples drawn and described, {time.perf_counter() - start:.0f} s")
    record: dict[str, Any] = {
        **facts,
        "weights": {
            "digest": model.digest(),
            "parameters": sum(p.numel() for p in model.generator.parameters()),
            **about_weights(notes),
            "minutes": notes.get("minutes", args.minutes),
        },
        "provenance": provenance(args, networks),
        "missing": missing,
        **row_figures(
            reference,
            networks,
            samples,
            theirs,
            is_teacher,
            args.replicates,
            other_looks(networks.encoder, args.encoder_file),
        ),
    }
    say(f"{row}: measured, {time.perf_counter() - start:.0f} s")
    _written(record, args, row, start)  # whatever happens to the pictures
    others = {
        "teacher": None if is_teacher else teacher,
        "head": _optional(args.head, networks.device, model),
    }
    shown = record.get("worn", {}).get("shown")
    record["pictures"] = write_pictures(
        args.out, row, model, others, reference, samples, args.sampling, is_teacher, shown
    )
    return _written(record, args, row, start)


def _check(args: EvaluateArgs) -> None:
    """What would otherwise show only after the work is done."""
    for name in ("replicates", "batch"):
        if getattr(args, name) < 1:
            raise Head3DError(f"{name} must be at least 1, got {getattr(args, name)}")
    for name, fewest, what in (
        ("count", distances.FEWEST, "a distance"),
        ("detector", FEWEST_ROWS, "a distance and a comparison with the teacher"),
    ):
        if args.weights != REAL and getattr(args.sampling, name) < fewest:
            raise Head3DError(
                f"sampling.{name} is the number of generated samples for {what}, which needs at least {fewest}, "
                f"got {getattr(args.sampling, name)}"
            )
    files.check_writable(args.out / "record.json")


def _written(record: dict[str, Any], args: EvaluateArgs, name: str, start: float) -> dict[str, Any]:
    record["seconds"] = round(time.perf_counter() - start, 1)
    record = _rounded(record)
    records.write(args.out / f"{name}.json", record)
    return record


def _rounded(value: Any) -> Any:
    """Floats to six significant digits: more would only differ between machines; null where there is no number."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def summary(record: dict[str, Any]) -> str:
    """A few lines for the terminal."""
    lines = [f"{record['row']}: {record['seconds']:.0f} s"]
    for name, distance in record["distance"].items():
        shown = ", ".join(f"{k} {Estimate.of(v)}" for k, v in distance.items() if isinstance(v, dict))
        lines.append(f"  {name}: {shown}")
    for name, rate in record["detector"].items():
        if rate:
            lines.append(f"  face found, {name}: {rate['value']:.1%} of {rate['count']}")
    if "cosine" in record.get("identity", {}):
        same = record["identity"]
        lines.append(
            f"  same z as the teacher: cosine {same['cosine']['value']:.3f} (other z "
            f"{same['different_z']['value']:.3f}), AUC {same['auc']['value']:.3f}, "
            f"TAR at FAR 1 % {same['tar_at_far_0.01']['value']:.1%}"
        )
    if "closed" in record:
        lines.append(f"  closed: {record['closed']['value']:.2%} of directions")
    lines += [f"  {name}: not measured, {why}" for name, why in record["missing"].items()]
    return "\n".join(lines)


def run(args: EvaluateArgs) -> None:
    """The command `evaluate`."""
    print(summary(evaluate_weights(args)))
    absent = [str(path) for path in (inception_path(), facenet_path()) if not path.is_file()]
    if absent:
        print(f"  optional weights go here: {', '.join(absent)}")
