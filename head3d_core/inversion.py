"""From a picture back to a head: codes (and a camera) whose rendering looks like it.

The generator stays fixed and Adam moves what goes into it, in the two steps of Roich et al. (PTI, without its third):

1. one code w for all layers, which keeps to heads that the generator knows,
2. then one code per layer (ws, called W+ in the literature), which fits closer and may leave them.

Where the camera is unknown its yaw and pitch are fitted along: the renderer passes gradients to ray origins and
directions. One view says little about the far side of a head; `view_errors` measures how little.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core import cameras
from head3d_core.config import Backend
from head3d_core.errors import Head3DError
from head3d_core.generator import Generator

GUESSES = 15.0
"""Degrees of yaw between first guesses of an unknown camera."""


@dataclass(frozen=True)
class InversionOptions:
    """How codes and camera are fitted."""

    steps: int = 100
    """Iterations with one code w for all layers."""
    layer_steps: int = 100
    """Iterations with one code per layer afterwards."""
    rate: float = 0.05
    """Adam's step in w, in standard deviations of w."""
    camera_rate: float = 0.03
    """Adam's step of yaw and pitch, radians."""
    pull: float = 1e-3
    """Weight of the squared distance from the mean of w, in standard deviations of w."""
    resolution: int | None = None
    """Side of the volume-rendered picture that is compared; None: the generator's."""
    widest_guess: float = 60.0
    """First guesses of an unknown camera's yaw go this far to both sides, degrees."""
    backend: Backend = "auto"
    """Renderer."""

    def __post_init__(self) -> None:
        if self.steps < 0 or self.layer_steps < 0 or self.steps + self.layer_steps < 1:
            raise Head3DError(
                f"an inversion needs at least one step, got {self.steps} with w and {self.layer_steps} with layers"
            )
        if not (self.rate > 0 and self.camera_rate > 0 and self.pull >= 0):
            raise Head3DError("rates of an inversion are positive and its pull is 0 or more")


@dataclass(frozen=True)
class Step:
    """One iteration."""

    stage: str
    """"w" or "layers"."""
    loss: float
    """Of the picture, without the pull."""
    yaw: float
    """Of the camera used, radians."""
    pitch: float


@dataclass(frozen=True)
class Inversion:
    """What was found."""

    w: Tensor
    """[1, num_ws, w_dim] after the first step: one code, repeated."""
    ws: Tensor
    """[1, num_ws, w_dim] after the second step."""
    camera: Tensor
    """[1, 25] the given camera, or the fitted one."""
    history: list[Step] = field(repr=False)


def shrink(image: Tensor, side: int) -> Tensor:
    """[N, 3, H, W] averaged to [N, 3, side, side]; raises Head3DError if it is smaller than that."""
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != image.shape[3] or image.shape[2] < side:
        raise Head3DError(
            f"a picture to invert must be [1, 3, R, R] with R of at least {side}, got {list(image.shape)}"
        )
    return F.interpolate(image.float(), size=(side, side), mode="area")


