"""The distance F behind L_lpips (Eq. 9): LPIPS where its weights are on disk, else an untrained substitute."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from head3d_core.utils.errors import Head3DError


class RandomVGG(nn.Module):
    """`lpips_randvgg16(seed)`: a multi-scale local comparison through an *untrained* VGG16.

    Not LPIPS and not perceptual in the trained sense: the weights are He-normal draws of a fixed seed. It needs no
    download and, unlike small trained nets, optimises cleanly. Each of VGG's five stages is normalised over its
    channels, squared differences are summed over channels and averaged over pixels, and the stages are added.

    Args:
        seed: of the weights.
    """

    _STAGE_ENDS = (4, 9, 16, 23, 30)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        from torchvision.models import vgg16

        layers = vgg16(weights=None).features
        generator = torch.Generator().manual_seed(seed)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                fan_in = layer.weight[0].numel()
                draw = torch.randn(layer.weight.shape, generator=generator)
                layer.weight.data = draw * (2.0 / fan_in) ** 0.5
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            elif isinstance(layer, nn.ReLU):
                layer.inplace = False
        starts = (0, *self._STAGE_ENDS[:-1])
        self.stages = nn.ModuleList(layers[a:b] for a, b in zip(starts, self._STAGE_ENDS, strict=True))
        self.requires_grad_(False).eval()
        self.name = f"lpips_randvgg16(seed={seed})"

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two [N, 3, H, W] in [-1, 1] -> distance [N]."""
        x = torch.cat([a, b])
        total = torch.zeros(len(a), device=a.device)
        for stage in self.stages:
            x = stage(x)
            unit = x.float() * (x.float().square().sum(1, keepdim=True) + 1e-10).rsqrt()
            u, v = unit.chunk(2)
            total = total + (u - v).square().sum(1).mean([1, 2])
        return total


class TrainedLPIPS(nn.Module):
    """LPIPS with trained VGG16 features from the `lpips` package."""

    name = "lpips_vgg"

    def __init__(self) -> None:
        super().__init__()
        import lpips

        self.net = lpips.LPIPS(net="vgg", verbose=False).requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two [N, 3, H, W] in [-1, 1] -> distance [N]."""
        return self.net(a, b)[:, 0, 0, 0]


VGG_FILE = "vgg16-397923af.pth"
"""torchvision's ImageNet weights; looked for in torch's hub folder, never downloaded."""


def perceptual_distance(kind: Literal["auto", "lpips", "random"] = "auto") -> nn.Module:
    """The distance behind L_lpips: real LPIPS where its weights are on disk, else `RandomVGG`.

    The module's `.name` says which; it is logged with every run. "lpips" raises Head3DError if the file is missing.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    there = path.is_file() and importlib.util.find_spec("lpips") is not None
    if kind == "lpips" and not there:
        raise Head3DError(
            f"LPIPS needs the lpips package and torchvision's {VGG_FILE} in {path.parent}: put it there, "
            'or use kind="random"'
        )
    return TrainedLPIPS() if there and kind != "random" else RandomVGG()
