"""Portraits to a data set: a photograph that scikit-image ships, rejections, renders with known cameras."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SAMPLES, refused, refuses
from PIL import Image
from test_storage import huge_png

from head3d_core.cli import main
from head3d_core.datasets import face_pose, format, matting, photos, prepare
from head3d_core.datasets.storage import Store
from head3d_core.model import cameras

ARGS = prepare.PrepareDataArgs(Path("."), matting="off")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    from skimage import data

    return data.astronaut()[:340, 60:400].copy()  # head and shoulders: the rest only takes time


@pytest.fixture(scope="module")
def prepared(photo: np.ndarray) -> prepare.Prepared:
    return prepare.prepare_photo(photo, ARGS, "astronaut.png")


def test_the_astronaut(prepared: prepare.Prepared) -> None:
    """She looks into the camera, her head a little tilted."""
    assert prepared.image.shape == (256, 256, 3)
    assert abs(math.degrees(prepared.pose.yaw)) < 10
    assert abs(math.degrees(prepared.pose.pitch)) < 20
    assert 180 < prepared.pose.side < 290
    assert prepared.probability > 0.99
    assert 0.05 < prepared.outside < 0.2  # the photograph ends just above her hair
    assert prepared.pose.residual < 0.02
    assert prepared.facts("x.png")["image"] == "x.png"


def test_the_crop_puts_the_face_where_the_camera_sees_it(prepared: prepare.Prepared) -> None:
    from head3d_core.datasets import face_detector

    (face,) = face_detector.find_faces([prepared.image])[0]
    expected = 256 * (0.5 + face_pose.project(face_pose.CANONICAL, prepared.pose.yaw, prepared.pose.pitch))
    assert np.abs(face.landmarks - expected).mean() < 5
    eyes = face.landmarks[:2]
    assert abs(eyes[0, 1] - eyes[1, 1]) < 4  # upright


def test_a_mirrored_photograph(photo: np.ndarray, prepared: prepare.Prepared) -> None:
    flipped = prepare.prepare_photo(photo[:, ::-1].copy(), ARGS)
    assert flipped.pose.yaw == pytest.approx(-prepared.pose.yaw, abs=math.radians(4))
    assert flipped.pose.pitch == pytest.approx(prepared.pose.pitch, abs=math.radians(6))


def test_size_and_rotation_do_not_matter(photo: np.ndarray, prepared: prepare.Prepared) -> None:
    turned = Image.fromarray(photo).rotate(20, Image.Resampling.BICUBIC, expand=True).resize((900, 900))
    again = prepare.prepare_photo(np.asarray(turned), dataclasses.replace(ARGS, max_outside=0.5))
    assert again.pose.roll == pytest.approx(prepared.pose.roll - math.radians(20), abs=math.radians(4))
    assert again.pose.yaw == pytest.approx(prepared.pose.yaw, abs=math.radians(5))


def test_crop_is_exact_for_whole_pixels() -> None:
    """A crop of side 2 R is the mean of 2 x 2 blocks; outside, the border is continued and counted."""
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pose = face_pose.FacePose(0.0, 0.0, 0.0, 64.0, (32.0, 32.0), 0.0)
    image, outside = prepare.crop(photo, pose, 32)
    blocks = photo.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(image - blocks).max() <= 1
    assert outside == 0
    image, outside = prepare.crop(photo, dataclasses.replace(pose, centre=(0.0, 32.0)), 64)
    assert outside == pytest.approx(0.5)
    np.testing.assert_array_equal(image[:, 32:], photo[:, :32])
    np.testing.assert_array_equal(image[:, 5], photo[:, 0])


def reason(photo: np.ndarray, **changes: float) -> str:
    with pytest.raises(prepare.Rejected) as caught:
        prepare.prepare_photo(photo, dataclasses.replace(ARGS, **changes))  # type: ignore[arg-type]
    return str(caught.value)


def test_rejections_say_why(photo: np.ndarray) -> None:
    photo = photo[:256, 36:292]
    assert reason(np.full((200, 300, 3), 255, np.uint8)) == "no face found"
    assert reason(photo, resolution=1024).startswith("the face is too small: its crop is 2")
    assert reason(photo[60:], max_outside=0.05).startswith("the head is cut off: ")
    assert reason(photo, max_yaw=0.01).startswith("seen too far from the side")
    assert reason(photo, max_residual=1e-4).startswith("the landmarks fit no view of a face")
    assert reason(photo, min_probability=1.1).startswith("the detector is not sure")


def test_bad_folders(tmp_path: Path) -> None:
    args = dataclasses.replace(ARGS, source=tmp_path, out=tmp_path / "out")
    refuses("no folder", prepare.prepare_data, dataclasses.replace(args, source=tmp_path / "nothing"))
    refuses("no photographs in", prepare.prepare_data, args)
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    refuses(r"could be used; 0 of 1 photographs accepted.* no face found", prepare.prepare_data, args)
    refuses(
        "power of two from 32 up, got 100", prepare.prepare_data, dataclasses.replace(args, resolution=100)
    )
    assert not (tmp_path / "out").exists()


ODD_SIZES = [(1, 1), (10, 10), (16, 16), (19, 300), (20, 20), (1, 1000), (1000, 1), (3000, 38), (24, 24)]


def test_no_picture_ends_a_run(photo: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of entry beside two good portraits: all by name and reason, the good ones written."""
    source, out = tmp_path / "mine", tmp_path / "set.zip"
    (source / "more").mkdir(parents=True)
    good, exif = Image.fromarray(photo), Image.Exif()
    exif[0x0112] = 6  # "turn me clockwise"
    turned = good.transpose(Image.Transpose.ROTATE_90)
    turned.save(source / "more" / "phone.jpg", exif=exif, quality=95)
    good.convert("RGBA").save(source / "alpha.png")
    for width, height in ODD_SIZES:
        good.resize((width, height)).save(source / f"odd {width} x {height}.png")
    huge_png(source / "scan.png", 20_000, 15_000)
    (source / "iphone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    (source / "link.jpg").symlink_to(source / "gone.jpg")
    (source / "linked").symlink_to(tmp_path)
    (source / "._good.png").write_bytes(b"\0\5\x16\7")
    (source / "movie.mp4").write_bytes(b"x")
    (source / "page.png").write_text("<html>404</html>")
    (source / "nofile.png").mkdir()
    (source / os.fsdecode(b"bad \xff name.png")).write_bytes(b"x")
    assert main(["prepare-data", str(source), "--out", str(out), "--matting", "off"]) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "set.report.json").read_text())
    assert [r["file"] for r in report["accepted"]] == ["alpha.png", "more/phone.jpg"]
    reasons = {r["file"]: r["reason"] for r in [*report["rejected"], *report["left_out"]]}
    expected = {
        "scan.png": "too large",
        "iphone.HEIC": "unreadable: ",
        "link.jpg": "a link to nothing",
        "linked": "a link to a folder",
        "._good.png": "hidden",
        "movie.mp4": r"not an image by its ending \(.mp4\)",
        "page.png": "unreadable",
        "bad \N{REPLACEMENT CHARACTER} name.png": "unreadable",
    }
    for width, height in ODD_SIZES:
        too_small = f"too small or too narrow for a face: {width} x {height} pixels"
        expected[f"odd {width} x {height}.png"] = f"no face found|{too_small}"
    assert reasons.keys() == expected.keys()
    assert all(re.match(expected[name], reason) for name, reason in reasons.items())
    assert all(f"{name}: {reason}" in printed for name, reason in reasons.items())
    assert "2 of 15 photographs accepted" in printed
    images, poses = format.load_arrays(out)
    assert images.shape == (2, 3, 256, 256)
    yaw, pitch = cameras.yaw_pitch(poses)
    recorded = [row["yaw_deg"] for row in report["accepted"]]
    assert torch.rad2deg(yaw).tolist() == pytest.approx(recorded, abs=0.02)
    assert abs(math.degrees(pitch[0] - pitch[1])) < 2  # the same photograph, turned by its EXIF tag
    assert json.loads(Store(out).read("dataset.json"))["about"]["photographs"] == "mine"
    assert main(["prepare-data", str(source), "--out", str(out)]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["tiff", "gif", "avif", "heic", "webp", "bmp", "jpg"])
