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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from head3d_core.metrics.identity_encoder import EMBEDDING, SIDE, EncoderConfig, IdentityNet, save_net
from head3d_core.metrics.verification import BIN, verification
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import LEVEL
from head3d_core.utils.images import from_uint8
from identity_data import (
    FIRST_HELD_OUT,
    FIRST_PERSON,
    MARGIN_SIDE,
    People,
    cached_people,
)
from script import main

STATE = "state.pt"


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
    """Steps at most."""
    minutes: float = 0.0
    """End the schedule after so many minutes of training, if the steps are not done by then; 0: never. A run that is
    limited by time is not repeatable to the bit."""
    batch: int = 512
    """Pictures a step."""
    rate: float = 2e-3
    """Largest learning rate (AdamW): rises over the first 5 % of the schedule, then falls as a cosine."""
    decay: float = 5e-2
    """AdamW's weight decay."""
    margin: float = 0.4
    """m, radians; rises from 0 over the first 30 %, or a small network never gets going."""
    precision: str = "bf16"
    """bf16 (autocast on a GPU) or fp32."""
    augment: bool = True
    """Shift, scale, tilt, mirror, recolour and blur the crops."""
    seed: int = 0
    config: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    save_seconds: float = 60.0
    """Between states that a later call goes on from."""


