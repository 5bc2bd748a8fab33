"""`evaluate WEIGHTS`: everything that the tables, the model cards and notebooks 08 to 15 say about a generator.

One row is one JSON file (`rows.Row`) and a few image grids. The terms (frontal, back, detection, near-duplicate) are
those of `silhouettes.py` and `verification.py`; the real images are `real.py`'s, the samples `samples.py`'s. Distances
are measured on samples without truncation, everything else at truncation 0.7.

    python -m head3d_core evaluate head3d
    python -m head3d_core evaluate plane-swap        # the head generator with the teacher's F_xy put in, untrained
    python -m head3d_core evaluate real              # the real data's own figures
    python -m head3d_core evaluate head3d --add      # only what the recorded row lacks, of the same weights
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from tyro.conf import Positional, arg

from head3d_core import ops
from head3d_core.config import check_fields
from head3d_core.evaluation import measures, rows
from head3d_core.evaluation.real import Networks, Reference, Tensors, Wanted, real_reference, source_count
from head3d_core.evaluation.rows import Row
from head3d_core.evaluation.samples import ALL, Model, Sampling, draw_samples, write_pictures
from head3d_core.metrics import distances, identity_encoder
from head3d_core.metrics.accessories import FALSE_RATE
from head3d_core.metrics.features import INCEPTION_FILE, EffLite0, feature_network, inception_path
from head3d_core.metrics.identity_encoder import FACENET_FILE, facenet_path, has_dlib, load_encoder
from head3d_core.metrics.verification import FEWEST_ROWS
from head3d_core.model.generator import Generator
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.training.snapshots import open_run, read_log, surviving
from head3d_core.utils import files, records
from head3d_core.utils.devices import usable_device
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.nested import differences

SWAP = "plane-swap"
REAL = "real"
PLACES = ("out", "cache", "encoder_file")  # options that no record repeats
ABOUT = ("row", "seed", "start", "run", "weights", "provenance", "missing", "seconds")
"""Fields of a row that are no figures."""
KNOWN = ("stage", "images", "starts_from", "preset", "seed", "row", "trained_on")
"""What a record repeats of the weights' own notes."""
LOOSE = 0.01  # false rate of every probe before 2026-11-30


@dataclass(frozen=True)
class EvaluateArgs:
    """Measures a generator and writes one JSON and its image grids."""

    weights: Positional[Annotated[str, arg(metavar="WEIGHTS")]]
    """A bundled name, a path, a training run's folder, "plane-swap", or "real" for the real data's own figures."""
    row: str | None = None
    """Row of the comparison; default: what the weights say, else their name."""
    start: Literal["trained", "fitted"] | None = None
    """What a distillation's discriminators started from: "trained" with their generators, or "fitted" to them."""
    run: int = 1
    """Number of the run with this seed."""
    name: str | None = None
    """Name of the files; default: the row, with seed and run where these are not 0 and 1."""
    add: bool = False
    """Keep every figure of the recorded row of these weights, and add those that it lacks."""
    only: tuple[str, ...] = ()
    """Parts of `samples.ALL` to measure; default: all."""
    teacher: str = "face"
    """The face generator that same-z samples are compared with."""
    head: str = "head"
    """The fine-tuned head generator, for plane-swap, ratios and the side-by-side grid; without it there is none."""
    wanted: Wanted = dataclasses.field(default_factory=Wanted)
    """The real images."""
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    """The samples."""
    replicates: int = 200
    """Of the bootstrap."""
    batch: int = 32
    """Images at a time; changes nothing but speed and memory."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    encoder: Literal["auto", "ours", "facenet", "none"] = "auto"
    """"none": identity is not measured."""
    encoder_file: Path = identity_encoder.WEIGHTS
    """Weights of our own encoder."""
    dlib: bool = True
    """Ask dlib's encoder, which never saw our people, as well (where the extra offline-check is installed)."""
    cache: Path | None = Path("out/evaluation")
    """Folder that keeps what was rendered and measured on real images and on samples."""
    out: Path = Path("out/evaluation/rows")
    """Folder for the results; the tables read data/results/evaluation."""
    minutes: float | None = None
    """GPU minutes that training took, where the weights do not say."""


