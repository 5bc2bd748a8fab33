"""The figures of one row, from its samples and the real images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from head3d_core.datasets.face_detector import THRESHOLD
from head3d_core.evaluation import rows
from head3d_core.evaluation.real import KINDS, STEPS, Networks, Reference, Tensors
from head3d_core.evaluation.samples import MAPPING
from head3d_core.metrics import accessories, identity_encoder, verification
from head3d_core.metrics.distances import (
    KD_SCALE,
    frechet_distance,
    kernel_distance,
    kernel_replicates,
    paired_ratio,
    same_source_floor,
)
from head3d_core.metrics.ghost import SCORES, GhostScores
from head3d_core.metrics.hair import FEWEST, colour_agreement
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.metrics.silhouettes import SilhouetteSpan
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate, bootstrap_mean, share

FRECHET_REPLICATES = 10
GROUPS = {"front": 1, "side": 6, "back": 11}
"""View of `real.around_camera` whose silhouettes stand for a direction: |yaw| 0 to 15, 75 to 90, 150 to 165°."""


def set_distance(
    real: Tensor,
    fake: Tensor,
    networks: Networks,
    replicates: int,
    frechet: bool = True,
    groups: tuple[Tensor | None, Tensor | None] = (None, None),
) -> rows.Distance:
    """Kernel (times 100) and Fréchet distance of features, with the floors of the real set.

    Args:
        groups: which head each image of either set shows, as in `metrics.kernel_distance`.
    """
    net, device = networks.features, networks.device
    x, y = real.to(device, torch.float64), fake.to(device, torch.float64)
    count = min(len(y), len(x) // 2)
    kernel = partial(kernel_distance, replicates=replicates)
    found = rows.Distance(
        net.name,
        len(x),
        count,
        kernel(x, y, groups=groups).times(KD_SCALE),
        same_source_floor(x, count, kernel, groups=groups[0]).times(KD_SCALE),
        None if groups[0] is None else len(groups[0].unique()),
    )
    if not frechet:
        return found
    if min(len(x), len(y)) <= x.shape[1]:
        why = (
            f"needs more pictures of each than features ({x.shape[1]}), got {len(x)} and {len(y)}: below that the "
            "covariances are singular"
        )
        return dataclasses.replace(found, no_frechet=why)
    measure = partial(frechet_distance, replicates=FRECHET_REPLICATES)
    floor = same_source_floor(x, count, measure, groups=groups[0])
    return dataclasses.replace(found, frechet=measure(x, y, groups=groups), frechet_floor=floor)


def distances(reference: Reference, networks: Networks, samples: Tensors, n: int) -> dict[str, rows.Distance]:
    """Distances in front and behind, of truncated samples in front, and with other mapping cameras."""

    def to(side: str, fake: Tensor, frechet: bool) -> rows.Distance:
        groups = (reference.heads(side), None)
        return set_distance(reference[f"{side}.features"], fake, networks, n, frechet, groups)

    plain = {side: samples.get(f"{side}.features") for side in ("front", "back")}
    found = {side: to(side, fake, True) for side, fake in plain.items() if fake is not None}
    if "near.features" in samples:
        found["front, truncated"] = to("front", samples["near.features"], False)
    for side in ("front", "back"):
        for name in MAPPING:
            if len(samples.get(f"{side}.{name}", ())) >= FEWEST:
                found[f"{side}, {name}"] = to(side, samples[f"{side}.{name}"], False)
    return found


def ratios(
    reference: Reference, samples: Tensors, others: Mapping[str, Tensors], n: int
) -> dict[str, Estimate]:
    """Paired ratios of kernel distances: a replicate redraws the same real images and z on both sides.

    "front / NAME" and "back / NAME" to another generator, "front, rendering / frontal" and so on between mapping
    cameras of this one.
    """
    pairs = {
        f"{label} / {name}": (side, samples[key], other[key])
        for name, other in others.items()
        for label, side, key in (
            ("front", "front", "front.features"),
            ("back", "back", "back.features"),
            ("front, truncated", "front", "near.features"),
        )
        if key in samples and key in other
    }
    for side in ("front", "back"):
        for name in MAPPING:
            one = samples.get(f"{side}.{name}", torch.zeros(0, 1))
            if len(one) >= FEWEST and f"{side}.features" in samples:
                plain = samples[f"{side}.features"][: len(one)]
                pairs[f"{side}, {name} / frontal"] = (side, one[: len(plain)], plain)
    found = {}
    for label, (side, *both) in pairs.items():
        groups = (reference.heads(side), None)
        drawn, count = kernel_replicates(reference[f"{side}.features"], both, n, groups=groups)
        found[label] = paired_ratio(drawn[0], drawn[1], count)
    return found


def detected(probability: Tensor) -> Estimate | None:
    """Share of images in which the detector is surer than 0.9 of a face; None of none."""
    found = int((probability > THRESHOLD).sum())
    return share(found, len(probability)) if len(probability) else None


def identity_of(found: verification.Verification, **more: Any) -> rows.Identity:
    """As the record has it."""
    same = ("auc", "tar", "threshold", "same_median", "same_pairs", "different_pairs")
    return rows.Identity(**{name: getattr(found, name) for name in same}, **more)


def real_pairs(reference: Reference, replicates: int) -> verification.Verification | None:
    """Two frontal views of one real person: what "the same head twice" looks like to the encoder.

    Only the camera differs; look and light are the same. So the median cosine, the limit of near-duplicates, is a
    strict one: `other_looks` is that of people in other looks.
    """
    if not reference.has("around"):
        return None
    faces = reference["around.face"]
    if not faces.shape[-1] or len(faces) < verification.FEWEST_ROWS:
        return None
    return verification.paired_verification(faces[:, 0], faces[:, 1], replicates)


def seen_pairs(first: Tensor, second: Tensor, replicates: int) -> rows.Identity | None:
    """dlib's opinion on pairs of images [N, 128], rows of NaN where it finds no face; None of too few."""
    both = (first.isfinite() & second.isfinite()).all(1)
    if not first.shape[-1] or int(both.sum()) < verification.FEWEST_ROWS:
        return None
    found = same_z(first[both], second[both], replicates)
    return dataclasses.replace(found, seen=share(int(both.sum()), len(both)))


