"""Planes fitted to images of one procedural head, without a generator.

    python -m head3d_core fit --views front --out data/samples/fits/front.safetensors

The head is rendered from all sides, or from the front alone as a set of portraits shows it. Planes and a small decoder
are fitted to these images, so their error against the known head says what planes and volume rendering can hold. The
result, a `FittedHead`, has a generator's interface.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.checkpoints.eg3d import load_tensors
from head3d_core.config import GeneratorConfig, NoiseMode, RenderOptions
from head3d_core.experiments.study import descend, half_cosine
from head3d_core.geometry import pointclouds
from head3d_core.model import cameras
from head3d_core.model.generator import Generator, RenderOutput
from head3d_core.model.planes import Decoder
from head3d_core.model.rays import camera_rays
from head3d_core.model.volume import render_rays
from head3d_core.utils import files, images
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import Progress, bar

FOLDER = files.DATA / "samples" / "fits"
"""Where the bundled fits are."""
KIND = "fitted head"
"""What the header of a fit's file says."""
FRONT_YAW = 40.0
"""Largest yaw of the views "front", degrees, because portraits show no more."""
CHANNELS, SIDE, HIDDEN = 16, 96, 32


@dataclass(frozen=True)
class FitArgs:
    """Fits planes to images of one procedural head (needs OpenGL)."""

    views: Literal["front", "around"] = "around"
    """Yaws of the images: "front" stays within 40 degrees, "around" has all."""
    seed: int = 1006
    """Which head; from 1000 on they belong to no training set."""
    count: int = 96
    """Images."""
    steps: int = 1500
    """Iterations."""
    rays: int = 4096
    """Rays an iteration."""
    out: Path = Path("out/fit.safetensors")
    """File to write; an image of the fit takes its name and ends in .jpg."""
    device: str = "cpu"
    """Where to run: cpu, cuda, ..."""


CONFIG = GeneratorConfig(
    z_dim=8,
    w_dim=8,
    image_resolution=128,
    neural_resolution=64,
    plane_resolution=128,
    plane_channels=CHANNELS,
    decoder_hidden=HIDDEN,
    decoder_features=3,
    sr_kind="2x",
    render=RenderOptions(
        ray_start="auto", ray_end="auto", depth_resolution=24, depth_resolution_importance=24, white_back=True
    ),
)
"""Of every fit: rays start and end at the cube."""


