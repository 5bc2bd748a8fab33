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
    FEWEST,
    KD_SCALE,
    UNGROUPED,
    Groups,
    frechet_distance,
    kernel_distance,
    kernel_replicates,
    paired_ratio,
    same_source_floor,
)
from head3d_core.metrics.ghost import SCORES
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.metrics.silhouettes import SilhouetteSpan, colour_agreement
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
    groups: Groups = UNGROUPED,
) -> rows.Distance:
    """Kernel (times 100) and Fréchet distance of features, with the floors of the real set."""
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


def _compared(samples: Tensors) -> dict[str, Tensor]:
    """Name of each distance -> features of the samples; its first word is the side of the real images."""
    keys = {"front": "front.features", "back": "back.features", "front, truncated": "near.features"}
    keys |= {f"{side}, {camera}": f"{side}.{camera}" for side in ("front", "back") for camera in MAPPING}
    return {name: samples[key] for name, key in keys.items() if len(samples.get(key, ())) >= FEWEST}


def _real(reference: Reference, name: str) -> tuple[Tensor, Groups]:
    """Features of the real images of a distance's side, and the heads that they show."""
    side = name.partition(",")[0]
    return reference[f"{side}.features"], (reference.heads(side), None)


def distances(reference: Reference, networks: Networks, samples: Tensors, n: int) -> dict[str, rows.Distance]:
    """Distances in front and behind, of truncated samples in front, and with other mapping cameras."""
    found = {}
    for name, fake in _compared(samples).items():
        real, groups = _real(reference, name)
        found[name] = set_distance(real, fake, networks, n, name in ("front", "back"), groups)
    return found


def ratios(
    reference: Reference, samples: Tensors, others: Mapping[str, Tensors], n: int
) -> dict[str, Estimate]:
    """Paired ratios of kernel distances: a replicate redraws the same real images and z on both sides.

    "front / NAME" and "back / NAME" to another generator, "front, rendering / frontal" and so on between mapping
    cameras of this one.
    """
    ours, found = _compared(samples), {}
    pairs = {
        f"{name} / {other}": (ours[name], fake)
        for other, theirs in others.items()
        for name, fake in _compared(theirs).items()
        if name in ours
    }
    for name, fake in ours.items():
        side, _, camera = name.partition(", ")
        if camera in MAPPING and side in ours:
            count = min(len(fake), len(ours[side]))
            pairs[f"{name} / frontal"] = (fake[:count], ours[side][:count])
    for name, both in pairs.items():
        real, groups = _real(reference, name.partition(" /")[0])
        drawn, count = kernel_replicates(real, both, n, groups=groups)
        found[name] = paired_ratio(drawn[0], drawn[1], count)
    return found


def detected(probability: Tensor) -> Estimate | None:
    """Share of images in which the detector is surer than 0.9 of a face; None of none."""
    found = int((probability > THRESHOLD).sum())
    return share(found, len(probability)) if len(probability) else None


def detectors(probabilities: Mapping[str, Tensor]) -> dict[str, Estimate]:
    """`detected` of each side, where there are images."""
    rates = {side: detected(probability) for side, probability in probabilities.items()}
    return {side: rate for side, rate in rates.items() if rate is not None}


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
    people = rows.People(verification.diversity(faces, replicates))
    above = None if pairs is None else pairs.same_median
    if above is not None:
        alike = verification.near_duplicates(faces, above)
        people = dataclasses.replace(people, near_duplicates=alike, near_duplicate_above=above)
    if looks is not None:
        wider = rows.OtherLooks(verification.near_duplicates(faces, looks), looks)
        people = dataclasses.replace(people, other_looks=wider)
    if training is None:
        return people
    found = verification.nearest_training(faces, training, replicates)
    repeats = None if above is None else share(int((found.cosine > above).sum()), len(faces))
    nearest = rows.NearestTraining(found.mean, len(training), float(found.cosine.max()), repeats)
    return dataclasses.replace(people, nearest_training=nearest)