def open_weights(name: str, device: torch.device | str) -> tuple[Generator, dict[str, Any]]:
    """A generator and what is known about it: of weights, or the averaged one of a training run's folder."""
    run = open_run(name, device)
    return run.generator, run.notes | (_log_facts(Path(name)) if Path(name).is_dir() else {})


def _log_facts(folder: Path) -> dict[str, Any]:
    """Minutes, device and preset of a run, from its log.jsonl (a resumed one starts anew); nothing without one."""
    if not (folder / "log.jsonl").is_file():
        return {}
    events, _ = read_log(folder)
    start = next((event for event in reversed(events) if event["event"] == "start"), {})
    facts = {"trained_on": start.get("device"), "preset": start.get("args", {}).get("preset")}
    known = {name: value for name, value in facts.items() if value is not None}
    return known | {"minutes": round(surviving(events)[1] / 60, 2)}


def open_networks(args: EvaluateArgs) -> tuple[Networks, dict[str, str]]:
    """The fixed networks and, by name, why something cannot be measured."""
    missing, device = {}, str(usable_device(args.device))
    features, encoder = feature_network("auto", device), None
    dlib = args.dlib and has_dlib()
    # Named without the folder: a record does not tell where its maker's home is; `run` says it.
    instead = "{} is not there; measured with {} instead"
    try:
        encoder = None if args.encoder == "none" else load_encoder(args.encoder, device, args.encoder_file)
    except Head3DError as error:
        if args.encoder != "auto":
            raise
        missing["identity"] = str(error)
    if args.encoder == "none":
        missing["identity"] = "not asked for"
    if features.name == EffLite0.name:
        missing["FID, KID"] = instead.format(INCEPTION_FILE, features.name)
    if encoder is not None and not encoder.name.startswith("facenet"):
        missing["identity by facenet"] = instead.format(FACENET_FILE, encoder.name)
    if not dlib:
        why = "the extra offline-check is not installed" if args.dlib else "not asked for"
        missing["identity by dlib"] = why
    return Networks(features, encoder, device, args.batch, dlib), missing


def command_of(args: EvaluateArgs) -> str:
    """The command line that measures the same: every option that is not the default, but for places on this machine.

    >>> command_of(EvaluateArgs("face", sampling=Sampling(count=200)))
    'python -m head3d_core evaluate face --sampling.count 200'
    """
    words = ["python", "-m", "head3d_core", "evaluate", args.weights]
    for name, (value, _) in differences(args, EvaluateArgs(args.weights)).items():
        if name not in PLACES:
            words.append(f"--{'no-' * (value is False)}{name.replace('_', '-')}")
            values = value if isinstance(value, tuple) else [value]
            words += [str(v) for v in values if not isinstance(v, bool)]
    return shlex.join(words)


def provenance(args: EvaluateArgs, networks: Networks) -> dict[str, Any]:
    """What a record was made with."""
    used = {k: v for k, v in dataclasses.asdict(args).items() if k not in PLACES}
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