def test_kinds_of_files_show_the_same_picture(photo: np.ndarray, tmp_path: Path, ending: str) -> None:
    if ending == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    Image.fromarray(photo).save(tmp_path / f"x.{ending}")
    apart = np.abs(photos.read_photo(tmp_path / f"x.{ending}").astype(int) - photo).mean()
    assert apart < (1 if ending in ("tiff", "bmp") else 6)  # lossy kinds: measured up to 3.2


@pytest.mark.parametrize("error", [ValueError, RuntimeError, MemoryError, ZeroDivisionError])
def test_what_a_library_raises_is_a_reason(
    photo: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(photo[::2, ::2]).save(tmp_path / name)
    ready = prepare.prepare_photo(photo, ARGS)
    calls = iter([error("torch.cat(): expected a non-empty list"), None])

    def planted(*_: object) -> prepare.Prepared:
        if problem := next(calls):
            raise problem
        return ready

    monkeypatch.setattr(prepare, "prepare_photo", planted)
    report = prepare.prepare_data(dataclasses.replace(ARGS, source=tmp_path, out=tmp_path / "out"))
    assert report.rejected == [
        {"file": "a.png", "reason": f"failed: {error.__name__} (torch.cat(): expected a non-empty list)"}
    ]
    assert len(report.accepted) == 1


def test_a_second_run_does_not_read_the_first_ones_output(photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "me.png")
    first = dataclasses.replace(ARGS, source=tmp_path, out=tmp_path / "one")
    assert len(prepare.prepare_data(first).accepted) == 1
    report = prepare.prepare_data(dataclasses.replace(first, out=tmp_path / "two"))
    assert [row["file"] for row in report.accepted] == ["me.png"]
    assert report.left_out == [{"file": "one", "reason": "a data set (dataset.json lies in it)"}]


def test_matting_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matting, "matting_model", lambda path=None: None)
    assert matting.load_matte("auto") is None
    with refused("pip install ai-edge-litert"):
        matting.load_matte("on")
    monkeypatch.undo()
    with refused("no segmentation model at"):
        matting.load_matte("auto", tmp_path / "no.tflite")