def same_z(teacher: Tensor, student: Tensor, replicates: int) -> rows.Identity:
    """Same z of teacher and student, [N, e] each, straight from the front."""
    return identity_of(
        verification.paired_verification(teacher, student, replicates),
        cosine=verification.identity_similarity(teacher, student, replicates),
        different_z=verification.identity_similarity(teacher, student.roll(1, 0), replicates),
    )


def silhouette_spans(reference: Reference) -> dict[str, SilhouetteSpan]:
    """What silhouettes of real people span, by side; empty of fewer than 20 people."""
    if not reference.has("around") or len(reference["around.silhouette"]) < 20:
        return {}
    return {name: SilhouetteSpan(reference["around.silhouette"][:, v]) for name, v in GROUPS.items()}


def figures_by_yaw(
    reference: Reference, samples: Tensors, networks: Networks, replicates: int
) -> tuple[rows.Step, ...]:
    """Distance to real people, detection and agreement with the own front, for every 15° of |yaw|."""
    features, real = samples["around.features"], reference["around.features"]
    faces, found = samples["around.face"], samples.get("around.found", torch.zeros(0, STEPS + 1))
    steps = []
    for k in range(STEPS):
        step = rows.Step(15 * k, 15 * (k + 1), detected=detected(found[:, k + 1]))
        if len(features) >= FEWEST and real is not features:
            compared = set_distance(real[:, k + 1], features[:, k + 1], networks, replicates, False)
            step = dataclasses.replace(step, distance=compared)
        if faces.shape[-1] and len(faces) > 1:
            agreement = verification.identity_similarity(faces[:, 0], faces[:, k + 1], replicates)
            step = dataclasses.replace(step, consistency=agreement)
        steps.append(step)
    return tuple(steps)


def people_figures(
    faces: Tensor,
    training: Tensor | None,
    pairs: verification.Verification | None,
    replicates: int,
    looks: float | None = None,
) -> rows.People:
    """Diversity, near-duplicates and nearest training images of embeddings [N, e].

    Args:
        pairs: of `real_pairs`: above their median cosine two samples are near-duplicates.
        looks: a second limit, for people in other looks (`other_looks`).
    """
    above = None if pairs is None else pairs.same_median
    wider = nearest = None
    if looks is not None:
        wider = rows.OtherLooks(verification.near_duplicates(faces, looks), looks)
    if training is not None:
        found = verification.nearest_training(faces, training, replicates)
        repeats = None if above is None else share(int((found.cosine > above).sum()), len(faces))
        nearest = rows.NearestTraining(found.mean, len(training), float(found.cosine.max()), repeats)
    return rows.People(
        verification.diversity(faces, replicates),
        None if above is None else verification.near_duplicates(faces, above),
        above,
        other_looks=wider,
        nearest_training=nearest,
    )


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


def probes(reference: Reference) -> dict[str, accessories.Probe | str]:
    """The probe of each accessory, or why there is none."""
    found: dict[str, accessories.Probe | str] = {}
    for column, kind in enumerate(accessories.KINDS):
        if not reference.has("faces") or "front.worn" not in reference.tensors:
            found[kind] = "needs rendered training faces and rendered held-out ones"
            continue
        learned, tested = (reference[f"{group}.worn"][:, column] for group in ("faces", "front"))
        try:
            found[kind] = accessories.fit_probe(
                reference["faces.features"],
                learned,
                reference["front.features"],
                tested,
                accessories.FALSE_RATE[kind],
            )
        except Head3DError as error:
            found[kind] = str(error)
    return found


