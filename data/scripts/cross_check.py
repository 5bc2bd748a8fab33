"""A second opinion on identity: dlib's encoder, which shares neither data nor code nor training with ours.

It was made for photographs, so it is first asked whether these pictures mean anything to it: a picture and its mirror
image must be the same person. If they are not, there is no number to report.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from head3d_core.metrics.identity_encoder import dlib_embeddings, load_encoder
from head3d_core.metrics.verification import FAR, Agreement, encoder_agreement
from head3d_core.synth.pool import Progress
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate, share
from identity_data import frontal_people
from script import main

SAME = 0.6
"""dlib's limit on the distance of two pictures of one person."""
ENOUGH = 0.9
"""Share of pictures that must match their mirror image, or dlib does not apply."""


@dataclass(frozen=True)
class CrossCheck:
    """What dlib makes of pictures that our encoder has judged."""

    detected: Estimate
    """Pictures in which it finds a face, and in their mirror images: only those are compared."""
    mirrored: Estimate
    """Of these, the ones it takes for the same person as their mirror image."""
    agreement: Agreement | None
    """None: `mirrored` is below 90 %, dlib's encoder does not apply to these pictures."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; without `agreement` where dlib does not apply."""
        found: dict[str, Any] = {
            name: {"found": r.found, "count": r.count, "low": r.low, "high": r.high}
            for name, r in (("detected", self.detected), ("mirrored", self.mirrored))
        }
        if self.agreement is not None:
            found["spearman"] = self.agreement.spearman.to_dict()
            found["ours"] = self.agreement.first.auc.to_dict()
            found["dlib"] = self.agreement.second.auc.to_dict()
            found["decisions"] = {
                "far": FAR,
                "same": self.agreement.same.to_dict(),
                "different": self.agreement.different.to_dict(),
            }
        return found


def dlib_cross_check(
    images: Tensor, embeddings: Tensor, identities: Sequence[int] | Tensor, replicates: int = 200
) -> CrossCheck:
    """Spearman's correlation of our cosines with dlib's over pairs, and both encoders' AUC, on near-frontal pictures.

    Args:
        images: uint8 [N, 3, H, W], 256² or more, near-frontal.
        embeddings: [N, d] of the encoder that is checked.
        identities: [N] who is shown; people need two pictures or more.

    Raises:
        Head3DError: the extra is not installed, or too few pictures with a face for a comparison.
    """
    who = torch.as_tensor(identities)
    if not len(images) == len(embeddings) == len(who):
        raise Head3DError(
            "every picture needs an embedding and an identity, "
            f"got {len(images)}, {len(embeddings)} and {len(who)}"
        )
    plain, seen = dlib_embeddings(images)
    turned, seen_turned = dlib_embeddings(images.flip(3))
    both = seen & seen_turned
    detected = share(int(both.sum()), len(images))
    if detected.found < 2:
        raise Head3DError(
            f"dlib finds a face in {detected.found} of {len(images)} pictures: give frontal ones"
        )
    plain, turned = plain[both[seen]], turned[both[seen_turned]]
    mirrored = share(int(((plain - turned).norm(dim=1) < SAME).sum()), detected.found)
    if mirrored.value < ENOUGH:
        return CrossCheck(detected, mirrored, None)
    kept = both.to(embeddings.device)
    return CrossCheck(detected, mirrored, encoder_agreement(embeddings[kept], plain, who[both], replicates))


@dataclass(frozen=True)
class CrossCheckArgs:
    """Compares the identity encoder with dlib's on near-frontal pictures of people neither has seen."""

    people: int = 40
    """Held-out people, four pictures each: two looks, two lights and cameras."""
    encoder: Literal["ours", "facenet"] = "ours"
    """Which encoder is checked."""
    work: Path | None = None
    """Folder that keeps the rendered pictures for a later call."""
    out: Path = files.DATA / "results" / "cross_check.json"
    """File to write."""


def run(args: CrossCheckArgs) -> None:
    """Writes the record and prints what it says."""
    files.check_writable(args.out)
    shown = frontal_people(args.people, args.work, Progress("people", sys.stderr))
    encoder = load_encoder(args.encoder)
    found = dlib_cross_check(shown.images, encoder.embed(shown.images, shown.camera), shown.person)
    table = {
        "encoder": encoder.name,
        "people": args.people,
        "pictures": len(shown.images),
        "same": SAME,
        "enough": ENOUGH,
        **found.to_dict(),
        "provenance": records.provenance(
            f"python data/scripts/cross_check.py --people {args.people} --encoder {args.encoder}"
        ),
    }
    records.write(args.out, table)
    print(
        f"dlib finds a face in {found.detected.value:.1%}, of which {found.mirrored.value:.1%} match their mirror image"
    )
    if found.agreement is None:
        print("dlib's encoder does not apply to these pictures: no agreement to report")
    else:
        same, different = found.agreement.same, found.agreement.different
        print(f"equal decisions at FAR {FAR:.0%}: same pairs {same}, different pairs {different}")
        print(f"agreement: Spearman {found.agreement.spearman}; AUC ours {found.agreement.first.auc}")


if __name__ == "__main__":
    raise SystemExit(main(CrossCheckArgs, run))