def test_matte_whitens_the_background(photo: np.ndarray) -> None:
    """With a known matte: inside untouched, outside white, and the mask is kept."""

    def left_half(image: np.ndarray) -> np.ndarray:
        mask = np.zeros(image.shape[:2], np.float32)
        mask[:, :128] = 1
        return mask

    plain = prepare.prepare_photo(photo, ARGS)
    matted = prepare.prepare_photo(photo, ARGS, matte=left_half)
    np.testing.assert_array_equal(matted.image[:, :128], plain.image[:, :128])
    assert (matted.image[:, 128:] == 255).all()
    assert matted.mask is not None
    assert matted.facts("")["matted"] is True


def test_segmentation_of_the_astronaut(prepared: prepare.Prepared) -> None:
    matte = matting.load_matte("auto")
    if matte is None:
        pytest.skip("no selfie_segmentation.tflite (optional)")
    mask = matte(prepared.image)
    assert mask[128, 128] == 1
    assert mask[20, 10] == 0


def test_yaw_and_pitch_on_renders_with_known_cameras() -> None:
    """Faces differ, so five points know no more: see data/DATA_CARD.md for the measured errors."""
    images, poses = (part[:8] for part in format.load_arrays(SAMPLES / "faces"))
    true = torch.rad2deg(torch.stack(cameras.yaw_pitch(poses), -1))
    errors = []
    for image, angles in zip(images, true, strict=True):
        try:
            got = prepare.prepare_photo(image.movedim(0, -1).numpy(), ARGS)
        except prepare.Rejected:
            continue
        errors.append(torch.rad2deg(torch.tensor([got.pose.yaw, got.pose.pitch])) - angles)
    mean = torch.stack(errors).abs().mean(0)
    assert len(errors) >= 0.85 * len(images)
    assert mean[0] < 3.5
    assert mean[1] < 7
