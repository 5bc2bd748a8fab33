"""The command `portrait`: heads whose truth is known, a photograph, and everything that cannot be used."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from helpers import refuses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import head3d_core as h3d
from head3d_core import cli
from head3d_core.experiments import portrait
from head3d_core.experiments.portrait import PortraitArgs
from head3d_core.model import cameras
from head3d_core.model.seeds import heads_of_seeds
from head3d_core.utils import images


def rendered(seed: int, yaw: float, pitch: float, path: Path) -> Path:
    """A sample of the bundled generator from a known camera (degrees), as a file that somebody brings."""
    G = h3d.load_generator("head3d")
    head = heads_of_seeds(G, [seed])
    camera = cameras.orbit(*torch.deg2rad(torch.tensor([yaw, pitch])))
    with torch.no_grad():
        image = G.render(head.planes, head.ws, camera).image[0]
    return images.save(images.to_pixels(image), path)


@pytest.fixture(scope="module")
def astronaut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = pytest.importorskip("skimage.data")
    path = tmp_path_factory.mktemp("astronaut") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


@pytest.mark.native
@pytest.mark.parametrize(("seed", "yaw", "pitch"), [(5, 18.0, 6.0), (3, -12.0, 4.0)])
def test_a_head_whose_truth_is_known_is_found_with_its_pose(
    seed: int, yaw: float, pitch: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its pose and person; two photographs of it are nearer to one another than strangers are."""
    out, photo = tmp_path / "me", rendered(seed, yaw, pitch, tmp_path / "truth.png")
    other = rendered(seed, -0.5 * yaw, pitch, tmp_path / "other.png")
    words = (
        f"portrait {photo} --other {other} --out {out} --candidates 8 --steps 6 --layer-steps 4 --resolution 48 "
        "--frames 3"
    )
    assert cli.main(words.split()) == 0
    text = capsys.readouterr().out
    assert "nearest person that the generator can draw" in text
    assert "between unrelated samples" in text
    record = json.loads((out / "portrait.json").read_text(encoding="utf8"))
    assert record["camera"]["yaw_deg"] == pytest.approx(yaw, abs=4)
    assert record["camera"]["pitch_deg"] == pytest.approx(pitch, abs=6)
    typed = record["provenance"]["command"]
    assert typed.startswith("python -m head3d_core portrait truth.png --")
    assert " --other other.png " in typed
    distance = record["identity_distance"]
    assert distance["photograph to other photograph"] < 0.5 * distance["between unrelated samples"]
    assert f"photograph to other photograph {distance['photograph to other photograph']:.2f}" in text
    assert distance["photograph to head"] < 0.5 * distance["between unrelated samples"]
    errors = list(record["image_error"].values())
    assert errors[0] < 0.15, "the nearest of the samples is the person"
    assert errors[2] < max(errors[0], 0.04), (
        "the fit comes nearer, or stays at what was found at once (0.032)"
    )
    names = ["comparison.png", "head.glb", "portrait.json", "turntable.mp4", "turntable_sheet.png"]
    assert sorted(p.name for p in out.iterdir()) == names
    assert len(trimesh.load(out / "head.glb", force="mesh").faces) > 500
    with Image.open(out / "comparison.png") as sheet:
        assert sheet.width > 5 * 256
    assert cli.main(words.split()) == 1, "nothing of the user's is overwritten"
    assert "exists already" in capsys.readouterr().err


def test_a_photographs_plain_background_becomes_white(astronaut: Path) -> None:
    photo = portrait.aligned(astronaut, PortraitArgs(astronaut), None)
    assert abs(np.degrees(photo.pose.yaw)) < 8
    assert photo.mask is not None
    assert (photo.image[8:50, [8, 128, 248]] > 250).all(), "above and beside the head"
    assert float(photo.mask[130:200, 100:160].min()) > 0.99, "the face stays"
    kept = portrait.aligned(astronaut, PortraitArgs(astronaut, matting="off"), None)
    assert kept.mask is None
    assert np.abs(kept.image[130:200, 100:160].astype(int) - photo.image[130:200, 100:160]).max() <= 1