def augmented(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Crops uint8 [N, 3, 144, 144] -> [N, 3, 128, 128] in [-1, 1], each changed at random.

    Geometry: up to 6 px of shift, 8 % of scale, 5° of tilt, mirrored in half of all cases. Colour: gain and offset, a
    little per channel. Sharpness: half of each batch is shrunk and enlarged by one factor up to 2.5, since generated
    pictures are softer than rendered ones.
    """
    n, device = len(crops), crops.device

    def draw(*shape: int) -> Tensor:
        return torch.rand(n, *shape, device=device, generator=generator) * 2 - 1

    zoom = SIDE / MARGIN_SIDE * (1 + 0.08 * draw())
    tilt = math.radians(5) * draw()
    flip = torch.where(draw() > 0, 1.0, -1.0)
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 1] = zoom * tilt.cos() * flip, -zoom * tilt.sin()
    theta[:, 1, 0], theta[:, 1, 1] = zoom * tilt.sin() * flip, zoom * tilt.cos()
    theta[:, :, 2] = 2 * 6 / MARGIN_SIDE * draw(2)
    grid = F.affine_grid(theta, [n, 3, SIDE, SIDE], align_corners=False)
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
def embed_people(net: IdentityNet, people: People, batch: int = 256) -> Tensor:
    """Embeddings [N, 128] float32 on the CPU, in evaluation mode."""
    was, device = net.training, next(net.parameters()).device
    net.eval()
    found = torch.cat([net(centred(part.to(device))).cpu() for part in people.crops.split(batch)])
    net.train(was)
    return found


def evaluate(net: IdentityNet, people: People, replicates: int = 200) -> dict[str, Any]:
    """Verification on people (held out, as a rule): frontal pictures, all pictures, and TAR by |yaw|.

    `by_yaw` compares pictures of one 15° step with frontal ones, so it says how far from the front the encoder carries.
    """
    x, person, frontal = embed_people(net, people), people.person.cpu(), people.frontal.cpu()
    found: dict[str, Any] = {
        "frontal": verification(x[frontal], person[frontal], replicates).to_dict(),
        "all": verification(x, person, replicates).to_dict(),
    }
    steps, angle = [], people.yaw.cpu().abs() * 180 / math.pi
    threshold = found["frontal"]["threshold"]
    for low in range(0, 90, int(BIN)):
        inside = (angle >= low) & (angle < low + BIN) & ~frontal
        cosines = x[inside] @ x[frontal].T
        same = person[inside][:, None] == person[frontal]
        if bool(same.any()):
            steps.append(
                {
                    "from": low,
                    "to": low + int(BIN),
                    "same": float(cosines[same].mean()),
                    "different": float(cosines[~same].mean()),
                    "accepted": float((cosines[same] > threshold).float().mean()),
                    "false_accepted": float((cosines[~same] > threshold).float().mean()),
                }
            )
    found["by_yaw"] = steps
    return found


class Trainer:
    """Encoder, centres and optimiser of one run; everything lives on one device.

    Args:
        people: who to learn; their crops are moved to `device` whole (64,000 take 4 GB).
        options: see `TrainOptions`.
    """

    def __init__(self, people: People, options: TrainOptions, device: torch.device | str = "cpu") -> None:
        if people.count < 2:
            raise Head3DError(f"telling people apart takes at least 2 of them, got {people.count}")
        if options.precision not in ("bf16", "fp32"):
            raise Head3DError(f"precision is bf16 or fp32, got {options.precision!r}")
        self.options, self.device = options, torch.device(device)
        self.people = people.to(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            self.net, self.loss = IdentityNet(options.config), AngularMargin(people.count)
        self.net.to(self.device).train()
        self.loss.to(self.device)
        if self.device.type == "cuda":
            self.net.to(memory_format=torch.channels_last)
        # Norms, slopes and centres are not decayed: their scale means nothing, or is normalised away.
        matrices = [p for p in self.net.parameters() if p.ndim > 1]
        others = [p for p in self.net.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": options.decay},
            {"params": [*others, *self.loss.parameters()], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=options.rate)
        self.step, self.seconds = 0, 0.0

    @property
    def progress(self) -> float:
        """Share of the schedule that is done, by steps or by minutes, whichever is further."""
        by_time = self.seconds / (60 * self.options.minutes) if self.options.minutes else 0.0
        return min(1.0, max(self.step / self.options.steps, by_time))

    def advance(self) -> Tensor:
        """One step; returns the loss (a tensor on the device, so that nothing waits)."""
        options, done = self.options, self.progress
        rate = options.rate * min(1.0, done / 0.05 + 1e-2) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # A function of (seed, step): a resumed run draws what an uninterrupted one would have drawn.
        generator = torch.Generator(self.device).manual_seed((options.seed << 32) + self.step)
        count = len(self.people.crops)
        index = torch.randint(count, (options.batch,), generator=generator, device=self.device)
        crops = self.people.crops[index]
        x = augmented(crops, generator) if options.augment else centred(crops)
        autocast = options.precision == "bf16" and self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            embeddings = self.net(x)
        margin = options.margin * min(1.0, done / 0.3)
        loss: Tensor = self.loss(embeddings, self.people.person[index], margin)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*self.net.parameters(), *self.loss.parameters()], 5.0)
        self.optimiser.step()
        self.step += 1
        return loss.detach()

    def run(self, out: Path | None = None) -> None:
        """To the end of the schedule, with a state in `out` now and then and at the end."""
        saved = shown = time.monotonic()
        start, before = saved, self.seconds
        while self.progress < 1:
            loss = self.advance()
            now = time.monotonic()
            self.seconds = before + now - start
            if now - shown > 15 or self.progress >= 1:
                shown, value = now, float(loss)  # waits for the device, so only now and then
                print(f"step {self.step}, {self.progress:.0%}, loss {value:.3f}", file=sys.stderr, flush=True)
                if not math.isfinite(value):
                    raise Head3DError(f"the loss is {value} at step {self.step}: lower the rate, or use fp32")
            if out is not None and (now - saved > self.options.save_seconds or self.progress >= 1):
                self.save(out / STATE)
                saved = now

    def save(self, path: Path) -> None:
        """Writes everything a later run needs to go on, whole or not at all."""
        state = {
            "net": self.net.state_dict(),
            "loss": self.loss.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "people": list(self.people.seeds),
        }
        with files.atomic(path) as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path) -> None:
        """Goes on from a state; raises Head3DError if it is damaged or of other people or another network."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            if state["people"] != list(self.people.seeds):
                raise Head3DError(f"{path} was trained on other people: give it the same, or another folder")
            self.net.load_state_dict(state["net"])
            self.loss.load_state_dict(state["loss"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
        except Head3DError:
            raise
        except Exception as error:  # torch.load raises many kinds
            raise Head3DError(
                f"cannot go on from {path} ({str(error).splitlines()[0]}): delete it"
            ) from error


def train_encoder(
    people: People,
    held_out: People,
    options: TrainOptions,
    out: Path,
    device: torch.device | str = "cpu",
    resume: bool = False,
    provenance: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Trains, tests before and after, writes `encoder.safetensors` and `identity_roc.json`; returns the latter.

    Raises:
        Head3DError: someone is both learned and tested on, or see `Trainer`.
    """
    shared = set(people.seeds) & set(held_out.seeds)
    if shared:
        raise Head3DError(f"{len(shared)} people are both learned and tested on: use other seeds")
    trainer = Trainer(people, options, device)
    untrained = evaluate(trainer.net, held_out, 20)
    if resume and (out / STATE).is_file():
        trainer.resume(out / STATE)
    trainer.run(out)
    notes = {
        "people": people.count,
        "pictures": len(people.crops),
        "held_out_people": held_out.count,
        "held_out_pictures": len(held_out.crops),
        "first_person": min(people.seeds),
        "first_held_out": min(held_out.seeds),
        "sampler_version": SAMPLER_VERSION,
        "steps": trainer.step,
        "training_seconds": round(trainer.seconds, 1),
        "options": dataclasses.asdict(options),
        **records.provenance("python data/scripts/identity_train.py", device),
        **(provenance or {}),
    }
    path = save_net(trainer.net, out / "encoder.safetensors", notes)
    result = {
        "provenance": {**notes, "sha256": files.sha256(path), "bytes": path.stat().st_size},
        "level": LEVEL,
        **evaluate(trainer.net, held_out),
        "untrained": {
            k: {n: untrained[k][n] for n in ("auc", "tar_at_far_0.01")} for k in ("frontal", "all")
        },
    }
    records.write(out / "identity_roc.json", result)
    return result


@dataclass(frozen=True)
class TrainIdentityArgs:
    """Renders people, trains the identity encoder on them and tests it on others."""

    out: Path
    """Folder to write: encoder.safetensors, identity_roc.json, state.pt."""
    people: int = 5000
    """People to learn."""
    held_out: int = 300
    """People to test on."""
    looks: int = 2
    """Looks per person: expression, gaze, make-up, clothes, glasses, hat."""
    views: int = 4
    """Pictures per look, each with its own light and camera; every other one frontal."""
    render_minutes: float = 0.0
    """Stop rendering then and learn from whoever is complete; a quarter of it goes to the test people. 0: all."""
    workers: int = 0
    """Rendering processes; 0 takes one per core."""
    cache: Path | None = None
    """Folder that keeps the rendered people for a later call."""
    resume: bool = False
    """Go on from `out`/state.pt."""
    options: TrainOptions = dataclasses.field(default_factory=TrainOptions)


def run(args: TrainIdentityArgs) -> None:
    """Renders, trains, tests and prints the rates."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True  # one shape only
    start = time.monotonic()
    tested = args.render_minutes / 4
    held_out = cached_people(
        args.cache, FIRST_HELD_OUT, args.held_out, args.looks, args.views, tested, args.workers
    )
    left = args.render_minutes and max(0.1, args.render_minutes - (time.monotonic() - start) / 60)
    people = cached_people(args.cache, FIRST_PERSON, args.people, args.looks, args.views, left, args.workers)
    about = {
        "rendering_seconds": round(time.monotonic() - start, 1),
        "command": f"python data/scripts/identity_train.py --people {args.people} "
        f"--held-out {args.held_out} --looks {args.looks} --views {args.views} "
        f"--render-minutes {args.render_minutes:g}, and `options`",
    }
    result = train_encoder(people, held_out, args.options, args.out, device, args.resume, about)
    for name in ("frontal", "all"):
        tar, auc = result[name]["tar_at_far_0.01"], result[name]["auc"]
        interval = f"{tar['value']:.1%} [{tar['low']:.1%}, {tar['high']:.1%}]"
        print(f"{name}: TAR {interval} at FAR 1 %, AUC {auc['value']:.4f}")


if __name__ == "__main__":
    raise SystemExit(main(TrainIdentityArgs, run))
