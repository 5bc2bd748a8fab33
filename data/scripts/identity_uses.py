"""What else the identity encoder is good for, measured: as a perceptual term, and as a distance between people.

    python data/scripts/identity_uses.py

A perceptual term must rise when a picture gets blurred, noisy or shifted in colour. A measure of identity must not: it
must rise with the person and with nothing else. Both questions have one answer table: the mean distance 1 - cos that a
change of the picture causes, as a share of the mean distance between strangers, for our encoder and, for comparison,
for the ImageNet features that kernel distances use. And a distance between people is worth its name if people whose
skulls differ more (the head factory knows) are farther apart.
"""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from head3d_core.metrics.features import extract, feature_network
from head3d_core.metrics.identity_encoder import WEIGHTS, Encoder, load_encoder
from head3d_core.synth.assets import asset
from head3d_core.synth.identity import identity
from head3d_core.synth.pool import Progress
from head3d_core.synth.shape import base_shape
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import bootstrap_mean, bootstrap_weights, percentiles
from identity_data import FrontalPeople, frontal_people
from script import filled, main

Array = NDArray[np.float64]
COMMAND = "python data/scripts/identity_uses.py"
PERCEPTUAL = 0.25
"""A change that moves features by less than this share of two strangers' distance is hardly seen by them."""
CARD = WEIGHTS.parent / "README.md"


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of uint8 [N, 3, H, W], sigma in pixels."""
    reach = int(np.ceil(3 * sigma))
    x = torch.arange(-reach, reach + 1).float()
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    y = F.pad(images.float(), (reach,) * 4, mode="replicate")
    y = F.conv2d(F.conv2d(y, kernel[:, :, None], groups=3), kernel[..., None], groups=3)
    return y.round().clamp(0, 255).to(torch.uint8)


def _noisy(images: Tensor) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images.float() + 255 * 0.05 * noise).round().clamp(0, 255).to(torch.uint8)


def _jpeg(images: Tensor) -> Tensor:
    from PIL import Image

    out = []
    for image in images.permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=15)
        out.append(np.asarray(Image.open(buffer)))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2)


def _tinted(images: Tensor) -> Tensor:
    cast = torch.tensor([1.1, 1.0, 0.8])[:, None, None]
    return (images.float() * cast).round().clamp(0, 255).to(torch.uint8)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "blur, 1 pixel": lambda x: blurred(x, 1.0),
    "blur, 3 pixels": lambda x: blurred(x, 3.0),
    "noise, 5 % of white": _noisy,
    "JPEG, quality 15": _jpeg,
    "warm colour cast": _tinted,
    "30 % darker": lambda x: (x.float() * 0.7).round().to(torch.uint8),
    "moved by 4 pixels": lambda x: F.pad(x.float(), (4, 0, 0, 0), mode="replicate")[..., :-4].to(torch.uint8),
}
"""What is done to 256² pictures."""


def _unit(x: Tensor) -> Array:
    return np.asarray(F.normalize(x.double(), dim=1).numpy())


def stranger_distance(embeddings: Tensor, person: Tensor) -> float:
    """Mean 1 - cos over all pairs of pictures of different people."""
    x = _unit(embeddings)
    different = person.numpy()[:, None] != person.numpy()[None]
    if not different.any():
        raise Head3DError("a distance between strangers needs two people or more")
    return float((1 - x @ x.T)[different].mean())


def shares(before: Tensor, after: Tensor, strangers: float) -> dict[str, float]:
    """Mean 1 - cos between rows, over that of strangers, with its interval over rows."""
    cosine = (_unit(before) * _unit(after)).sum(1)
    return bootstrap_mean((1 - cosine) / strangers).to_dict()


def _shapes(seeds: list[int]) -> Array:
    """Face shapes without expression, [people, 3 V] (dm): the body vertices in front of the ears."""
    data = asset()
    front = data.base_skin & (data.template_base[:, 2] > 0.9) & (data.template_base[:, 1] > 6.2)
    rows = []
    for seed in seeds:
        person = dataclasses.replace(identity(seed), expression=())
        rows.append(base_shape(person, data)[front].ravel())
    return np.stack(rows)


def _correlation(distance: Array, truth: Array, seed: int = 0) -> dict[str, float]:
    """Spearman's correlation over pairs of people, with a bootstrap interval over people."""
    n = len(distance)
    upper = np.triu_indices(n, 1)
    value = float(spearmanr(distance[upper], truth[upper]).statistic)
    replicates = []
    for weight in bootstrap_weights(n, 200, seed):
        chosen = np.repeat(np.arange(n), weight.astype(int))
        i, j = (chosen[k] for k in np.triu_indices(len(chosen), 1))
        apart = i != j
        replicates.append(spearmanr(distance[i, j][apart], truth[i, j][apart]).statistic)
    return percentiles(value, np.array(replicates), n).to_dict()


