"""Trains our identity encoder with the additive angular margin loss on the head factory's people.

    python data/scripts/identity_train.py --out runs/identity

Writes `encoder.safetensors` (float16) and `identity_roc.json`: ROC, AUC and TAR at FAR 1 % on people never seen, before
and after training, with provenance. They belong into `data/weights/identity/` and `data/results/`.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from head3d_core.metrics.identity_encoder import EMBEDDING, SIDE, EncoderConfig, IdentityNet, save_net
from head3d_core.metrics.verification import Verification, verification
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import LEVEL, Estimate
from head3d_core.utils.images import from_uint8
from identity_data import FIRST_HELD_OUT, FIRST_PERSON, MARGIN_SIDE, People, render_people
from script import main

COMMAND = "python data/scripts/identity_train.py"
KEPT = ("auc", "tar_at_far_0.01")
"""Rates of the untrained network that are recorded."""


class AngularMargin(nn.Module):
    """L = −log softmax(s cos(θ_y + m) against s cos θ_j): additive angular margin (ArcFace, Deng et al. 2019, Eq. 3).

    θ_j is the angle between an embedding and the centre of person j. Beyond θ = π − m, where cos(θ + m) would rise
    again, the target falls linearly instead, as the authors do.

    Args:
        people: number of centres.
        scale: s. A target with cosine 1 must be able to outweigh everybody else: s = 24 is enough for thousands.
    """

    def __init__(self, people: int, scale: float = 24.0) -> None:
        super().__init__()
        self.scale = scale
        self.centres = nn.Parameter(torch.randn(people, EMBEDDING) * 0.01)

    def forward(self, embeddings: Tensor, person: Tensor, margin: float) -> Tensor:
        """Mean loss of unit embeddings [N, 128] of `person` [N] at a margin in radians."""
        cosine = embeddings.float() @ F.normalize(self.centres.float(), dim=1).T
        target = cosine.gather(1, person[:, None])
        sine = (1 - target.square()).clamp_min(1e-8).sqrt()
        moved = target * math.cos(margin) - sine * math.sin(margin)
        beyond = target < math.cos(math.pi - margin)
        moved = torch.where(beyond, target - margin * math.sin(margin), moved)
        logits = cosine.scatter(1, person[:, None], moved)
        return F.cross_entropy(self.scale * logits, person)


@dataclass(frozen=True)
class TrainOptions:
    """How the encoder is trained."""

    steps: int = 12_000
    """Steps of the schedule."""
    batch: int = 512
    """Images a step."""
    rate: float = 2e-3
    """Largest learning rate (AdamW): rises over the first 5 % of the schedule, then falls as a cosine."""
    decay: float = 5e-2
    """AdamW's weight decay."""
    margin: float = 0.4
    """m, radians; rises from 0 over the first 30 %, or a small network never gets going."""
    seed: int = 0
    config: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)