def evaluate_real(args: EvaluateArgs, networks: Networks, reference: Reference) -> dict[str, Any]:
    """The figures of real images, under the same names as a model's: what "as good as real" would be.

    Distances are those of *training* images to held-out ones, which a generator that repeats its data would reach.
    """
    n, distance = args.replicates, {}
    for name, theirs in (("front", "faces"), ("back", "heads_back")):
        if reference.has(theirs):
            x, y = (reference[f"{group}.features"] for group in (name, theirs))
            groups = (reference.heads(name), reference.heads(theirs))
            distance[name] = measures.set_distance(x, y, networks, n, groups=groups)
    found: dict[str, Any] = {"distance": distance}
    there = [side for side in ("front", "back") if reference.has(side)]
    found["detector"] = measures.detectors({side: reference[f"{side}.found"] for side in there})
    if networks.encoder is not None and there:
        pairs = measures.real_pairs(reference, n)
        training = reference["faces.face"] if reference.has("faces") else None
        held_out = reference["front.face"][: args.sampling.detector]
        looks = measures.other_looks(networks.encoder, args.encoder_file)
        found["people"] = measures.people_figures(held_out, training, pairs, n, looks)
        found["identity"] = None if pairs is None else measures.identity_of(pairs)
    if reference.has("around"):
        own = {k: reference[k] for k in ("around.features", "around.face", "around.found")}
        found["by_yaw"] = measures.figures_by_yaw(reference, own, networks, n)
        first, second = reference["around.dlib"].unbind(1)
        found["identity_dlib"] = measures.seen_pairs(first, second, n)
    spans = measures.silhouette_spans(reference)
    found["limits"] = {f"silhouette, {side}": span.limit for side, span in spans.items()}
    if reference.has("straight"):
        found["limits"] |= reference.ghost_limits() or {}
        found["behind_of"] = measures.real_behind(reference)
        found["behind"] = found["behind_of"].pop("all")
    return found


def _model_of(args: EvaluateArgs, device: str) -> tuple[Model, dict[str, Any]]:
    if args.weights == SWAP:
        G, notes = open_weights(args.head, device)
        T, _ = open_weights(args.teacher, device)
        return Model(G, T), {"row": SWAP, "images": 0, "starts_from": notes.get("images"), "minutes": 0.0}
    G, notes = open_weights(args.weights, device)
    return Model(G), {**notes, "stage": notes.get("stage") or notes.get("recipe", {}).get("stage")}


def facts_of(args: EvaluateArgs, notes: dict[str, Any]) -> dict[str, Any]:
    """What tells this record from others: row, seed, what its discriminators started from, and number of the run.

    >>> facts_of(EvaluateArgs("runs/a", start="trained"), {"row": "dft", "seed": 1, "stage": "distill"})
    {'row': 'dft', 'seed': 1, 'start': 'trained', 'run': 1}
    """
    row = args.row or notes.get("row") or Path(args.weights).name
    fitted = args.start if args.start and notes.get("stage") == "distill" else "none"
    start = "untrained" if row == SWAP else fitted
    return {"row": row, "seed": notes.get("seed") or 0, "start": start, "run": args.run}


def name_of(facts: dict[str, Any]) -> str:
    """Name of a record's files.

    >>> name_of({"row": "dft", "seed": 1, "start": "trained", "run": 2})
    'dft-seed1-run2'
    """
    seed = f"-seed{facts['seed']}" if facts["seed"] else ""
    return facts["row"] + seed + (f"-run{facts['run']}" if facts["run"] > 1 else "")


def _others(args: EvaluateArgs, device: str, model: Model) -> tuple[dict[str, Model], bool]:
    """The teacher and the head generator, where they are there and not `model` itself; whether it is the teacher."""
    found, is_teacher = {}, False
    for key in ("teacher", "head"):
        try:
            other = Model(open_weights(getattr(args, key), device)[0])
        except Head3DError:
            continue
        if other.digest() == model.digest():
            is_teacher = is_teacher or key == "teacher"
        elif other.resolution == model.resolution:
            found[key] = other
    return found, is_teacher


