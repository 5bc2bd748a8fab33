"""One iteration of adversarial training, for every stage: generator step, regularisers, discriminator step.

All randomness is a pure function of (run seed, step, purpose, global sample index). So any number of processes sees
the same numbers at one global batch, a resumed run continues as if nothing had happened, and whole steps can be
captured as CUDA graphs. Nothing is read back from the device inside a step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
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
from head3d_core.training.distillation import TERMS, XY_BACK, Sample, distillation_terms
from head3d_core.training.numerics import DeviceQueue, Meters, Numerics
from head3d_core.training.parts import Draws, Optimiser, Phase, Pool, Purpose, blur
from head3d_core.training.recipes import Recipe
from head3d_core.utils.errors import Head3DError

_Net = TypeVar("_Net", bound=nn.Module)


class Trainer:
    """Generator, averaged generator, discriminators and their data; `step()` trains once.

    Args:
        preset: architecture.
        recipe: what to train.
        pools: one per domain of the recipe, in order.
        generator, discriminators: starting points; they are moved to the pools' device and trained in place.
        faces: the face set, where mapping cameras come from if the recipe says so.
        teacher: frozen G_t, for recipes with distillation terms.
        head: frozen head generator, for recipes with a target for xy_back.
        perceptual: distance for L_lpips.
        seed: of everything random.
        rank, world: this process among all.
        numerics: how the arithmetic is done.
    """

    def __init__(
        self,
        preset: Preset,
        recipe: Recipe,
        pools: list[Pool],
        generator: Generator,
        discriminators: list[Discriminator],
        *,
        faces: Pool,
        teacher: Generator | None = None,
        head: Generator | None = None,
        perceptual: nn.Module | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        numerics: Numerics | None = None,
    ) -> None:
        self.preset, self.recipe, self.pools, self.world = preset, recipe, pools, world
        self.numerics = numerics or Numerics()
        self.device = pools[0].cameras.device
        self.cuda = self.device.type == "cuda"
        self._check_batch()
        self.faces = faces
        self.generator = self._place(generator).train().requires_grad_(True)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.teacher, self.head = (
            self._place(net).eval().requires_grad_(False) if net else None for net in (teacher, head)
        )
        self.perceptual = self._place(perceptual) if perceptual else None
        self.discriminators = [self._place(d).train().requires_grad_(True) for d in discriminators]
        interval = recipe.g_reg_interval if recipe.density_weight > 0 else 0
        self.generator_optimiser = Optimiser(self.generator, recipe.lr_g, recipe.beta2, interval)
        self.discriminator_optimisers = [
            Optimiser(d, recipe.lr_d, recipe.beta2, recipe.d_reg_interval) for d in self.discriminators
        ]
        self.networks: dict[str, nn.Module] = {"generator": self.generator, "average": self.average}
        self.networks |= {f"d{k}": net for k, net in enumerate(self.discriminators)}
        self.optimisers = {"generator": self.generator_optimiser}
        self.optimisers |= {f"d{k}": optimiser for k, optimiser in enumerate(self.discriminator_optimisers)}
        self.augmentations = [
            augment.AdaptiveProbability(recipe.ada_target, recipe.ada_images, recipe.ada_start, self.device)
            for _ in pools
        ]
        self.draws = Draws(seed, recipe.batch, rank, world, self.device)
        per_domain = ("g_gan", "d_loss", "r1", "sign_real", "sign_fake", "sign_wrong", "ada_p")
        names = [f"{name}_{domain.name}" for domain in recipe.domains for name in per_domain]
        self.meters = Meters([*names, *TERMS, "density"], self.device)
        # Set from the schedules before every step; graphs read the tensors and are captured anew for the others.
        self.blur, self.swap = torch.zeros(2, device=self.device)
        self.blurred, self.planes_only, self.resolution = False, False, preset.generator.neural_resolution
        self.step_count = self.warm_from = 0
        self.visits = [0] * len(pools)
        self.device_queue = DeviceQueue(self.device, self.numerics)
        if self.numerics.compile:
            self.generator.backbone.synthesis.compile()
            self.generator.superresolution.compile()

    # -- set-up ----------------------------------------------------------------------------------------------

    def _check_batch(self) -> None:
        group, batch = self.preset.discriminator.group_size, self.recipe.batch
        if batch % (self.world * group) and (self.world > 1 or batch > group):
            raise Head3DError(
                f"the batch per process must be a multiple of the minibatch-std group ({group}), got {batch} over "
                f"{self.world} process(es): choose a multiple of {group * self.world}"
            )

    def _place(self, module: _Net) -> _Net:
        module = module.to(self.device)
        if self.cuda and self.numerics.channels_last:
            module.to(memory_format=torch.channels_last)  # in place
        return module

    def _autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.numerics.precision == "fp16" else torch.bfloat16
        return torch.autocast("cuda", dtype, enabled=self.cuda and self.numerics.precision != "fp32")

    def _index(self, domain: int) -> int:
        """Which discriminator a domain has."""
        return 0 if self.recipe.one_discriminator else domain

    @property
    def images_seen(self) -> int:
        """Real images shown so far."""
        return self.step_count * self.recipe.batch

    def _set_schedules(self) -> None:
        recipe, images = self.recipe, self.images_seen
        self.draws.step.fill_(self.step_count)
        self.blurred = recipe.blur_at(images) > 0
        self.blur.fill_(max(recipe.blur_at(images), 1e-6))
        self.swap.fill_(recipe.swap_at(images))
        self.planes_only = images < recipe.planes_first
        self.resolution = recipe.resolution_at(images, self.preset.generator.neural_resolution)
        # Adam's second moments of what draws and judges pictures are still 0 when planes have learnt alone.
        rendering_from = 0 if self.planes_only else -(-recipe.planes_first // recipe.batch)
        steps = self.step_count - max(self.warm_from, rendering_from)
        for optimiser in self.optimisers.values():
            optimiser.set_rate(recipe.warmth_at(steps))

    # -- images ----------------------------------------------------------------------------------------------

    def mapping_cameras(self, phase: Phase, domain: int) -> tuple[Tensor, Tensor]:
        """(rendering camera, mapping camera), [n, 25] each."""
        pool = self.pools[domain]
        camera = pool.draw_cameras(self.draws.uniform(phase, Purpose.CAMERA, 2))
        if self.recipe.mapping_camera == "faces":
            return camera, self.faces.draw_cameras(self.draws.uniform(phase, Purpose.MAPPING, 2))
        neighbour = pool.draw_cameras(self.draws.uniform(phase, Purpose.CAMERA, 2, shift=-1))
        swapped = self.draws.uniform(phase, Purpose.SWAP, 1) < self.swap
        return camera, torch.where(swapped, neighbour, camera)

    def _inputs(self, phase: Phase) -> tuple[Tensor, Tensor]:
        """z [n, z_dim] and rendering seeds [n] of a phase."""
        z = self.draws.normal(phase, Purpose.Z, self.preset.generator.z_dim)
        return z, self.draws.seeds(phase, Purpose.RENDER)

    def _sample(
        self, net: Generator, z: Tensor, mapping: Tensor, camera: Tensor | None, seeds: Tensor
    ) -> Sample:
        with self._autocast():
            ws = net.mapping(z, mapping)
            planes = net.planes(ws, self.recipe.noise, seeds)
            output = None if camera is None else net.render(planes, ws, camera, self.resolution, seeds=seeds)
        return Sample(ws, planes, output)

    def _logits(
        self, domain: int, image: Tensor, raw: Tensor, camera: Tensor, *, learns: bool = True
    ) -> Tensor:
        """What the domain's discriminator says, [n, 1] float32."""
        net = self.discriminators[self._index(domain)]
        net.requires_grad_(learns)  # where only the generator learns, D's own gradients are not even computed
        try:
            with self._autocast():
                logit: Tensor = net(image, raw, camera).float()
        finally:
            net.requires_grad_(True)
        return logit

    def _logits_of_both(
        self, domain: int, fake: tuple[Tensor, ...], real: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Logits of generated and real (image, raw, camera), in one pass where that changes nothing.

        Taken in turns (fake 0, real 0, fake 1, ...) sample n of 2 N falls into minibatch-std group n mod (2 N / G):
        even groups hold generated images and odd ones real images, exactly as in two passes.
        """
        if len(fake[0]) % self.preset.discriminator.group_size:
            return self._logits(domain, *fake), self._logits(domain, *real)
        image, raw, camera = (
            torch.stack([f.float(), r], 1).flatten(0, 1) for f, r in zip(fake, real, strict=True)
        )
        logits = self._logits(domain, image, raw, camera).unflatten(0, (-1, 2))
        return logits[:, 0], logits[:, 1]

    def _present(
        self, image: Tensor, raw: Tensor, seeds: Tensor, domain: int, blur_raw: bool
    ) -> tuple[Tensor, Tensor]:
        """The inputs of D: blurred (fading) and, where the recipe says so, augmented."""
        if self.blurred:
            image = blur(image, self.blur, self.recipe.blur_sigma)
            if blur_raw:
                raw = blur(raw, self.blur, self.recipe.blur_sigma)
        if self.recipe.ada_target > 0:
            transform = augment.draw_transforms(seeds, self.augmentations[domain].p)
            image, raw = augment.apply(image, *transform), augment.apply(raw, *transform)
        return image, raw

    def _real(self, phase: Phase, domain: int) -> tuple[Tensor, Tensor, Tensor]:
        # One real batch serves the main and the regularisation phase of an iteration.
        image, camera = self.pools[domain].draw(self.draws.uniform(Phase.D_MAIN, Purpose.REAL, 2))
        seeds = self.draws.seeds(phase, Purpose.AUGMENT_REAL)
        image, raw = self._present(image, resize(image, self.resolution), seeds, domain, blur_raw=True)
        return image, raw, camera

    # -- the four phases -------------------------------------------------------------------------------------

    def g_main(self, domain: int) -> None:
        """Generator: λ_gan L_gan and the distillation terms (Eq. 10)."""
        camera, mapping = self.mapping_cameras(Phase.G_MAIN, domain)
        z, seeds = self._inputs(Phase.G_MAIN)
        student = self._sample(self.generator, z, mapping, None if self.planes_only else camera, seeds)
        self._track_w(student.ws)
        settings = self.recipe.domains[domain]
        total = torch.zeros((), device=self.device)
        if settings.weight and student.output is not None:
            augment_seeds = self.draws.seeds(Phase.G_MAIN, Purpose.AUGMENT_FAKE)
            inputs = self._present(
                student.output.image, student.output.raw, augment_seeds, domain, blur_raw=False
            )
            gan = losses.generator_loss(self._logits(domain, *inputs, camera, learns=False))
            self.meters.add(f"g_gan_{settings.name}", gan)
            total = total + settings.weight * gan
        if self.teacher is not None:
            compared = camera if student.output and self.recipe.compares_images(domain) else None
            with torch.no_grad():
                teacher = self._sample(self.teacher, z, mapping, compared, seeds)
            with self._autocast():
                terms = distillation_terms(self.recipe, teacher, student, camera, self.perceptual)
            for name, value in terms.items():
                self.meters.add(name, value)
                total = total + value
        if self.head is not None:
            with torch.no_grad():
                target = self._sample(self.head, z, mapping, None, seeds)
            back = losses.kd_loss(target.planes, student.planes, (XY_BACK,), self.recipe.kd_norm)
            self.meters.add("kd_back", self.recipe.losses.kd_back * back)
            total = total + self.recipe.losses.kd_back * back
        self.generator_optimiser.minimise(total)

    def g_reg(self, domain: int) -> None:
        """Generator: density regularisation."""
        recipe = self.recipe
        _, mapping = self.mapping_cameras(Phase.G_REG, domain)
        z, seeds = self._inputs(Phase.G_REG)
        sample = self._sample(self.generator, z, mapping, None, seeds)
        key = self.draws.seeds(Phase.G_REG, Purpose.DENSITY)
        points = random.uniform(key, recipe.density_points, 3, 0) * 2 - 1
        offset = random.normal(key, recipe.density_points, 3, 1) * recipe.density_distance
        # In fp32: neighbouring sigmas differ by less than bfloat16 can tell.
        sigma, _ = self.generator.query(sample.planes.float(), torch.cat([points, points + offset], 1))
        value = losses.density_loss(*sigma.float().chunk(2, 1))
        self.meters.add("density", value)
        self.generator_optimiser.minimise(recipe.density_weight * recipe.g_reg_interval * value)

    def d_main(self, domain: int) -> None:
        """Discriminator: logistic loss on generated and real images."""
        name = self.recipe.domains[domain].name
        camera, mapping = self.mapping_cameras(Phase.D_MAIN, domain)
        z, seeds = self._inputs(Phase.D_MAIN)
        with torch.no_grad():
            output = self._sample(self.generator, z, mapping, camera, seeds).output
            assert output is not None
            augment_seeds = self.draws.seeds(Phase.D_MAIN, Purpose.AUGMENT_FAKE)
            inputs = self._present(output.image, output.raw, augment_seeds, domain, blur_raw=False)
            real_images = self._real(Phase.D_MAIN, domain)
        fake, real = self._logits_of_both(domain, (*inputs, camera), real_images)
        loss = losses.discriminator_loss(real, fake)
        if self.recipe.wrong_camera > 0:
            wrong = self.pools[domain].draw_cameras(self.draws.uniform(Phase.D_MAIN, Purpose.WRONG_CAMERA, 2))
            mistaken = self._logits(domain, *real_images[:2], wrong)
            loss = loss + self.recipe.wrong_camera * losses.generator_loss(-mistaken)
            self.meters.add(f"sign_wrong_{name}", mistaken.sign().mean())
        self.discriminator_optimisers[self._index(domain)].minimise(loss)
        if self.recipe.ada_target > 0:
            self.augmentations[domain].observe(real)
        self.meters.add(f"d_loss_{name}", loss)
        self.meters.add(f"sign_real_{name}", real.sign().mean())
        self.meters.add(f"sign_fake_{name}", fake.sign().mean())

    def d_reg(self, domain: int) -> None:
        """Discriminator: R1."""
        settings = self.recipe.domains[domain]
        with torch.no_grad():
            image, raw, camera = self._real(Phase.D_REG, domain)
        image, raw = image.requires_grad_(), raw.requires_grad_()
        penalty = losses.r1_penalty(self._logits(domain, image, raw, camera), image, raw)
        self.meters.add(f"r1_{settings.name}", penalty)
        loss = penalty * (settings.gamma / 2 * self.recipe.d_reg_interval)
        self.discriminator_optimisers[self._index(domain)].minimise(loss)

    def _track_w(self, ws: Tensor) -> None:
        mean = ws[:, 0].detach().float().mean(0, keepdim=True)
        if dist.is_initialized():
            dist.all_reduce(mean)
            mean = mean / self.world
        self.generator.update_w_avg(mean)

    # -- one iteration ---------------------------------------------------------------------------------------

    def step(self) -> None:
        """One iteration: G main, G reg (lazily), D main, D reg (lazily), averaged generator."""
        with self.device_queue.stream():
            domain = self.recipe.domain_at(self.step_count)
            self._set_schedules()
            for phase in self._phases(domain):
                self._run(phase, domain)
            self.visits[domain] += 1
            self.step_count += 1
            self._average()
            self._adapt(domain)
            self.device_queue.throttle()

    def run_phase(self, phase: Phase, domain: int) -> None:
        """One phase alone, for measuring."""
        with self.device_queue.stream():
            self._set_schedules()
            self._run(phase, domain)

    def _phases(self, domain: int) -> Iterator[Phase]:
        if not self.recipe.only_discriminator and self.images_seen >= self.recipe.discriminator_first:
            yield Phase.G_MAIN
            if self.planes_only:
                return
            if self.recipe.density_weight > 0 and self.step_count % self.recipe.g_reg_interval == 0:
                yield Phase.G_REG
        if not self.recipe.domains[domain].weight:
            return  # the generator does not listen to this discriminator
        yield Phase.D_MAIN
        # Counted per domain: with two that alternate, one would otherwise never be regularised.
        if self.visits[domain] % self.recipe.d_reg_interval == 0 and self.recipe.domains[domain].gamma > 0:
            yield Phase.D_REG

    def _run(self, phase: Phase, domain: int) -> None:
        function = (self.g_main, self.g_reg, self.d_main, self.d_reg)[phase]
        # Settings only change in one direction: older graphs are not needed again.
        setting = (self.resolution, self.blurred, self.planes_only)
        self.device_queue.run((phase, domain), setting, lambda: function(domain))

    @torch.no_grad()
    def _average(self) -> None:
        beta = self.recipe.ema_beta_at(self.images_seen)
        torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), 1 - beta)
        torch._foreach_copy_(list(self.average.buffers()), list(self.generator.buffers()))

    def _adapt(self, domain: int) -> None:
        if self.recipe.ada_target > 0 and self.visits[domain] % augment.INTERVAL == 0:
            augmentation = self.augmentations[domain]
            if dist.is_initialized():
                dist.all_reduce(augmentation.signs)
            augmentation.adjust(self.recipe.batch)
            self.meters.add(f"ada_p_{self.recipe.domains[domain].name}", augmentation.p)

    # -- state -----------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """What a snapshot holds, by name: networks, augmentation and Adam's moments."""
        tensors = {f"{n}.{k}": v for n, net in self.networks.items() for k, v in net.state_dict().items()}
        tensors |= {f"ada{k}": torch.cat([a.p[None], a.signs]) for k, a in enumerate(self.augmentations)}
        for name, optimiser in self.optimisers.items():
            tensors |= {f"adam.{name}.{k}": v for k, v in optimiser.moments().items()}
        return tensors

    def counters(self) -> dict[str, int | list[int]]:
        """Counters on the host."""
        steps = {"step": self.step_count, "warm_from": self.warm_from, "images": self.images_seen}
        return {**steps, "visits": list(self.visits)}

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Inverse of `tensors` and `counters`; without Adam's moments the learning rates warm up again."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        for name, net in self.networks.items():
            net.load_state_dict(part(f"{name}."))
        for k, augmentation in enumerate(self.augmentations):
            augmentation.p.copy_(tensors[f"ada{k}"][0])
            augmentation.signs.copy_(tensors[f"ada{k}"][1:])
        for name, optimiser in self.optimisers.items():
            optimiser.set_moments(part(f"adam.{name}."))
        self.step_count, self.visits = int(counters["step"]), [int(v) for v in counters["visits"]]
        self.warm_from = int(counters["warm_from"]) if part("adam.") else self.step_count

    def broken_parameter(self) -> str | None:
        """Name of a weight that is not finite, or None."""
        for network, net in self.networks.items():
            for name, tensor in net.state_dict().items():
                if not bool(torch.isfinite(tensor).all()):
                    return f"{network}.{name}"
        return None

    def read_metrics(self) -> dict[str, float]:
        """Means since the last call; "bad_gradients" counts gradient values that were not finite."""
        with self.device_queue.stream():
            values = self.meters.read()
            values["bad_gradients"] = float(
                sum(optimiser.read_bad() for optimiser in self.optimisers.values())
            )
        return values