def test_only_plain_backgrounds_are_taken_away() -> None:
    y, x = np.mgrid[:128, :128]
    person = ((x - 64) / 30) ** 2 + ((y - 70) / 45) ** 2 < 1
    shaded = np.stack([150 + x // 4, 160 + y // 4, np.full_like(x, 170)], -1)
    image = np.where(person[..., None], (120, 60, 40), shaded).astype(np.uint8)
    mask = portrait.plain_background(image)
    assert mask is not None
    assert np.abs(mask - person).mean() < 0.02
    checks = np.where(((x // 8 + y // 8) % 2)[..., None], 230, 30) * np.ones(3)
    assert portrait.plain_background(np.where(person[..., None], image, checks).astype(np.uint8)) is None
    assert portrait.plain_background(np.full((64, 64, 3), 200, np.uint8)) is None, "nobody there"


def test_a_background_that_was_kept_does_not_count() -> None:
    kept, white = portrait.pixel_weight(True)[0, 0], portrait.pixel_weight(False)[0, 0]
    assert float(kept[4, 4]) == 0
    assert float(white[4, 4]) == pytest.approx(1 / 3)
    assert float(kept[158, 128]) == float(white[158, 128]) == 1, "the face"


UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""EXIF orientation -> the Pillow transposition that a camera held so has done to the upright photograph."""


def odd_photo(photo: Image.Image, kind: str) -> Image.Image:
    """The same photograph as another kind of image."""
    grey = np.asarray(photo.convert("L"))
    if kind == "grey, 16 bit":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if kind == "transparent":
        return Image.merge("RGBA", [*photo.split(), Image.new("L", photo.size, 255)])
    return photo.convert(kind)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["RGB", "L", "P", "CMYK", "transparent", "grey, 16 bit"]),
    orientation=st.sampled_from([None, *UPRIGHT]),
    scale=st.floats(0.7, 2),
    ending=st.sampled_from(["tiff", "png", "jpg", "webp"]),
)
def test_any_kind_of_file_is_the_same_portrait(
    astronaut: Path, tmp_path: Path, kind: str, orientation: int | None, scale: float, ending: str
) -> None:
    """Grey, 16 bit, transparent, for print, with a palette; turned as a telephone stores it; of any size."""
    with Image.open(astronaut) as opened:
        photo = odd_photo(opened.resize([round(512 * scale)] * 2), kind)
    tags = Image.Exif()
    if orientation is not None:
        photo, tags[0x0112] = photo.transpose(Image.Transpose(UPRIGHT[orientation])), orientation
    if kind == "grey, 16 bit" and ending in ("jpg", "webp"):  # which have no 16 bits
        ending = "tiff"
    path = tmp_path / f"me.{ending}"
    try:
        photo.save(path, exif=tags)
    except OSError:  # there is no such file, as a JPEG with transparency
        path = tmp_path / "me.tiff"
        photo.save(path, exif=tags)
    found = portrait.aligned(path, PortraitArgs(path, matting="off"), None)
    assert np.degrees(found.pose.yaw) == pytest.approx(-0.5, abs=5)
    assert np.degrees(found.pose.pitch) == pytest.approx(13.7, abs=5)
    assert found.pose.side == pytest.approx(254 * scale, rel=0.06)
    assert found.image.shape == (256, 256, 3)


def test_what_cannot_be_used_gets_one_sentence_and_leaves_nothing(astronaut: Path, tmp_path: Path) -> None:
    with Image.open(astronaut) as opened:
        photo = opened.convert("RGB")
    two = Image.new("RGB", (1024, 512))
    two.paste(photo)
    two.paste(photo, (512, 0))
    images = {"two": two, "nobody": Image.new("RGB", (200, 200), "grey"), "tiny": photo.crop((0, 0, 8, 8))}
    for name, image in {**images, "small": photo.resize((90, 90))}.items():
        image.save(tmp_path / f"{name}.png")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.png").write_bytes(astronaut.read_bytes()[:2000])
    (tmp_path / "folder.png").mkdir()
    for name, says in {
        "two.png": "2 large faces: crop it to one person",
        "nobody.png": "no face found",
        "tiny.png": "too small",
        "small.png": "too small|no face|cut off",
        "text.jpg": "no image that Pillow knows",
        "cut.png": "unreadable",
        "folder.png": "no photograph at",
        "missing.png": "no photograph at",
    }.items():
        args = PortraitArgs(tmp_path / name, tmp_path / "out" / "me")
        refuses(f"{name}.*({says})|({says}).*{name}", portrait.portrait, args)
        assert not (tmp_path / "out").exists()


def test_bad_options_are_found_before_the_work(astronaut: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    (tmp_path / "file").write_text("")
    for says, changes in (
        ("exists already", {"out": tmp_path / "full"}),
        ("exists already", {"out": tmp_path / "file"}),
        ("cannot write to", {"out": tmp_path / "file" / "me"}),
        ("at least 1 candidate", {"candidates": 0}),
        ("3 frames", {"frames": 2}),
        ("rates of an inversion are positive", {"rate": 0.0}),
        ("nobody", {"weights": "nobody"}),
        ("no segmentation model", {"matting_model": tmp_path / "no.tflite"}),
    ):
        args = replace(PortraitArgs(astronaut, tmp_path / "me"), **changes)
        refuses(says, portrait.portrait, args)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with suppress(OSError), portrait.whole_folder(tmp_path / "me") as folder:
        (folder / "half.png").write_bytes(b"half")
        raise OSError("full disk")
    assert list(tmp_path.iterdir()) == []
    with portrait.whole_folder(tmp_path / "me") as folder:
        (folder / "whole.png").write_bytes(b"whole")
    assert [p.name for p in (tmp_path / "me").iterdir()] == ["whole.png"]