def accessory_figures(
    reference: Reference,
    known: Mapping[str, accessories.Probe | str],
    teacher: Tensors,
    student: Tensors,
) -> tuple[dict[str, rows.Accessory], tuple[int, ...]]:
    """E7, per accessory, and the numbers of the teacher's surest wearers."""
    found, shown = {}, []
    for column, (kind, probe) in enumerate(known.items()):
        if isinstance(probe, str):
            found[kind] = rows.Accessory(missing=probe)
            continue
        rates = accessories.kept(
            probe, teacher["front.features"], teacher["again.features"], student["front.features"]
        )
        worn = float(reference["front.worn"][:, column].double().mean())
        about = rows.Probe(probe.recall, probe.false, probe.auc, worn)
        likely = accessories.likely_true(rates["teacher"].value, probe.recall.value, probe.false.value)
        found[kind] = rows.Accessory(None, about, likely=likely, **rates)
        surest = (probe.score(teacher["front.features"]) - probe.limit).topk(
            min(4, len(teacher["front.features"]))
        )
        shown += [int(k) for k, above in zip(surest.indices, surest.values, strict=True) if above > 0]
    return found, tuple(shown)


def ghost_figures(scores: GhostScores, limit: Mapping[str, float]) -> dict[str, rows.Ghost]:
    """For each score the share of heads above the limit, the share that cannot be measured, and the mean."""
    found = {}
    for name, score in scores._asdict().items():
        known = score[score.isfinite()]
        found[name] = rows.Ghost(
            share(int((known > limit[name]).sum()), len(known)),
            share(len(score) - len(known), len(score)),
            bootstrap_mean(known) if len(known) > 1 else None,
        )
    return found


def hair_agreement(ahead: Tensor, behind: Tensor) -> dict[str, Estimate]:
    """Correlations of hair colour [N, 3] in front and behind; empty of too few heads that can be measured."""
    known = int((ahead.isfinite() & behind.isfinite()).all(1).sum())
    return colour_agreement(ahead, behind) if known >= FEWEST else {}


def behind_figures(samples: Tensors, limit: Mapping[str, float] | None, hat: Tensor | None) -> rows.Behind:
    """Second faces, hair colour front against back and diversity of backs, straight from behind.

    Args:
        hat: bool [N], heads left out of `hair_without_hats`; None where nobody can tell.
    """
    ahead, behind = (samples[f"{side}.hair"] for side in ("ahead", "behind"))
    scores = GhostScores(*(samples[f"behind.{name}"] for name in SCORES))
    every = {name: score.tolist() for name, score in scores._asdict().items()}
    return rows.Behind(
        {} if limit is None else ghost_figures(scores, limit),
        {name: tuple(round(x, 3) if math.isfinite(x) else None for x in row) for name, row in every.items()},
        verification.diversity(samples["behind.features"]),
        hair_agreement(ahead, behind),
        {} if hat is None else hair_agreement(ahead[~hat], behind[~hat]),
        None if hat is None else share(int(hat.sum()), len(hat)),
    )


def real_behind(reference: Reference) -> dict[str, rows.Behind]:
    """The same of fresh real backs: "all", "heads" and "faces" (people of the face set)."""
    limit, numbers = reference.ghost_limits(), reference["straight.numbers"]
    fresh, half = reference["straight.fresh"], len(numbers) // 2
    heads = torch.arange(len(numbers)) < half
    found = {}
    for kind, group in (("all", fresh), *zip(KINDS, (fresh & heads, fresh & ~heads), strict=True)):
        scores, ahead, behind = numbers[group].split(3, 1)
        tensors = dict(zip((f"behind.{name}" for name in SCORES), scores.unbind(1), strict=True))
        tensors |= {"ahead.hair": ahead, "behind.hair": behind}
        tensors["behind.features"] = reference["straight.features"][group]
        found[kind] = behind_figures(tensors, limit, reference["straight.hat"][group])
    return found


def sample_figures(
    reference: Reference, networks: Networks, samples: Tensors, n: int, hat_probe: Any
) -> dict[str, Any]:
    """Fields of `Row` that need no other generator."""
    found: dict[str, Any] = {"distance": distances(reference, networks, samples, n)}
    seen = {side: samples.get(f"{name}.found") for side, name in (("front", "near"), ("back", "near_back"))}
    rates = {side: detected(x) for side, x in seen.items() if x is not None}
    found["detector"] = {side: rate for side, rate in rates.items() if rate is not None}
    if "behind.hair" in samples:
        hat = (
            hat_probe.detects(samples["ahead.features"]) if isinstance(hat_probe, accessories.Probe) else None
        )
        found["behind"] = behind_figures(samples, reference.ghost_limits(), hat)
    if "around.silhouette" in samples:
        outside = {
            k: s.outside(samples["around.silhouette"][:, GROUPS[k]])
            for k, s in silhouette_spans(reference).items()
        }
        found["silhouettes"] = outside
        found["by_yaw"] = figures_by_yaw(reference, samples, networks, n)
    return found
