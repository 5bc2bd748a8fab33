"""Training by hand, small enough for a notebook: preset `tiny` on the sample pictures that ship, on a CPU.

The very engine of the real runs, with fewer pixels, channels and pictures. Nothing here needs OpenGL or a GPU.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.config import preset
from head3d_core.datasets import format
from head3d_core.model.cameras import yaw_pitch
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.filters import resize
from head3d_core.model.generator import Generator
from head3d_core.training import augment, losses
from head3d_core.training.recipes import Recipe, recipe
from head3d_core.training.stages import copy_of, make_pools
from head3d_core.training.trainer import Trainer
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import DATA
from head3d_core.utils.images import from_uint8

Data = tuple[Tensor, Tensor]


def sample_sets(side: int = 64) -> tuple[Data, Data]:
    """The shipped faces and heads: (images uint8 [N, 3, side, side], cameras [N, 25]) of each."""
    faces, heads = (format.load_arrays(DATA / "samples" / name, side) for name in ("faces", "heads"))
    return faces, heads


def small_recipe(stage: str, **changes: Any) -> Recipe:
    """A stage's recipe for some dozen steps: no fades, an average that follows quickly, no perceptual term.

    The perceptual term alone would cost more than everything else together on a CPU.
    """
    base = recipe(stage, "tiny")
    values: dict[str, Any] = {
        "images": 100_000,
        "blur_sigma": 0.0,
        "gpc_images": 0,
        "neural_resolution": None,
        "ema_images": 80.0,
        "warmup_steps": 4,
        "losses": dataclasses.replace(base.losses, lpips=0.0),
        **changes,
    }
    return dataclasses.replace(base, **values)


def small_engine(how: Recipe, *, teacher: Trainer | None = None, head: Trainer | None = None) -> Trainer:
    """A trainer at preset `tiny` on the sample pictures.

    Args:
        how: what to train, e.g. of `small_recipe`.
        teacher, head: trainers of earlier stages, which it starts from (and, with distillation terms, learns from).

    Raises Head3DError if the recipe starts from a stage that was not given.
    """
    scale, trainers = preset("tiny"), {"teacher": teacher, "head": head}

    def earlier(name: str) -> Trainer:
        found = trainers[name]
        if found is None:
            raise Head3DError(
                f"stage {how.stage} starts from a {name}: pass {name}=, a trainer of that stage"
            )
        return found

    def discriminator(name: str) -> Discriminator:
        torch.manual_seed(0)
        Generator(scale.generator)  # as in the command, a new D draws its weights after a new G
        network = Discriminator(scale.discriminator)
        if name != "scratch":
            network.load_state_dict(earlier(name).discriminators[0].state_dict())
        return network

    pools, faces = make_pools(how, *sample_sets(), torch.device("cpu"))
    torch.manual_seed(0)
    start = Generator(scale.generator) if how.start == "scratch" else earlier(how.start).average
    return Trainer(
        scale, how, pools, copy_of(start, scale.generator), [discriminator(s) for s in how.discriminator_starts],
        faces=faces,
        teacher=copy.deepcopy(earlier("teacher").average) if how.losses.any else None,
        seed=0,
    )  # fmt: skip


def run_steps(engine: Trainer, steps: int, every: int = 10) -> dict[str, list[float | None]]:
    """Trains and returns means over each `every` steps by name; "images" says where each span ends."""
    rows: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        engine.step()
        if step % every == 0 or step == steps:
            rows.append({"images": float(engine.images_seen), **engine.read_metrics()})
    return {name: [row.get(name) for row in rows] for name in sorted({k for row in rows for k in row})}


def average_picture_gap(engine: Trainer) -> float:
    """Root mean squared difference between the mean of 32 samples and the mean real picture, 32² pixels.

    Both see the cameras of the first domain's data. A crude but steady sign that a generator learns.
    """
    generator = torch.Generator().manual_seed(0)
    pool = engine.pools[0]
    z = torch.randn(32, engine.generator.z_dim, generator=generator)
    index = torch.randint(len(pool), (32,), generator=generator)
    camera = pool.cameras[0, index]
    with torch.no_grad():
        ws = engine.average.mapping(z, camera)
        fake = engine.average.render(engine.average.planes(ws), ws, camera).image
    real = from_uint8(pool.images)
    means = [F.adaptive_avg_pool2d(x.clamp(-1, 1).mean(0, keepdim=True), 32) for x in (fake, real)]
    return float((means[0] - means[1]).square().mean().sqrt())


def memorise(count: int, steps: int = 60, p: float = 0.0) -> dict[str, list[float]]:
    """A discriminator against a *perfect* generator: its "fakes" are real faces too, so all it learns is by heart.

    The sample faces (and their mirror images) are split: `count` are called real, 16 are held out (also real, never
    shown), the rest play the fakes.

    Args:
        count: pictures called real, 1 to 32.
        steps: of Adam on L_D (Eq. 6) without R1, with 8 real and 8 fake pictures each.
        p: probability of each augmentation, of real and fake pictures alike.

    Returns:
        "steps", every tenth, and the mean logit of "shown", "held out" and "fake" pictures at those steps.
    """
    if not 1 <= count <= 32:
        raise Head3DError(f"count must lie between 1 and 32, got {count}")
    (pictures, cameras), _ = sample_sets()
    images = from_uint8(pictures)
    raws = resize(images, 16)
    indices = (torch.arange(count), torch.arange(32, 48), torch.arange(48, len(images)))
    pools = dict(zip(("shown", "held out", "fake"), indices, strict=True))
    torch.manual_seed(0)
    net = Discriminator(preset("tiny").discriminator)
    adam = torch.optim.Adam(net.parameters(), lr=0.002, betas=(0.0, 0.99))
    draw = torch.Generator().manual_seed(0)

    def judge(index: Tensor, chance: float, key: int) -> Tensor:
        image, raw = images[index], raws[index]
        if chance:  # both under the same random transforms
            transform = augment.draw_transforms(key * 10_000 + torch.arange(len(index)), torch.tensor(chance))
            image, raw = augment.apply(image, *transform), augment.apply(raw, *transform)
        return cast(Tensor, net(image, raw, cameras[index]))

    def pick(name: str) -> Tensor:
        return pools[name][torch.randint(len(pools[name]), (8,), generator=draw)]

    history: dict[str, list[float]] = {"steps": [], **{name: [] for name in pools}}
    for step in range(steps + 1):
        if step % 10 == 0:
            history["steps"].append(float(step))
            with torch.no_grad():
                for name, pool in pools.items():
                    whole = pool.repeat(math.ceil(16 / len(pool)))[:16]
                    history[name].append(float(judge(whole, 0.0, 0).mean()))
        real, fake = judge(pick("shown"), p, 2 * step + 1), judge(pick("fake"), p, 2 * step + 2)
        adam.zero_grad()
        losses.discriminator_loss(real, fake).backward()
        adam.step()
    return history


def face_of(images: Tensor, camera: Tensor, who: Tensor) -> Tensor:
    """The most frontal image of the first person, [1, 3, H, W] in [-1, 1].

    Args:
        images: [N, 3, H, W] uint8.
        camera: [N, 25].
        who: [N], one number a person.
    """
    index = (who == who[0]).nonzero()[:, 0]
    return from_uint8(images[index[yaw_pitch(camera[index])[0].abs().argmin()]][None])