def other_looks(
    encoder: Encoder | None, weights: Path, record: Path = files.DATA / "results" / "identity_roc.json"
) -> float | None:
    """Median cosine of two frontal pictures of one real person, most pairs in two looks, as recorded of these weights.

    None for another encoder, or for weights that the record is not about.
    """
    there = weights.is_file() and record.is_file()
    if encoder is None or encoder.name != identity_encoder.NAME or not there:
        return None
    known = records.load(record, "python data/scripts/identity_train.py")
    about_these = known["provenance"]["sha256"] == files.sha256(weights)
    return float(known["frontal"]["same_median"]) if about_these else None


def probes(reference: Reference) -> dict[str, accessories.Probe | str]:
    """The probe of each accessory, or why there is none."""
    if not reference.has("faces") or "front.worn" not in reference.tensors:
        return dict.fromkeys(accessories.KINDS, "needs rendered training faces and rendered held-out ones")
    found: dict[str, accessories.Probe | str] = {}
    for column, (kind, rate) in enumerate(accessories.FALSE_RATE.items()):
        groups = ("faces", "front")
        (x, learned), (y, tested) = ((reference[f"{g}.features"], reference[f"{g}.worn"]) for g in groups)
        try:
            found[kind] = accessories.fit_probe(x, learned[:, column], y, tested[:, column], rate)
        except Head3DError as error:
            found[kind] = str(error)
    return found


def accessory_figures(
    reference: Reference, known: Mapping[str, accessories.Probe | str], teacher: Tensors, student: Tensors
) -> tuple[dict[str, rows.Accessory], tuple[int, ...]]:
    """E7, per accessory, and the numbers of the teacher's surest wearers."""
    found, shown = {}, []
    front, again = teacher["front.features"], teacher["again.features"]
    for column, (kind, probe) in enumerate(known.items()):
        if isinstance(probe, str):
            found[kind] = rows.Accessory(missing=probe)
            continue
        rates: dict[str, Any] = accessories.kept(probe, front, again, student["front.features"])
        worn = float(reference["front.worn"][:, column].double().mean())
        about = rows.Probe(probe.recall, probe.false, probe.auc, worn)
        found[kind] = rows.Accessory(None, about, **rates)
        above = probe.score(front) - probe.limit
        surest = above.topk(min(4, len(above)))
        shown += [int(k) for k, above in zip(surest.indices, surest.values, strict=True) if above > 0]
    return found, tuple(shown)


def behind_figures(samples: Tensors, limit: Mapping[str, float] | None, hat: Tensor | None) -> rows.Behind:
    """Second faces, hair colour front against back and diversity of backs, straight from behind.

    Args:
        limit: of each ghost score.
        hat: bool [N], heads left out of `hair_without_hats`; None where nobody can tell.
    """
    ahead, behind = (samples[f"{side}.hair"] for side in ("ahead", "behind"))
    ghosts, every = {}, {}
    for name in SCORES:
        score = samples[f"behind.{name}"]
        known = score[score.isfinite()]
        every[name] = tuple(round(x, 3) if math.isfinite(x) else None for x in score.tolist())
        if limit is not None:
            above = share(int((known > limit[name]).sum()), len(known))
            unmeasured = share(len(score) - len(known), len(score))
            mean = bootstrap_mean(known) if len(known) > 1 else None
            ghosts[name] = rows.Ghost(above, unmeasured, mean)
    return rows.Behind(
        ghosts,
        every,
        verification.diversity(samples["behind.features"]),
        colour_agreement(ahead, behind),
        {} if hat is None else colour_agreement(ahead[~hat], behind[~hat]),
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
    seen = {side: f"{name}.found" for side, name in (("front", "near"), ("back", "near_back"))}
    found["detector"] = detectors({side: samples[key] for side, key in seen.items() if key in samples})
    if "behind.hair" in samples:
        known = isinstance(hat_probe, accessories.Probe)
        hat = hat_probe.detects(samples["ahead.features"]) if known else None
        found["behind"] = behind_figures(samples, reference.ghost_limits(), hat)
    if "around.silhouette" in samples:
        masks, spans = samples["around.silhouette"], silhouette_spans(reference)
        found["silhouettes"] = {side: span.outside(masks[:, GROUPS[side]]) for side, span in spans.items()}
        found["by_yaw"] = figures_by_yaw(reference, samples, networks, n)
    return found
