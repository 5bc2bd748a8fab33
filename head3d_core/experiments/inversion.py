"""Inversion: codes (and cameras) whose renderings look like given images.

The generator stays fixed and Adam moves what goes into it, in the two steps of Roich et al. (PTI, without its third):

1. one code w for all layers, which keeps to heads that the generator knows,
2. then one code per layer (ws, called W+ in the literature), which fits closer and may leave them.

The result depends on the start, because from the mean of w a fit ends in a faceless lump of the right colours. So the
fit's own loss is computed for many seeds first, and the fit starts at the best one.

An unknown or estimated camera is fitted too (yaw and pitch), because the renderer passes gradients to ray origins and
directions. An unknown one starts at the best of a grid. One view says little about the far side of a head;
`view_errors` measures how little. (A perceptual term beside the pixels left the errors of other sides as they were and
took half as much time again.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.experiments.latent import principal_directions, w_of_noise
from head3d_core.experiments.study import descend, half_cosine
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import ws_of_seeds
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import shrink
from head3d_core.utils.progress import Progress, counted

GUESS = 15.0
"""Degrees between first guesses of an unknown camera."""
NEAR = math.radians(5.0)
"""By how much a camera that was estimated from landmarks is off, radians."""
SIDE = 16
"""Pixels per side at which candidates are looked at first."""
SHORTLIST = 8
"""Candidates that are looked at again, at the size of the fit."""
Watch = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class InversionOptions:
    """How codes and cameras are fitted."""

    steps: int = 100
    """Iterations with one code w for all layers."""
    layer_steps: int = 100
    """Iterations with one code per layer afterwards."""
    candidates: int = 128
    """Seeds, from 0, whose heads are looked at for a start; 0: the fit starts at the mean of w."""
    psi: float = 0.7
    """Truncation of the candidates: rare heads are bad starts."""
    rate: float = 0.05
    """Adam's largest step in w, in standard deviations of w; it rises over the first tenth and falls to nothing."""
    camera_rate: float = 0.03
    """Adam's largest step of yaw and pitch, radians."""
    refine: bool = False
    """Fit yaw and pitch of given cameras too, from where they are; None for a camera always does."""
    camera_pull: float = 5e-3
    """Weight of the squared distance of refined angles from the given camera's, in units of `NEAR`."""
    pull: float = 1e-3
    """Weight of the squared distance that keeps codes within reach, in standard deviations of w: of w from its mean,
    then of the layers' codes from that w."""
    typical: bool = False
    """Count the pull's distance along each principal direction of w in that direction's own standard deviations, so
    that codes stay where the generator was trained: for images that it cannot draw, such as photographs."""
    resolution: int | None = None
    """Side of the volume-rendered image that is compared; None: the generator's."""
    widest_guess: float = 60.0
    """First guesses of an unknown camera's yaw go this far to both sides, degrees."""

    def __post_init__(self) -> None:
        if self.steps < 0 or self.layer_steps < 0 or self.steps + self.layer_steps < 1:
            raise Head3DError(
                f"an inversion needs at least one step, got {self.steps} with w and {self.layer_steps} with layers"
            )
        if not (self.rate > 0 and self.camera_rate > 0 and self.pull >= 0 and self.candidates >= 0):
            raise Head3DError("rates of an inversion are positive, its pull and its candidates are 0 or more")


@dataclass(frozen=True)
class Inversion:
    """What was found for N images."""

    start: Tensor
    """[N, num_ws, w_dim] where the fit began."""
    w: Tensor
    """[N, num_ws, w_dim] after the first step: one code, repeated."""
    ws: Tensor
    """[N, num_ws, w_dim] after the second step."""
    camera: Tensor
    """[N, 25] the given cameras, or the fitted ones."""
    loss: Tensor
    """[steps + layer_steps, N] of the images, without the pull, on the CPU."""
    angles: Tensor
    """[steps + layer_steps, N, 2] yaw and pitch of the cameras used, radians, on the CPU."""