def augmented(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Crops uint8 [N, 3, 144, 144] -> [N, 3, 128, 128] in [-1, 1], each changed at random.

    Geometry: up to 6 px of shift, 8 % of scale, 5° of tilt, mirrored in half of all cases. Colour: gain and offset, a
    little per channel. Sharpness: half of each batch is shrunk and enlarged by one factor up to 2.5, since generated
    images are softer than rendered ones.
    """
    n, device = len(crops), crops.device

    def draw(*shape: int) -> Tensor:
        return torch.rand(n, *shape, device=device, generator=generator) * 2 - 1

    zoom, tilt = SIDE / MARGIN_SIDE * (1 + 0.08 * draw()), math.radians(5) * draw()
    flip = torch.where(draw() > 0, 1.0, -1.0)
    cos, sin, shift = zoom * tilt.cos(), zoom * tilt.sin(), 2 * 6 / MARGIN_SIDE * draw(2)
    theta = torch.stack([cos * flip, -sin, shift[:, 0], sin * flip, cos, shift[:, 1]], 1)
    grid = F.affine_grid(theta.reshape(n, 2, 3), [n, 3, SIDE, SIDE], align_corners=False)
    x = F.grid_sample(from_uint8(crops), grid, padding_mode="border", align_corners=False)
    x = x * (1 + 0.15 * draw(1, 1, 1)) + 0.12 * draw(1, 1, 1) + 0.04 * draw(3, 1, 1)
    soft = x[: n // 2]
    if len(soft):
        # One factor a batch, drawn on the CPU, which must know the size and should not wait for a GPU to tell.
        here = torch.Generator().manual_seed(generator.initial_seed())
        small = int(SIDE / (1 + 1.5 * float(torch.rand((), generator=here))))
        soft = F.interpolate(soft, size=(small, small), mode="bilinear", antialias=True)
        x = torch.cat([F.interpolate(soft, size=(SIDE, SIDE), mode="bilinear"), x[n // 2 :]])
    return x.clamp(-1, 1)


def centred(crops: Tensor) -> Tensor:
    """The middle 128 pixels in [-1, 1]: what `face_crop` gives the encoder."""
    edge = (MARGIN_SIDE - SIDE) // 2
    return from_uint8(crops[:, :, edge : edge + SIDE, edge : edge + SIDE])


@torch.no_grad()
def evaluate(net: IdentityNet, people: People, replicates: int = 200) -> dict[str, Any]:
    """Verification on people (held out, as a rule): between their frontal images, and between all of them."""
    device = next(net.eval().parameters()).device
    x = torch.cat([net(centred(part.to(device))).cpu() for part in people.images.split(256)])
    chosen = {"frontal": people.frontal.cpu(), "all": torch.ones(len(x), dtype=torch.bool)}
    person = people.person.cpu()
    found = {name: verification(x[k], person[k], replicates) for name, k in chosen.items()}
    return {name: recorded(one) for name, one in found.items()}


def recorded(found: Verification) -> dict[str, Any]:
    """JSON-able, the curve included."""
    plain = dataclasses.asdict(found)
    curve = {name: np.round(plain.pop(name), 6).tolist() for name in ("false_accept", "true_accept")}
    return {"auc": plain["auc"], "tar_at_far_0.01": plain.pop("tar"), **plain, "roc": curve}


def learn(people: People, options: TrainOptions, device: torch.device | str = "cpu") -> IdentityNet:
    """A network trained to tell `people` apart; everything lives on one device, their crops included (64,000: 4 GB).

    Raises:
        Head3DError: fewer than 2 people, or a loss that is not finite.
    """
    if len(people.seeds) < 2:
        raise Head3DError(f"telling people apart takes at least 2 of them, got {len(people.seeds)}")
    device = torch.device(device)
    images, person = people.images.to(device), people.person.to(device)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        net, loss_of = IdentityNet(options.config), AngularMargin(len(people.seeds))
    net.to(device).train()
    if device.type == "cuda":
        net.to(memory_format=torch.channels_last)
    loss_of.to(device)
    # Norms, slopes and centres are not decayed: their scale means nothing, or is normalised away.
    decayed = [p for p in net.parameters() if p.ndim > 1]
    free = [*(p for p in net.parameters() if p.ndim <= 1), *loss_of.parameters()]
    groups = [{"params": decayed, "weight_decay": options.decay}, {"params": free, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=options.rate)
    shown = time.monotonic()
    for step in range(options.steps):
        done = step / options.steps
        for group in optimiser.param_groups:
            group["lr"] = options.rate * min(1.0, done / 0.05 + 1e-2) * 0.5 * (1 + math.cos(math.pi * done))
        generator = torch.Generator(device).manual_seed((options.seed << 32) + step)
        index = torch.randint(len(images), (options.batch,), generator=generator, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            embeddings = net(augmented(images[index], generator))
        loss: Tensor = loss_of(embeddings, person[index], options.margin * min(1.0, done / 0.3))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*decayed, *free], 5.0)
        optimiser.step()
        if time.monotonic() - shown > 15 or step + 1 == options.steps:
            shown, value = time.monotonic(), loss.item()  # waits for the device, so only now and then
            print(f"step {step + 1} of {options.steps}, loss {value:.3f}", file=sys.stderr, flush=True)
            if not math.isfinite(value):
                raise Head3DError(f"the loss is {value} at step {step + 1}: lower the rate")
    return net


def train_encoder(
    people: People, held_out: People, options: TrainOptions, out: Path, device: str = "cpu", **about: Any
) -> dict[str, Any]:
    """Trains, tests before and after, writes `encoder.safetensors` and `identity_roc.json`; returns the latter.

    Raises:
        Head3DError: someone is both learned and tested on, or see `learn`.
    """
    if shared := set(people.seeds) & set(held_out.seeds):
        raise Head3DError(f"{len(shared)} people are both learned and tested on: use other seeds")
    untrained = evaluate(learn(people, dataclasses.replace(options, steps=0), device), held_out, 20)
    start = time.monotonic()
    net = learn(people, options, device)
    notes = {
        **dict(people=len(people.seeds), pictures=len(people.images), first_person=min(people.seeds)),
        **dict(held_out_people=len(held_out.seeds), held_out_pictures=len(held_out.images)),
        "first_held_out": min(held_out.seeds),
        "sampler_version": SAMPLER_VERSION,
        "steps": options.steps,
        "training_seconds": round(time.monotonic() - start, 1),
        "options": dataclasses.asdict(options),
        **records.provenance(COMMAND, device),
        **about,
    }
    path = save_net(net, out / "encoder.safetensors", notes)
    result = {
        "provenance": {**notes, "sha256": files.sha256(path), "bytes": path.stat().st_size},
        "level": LEVEL,
        **evaluate(net, held_out),
        "untrained": {k: {n: untrained[k][n] for n in KEPT} for k in ("frontal", "all")},
    }
    records.write(out / "identity_roc.json", result)
    return result


def run(
    out: Path,
    people: int = 5000,
    held_out: int = 300,
    workers: int = 0,
    options: TrainOptions = TrainOptions(),
) -> None:
    """Renders people, trains the identity encoder on them and tests it on others.

    Args:
        out: folder to write: encoder.safetensors, identity_roc.json.
        people: people to learn.
        held_out: people to test on.
        workers: rendering processes; 0 takes one per core.
        options: how the encoder is trained.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True  # one shape only
    start = time.monotonic()
    learned = render_people(FIRST_PERSON, people, workers=workers)
    tested = render_people(FIRST_HELD_OUT, held_out, workers=workers)
    command = f"{COMMAND} --people {people} --held-out {held_out}, and `options`"
    about = {"rendering_seconds": round(time.monotonic() - start, 1), "command": command}
    result = train_encoder(learned, tested, options, out, device, **about)
    for name in ("frontal", "all"):
        tar, auc = (Estimate.of(result[name][key]) for key in ("tar_at_far_0.01", "auc"))
        print(f"{name}: TAR {tar.text(1, percent=True)} at FAR 1 %, AUC {auc.value:.4f}")


if __name__ == "__main__":
    raise SystemExit(main(run))
