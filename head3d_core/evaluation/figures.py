"""The figures of one row, from its samples and the real pictures: plain dictionaries, ready for JSON."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from head3d_core.datasets.face_detector import THRESHOLD
from head3d_core.evaluation.ghosts import ghost_figures, recorded_limits
from head3d_core.evaluation.references import STEPS, Networks, Reference, Tensors
from head3d_core.metrics.accessories import KINDS, fit_probe, kept
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
from head3d_core.metrics.silhouettes import SilhouetteSpan
from head3d_core.metrics.verification import (
    Verification,
    diversity,
    identity_similarity,
    near_duplicates,
    near_pairs,
    nearest_training,
    paired_verification,
    view_consistency,
)
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import bootstrap_mean, share

FRECHET_REPLICATES = 10
GROUPS = {"front": 1, "side": 6, "back": 11}
"""View of `references.around_camera` whose silhouettes stand for a direction: |yaw| 0 to 15, 75 to 90, 150 to 165°."""


def set_distance(
    real: Tensor,
    fake: Tensor,
    networks: Networks,
    replicates: int,
    frechet: bool = True,
    groups: tuple[Tensor | None, Tensor | None] = (None, None),
) -> dict[str, Any]:
    """Kernel (times 100) and Fréchet distance of features, with the floors of the real set.

    Args:
        groups: which head each picture of either set shows, as in `metrics.kernel_distance`.
    """
    net, device = networks.features, networks.device
    x, y = real.to(device, torch.float64), fake.to(device, torch.float64)
    count = min(len(y), len(x) // 2)
    kernel = partial(kernel_distance, replicates=replicates)
    floor = same_source_floor(x, count, kernel, groups=groups[0])
    found: dict[str, Any] = {
        "features": net.name,
        "real": len(x),
        "floor_count": count,
        "kernel": kernel(x, y, groups=groups).times(KD_SCALE).to_dict(),
        "kernel_floor": floor.times(KD_SCALE).to_dict(),
    }
    if groups[0] is not None:
        found["real_heads"] = len(groups[0].unique())
    if frechet and min(len(x), len(y)) <= x.shape[1]:
        found["no_frechet"] = (
            f"needs more pictures of each than features ({x.shape[1]}), got {len(x)} and {len(y)}: below that the "
            "covariances are singular"
        )
    elif frechet:
        measure = partial(frechet_distance, replicates=FRECHET_REPLICATES)
        found["frechet"] = measure(x, y, groups=groups).to_dict()
        found["frechet_floor"] = same_source_floor(x, count, measure, groups=groups[0]).to_dict()
    return found


def detected_share(probability: Tensor) -> dict[str, float] | None:
    """Share of images in which the detector is surer than 0.9 of a face; None of none."""
    found = int((probability > THRESHOLD).sum())
    return share(found, len(probability)).to_dict() if len(probability) else None


def real_pairs(reference: Reference, replicates: int) -> Verification | None:
    """Two frontal views of one real person: what "the same head twice" looks like to the encoder.

    Only the camera differs; look and light are the same. So the median cosine, the limit of near-duplicates, is a
    strict one: `evaluate.other_looks` is that of people in other looks.
    """
    if (
        not reference.has("around")
        or not reference["around.face"].shape[-1]
        or len(reference["around.face"]) < 11
    ):
        return None
    faces = reference["around.face"]
    return paired_verification(faces[:, 0], faces[:, 1], replicates)


def silhouette_spans(reference: Reference) -> dict[str, SilhouetteSpan]:
    if not reference.has("around") or len(reference["around.silhouette"]) < 20:
        return {}
    return {name: SilhouetteSpan(reference["around.silhouette"][:, v]) for name, v in GROUPS.items()}


def figures_by_yaw(
    reference: Reference, samples: Tensors, networks: Networks, replicates: int
) -> list[dict[str, Any]]:
    """Distance to real people, detection and agreement with the own front, for every 15° of |yaw|."""
    features, faces = samples["around.features"], samples.get("around.face", torch.zeros(0, STEPS + 1, 0))
    views = torch.arange(STEPS).repeat(len(faces))
    steps = {}
    if faces.shape[-1] and len(faces) > 1:
        owners = torch.arange(len(faces)).repeat_interleave(STEPS)
        yaw = torch.deg2rad(views * 15.0 + 7.5)
        found = view_consistency(faces[:, 0], faces[:, 1:].flatten(0, 1), owners, yaw, replicates)
        steps = {round(step.low): step.similarity for step in found}
    rows = []
    for step in range(STEPS):
        row: dict[str, Any] = {"low": 15 * step, "high": 15 * (step + 1)}
        if len(features) >= 10 and reference["around.features"] is not features:
            distance = set_distance(
                reference["around.features"][:, step + 1], features[:, step + 1], networks, replicates, False
            )
            row["distance"] = distance
        if len(samples.get("around.found", ())):
            row["detected"] = detected_share(samples["around.found"][:, step + 1])
        if 15 * step in steps:
            row["consistency"] = steps[15 * step].to_dict()
        rows.append(row)
    return rows


def profile_ratio(reference: Reference, samples: Tensors, replicates: int) -> dict[str, Any] | None:
    """Distance of profiles (75° to 105°) over the mean of the steps beside them (60° to 75°, 105° to 120°).

    A seam between front and back would raise it. Steps share people and samples, so the interval is a paired one.
    """
    real, fake = reference["around.features"].double(), samples["around.features"].double()
    if len(fake) < 10:
        return None
    steps = [kernel_replicates(real[:, k], [fake[:, k]], replicates) for k in (5, 6, 7, 8)]
    beside, profile = ((steps[a][0][0] + steps[b][0][0]) / 2 for a, b in ((0, 3), (1, 2)))
    return paired_ratio(profile, beside, steps[0][1]).to_dict()


def people_figures(
    faces: Tensor,
    training: Tensor | None,
    pairs: Verification | None,
    replicates: int,
    looks: float | None = None,
) -> dict[str, Any]:
    """Diversity, near-duplicates and nearest training pictures of embeddings [N, e].

    Args:
        pairs: of `real_pairs`: above their median cosine two samples are near-duplicates.
        looks: a second limit, for people in other looks (`evaluate.other_looks`).
    """
    found: dict[str, Any] = {"diversity": diversity(faces, replicates).to_dict()}
    if pairs is not None:
        found["near_duplicates"] = near_duplicates(faces, pairs.same_median).to_dict()
        found["near_duplicate_above"] = pairs.same_median
        found["near_duplicate_pairs"] = near_pairs(faces, pairs.same_median).to_dict()
    if looks is not None:
        found["near_duplicates_other_looks"] = {
            **near_duplicates(faces, looks).to_dict(),
            "above": looks,
            "pairs": near_pairs(faces, looks).to_dict(),
        }
    if training is not None:
        nearest = nearest_training(faces, training, replicates)
        found["nearest_training"] = {
            "mean": nearest.mean.to_dict(),
            "training": len(training),
            "most_alike": float(nearest.cosine.max()),
        }
        if pairs is not None:
            repeats = share(int((nearest.cosine > pairs.same_median).sum()), len(faces))
            found["nearest_training"]["repeats"] = repeats.to_dict()
    return found


def same_z_figures(teacher: Tensor, student: Tensor, replicates: int) -> dict[str, Any]:
    """Same z of teacher and student, [N, e] each, straight from the front."""
    cosine = identity_similarity(teacher, student, replicates)
    strangers = identity_similarity(teacher, student.roll(1, 0), replicates)
    found = paired_verification(teacher, student, replicates)
    return {
        "cosine": cosine.to_dict(),
        "different_z": strangers.to_dict(),
        **{k: v for k, v in found.to_dict().items() if k != "roc"},
    }


def worn_figures(reference: Reference, teacher: Tensors, student: Tensors) -> dict[str, Any]:
    """E7, per accessory; the reason where the probe cannot be fitted. "shown": the teacher's surest wearers."""
    found: dict[str, Any] = {"shown": []}
    for column, kind in enumerate(KINDS):
        learned, tested = (reference[f"{group}.worn"][:, column] for group in ("faces", "front"))
        try:
            probe = fit_probe(reference["faces.features"], learned, reference["front.features"], tested)
        except Head3DError as error:
            found[kind] = {"missing": str(error)}
            continue
        rates = kept(probe, teacher["front.features"], teacher["again.features"], student["front.features"])
        found[kind] = {
            "probe": {
                "recall": probe.recall.to_dict(),
                "false": probe.false.to_dict(),
                "auc": probe.auc,
                "worn_by_real": float(tested.double().mean()),
            },
            **{name: rate.to_dict() for name, rate in rates.items()},
        }
        surest = (probe.score(teacher["front.features"]) - probe.limit).topk(4)
        found["shown"] += [
            int(k) for k, above in zip(surest.indices, surest.values, strict=True) if above > 0
        ]
    return found