def measure(encoder: Encoder, shown: FrontalPeople, most: int = 30) -> dict[str, Any]:
    """All tables.

    Args:
        most: people whose first picture is changed; the rest only say how far strangers are apart.
    """
    x = encoder.embed(shown.images, shown.camera)
    network = feature_network("efflite0")
    first = torch.arange(0, len(shown.images), len(shown.images) // len(shown.seeds))
    chosen = first[:most]
    plain = shown.images[chosen]
    y = extract(network, shown.images[first])
    ours, imagenet = stranger_distance(x, shown.person), stranger_distance(y, torch.arange(len(y)))
    changes: dict[str, Any] = {}
    for name, change in CHANGES.items():
        pictures = change(plain)
        changes[name] = {
            "ours": shares(x[chosen], encoder.embed(pictures, shown.camera[chosen]), ours),
            "EffLite0": shares(y[: len(chosen)], extract(network, pictures), imagenet),
        }
    # The order of pictures is person, look, view: +1 is another light and camera, +2 another look as well.
    for name, step in (("another light and camera", 1), ("another look, light and camera", 2)):
        other = shown.images[chosen + step]
        changes[name] = {
            "ours": shares(x[chosen], x[chosen + step], ours),
            "EffLite0": shares(y[: len(chosen)], extract(network, other), imagenet),
        }
    people = torch.stack([F.normalize(x[shown.person == k].mean(0), dim=0) for k in range(len(shown.seeds))])
    shape = _shapes(shown.seeds)
    apart = np.sqrt(((shape[:, None] - shape[None]) ** 2).mean(-1))
    tone = np.array([identity(s).skin.melanin for s in shown.seeds])
    distance = 1 - _unit(people) @ _unit(people).T
    return {
        "stranger_distance": {"ours": ours, "EffLite0": imagenet},
        "share_of_stranger_distance": changes,
        "spearman": {
            "face shape": _correlation(distance, apart),
            "skin tone": _correlation(distance, np.abs(tone[:, None] - tone[None])),
        },
    }


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    """What the numbers say about two other uses, one sentence each."""
    rows = found["share_of_stranger_distance"]
    distorted = {name: rows[name]["ours"]["value"] for name in CHANGES}
    seen = [name for name, value in distorted.items() if value >= PERCEPTUAL]
    listed = " and ".join(f"({name})" for name in seen)
    largest = max(distorted, key=lambda name: distorted[name])
    perceptual = (
        f"**Not as a perceptual term.** The most that a spoiled picture ({largest}) moves an embedding is "
        f"{distorted[largest]:.0%} of the distance between two strangers: what L_lpips has to punish is hardly seen."
        if not seen
        else f"**Hardly as a perceptual term.** Only {listed} move an embedding by {PERCEPTUAL:.0%} or more of the "
        f"distance between two strangers, the other {len(distorted) - len(seen)} of {len(distorted)} ways to spoil a "
        "picture by less."
    )
    shape, tone = (found["spearman"][k] for k in ("face shape", "skin tone"))
    follows = shape["low"] > 0.2
    title = "As a distance between people, with care" if follows else "Not as a scale of resemblance"
    kept = "follows" if follows else "hardly follows"
    distance = (
        f"**{title}.** The distance between two people {kept} how much their faces "
        f"differ in shape (Spearman {shape['value']:.2f} [{shape['low']:.2f}, {shape['high']:.2f}]) and in skin tone "
        f"({tone['value']:.2f} [{tone['low']:.2f}, {tone['high']:.2f}]). It was trained to tell people apart, not to "
        "say how alike two strangers are: use it for same or different, for near-duplicates and for diversity, not for "
        "a ranking of resemblance."
    )
    return {"perceptual": perceptual, "distance": distance}


def second_opinion(check: dict[str, Any] | None) -> str:
    """What the recorded cross-check with dlib's encoder says, in a sentence or two."""
    if check is None:
        return "Not recorded yet: run `python data/scripts/cross_check.py`."
    found, mirrored = check["detected"], check["mirrored"]
    text = (
        f"dlib's encoder, which shares neither data nor code with ours, finds a face in {found['found']} of "
        f"{found['count']} near-frontal pictures and takes {mirrored['found']} of {mirrored['count']} for the same "
        "person as their mirror image"
    )
    if "spearman" not in check:
        return f"{text}: it does not apply to these pictures, so there is no agreement to report."
    rank = check["spearman"]
    return (
        f"{text}, so it applies. It tells people apart with AUC {check['dlib']['value']:.3f} where ours has "
        f"{check['ours']['value']:.3f}. Over all pairs the two rank likeness with a Spearman correlation of "
        f"{rank['value']:.2f} [{rank['low']:.2f}, {rank['high']:.2f}]: nearly all pairs are strangers, on whose order "
        f"encoders {'agree' if rank['low'] > 0.5 else 'need not agree'}."
    )


def card(found: dict[str, Any], roc: dict[str, Any], check: dict[str, Any] | None) -> str:
    """The encoder's page, written from the records (`cross_check.json` may be missing) and nothing else."""
    notes = roc["provenance"]
    rates = "\n".join(
        f"| {name} | {roc[key]['tar_at_far_0.01']['value']:.1%} [{roc[key]['tar_at_far_0.01']['low']:.1%}, "
        f"{roc[key]['tar_at_far_0.01']['high']:.1%}] | {roc[key]['auc']['value']:.4f} | "
        f"{roc['untrained'][key]['tar_at_far_0.01']['value']:.1%} |"
        for key, name in (("frontal", "frontal pairs"), ("all", "all views within 90°"))
    )
    rows = "\n".join(
        f"| {name} | {row['ours']['value']:.1%} | {row['EffLite0']['value']:.1%} |"
        for name, row in found["share_of_stranger_distance"].items()
    )
    return filled(
        "identity_encoder",
        megabytes=f"{notes['bytes'] / 1e6:.1f}",
        seconds=f"{notes['training_seconds']:.0f}",
        device=notes["device"],
        **{
            k: f"{notes[k]:,}"
            for k in ("pictures", "people", "steps", "held_out_people", "held_out_pictures")
        },
        rates=rates,
        measured=found["people"],
        command=f"{COMMAND} --people {found['people']}",
        changes=rows,
        **verdicts(found),
        second_opinion=second_opinion(check),
    )


@dataclass(frozen=True)
class IdentityUsesArgs:
    """Measures what the identity encoder sees, and writes its page."""

    people: int = 40
    """Held-out people, four near-frontal pictures each."""
    work: Path | None = None
    """Folder that keeps the rendered pictures for a later call."""
    out: Path = files.DATA / "results" / "identity_uses.json"
    """File to write."""
    card: Path = CARD
    """Page to write."""


def run(args: IdentityUsesArgs) -> None:
    """Measures, writes the record and the page."""
    files.check_writable(args.out)
    roc = records.read("identity_roc", "python data/scripts/identity_train.py")
    shown = frontal_people(args.people, args.work, Progress("people", sys.stderr))
    found = {
        "people": args.people,
        **measure(load_encoder("ours"), shown),
        "provenance": records.provenance(f"{COMMAND} --people {args.people}"),
    }
    records.write(args.out, found)
    path = files.DATA / "results" / "cross_check.json"
    check = records.load(path, "python data/scripts/cross_check.py") if path.is_file() else None
    with files.atomic(args.card) as temporary:
        temporary.write_text(card(found, roc, check), encoding="utf8")
    for sentence in verdicts(found).values():
        print(sentence)


if __name__ == "__main__":
    raise SystemExit(main(IdentityUsesArgs, run))
