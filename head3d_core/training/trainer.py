"""One iteration of adversarial training, for every stage: generator step, regularisers, discriminator step.

All randomness is a pure function of (run seed, step, purpose, global sample index). So any number of processes sees
the same numbers at one global batch, a resumed run continues as if nothing had happened, and whole steps can be
captured as CUDA graphs. Nothing is read back from the device inside a step.
"""

from __future__ import annotations

import collections
import copy
import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from head3d_core.config import Preset
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.filters import resize
from head3d_core.model.generator import Generator
from head3d_core.ops import random
from head3d_core.training import augment, losses
from head3d_core.training.distillation import Sample, check_match, distillation_terms
from head3d_core.training.parts import (
    Draws,
    EngineOptions,
    Meters,
    Phase,
    Pool,
    Purpose,
    Replay,
    Trainable,
    blur,
)
from head3d_core.training.recipes import Recipe
from head3d_core.utils.errors import Head3DError

_Net = TypeVar("_Net", bound=nn.Module)


class Engine:
    """Generator, averaged generator, discriminators and their data; `step()` trains once.

    Args:
        preset: architecture.
        recipe: what to train.
        pools: one per domain of the recipe, in order.
        faces: where mapping cameras come from if the recipe says so.
        generator, discriminators: starting points; they are moved to `device` and trained in place.
        teacher: frozen G_t, for recipes with distillation terms.
        perceptual: distance for L_lpips.
    """

    def __init__(
        self,
        preset: Preset,
        recipe: Recipe,
        pools: list[Pool],
        generator: Generator,
        discriminators: list[Discriminator],
        *,
        faces: Pool | None = None,
        teacher: Generator | None = None,
        perceptual: nn.Module | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        options: EngineOptions | None = None,
    ) -> None:
        self.preset, self.recipe, self.pools = preset, recipe, pools
        self.options = options or EngineOptions()
        self.device = pools[0].images.device
        self.world = world
        self._check(faces, teacher, world)
        self.faces = faces or pools[0]
        self.cuda = self.device.type == "cuda"
        if self.cuda:
            torch.backends.cuda.matmul.allow_tf32 = self.options.tf32
            torch.backends.cudnn.allow_tf32 = self.options.tf32
            torch.backends.cudnn.benchmark = True
        self.generator = self._place(generator).train().requires_grad_(True)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.teacher = self._place(teacher).eval().requires_grad_(False) if teacher else None
        if self.teacher:
            check_match(self.teacher, self.generator)
        self.perceptual = self._place(perceptual) if perceptual else None
        self.discriminators = [self._place(d).train().requires_grad_(True) for d in discriminators]
        g_interval = recipe.g_reg_interval if recipe.density_weight > 0 else 0
        self.g = Trainable(self.generator, recipe.lr_g, recipe.beta2, g_interval)
        self.d = [Trainable(d, recipe.lr_d, recipe.beta2, recipe.d_reg_interval) for d in self.discriminators]
        self.ada = [
            augment.AdaptiveProbability(recipe.ada_target, recipe.ada_images, recipe.ada_start, self.device)
            for _ in pools
        ]
        self.draws = Draws(seed, recipe.batch, rank, world, self.device)
        names = [
            f"{n}_{d.name}"
            for d in recipe.domains
            for n in ("g_gan", "d_loss", "r1", "sign_real", "sign_fake", "ada_p")
        ]
        self.meters = Meters([*names, "kd", "map", "rgb", "lpips", "density", "bad_gradients"], self.device)
        self.bad = torch.zeros((), dtype=torch.int64, device=self.device)
        self.blur = torch.zeros((), device=self.device)
        self.swap = torch.zeros((), device=self.device)
        self.step_count = 0
        self.visits = [0] * len(pools)
        self.warm_from = 0
        self.resolution = preset.generator.neural_resolution
        self.replays: dict[tuple[int, ...], Replay] = {}
        self._stream = torch.cuda.Stream() if self.cuda else None
        self._events: collections.deque[torch.cuda.Event] = collections.deque()
        self._memory = torch.cuda.graph_pool_handle() if self.cuda and self.options.graphs else None
        if self.options.compile:
            self.generator.backbone.synthesis.compile()
            self.generator.superresolution.compile()
        if self.cuda:
            torch.cuda.synchronize()  # set-up ran on the default stream

    # -- set-up ----------------------------------------------------------------------------------------------

    def _check(self, faces: Pool | None, teacher: Generator | None, world: int) -> None:
        group, batch = self.preset.discriminator.group_size, self.recipe.batch
        if batch % (world * group) and (world > 1 or batch > group):
            raise Head3DError(
                f"the batch per process must be a multiple of the minibatch-std group ({group}), got {batch} over "
                f"{world} process(es): choose a multiple of {group * world}"
            )
        side = self.preset.generator.image_resolution
        for pool in self.pools:
            if pool.images.shape[1:] != (3, side, side):
                raise Head3DError(
                    f"training images must be 3 x {side} x {side}, got {list(pool.images.shape[1:])}: "
                    f"prepare the data at {side} pixels"
                )
        if self.recipe.losses.any and teacher is None:
            raise Head3DError("this recipe distils, so it needs a teacher: pass --teacher RUN")
        if self.recipe.mapping_camera == "faces" and faces is None:
            raise Head3DError(
                "mapping cameras come from the face set, which was not given: pass --data FACES"
            )

    def _place(self, module: _Net) -> _Net:
        module = module.to(self.device)
        if self.cuda and self.options.channels_last:
            module.to(memory_format=torch.channels_last)  # in place
        return module

    def _autocast(self) -> AbstractContextManager[None]:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.options.precision)
        if not self.cuda or dtype is None:
            return nullcontext()
        return torch.autocast("cuda", dtype=dtype)

    # -- schedules (host side, from the image count alone) ---------------------------------------------------

    @property
    def images_seen(self) -> int:
        """Real images shown so far."""
        return self.step_count * self.recipe.batch

    def blur_sigma(self) -> float:
        """σ of the blur at this step, pixels of the full image."""
        return self.recipe.blur_sigma * max(0.0, 1 - self.images_seen / max(self.recipe.blur_images, 1))

    def swap_probability(self) -> float:
        """Probability that the mapping camera is another sample's (generator pose conditioning)."""
        fade = min(1.0, self.images_seen / self.recipe.gpc_images) if self.recipe.gpc_images else 1.0
        return 1 + (self.recipe.gpc - 1) * fade

    def neural_resolution(self) -> int:
        """Volume-rendered resolution at this step; all integers between start and end occur."""
        final, start = self.preset.generator.neural_resolution, self.recipe.neural_resolution
        if start is None or self.recipe.neural_images == 0:
            return final
        fade = min(1.0, self.images_seen / self.recipe.neural_images)
        return round(start + (final - start) * fade)

    def ema_beta(self) -> float:
        """Decay of the averaged generator per step: 0.5^(batch / half-life)."""
        half_life = self.recipe.ema_images
        if self.recipe.ema_rampup is not None:
            half_life = min(half_life, self.images_seen * self.recipe.ema_rampup)
        return 0.5 ** (self.recipe.batch / max(half_life, 1e-8))

    # -- pictures --------------------------------------------------------------------------------------------

    def mapping_cameras(self, phase: Phase, domain: int) -> tuple[Tensor, Tensor]:
        """(rendering camera, mapping camera), [n, 25] each."""
        d, pool = self.draws, self.pools[domain]
        camera = pool.draw_cameras(d.uniform(phase, Purpose.CAMERA, 2))
        if self.recipe.mapping_camera == "faces":
            return camera, self.faces.draw_cameras(d.uniform(phase, Purpose.MAPPING, 2))
        other = pool.draw_cameras(d.uniform(phase, Purpose.CAMERA, 2, shift=-1))
        swapped = d.uniform(phase, Purpose.SWAP, 1) < self.swap
        return camera, torch.where(swapped, other, camera)

    def _sample(
        self, net: Generator, z: Tensor, mapping: Tensor, camera: Tensor | None, seeds: Tensor
    ) -> Sample:
        with self._autocast():
            ws = net.mapping(z, mapping)
            planes = net.planes(ws, self.recipe.noise, seeds)
            output = None if camera is None else net.render(planes, ws, camera, self.resolution, seeds=seeds)
        return Sample(ws, planes, output)

    def _judge(
        self, domain: int, image: Tensor, raw: Tensor, camera: Tensor, *, learns: bool = True
    ) -> Tensor:
        net = self.discriminators[domain]
        net.requires_grad_(learns)  # where only the generator learns, D's own gradients are not even computed
        try:
            with self._autocast():
                logit: Tensor = net(image, raw, camera).float()
        finally:
            net.requires_grad_(True)
        return logit

    def _judge_both(
        self, domain: int, fake: tuple[Tensor, ...], real: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Logits of generated and real (image, raw, camera), in one pass where that changes nothing.

        Taken in turns (fake 0, real 0, fake 1, ...) sample n of 2 N falls into minibatch-std group n mod (2 N / G):
        even groups hold generated pictures and odd ones real pictures, exactly as in two passes.
        """
        if len(fake[0]) % self.preset.discriminator.group_size:
            return self._judge(domain, *fake), self._judge(domain, *real)
        image, raw, camera = (
            torch.stack([f.float(), r], 1).flatten(0, 1) for f, r in zip(fake, real, strict=True)
        )
        logits = self._judge(domain, image, raw, camera).unflatten(0, (-1, 2))
        return logits[:, 0], logits[:, 1]

    def _present(
        self, image: Tensor, raw: Tensor, seeds: Tensor, domain: int, blur_raw: bool
    ) -> tuple[Tensor, Tensor]:
        """What D is given: blurred (fading) and, where the recipe says so, augmented."""
        if self.blur_sigma() > 0:
            image = blur(image, self.blur, self.recipe.blur_sigma)
            if blur_raw:
                raw = blur(raw, self.blur, self.recipe.blur_sigma)
        if self.recipe.ada_target > 0:
            transform = augment.draw_transforms(seeds, self.ada[domain].p)
            image, raw = augment.apply(image, *transform), augment.apply(raw, *transform)
        return image, raw

    def _real(self, phase: Phase, domain: int) -> tuple[Tensor, Tensor, Tensor]:
        # One real batch serves the main and the regularisation phase of an iteration.
        image, camera = self.pools[domain].draw(self.draws.uniform(Phase.D_MAIN, Purpose.REAL, 2))
        raw = resize(image, self.resolution)
        image, raw = self._present(
            image, raw, self.draws.seeds(phase, Purpose.AUGMENT_REAL), domain, blur_raw=True
        )
        return image, raw, camera

    # -- the four phases -------------------------------------------------------------------------------------

    def g_main(self, domain: int) -> None:
        """Generator: λ_gan L_gan and the distillation terms (Eq. 10)."""
        phase, d = Phase.G_MAIN, self.draws
        camera, mapping = self.mapping_cameras(phase, domain)
        z, seeds = d.normal(phase, Purpose.Z, self.preset.generator.z_dim), d.seeds(phase, Purpose.RENDER)
        student = self._sample(self.generator, z, mapping, camera, seeds)
        self._track_w(student.ws)
        spec = self.recipe.domains[domain]
        assert student.output is not None
        total = torch.zeros((), device=self.device)
        if spec.weight:
            out = student.output
            shown = self._present(
                out.image, out.raw, d.seeds(phase, Purpose.AUGMENT_FAKE), domain, blur_raw=False
            )
            gan = losses.generator_loss(self._judge(domain, *shown, camera, learns=False))
            self.meters.add(f"g_gan_{spec.name}", gan)
            total = total + spec.weight * gan
        if self.teacher is not None:
            pictures = camera if self.recipe.compares_pictures(domain) else None
            with torch.no_grad():
                teacher = self._sample(self.teacher, z, mapping, pictures, seeds)
            with self._autocast():
                terms = distillation_terms(self.recipe, teacher, student, camera, self.perceptual)
            for name, value in terms.items():
                self.meters.add(name, value)
                total = total + value
        self.g.descend(total)
        self.g.update(self.bad)

    def g_reg(self, domain: int) -> None:
        """Generator: density regularisation."""
        phase, d, r = Phase.G_REG, self.draws, self.recipe
        _, mapping = self.mapping_cameras(phase, domain)
        z, seeds = d.normal(phase, Purpose.Z, self.preset.generator.z_dim), d.seeds(phase, Purpose.RENDER)
        sample = self._sample(self.generator, z, mapping, None, seeds)
        key = d.seeds(phase, Purpose.DENSITY)
        points = random.uniform(key, r.density_points, 3, 0) * 2 - 1
        offset = random.normal(key, r.density_points, 3, 1) * r.density_distance
        # In fp32: neighbouring sigmas differ by less than bfloat16 can tell.
        sigma, _ = self.generator.query(sample.planes.float(), torch.cat([points, points + offset], 1))
        value = losses.density_loss(*sigma.float().chunk(2, 1))
        self.meters.add("density", value)
        self.g.descend(r.density_weight * r.g_reg_interval * value)
        self.g.update(self.bad)

    def d_main(self, domain: int) -> None:
        """Discriminator: logistic loss on generated and real pictures."""
        phase, d, spec = Phase.D_MAIN, self.draws, self.recipe.domains[domain]
        camera, mapping = self.mapping_cameras(phase, domain)
        z, seeds = d.normal(phase, Purpose.Z, self.preset.generator.z_dim), d.seeds(phase, Purpose.RENDER)
        with torch.no_grad():
            out = self._sample(self.generator, z, mapping, camera, seeds).output
            assert out is not None
            shown = self._present(
                out.image, out.raw, d.seeds(phase, Purpose.AUGMENT_FAKE), domain, blur_raw=False
            )
            real_image, real_raw, real_camera = self._real(phase, domain)
        fake, real = self._judge_both(domain, (*shown, camera), (real_image, real_raw, real_camera))
        value = losses.discriminator_loss(real, fake)
        self.d[domain].descend(value)
        self.d[domain].update(self.bad)
        if self.recipe.ada_target > 0:
            self.ada[domain].observe(real)
        self.meters.add(f"d_loss_{spec.name}", value)
        self.meters.add(f"sign_real_{spec.name}", real.sign().mean())
        self.meters.add(f"sign_fake_{spec.name}", fake.sign().mean())

    def d_reg(self, domain: int) -> None:
        """Discriminator: R1."""
        spec = self.recipe.domains[domain]
        with torch.no_grad():
            image, raw, camera = self._real(Phase.D_REG, domain)
        image, raw = image.requires_grad_(), raw.requires_grad_()
        penalty = losses.r1_penalty(self._judge(domain, image, raw, camera), image, raw)
        self.meters.add(f"r1_{spec.name}", penalty)
        self.d[domain].descend(penalty * (spec.gamma / 2 * self.recipe.d_reg_interval))
        self.d[domain].update(self.bad)

    def _track_w(self, ws: Tensor) -> None:
        mean = ws[:, 0].detach().float().mean(0, keepdim=True)
        if dist.is_initialized():
            dist.all_reduce(mean)
            mean = mean / self.world
        self.generator.update_w_avg(mean)

    # -- one iteration ---------------------------------------------------------------------------------------

    def step(self) -> None:
        """One iteration: G main, G reg (lazily), D main, D reg (lazily), averaged generator."""
        with self.on_stream():
            domain = self.recipe.domain_at(self.step_count)
            self._set_schedules()
            for phase in self._phases(domain):
                self._run(phase, domain)
            self.visits[domain] += 1
            self.step_count += 1
            self._average()
            self._adapt(domain)
            self._throttle()

    def run_phase(self, phase: Phase, domain: int) -> None:
        """One phase alone, for measuring."""
        with self.on_stream():
            self._set_schedules()
            self._run(phase, domain)

    def on_stream(self) -> AbstractContextManager[Any]:
        """The CUDA stream that all training runs on (graphs cannot be captured on the default one)."""
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def _throttle(self) -> None:
        # Let the host run a few steps ahead, not hundreds: clocks and signals would be noticed too late.
        if self._stream is None:
            return
        self._events.append(self._stream.record_event())
        if len(self._events) > 8:
            self._events.popleft().synchronize()

    def release_graphs(self) -> None:
        """Frees the captured phases: NCCL does not shut down while graphs hold its collectives."""
        if self.cuda:
            torch.cuda.synchronize()
        self.replays.clear()
        gc.collect()

    def _phases(self, domain: int) -> Iterator[Phase]:
        if not self.recipe.only_discriminator:
            yield Phase.G_MAIN
            if self.recipe.density_weight > 0 and self.step_count % self.recipe.g_reg_interval == 0:
                yield Phase.G_REG
        if not self.recipe.domains[domain].weight:
            return  # the generator does not listen to this discriminator
        yield Phase.D_MAIN
        # Counted per discriminator: with two that alternate, one would otherwise never be regularised.
        if self.visits[domain] % self.recipe.d_reg_interval == 0 and self.recipe.domains[domain].gamma > 0:
            yield Phase.D_REG

    def _set_schedules(self) -> None:
        self.draws.step.fill_(self.step_count)
        self.blur.fill_(max(self.blur_sigma(), 1e-6))
        self.swap.fill_(self.swap_probability())
        self.resolution = self.neural_resolution()
        warm = min(1.0, (self.step_count - self.warm_from + 1) / max(self.recipe.warmup_steps, 1))
        for trainable in (self.g, *self.d):
            trainable.set_rate(warm)

    def _run(self, phase: Phase, domain: int) -> None:
        function = (self.g_main, self.g_reg, self.d_main, self.d_reg)[phase]
        if not (self.cuda and self.options.graphs):
            function(domain)
            return
        key = (phase, domain, self.resolution, self.blur_sigma() > 0)
        replay = self.replays.get(key)
        if replay is None:
            # Resolutions and the blur only change in one direction: older graphs are not needed again.
            self.replays = {k: v for k, v in self.replays.items() if k[2:] == key[2:]}
            replay = self.replays[key] = Replay(lambda: function(domain), self._memory)
        replay()

    @torch.no_grad()
    def _average(self) -> None:
        beta = self.ema_beta()
        torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), 1 - beta)
        torch._foreach_copy_(list(self.average.buffers()), list(self.generator.buffers()))

    def _adapt(self, domain: int) -> None:
        if self.recipe.ada_target > 0 and self.visits[domain] % augment.INTERVAL == 0:
            if dist.is_initialized():
                dist.all_reduce(self.ada[domain].signs)
            self.ada[domain].adjust(self.recipe.batch)
            self.meters.add(f"ada_p_{self.recipe.domains[domain].name}", self.ada[domain].p)

    # -- state -----------------------------------------------------------------------------------------------

    def _networks(self) -> dict[str, nn.Module]:
        nets: dict[str, nn.Module] = {"generator": self.generator, "average": self.average}
        return nets | {f"d{k}": d for k, d in enumerate(self.discriminators)}

    def tensors(self, optimiser: bool = True) -> dict[str, Tensor]:
        """Networks, augmentation and (optionally) Adam's moments by name, for a snapshot."""
        found = {f"{n}.{k}": v for n, net in self._networks().items() for k, v in net.state_dict().items()}
        found |= {f"ada{k}": torch.cat([a.p[None], a.signs]) for k, a in enumerate(self.ada)}
        if optimiser:
            for name, trainable in self._trainables().items():
                found |= {f"adam.{name}.{k}": v for k, v in trainable.moments().items()}
        return found

    def counters(self) -> dict[str, int | list[int]]:
        """Host-side counters for a snapshot."""
        return {"step": self.step_count, "visits": list(self.visits), "warm_from": self.warm_from}

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Inverse of `tensors` and `counters`; without Adam's moments the learning rates warm up again."""
        for name, net in self._networks().items():
            part = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            net.load_state_dict(part)
        for k, a in enumerate(self.ada):
            a.p.copy_(tensors[f"ada{k}"][0])
            a.signs.copy_(tensors[f"ada{k}"][1:])
        self.step_count, self.visits = int(counters["step"]), [int(v) for v in counters["visits"]]
        self.warm_from = int(counters["warm_from"])
        complete = any(k.startswith("adam.") for k in tensors)
        for name, trainable in self._trainables().items() if complete else ():
            prefix = f"adam.{name}."
            trainable.set_moments(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
        if not complete:
            self.warm_from = self.step_count

    def _trainables(self) -> dict[str, Trainable]:
        return {"generator": self.g} | {f"d{k}": d for k, d in enumerate(self.d)}

    def broken_parameter(self) -> str | None:
        """Name of a weight that is not finite, or None."""
        for net_name, net in self._networks().items():
            for name, tensor in net.state_dict().items():
                if not bool(torch.isfinite(tensor).all()):
                    return f"{net_name}.{name}"
        return None

    def read_metrics(self) -> dict[str, float]:
        """Means since the last call; "bad_gradients" counts gradient values that were not finite."""
        with self.on_stream():
            values = self.meters.read()
            values["bad_gradients"] = float(self.bad)
            self.bad.zero_()
        return values