def pyramid_loss(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of two pictures [N, 3, R, R], averaged over R, R/2, R/4 and R/8 pixels per side.

    The small pictures see far: a head that stands beside its place still pulls in the right direction.
    """
    terms = []
    for k in range(4):
        if k:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        terms.append((a - b).square().mean())
        if a.shape[-1] < 4:
            break
    return torch.stack(terms).mean()


@torch.no_grad()
def w_statistics(G: Generator, samples: int = 1024, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Mean [w_dim] and standard deviation (a number: root mean square over entries) of w under the frontal camera."""
    z = torch.randn(samples, G.z_dim, generator=torch.Generator().manual_seed(seed)).to(G.device)
    w = G.mapping(z, cameras.frontal(samples, G.device))[:, 0]
    return w.mean(0), (w - w.mean(0)).square().mean().sqrt().clamp_min(1e-8)


@torch.no_grad()
def guess_angles(G: Generator, image: Tensor, ws: Tensor, options: InversionOptions) -> tuple[float, float]:
    """Yaw and pitch (radians) from which the head of `ws` looks most like a picture [1, 3, R, R], on a coarse grid."""
    planes = G.planes(ws)
    side = image.shape[-1]
    reach = round(options.widest_guess / GUESSES)
    best = (math.inf, 0.0, 0.0)
    for yaw in range(-reach, reach + 1):
        for pitch in (-1, 0, 1):
            angles = math.radians(yaw * GUESSES), math.radians(pitch * GUESSES)
            raw = G.render_raw(planes, cameras.orbit(*angles).to(ws), side, options.backend).raw
            best = min(best, (float(pyramid_loss(raw, image)), *angles))
    return best[1:]


def invert(
    G: Generator,
    image: Tensor,
    camera: Tensor | None = None,
    options: InversionOptions | None = None,
    start: tuple[float, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Inversion:
    """Codes whose rendering looks like a picture, and its camera if that is not given.

    Args:
        image: [1, 3, R, R] in [-1, 1], white behind the head, R at least the compared side.
        camera: [1, 25] of the picture; None fits yaw and pitch of an orbit camera along with the codes.
        start: first guess (yaw, pitch) of an unknown camera, radians; None tries a grid on the mean head.
        progress: called with (done, total) iterations.
        watch: called with (iteration, ws [1, num_ws, w_dim]) before every iteration, and once at the end.

    Raises:
        Head3DError: a picture of the wrong shape or with values that are not finite, or a loss that is not finite.
    """
    how = options or InversionOptions()
    side = how.resolution or G.config.neural_resolution
    target = shrink(image.to(G.device), side)
    if len(target) != 1 or not bool(torch.isfinite(target).all()):
        raise Head3DError("invert takes one picture with finite values: pass images[k:k+1]")
    mean, deviation = w_statistics(G)
    angles = None
    if camera is None:
        repeated = mean.expand(1, G.num_ws, -1)
        found = start or guess_angles(G, shrink(target, min(side, 32)), repeated, how)
        angles = torch.tensor(found, device=G.device).requires_grad_()
    frozen = [p for p in G.parameters() if p.requires_grad]
    for p in frozen:
        p.requires_grad_(False)
    try:
        fit = _Fit(G, target, camera, angles, mean, deviation, how, progress, watch)
        offset = fit.run("w", torch.zeros(1, 1, len(mean), device=G.device), how.steps)
        w = fit.codes(offset)
        offset = fit.run("layers", offset.expand(1, G.num_ws, -1).clone(), how.layer_steps)
    finally:
        for p in frozen:
            p.requires_grad_(True)
    ws = fit.codes(offset)
    if watch:
        watch(len(fit.history), ws)
    return Inversion(w, ws, fit.camera().detach(), fit.history)


class _Fit:
    """The two steps' common state."""

    def __init__(
        self,
        G: Generator,
        target: Tensor,
        camera: Tensor | None,
        angles: Tensor | None,
        mean: Tensor,
        deviation: Tensor,
        options: InversionOptions,
        progress: Callable[[int, int], None] | None,
        watch: Callable[[int, Tensor], None] | None,
    ) -> None:
        self.G, self.target, self.known, self.angles = G, target, camera, angles
        self.mean, self.deviation, self.options = mean, deviation, options
        self.progress, self.watch = progress, watch
        self.history: list[Step] = []

    def camera(self) -> Tensor:
        if self.known is not None:
            return self.known.to(self.G.device)
        assert self.angles is not None
        return cameras.orbit(self.angles[0], self.angles[1])

    def codes(self, offset: Tensor) -> Tensor:
        return (self.mean + self.deviation * offset).expand(1, self.G.num_ws, -1).detach()

    def run(self, stage: str, offset: Tensor, steps: int) -> Tensor:
        """Moves `offset` [1, 1 or num_ws, w_dim] (standard deviations of w) and the angles, if they are free."""
        offset = offset.detach().requires_grad_()
        groups = [{"params": [offset], "lr": self.options.rate}]
        if self.angles is not None:
            groups.append({"params": [self.angles], "lr": self.options.camera_rate})
        optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
        total = self.options.steps + self.options.layer_steps
        for k in range(steps):
            if self.watch:
                self.watch(len(self.history), self.codes(offset))
            # The step falls to a tenth: the end of a run should settle, not wander.
            for group, rate in zip(
                optimiser.param_groups, (self.options.rate, self.options.camera_rate), strict=False
            ):
                group["lr"] = rate * (0.1 + 0.45 * (1 + math.cos(math.pi * k / steps)))
            ws = (self.mean + self.deviation * offset).expand(1, self.G.num_ws, -1)
            camera = self.camera()
            raw = self.G.render_raw(
                self.G.planes(ws), camera, self.target.shape[-1], self.options.backend
            ).raw
            loss = pyramid_loss(raw, self.target)
            optimiser.zero_grad()
            (loss + self.options.pull * offset.square().mean()).backward()
            optimiser.step()
            yaw, pitch = (float(a) for a in cameras.yaw_pitch(camera.detach()[0]))
            self.history.append(Step(stage, float(loss.detach()), yaw, pitch))
            if not math.isfinite(self.history[-1].loss):
                raise Head3DError("the inversion has diverged (its loss is not finite): lower `rate`")
            if self.progress:
                self.progress(len(self.history), total)
        return offset.detach()


@dataclass(frozen=True)
class ViewError:
    """How wrong a fitted head looks from one side."""

    angle: float
    """Between this view and the fitted one, degrees."""
    error: float
    """Mean absolute difference of the pictures, as a share of the range from black to white."""


@torch.no_grad()
def view_errors(
    G: Generator, ws: Tensor, images: Tensor, camera: Tensor, fitted: Tensor, backend: Backend = "auto"
) -> list[ViewError]:
    """Differences to true pictures of the head from other sides, by angle.

    Args:
        ws: [1, num_ws, w_dim].
        images: [V, 3, R, R] in [-1, 1], of any size from the volume rendering's.
        camera: [V, 25] of the pictures.
        fitted: [1, 25] of the view that the head was fitted to.
    """
    if len(images) != len(camera):
        raise Head3DError(f"every picture needs a camera, got {len(images)} and {len(camera)}")
    target = shrink(images.to(ws), G.config.neural_resolution)
    planes = G.planes(ws)
    angle = angle_between(camera, fitted)
    out = []
    for k in range(len(target)):
        raw = G.render_raw(planes, camera[k : k + 1].to(ws), backend=backend).raw.clamp(-1, 1)
        out.append(ViewError(float(angle[k]), float((raw - target[k : k + 1]).abs().mean() / 2)))
    return out


def angle_between(camera: Tensor, other: Tensor) -> Tensor:
    """Angle between the directions from which cameras [V, 25] and [1, 25] look at the origin, degrees, [V]."""
    a, b = (F.normalize(c[:, [3, 7, 11]].double().cpu(), dim=1) for c in (camera, other))
    return torch.rad2deg(2 * torch.asin(((a - b).norm(dim=1) / 2).clamp(max=1)))