def pyramid_loss(a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference of images [N, 3, R, R], averaged over R, R/2, R/4 and R/8 pixels per side; [N].

    The small images have long gradients: a head that is shifted is still pulled in the right direction.

    Args:
        weight: [N, 1, R, R] of the pixels, with mean 1; None: 1 for all.
    """
    weight = torch.ones_like(a[:, :1]) if weight is None else weight
    terms = [((a - b).square() * weight).mean([1, 2, 3])]
    while len(terms) < 4 and a.shape[-1] >= 4:
        a, b, weight = (F.avg_pool2d(x, 2) for x in (a, b, weight))
        terms.append(((a - b).square() * weight).mean([1, 2, 3]))
    return torch.stack(terms).mean(0)


@torch.no_grad()
def w_statistics(G: Generator) -> tuple[Tensor, Tensor]:
    """Mean [w_dim] and standard deviation (a number: root mean square over entries) of w under the frontal camera."""
    w = w_of_noise(G, 1024)
    return w.mean(0), (w - w.mean(0)).square().mean().sqrt().clamp_min(1e-8)


@torch.no_grad()
def candidate_losses(
    G: Generator,
    target: Tensor,
    w: Tensor,
    views: Tensor,
    own: Tensor | None = None,
    weight: Tensor | None = None,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """How much every candidate looks like every image, from the view that suits it best.

    Args:
        target: [N, 3, S, S], small: every candidate is rendered at S pixels from every view.
        w: [K, w_dim] candidates.
        views: [V, 25] cameras.
        own: [N] the view of each image; None: any of them.
        weight: [N, 1, S, S] of the pixels, see `pyramid_loss`.
        progress: called with (done, total) candidates.

    Returns:
        Losses [K, N] of `pyramid_loss`, and the views [K, N] they were reached from.
    """
    losses, places = [], []
    for one in counted(w.unbind(), progress):
        planes = G.planes(one.expand(1, G.num_ws, -1))
        seen = _seen(G, planes, views, target.shape[-1])
        pairs = torch.stack([pyramid_loss(view.expand_as(target), target, weight) for view in seen])
        if own is not None:
            pairs = torch.where(own == torch.arange(len(views), device=own.device)[:, None], pairs, math.inf)
        best = pairs.min(0)
        losses.append(best.values)
        places.append(best.indices)
    return torch.stack(losses), torch.stack(places)


def guesses(widest: float) -> Tensor:
    """Cameras [V, 25] of a coarse grid: yaws up to `widest` degrees to both sides, pitches up to one step."""
    reach = round(widest / GUESS)
    grid = torch.cartesian_prod(torch.arange(-reach, reach + 1), torch.arange(-1, 2)) * math.radians(GUESS)
    return cameras.orbit(grid[:, 0], grid[:, 1])


def invert(
    G: Generator,
    images: Tensor,
    camera: Tensor | None = None,
    options: InversionOptions | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    weight: Tensor | None = None,
    looking: Progress | None = None,
) -> Inversion:
    """Codes whose renderings look like images of one head each, and their cameras if these are not given.

    Images are fitted side by side; what is found for one does not depend on the others.

    Args:
        images: [N, 3, R, R] in [-1, 1], white behind the head, R at least the compared side.
        camera: [N, 25] of the images; None fits yaw and pitch of orbit cameras along with the codes, and so does
            `options.refine`, which starts at the given ones.
        progress: called with (done, total) iterations.
        watch: called with (iteration, ws [N, num_ws, w_dim]) before every iteration, and once at the end.
        weight: [N, 1, R, R] in [0, 1]: how much each pixel counts, 0 for a background that is not white; None: all.
        looking: called with (done, total) candidates.

    Raises:
        Head3DError: images of the wrong shape or range or with values that are not finite, another number of cameras,
            or a loss that is not finite.
    """
    options = options or InversionOptions()
    side = options.resolution or G.config.neural_resolution
    target = shrink(images.to(G.device), side)
    if not len(target) or not bool(torch.isfinite(target).all()):
        raise Head3DError("invert takes images with finite values, and at least one")
    largest = float(images.abs().max())
    if not images.is_floating_point() or largest > 2:  # generated images overshoot 1
        raise Head3DError(
            f"images must be in [-1, 1], got {images.dtype} up to {largest:.3g}: "
            "utils.images.from_uint8 converts bytes"
        )
    if camera is not None and camera.shape != (len(target), 25):
        raise Head3DError(f"every image needs a camera: camera must be [{len(target)}, 25] or None")
    weight = torch.ones_like(images[:, :1]) if weight is None else weight
    weight = F.interpolate(weight.to(target), size=(side, side), mode="area")
    weight = weight / weight.mean([1, 2, 3], keepdim=True).clamp_min(1e-3)
    known = None if camera is None else camera.to(G.device)
    learning = [p for p in G.parameters() if p.requires_grad]
    try:
        G.requires_grad_(False)
        return _Fit(G, target, known, options, progress, watch, weight, looking).run()
    finally:
        for p in learning:
            p.requires_grad_(True)


@dataclass(eq=False)
class _Fit:
    """What both steps share. An `offset` [N, 1 or num_ws, w_dim] is a code's distance from the mean of w, in its
    standard deviations; `angles` [N, 2] are yaw and pitch of unknown cameras, radians.
    """

    G: Generator
    target: Tensor
    known: Tensor | None
    options: InversionOptions
    progress: Progress | None
    watch: Watch | None
    weight: Tensor
    looking: Progress | None

    def __post_init__(self) -> None:
        G, options, camera = self.G, self.options, self.known
        self.mean, self.deviation = w_statistics(G)
        self.scale: Tensor | None = None
        if options.typical:  # offsets, in the standard deviation of w, to principal coordinates, in their own
            known = principal_directions(G, G.config.w_dim)
            own = known.deviation.clamp_min(0.02 * float(known.deviation.max())).to(self.mean)
            self.scale = self.deviation * known.axes.T.to(self.mean) / own
        self.angles: Tensor | None = None
        self.given = None if camera is None else torch.stack(cameras.yaw_pitch(camera), -1)
        self.history: list[tuple[Tensor, Tensor]] = []

    def run(self) -> Inversion:
        began = self.start()
        w = self.move(began, 0.0, self.options.steps)
        ws = self.move(w.expand(-1, self.G.num_ws, -1), w, self.options.layer_steps)
        if self.watch:
            self.watch(len(self.history), self.codes(ws))
        loss, angles = (torch.stack(column).cpu() for column in zip(*self.history, strict=True))
        return Inversion(
            self.codes(began), self.codes(w), self.codes(ws), self.camera().detach(), loss, angles
        )

    def codes(self, offset: Tensor) -> Tensor:
        return (self.mean + self.deviation * offset).expand(-1, self.G.num_ws, -1)

    def camera(self) -> Tensor:
        if self.angles is None:
            return cast(Tensor, self.known)
        return cameras.orbit(self.angles[:, 0], self.angles[:, 1])

    def loss(self, offset: Tensor, camera: Tensor) -> Tensor:
        """[N] of the images, without the pull."""
        planes = self.G.planes(self.codes(offset))
        side = self.target.shape[-1]
        return pyramid_loss(self.G.render_raw(planes, camera, side).raw, self.target, self.weight)

    @torch.no_grad()
    def start(self) -> Tensor:
        """Offsets [N, 1, w_dim] of the candidates that look most like the images; sets unknown angles too."""
        options = self.options
        if self.known is None:
            views, own = guesses(options.widest_guess).to(self.target), None
        else:
            views, own = torch.unique(self.known, dim=0, return_inverse=True)
        offset = torch.zeros_like(self.mean)[None]
        if options.candidates:
            w = ws_of_seeds(self.G, range(options.candidates))[:, 0].to(self.mean)
            offset = options.psi * (w - self.mean) / self.deviation
        side = min(self.target.shape[-1], SIDE)
        small = shrink(self.target, side)
        weight = F.interpolate(self.weight, size=(side, side), mode="area")
        w = self.mean + self.deviation * offset
        losses, places = candidate_losses(self.G, small, w, views, own, weight, self.looking)
        near = losses.topk(min(len(losses), SHORTLIST), 0, largest=False).indices  # [L, N]
        seen = places.gather(0, near)
        final = [self.loss(offset[k][:, None], views[v]) for k, v in zip(near, seen, strict=True)]
        best = torch.stack(final).argmin(0, keepdim=True)
        if self.known is None or options.refine:
            self.angles = torch.stack(cameras.yaw_pitch(views[seen.gather(0, best)[0]]), -1)
        return offset[near.gather(0, best)[0]][:, None]

    def move(self, offset: Tensor, home: Tensor | float, steps: int) -> Tensor:
        """Moves an offset (and the angles, if they are free) by `steps` iterations; `home` is what it is pulled to."""
        options = self.options
        if not steps:
            return offset
        offset = offset.clone().requires_grad_()
        groups: list[dict[str, Any]] = [{"params": [offset], "lr": options.rate}]
        if self.angles is not None:
            self.angles = self.angles.detach().requires_grad_()
            groups.append({"params": [self.angles], "lr": options.camera_rate})

        def loss(step: int) -> tuple[Tensor, Tensor]:
            if self.watch:
                self.watch(len(self.history), self.codes(offset.detach()))
            camera = self.camera()
            loss = self.loss(offset, camera)
            away = offset - home
            pull = options.pull * (away if self.scale is None else away @ self.scale).square().mean([1, 2])
            if self.angles is not None and self.given is not None:
                pull = pull + options.camera_pull * ((self.angles - self.given) / NEAR).square().sum(1)
            self.history.append((loss.detach(), torch.stack(cameras.yaw_pitch(camera.detach()), -1)))
            if self.progress:
                self.progress(len(self.history), options.steps + options.layer_steps)
            return (loss + pull).sum(), loss.sum()

        def rate(done: float) -> float:
            """Up over the first tenth, until Adam knows its scales; then down, so that the fit converges."""
            return min(1.0, 10 * (done + 1 / steps)) * half_cosine(done)

        descend(groups, loss, steps, (0.9, 0.99), rate)
        return offset.detach()


def _seen(G: Generator, planes: Tensor, camera: Tensor, side: int) -> Tensor:
    """Raw images [V, 3, side, side] of one head from cameras [V, 25]."""
    parts = [G.render_raw(planes.expand(len(c), -1, -1, -1, -1), c, side).raw for c in camera.split(8)]
    return torch.cat(parts)


@torch.no_grad()
def view_errors(
    G: Generator, ws: Tensor, images: Tensor, camera: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Mean absolute differences to true images of the head, as shares of the range from black to white: [V].

    Args:
        ws: [1, num_ws, w_dim].
        images: [V, 3, R, R] in [-1, 1], of any size from the volume rendering's.
        camera: [V, 25] of the images.
        weight: [V, 1, R, R]: how much each pixel counts; None: all alike.
    """
    if len(images) != len(camera):
        raise Head3DError(f"every image needs a camera, got {len(images)} and {len(camera)}")
    side = G.config.neural_resolution
    apart = (_seen(G, G.planes(ws), camera.to(ws), side).clamp(-1, 1) - shrink(images.to(ws), side)).abs()
    if weight is not None:
        share = F.interpolate(weight.to(ws), size=(side, side), mode="area")
        apart = apart * share / share.mean([1, 2, 3], keepdim=True)
    return apart.mean([1, 2, 3]).cpu() / 2


def angle_between(camera: Tensor, other: Tensor) -> Tensor:
    """Angle between the directions from which cameras [V, 25] and [1, 25] look at the origin, degrees, [V]."""
    a, b = (F.normalize(c[:, [3, 7, 11]].double().cpu(), dim=1) for c in (camera, other))
    return torch.rad2deg(2 * torch.asin(((a - b).norm(dim=1) / 2).clamp(max=1)))