def evaluate_model(
    args: EvaluateArgs,
    networks: Networks,
    reference: Reference,
    model: Model,
    others: dict[str, Model],
    is_teacher: bool,
) -> tuple[dict[str, Any], Tensors]:
    """Everything that is said about a generator, as fields of `Row`, and its samples.

    Args:
        others: "teacher" (unless `model` is it) and "head", for the same z.
    """
    n, how = args.replicates, args.sampling
    parts = args.only or ALL
    compared = [part for part in ("plain", "again", "truncated") if part in parts]
    draw = partial(draw_samples, reference=reference, networks=networks, how=how, cache=args.cache)
    drawn = {name: draw(other, parts=compared) for name, other in others.items()}
    samples, known = draw(model, parts=parts), measures.probes(reference)
    found = measures.sample_figures(reference, networks, samples, n, known["hat"])
    named = {Path(getattr(args, name)).name: tensors for name, tensors in drawn.items()}
    found["ratios"] = measures.ratios(reference, samples, named, n)
    theirs = drawn.get("teacher") if "truncated" in parts else None
    if networks.encoder is not None and "truncated" in parts:
        group = "faces" if is_teacher else "heads"
        training = reference[f"{group}.face"] if reference.has(group) else None
        looks = measures.other_looks(networks.encoder, args.encoder_file)
        pairs = measures.real_pairs(reference, n)
        found["people"] = measures.people_figures(samples["straight.face"], training, pairs, n, looks)
        if theirs is not None:
            found["identity"] = measures.same_z(theirs["straight.face"], samples["straight.face"], n)
    if theirs is not None:
        found["identity_dlib"] = measures.seen_pairs(theirs["straight.dlib"], samples["straight.dlib"], n)
        if reference.has("faces") and {"plain", "again"} <= set(parts):
            worn = measures.accessory_figures(reference, known, theirs, samples)
            found["accessories"], found["accessories_shown"] = worn
    return found, samples


def added(before: Row, made: Row) -> Row:
    """Everything of `before`, and of `made` what that lacks; "back" of other heads, and probes of another false rate,
    get names of their own."""
    fields = ("distance", "accessories")
    named: dict[str, dict[str, Any]] = {name: dict(getattr(made, name)) for name in fields}
    back, old_back = (row.distance.get("back") for row in (made, before))
    if back and old_back and back.real_heads != old_back.real_heads:
        named["distance"][f"back, {back.real_heads} heads"] = back
    for kind, found in made.accessories.items():
        if FALSE_RATE[kind] < LOOSE and found.probe:
            named["accessories"][f"{kind}, {FALSE_RATE[kind]:.1%} false"] = found
    gained: dict[str, Any] = {}
    names = []
    for name in (field.name for field in dataclasses.fields(Row) if field.name not in ABOUT):
        old, new = getattr(before, name), named.get(name, getattr(made, name))
        if isinstance(old, dict) and (more := {k: v for k, v in new.items() if k not in old}):
            gained[name] = {**old, **more}
            names.append(f"{name}: {', '.join(more)}")
        elif not old and new:
            gained[name] = new
            names.append(name)
    missing = {k: why for k, why in before.missing.items() if k in made.missing}
    about = {"fields": sorted(names), **made.provenance}
    return dataclasses.replace(before, **gained, missing=missing, added=about)