class FittedHead(Generator):
    """Planes of one head where a generator is expected: `planes` returns them whatever the codes are.

    Its image is the volume rendering itself, at any resolution, because it has no super-resolution and no mapping. A
    new one has random planes and a random decoder, always the same.
    """

    def __init__(self) -> None:
        nn.Module.__init__(self)  # a generator's own parts stay out: there is nothing to generate
        self.config = CONFIG
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.decoder = Decoder(CHANNELS, HIDDEN, 3)
        planes = 0.1 * torch.randn(3, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        # Channels innermost in memory: the layout that the compiled renderer reads without repacking.
        self.fitted = nn.Parameter(planes.contiguous(memory_format=torch.channels_last))

    @property
    def codes(self) -> Tensor:
        """Codes [1, num_ws, w_dim] to pass where some are asked for; their values do not matter."""
        return torch.zeros(1, self.num_ws, self.config.w_dim, device=self.device)

    def planes(self, ws: Tensor, noise: NoiseMode = "const", seeds: Tensor | None = None) -> Tensor:
        """The fitted planes, once per row of ws: [N, 3, C, H, W]."""
        return self.fitted[None].expand(len(ws), -1, -1, -1, -1)

    def superresolution(self, features: Tensor, raw: Tensor, *_: Any) -> Tensor:  # type: ignore[override]
        """The volume rendering as it is."""
        return raw

    def render(
        self,
        planes: Tensor,
        ws: Tensor,
        camera: Tensor,
        resolution: int | None = None,
        *more: Any,
        **named: Any,
    ) -> RenderOutput:
        """The volume rendering at the image resolution."""
        return super().render(planes, ws, camera, resolution or CONFIG.image_resolution, *more, **named)


def draw_views(args: FitArgs, resolution: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    """The head from `args.count` cameras that fill the range of views evenly, as `fit` takes them."""
    k = torch.arange(args.count) + 0.5
    reach = math.radians(FRONT_YAW) if args.views == "front" else math.pi
    # Steps of the golden and the silver ratio fill both ranges evenly.
    yaw = reach * (2 * (k * (math.sqrt(5) - 1) / 2 % 1) - 1)
    pitch = math.radians(25) * (2 * (k * (math.sqrt(2) - 1) % 1) - 1)
    camera = cameras.orbit(yaw, pitch)
    seen = pointclouds.factory_views(args.seed, camera, resolution)
    return images.from_pixels(seen.rgb), torch.from_numpy(seen.alpha) / 255, camera


def fit(
    seen: tuple[Tensor, Tensor, Tensor],
    steps: int,
    rays: int = 4096,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[FittedHead, list[float]]:
    """Planes and a decoder whose renderings look like images of a head.

    Adam on random rays; the loss is the mean squared difference of colour (over white) and of opacity, and a little of
    how much neighbouring texels differ, without which places that no image shows would be noise.

    Args:
        seen: images [V, 3, R, R] in [-1, 1], the head's coverage [V, R, R] in [0, 1], and the cameras [V, 25].

    Returns:
        The head, and the loss of every iteration.
    """
    if steps < 1 or rays < 1:
        raise Head3DError(f"a fit needs at least one step and one ray, got {steps} and {rays}")
    head = FittedHead().to(device).train()
    origins, directions = (x.flatten(0, 1).to(device) for x in camera_rays(seen[2], seen[0].shape[-1]))
    colour = seen[0].permute(0, 2, 3, 1).reshape(-1, 3).to(device)
    opacity = seen[1].reshape(-1).to(device)
    draw = torch.Generator().manual_seed(0)

    def loss(step: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(opacity), (rays,), generator=draw).to(device)
        found = render_rays(
            head.fitted[None],
            head.decoder.weights(),
            origins[chosen][None],
            directions[chosen][None],
            CONFIG.render,
            seeds=torch.tensor([step], device=device),
        )
        error = (found.features[0] - colour[chosen]).square().mean()
        error = error + (found.opacity[0] - opacity[chosen]).square().mean()
        rough = head.fitted.diff(dim=-1).square().mean() + head.fitted.diff(dim=-2).square().mean()
        return error + 0.003 * rough, error

    groups = [{"params": [head.fitted], "lr": 0.03}, {"params": head.decoder.parameters(), "lr": 0.005}]
    losses = descend(groups, loss, steps, (0.9, 0.99), lambda k: 0.003 + 0.997 * half_cosine(k), progress)
    return head.eval().requires_grad_(False), losses


def save(head: FittedHead, path: Path | str, notes: dict[str, Any]) -> Path:
    """Writes a fit in half precision with `notes` on it, see `weights.write`."""
    return checkpoint.write(
        Path(path), KIND, head.config.to_dict(), head.state_dict(), half=True, notes=notes
    )


def surface_by_side(head: FittedHead, seed: int) -> dict[str, dict[str, float]]:
    """Chamfer distance (world units) and normal error (degrees) from the true head `seed`, in front and behind.

    Each half is what cameras within 60 degrees of yaw, or beyond 120, see of both. Needs OpenGL.
    """
    out = {}
    for side, middle in (("front", 0.0), ("behind", math.pi)):
        turn = middle + torch.deg2rad(torch.tensor([-60.0, -30.0, 0.0, 30.0, 60.0]))
        views = torch.cat([cameras.orbit(turn, pitch) for pitch in (-0.2, 0.3)])
        model = pointclouds.model_cloud(head, head.planes(head.codes), views.to(head.device))
        found = pointclouds.surface_error(model, pointclouds.true_cloud(seed, views))
        out[side] = {"chamfer": round(found.chamfer, 5), "normal_degrees": round(found.normal_degrees, 2)}
    return out


def _read(name_or_path: str | Path) -> tuple[checkpoint.Header, dict[str, Tensor]]:
    path = Path(name_or_path)
    if not path.suffix:
        path = FOLDER / f"{name_or_path}.safetensors"
    if not path.is_file():
        raise Head3DError(f"no fit at {path}: make one with python -m head3d_core fit --out {path}")
    return checkpoint.read(path, KIND)


def notes(name_or_path: str | Path) -> dict[str, Any]:
    """What was recorded with a fit: seed, views, steps, loss, and its distance from the true surface."""
    return _read(name_or_path)[0].notes


def load(name_or_path: str | Path, device: torch.device | str = "cpu") -> FittedHead:
    """A bundled fit ("front" or "around") or a file.

    Raises:
        Head3DError: no such fit, or anything that `weights.read` refuses.
    """
    head = FittedHead()
    load_tensors(head, _read(name_or_path)[1], str(name_or_path))
    head.fitted.data = head.fitted.data.contiguous(memory_format=torch.channels_last)
    return head.eval().requires_grad_(False).to(device)


def run(args: FitArgs) -> None:
    """The command `fit`: renders, fits, writes the file and an image: the truth above, the fit below."""
    files.check_place(args.out, (".safetensors",), "fit")
    if args.count < 2:
        raise Head3DError(f"a fit needs at least 2 images, got {args.count}")
    seen = draw_views(args)
    with bar("iterations") as step:
        head, losses = fit(seen, args.steps, args.rays, args.device, step)
    loss = round(float(np.mean(losses[-50:])), 6)
    recorded = {
        **{name: getattr(args, name) for name in ("seed", "views", "count", "steps", "rays")},
        "loss": loss,
        "surface": surface_by_side(head, args.seed),
        "licence": "CC0-1.0",
    }
    save(head, args.out, recorded)
    with torch.no_grad():
        planes, views = head.planes(head.codes), seen[2][:8].to(head.device)
        row = [head.render(planes, head.codes, camera).image.cpu() for camera in views.split(1)]
    sheet = images.montage(torch.cat([seen[0][:8], *row]), 8)
    picture = images.save(sheet, args.out.with_suffix(".jpg"))
    print(f"{args.out}: loss {losses[0]:.3f} to {loss:.5f}; {picture.name} shows it")