def behind_figures(samples: Tensors) -> dict[str, Any]:
    """Second faces, hair colour front against back and diversity of backs; what cannot be measured is left out.

    Diversity is the mean cosine distance of two backs' features, from straight behind.
    """
    figures: dict[str, Any] = {"diversity": diversity(samples["behind.features"]).to_dict()}
    limit = recorded_limits()
    if limit is not None:
        scores = GhostScores(*(samples[f"behind.{name}"] for name in SCORES))
        figures["ghost"] = ghost_figures(scores, limit)
    ahead, behind = (samples[f"{side}.hair"] for side in ("ahead", "behind"))
    if int((ahead.isfinite() & behind.isfinite()).all(1).sum()) >= FEWEST:
        figures["hair"] = {name: found.to_dict() for name, found in colour_agreement(ahead, behind).items()}
    return figures


def _distances(reference: Reference, networks: Networks, samples: Tensors, n: int) -> dict[str, Any]:
    """Distances to real images in front and behind, and of truncated samples in front."""
    found = {
        side: set_distance(
            reference[f"{side}.features"],
            samples[f"{side}.features"],
            networks,
            n,
            groups=(reference.heads(side), None),
        )
        for side in ("front", "back")
    }
    found["front, truncated"] = set_distance(
        reference["front.features"], samples["near.features"], networks, n, False
    )
    return found