def evaluate_weights(args: EvaluateArgs) -> Row:
    """Measures a generator; writes `<row>.json` and grids into `args.out` and returns what was recorded.

    Raises:
        Head3DError: no such weights, another resolution than the real images', images that are not finite, too
            few of something, or (with `add`) a record of other weights.
    """
    _check(args)
    start = time.perf_counter()
    networks, missing = open_networks(args)
    if not args.wanted.training:
        why = "no training pictures were asked for (Wanted.training = 0)"
        missing |= {"nearest training people": why, "hats and glasses": why}
    if args.weights == REAL:
        facts: dict[str, Any] = {"row": REAL, "seed": 0, "run": 1}
    else:
        model, notes = _model_of(args, networks.device)
        about = {"digest": model.digest(), "parameters": sum(p.numel() for p in model.generator.parameters())}
        about |= {k: notes[k] for k in KNOWN if notes.get(k) is not None}
        about["minutes"] = notes.get("minutes", args.minutes)
        facts = {**facts_of(args, notes), "weights": about}
    name = args.name or name_of(facts)
    path = args.out / f"{name}.json"
    before = rows.load_row(path) if args.add else None
    if before is not None and before.weights.get("digest") != facts.get("weights", {}).get("digest"):
        raise Head3DError(
            f"{path} was recorded of other weights than {args.weights}: measure them without --add"
        )
    reference = real_reference(args.wanted, networks, args.cache, args.weights == REAL, args.only)
    print(f"{name}: real pictures described, {time.perf_counter() - start:.0f} s", flush=True)
    if args.weights == REAL:
        found = evaluate_real(args, networks, reference)
    else:
        others, is_teacher = _others(args, networks.device, model)
        if not is_teacher and "teacher" not in others:
            missing["same z"] = f"no teacher called {args.teacher!r} here"
        found, samples = evaluate_model(args, networks, reference, model, others, is_teacher)
    known = {k: v for k, v in found.items() if v is not None}
    made = Row(**facts, **known, provenance=provenance(args, networks), missing=missing)
    made = made if before is None else added(before, made)
    print(f"{name}: measured, {time.perf_counter() - start:.0f} s", flush=True)
    rows.write_row(path, made)  # whatever happens to the images
    if args.weights != REAL and before is None:
        shown = (reference, samples, args.sampling, made.accessories_shown)
        grids = write_pictures(args.out, name, model, others, is_teacher, *shown)
        made = dataclasses.replace(made, pictures=grids)
    seconds = round(time.perf_counter() - start, 1)
    return rows.write_row(path, made if before else dataclasses.replace(made, seconds=seconds))


def _check(args: EvaluateArgs) -> None:
    if unknown := set(args.only) - set(ALL):
        raise Head3DError(f"only names parts of {', '.join(ALL)}, got {', '.join(sorted(unknown))}")
    check_fields(args, "at least 1", lambda v: v >= 1, "replicates", "batch")
    for name, fewest, what in (
        ("count", distances.FEWEST, "a distance"),
        ("detector", FEWEST_ROWS, "a distance and a comparison with the teacher"),
    ):
        if (got := getattr(args.sampling, name)) < fewest:
            raise Head3DError(f"sampling.{name} counts samples for {what}: at least {fewest}, got {got}")
    source_count(args.wanted.faces, "faces")
    source_count(args.wanted.heads, "heads")
    for folder in filter(None, (args.out, args.cache)):
        files.check_writable(folder / "record.json")


def summary(row: Row) -> str:
    """A few lines for the terminal."""
    lines = [f"{row.row}: {row.seconds or 0:.0f} s"]
    lines += [f"  {name}: kernel distance x 100 {d.kernel}" for name, d in row.distance.items()]
    lines += [f"  a face is found, {name}: {rate.text(1, True)}" for name, rate in row.detector.items()]
    for who, same in (("", row.identity), (" (dlib)", row.identity_dlib)):
        if same is not None and same.cosine is not None and same.different_z is not None:
            lines.append(
                f"  same z as the teacher{who}: cosine {same.cosine.value:.3f} (other z "
                f"{same.different_z.value:.3f}), AUC {same.auc.value:.3f}, TAR at FAR 1 % {same.tar.value:.1%}"
            )
    for name, ghost in (row.behind.ghost if row.behind else {}).items():
        lines.append(f"  second face, {name}: {ghost.above.text(1, True)} above the limit of real backs")
    return "\n".join([*lines, *(f"  {name}: not measured, {why}" for name, why in row.missing.items())])


def run(args: EvaluateArgs) -> None:
    """The command `evaluate`."""
    print(summary(evaluate_weights(args)))
    absent = [str(path) for path in (inception_path(), facenet_path()) if not path.is_file()]
    if absent:
        print(f"  optional weights go here: {', '.join(absent)}")
