"""Encoders: the crop, our network's file, and the two that others trained."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from helpers import project, refused, refuses

from head3d_core.metrics import identity_encoder as idn
from head3d_core.model.cameras import FOCAL, orbit


@pytest.fixture(scope="module")
def net() -> idn.IdentityNet:
    torch.manual_seed(0)
    return idn.IdentityNet().eval()


@pytest.mark.parametrize("yaw", [0.0, 0.6, -1.2])
def test_crop_is_centred_on_the_face(yaw: float) -> None:
    """A bright spot painted where the camera sees the centre lands in the middle, whatever the view."""
    camera = orbit(yaw, 0.2)
    u, v = project(torch.tensor(idn.CENTRE), camera)[0].tolist()
    axis = (torch.arange(256) + 0.5) / 256
    spot = torch.exp(-((axis[None] - u) ** 2 + (axis[:, None] - v) ** 2) / (2 * 0.02**2))
    crop = idn.face_crop(spot.expand(1, 3, 256, 256), camera)[0, 0]
    at = torch.arange(128) + 0.5
    mean = [(crop.sum(d) * at).sum().item() / crop.sum().item() for d in (0, 1)]
    assert mean == pytest.approx([64, 64], abs=0.3)


def test_crop_is_as_wide_as_it_says() -> None:
    camera = orbit(0.0, 0.0)
    edge = torch.tensor(idn.CENTRE) + torch.tensor([idn.CROP / 2, 0, 0])
    ramp = ((torch.arange(300) + 0.5) / 300).expand(1, 3, 300, 300)
    crop = idn.face_crop(ramp, camera)[0, 0, 64]
    u = project(edge, camera)[0, 0].item()
    step = (crop[100] - crop[27]).item() / 73
    assert crop[-1].item() + step / 2 == pytest.approx(u, abs=1e-3)
    assert step * 128 == pytest.approx(FOCAL * idn.CROP / (2.7 - idn.CENTRE[2]), rel=1e-3)


def test_crop_does_not_depend_on_the_resolution() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 16, 16, generator=generator)
    camera = orbit(torch.tensor([0.3, -0.5]), 0.1)
    pictures = [
        torch.nn.functional.interpolate(coarse, size=(r, r), mode="bicubic", antialias=True)
        for r in (256, 512)
    ]
    a, b = (idn.face_crop(p, camera) for p in pictures)
    assert (a - b).abs().mean() < 0.01


def test_embeddings_are_unit_and_small_enough(net: idn.IdentityNet, tmp_path: Path) -> None:
    crops = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        found = net(crops)
    assert found.shape == (3, 128)
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-5)
    path = idn.save_net(net, tmp_path / "encoder.safetensors", {"seed": 0})
    assert path.stat().st_size <= 3e6
    again = idn.load_net(path)
    with torch.no_grad():
        assert torch.allclose(again(crops), found, atol=0.02)  # float16
    assert not again.training


def test_encoder_is_differentiable_and_batches_do_not_matter(net: idn.IdentityNet, tmp_path: Path) -> None:
    idn.save_net(net, tmp_path / "encoder.safetensors")
    encoder = idn.load_encoder("ours", weights=tmp_path / "encoder.safetensors")
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, 3, 96, 96), generator=generator).to(torch.uint8)
    camera = orbit(torch.tensor([0.0, 0.4, math.pi]), 0.0)
    assert torch.allclose(encoder.embed(image, camera, 1), encoder.embed(image, camera, 3), atol=1e-4)
    smooth = (image.float() / 127.5 - 1).requires_grad_()
    assert torch.allclose(encoder(smooth, camera), encoder.embed(image, camera), atol=1e-4)
    encoder(smooth, camera)[0].sum().backward()
    assert smooth.grad is not None
    assert smooth.grad[0].abs().sum() > 0
    assert smooth.grad[1].abs().sum() == 0


def test_missing_weights_say_where_they_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    refuses(rf"{idn.FACENET_FILE}.*{tmp_path}", idn.load_encoder, "facenet")
    refuses("identity_train", idn.load_encoder, "auto", weights=tmp_path / "none.safetensors")
    idn.facenet_path().parent.mkdir()
    idn.facenet_path().write_bytes(b"other")
    refuses("SHA-256 that starts with 281cebca", idn.load_encoder, "auto")
    with refused('"auto", "ours" or "facenet"'):
        idn.load_encoder("arcface")  # type: ignore[arg-type]


def test_damaged_weights_are_refused(net: idn.IdentityNet, tmp_path: Path) -> None:
    path = idn.save_net(net, tmp_path / "encoder.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    refuses("damaged", idn.load_net, path)


def test_bad_pictures_are_refused(net: idn.IdentityNet) -> None:
    camera = orbit(0.0, 0.0)
    refuses(r"\[N, 3, R, R\]", idn.face_crop, torch.zeros(1, 3, 8, 9), camera)
    refuses(r"camera must be \[2, 25\]", idn.face_crop, torch.zeros(2, 3, 8, 8), camera)
    refuses("not finite", idn.face_crop, torch.full((1, 3, 8, 8), float("nan")), camera)
    refuses("every picture needs a camera", idn.Encoder(net, "x").embed, torch.zeros(0, 3, 8, 8), camera[:0])


def test_dlib_knows_a_photograph_and_its_mirror_image() -> None:
    pytest.importorskip("dlib", reason="the offline-check extra is not installed")
    from skimage.data import astronaut

    photo = torch.from_numpy(astronaut().copy()).permute(2, 0, 1)[:, :300, 80:380]
    pictures = torch.stack([photo, photo.flip(2), torch.zeros_like(photo)])
    found, seen = idn.dlib_embeddings(pictures)
    assert seen.tolist() == [True, True, False]
    assert (found[0] - found[1]).norm() < 0.3  # 0.6 is the usual limit
    refuses("uint8", idn.dlib_embeddings, pictures.float())