def row_figures(
    reference: Reference,
    networks: Networks,
    samples: Tensors,
    theirs: Tensors | None,
    is_teacher: bool,
    replicates: int,
    looks: float | None = None,
) -> dict[str, Any]:
    """Everything that is said about a generator.

    Args:
        samples: of `sampling.draw_samples`.
        theirs: the teacher's, of the same z; None for the teacher itself, or where there is none.
        looks: as in `people_figures`.
    """
    n = replicates
    found: dict[str, Any] = {
        "distance": _distances(reference, networks, samples, n),
        "detector": {
            "front": detected_share(samples["near.found"]),
            "back": detected_share(samples["near_back.found"]),
        },
        "throughput": {
            "pictures_per_second": round(float(samples["speed"][0]), 1),
            "pictures": int(samples["speed"][1]),
            "batch": networks.batch,
        },
    }
    if len(samples.get("closed", ())) > 1:
        found["closed"] = bootstrap_mean(samples["closed"]).to_dict()
    if "behind.hair" in samples:
        found["behind"] = behind_figures(samples)
    if "around.silhouette" in samples:
        spans = silhouette_spans(reference)
        found["silhouettes"] = {
            name: span.outside(samples["around.silhouette"][:, GROUPS[name]]).to_dict()
            for name, span in spans.items()
        }
        found["by_yaw"] = figures_by_yaw(reference, samples, networks, n)
        found["profiles"] = profile_ratio(reference, samples, n)
    if networks.encoder is not None:
        group = "faces" if is_teacher else "heads"
        training = reference[f"{group}.face"] if reference.has(group) else None
        pairs = real_pairs(reference, n)
        found["people"] = people_figures(samples["straight.face"], training, pairs, n, looks)
        if theirs is not None:
            found["identity"] = same_z_figures(theirs["straight.face"], samples["straight.face"], n)
    if theirs is not None and reference.has("faces"):
        found["worn"] = worn_figures(reference, theirs, samples)
    return found
