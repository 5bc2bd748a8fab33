"""EG3D's data format: round trips, and one named mistake per test."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import refused, refuses
from PIL import Image
from torch import Tensor

from head3d_core.cli import main
from head3d_core.datasets import camera_checks, format, writer
from head3d_core.datasets.storage import Store
from head3d_core.model import cameras

YAWS = torch.tensor([-0.5, -0.2, 0.0, 0.3])


def some_images(side: int = 16, count: int = 4) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


def write(path: Path, **options: Any) -> tuple[Tensor, Tensor]:
    images, poses = some_images(), cameras.orbit(YAWS, 0.1)
    format.write_dataset(path, images, poses, **options)
    return images, poses


def same(place: Path, images: Tensor, poses: Tensor) -> None:
    """The set at `place` is without problems and holds these images and cameras."""
    assert format.validate(place) == []
    got, labels = format.load_arrays(place)
    assert torch.equal(got, images)
    torch.testing.assert_close(labels, poses, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["faces", "faces.zip"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    """A zip is stored, as EG3D wants it."""
    images, poses = write(tmp_path / name, about={"licence": "CC0-1.0"})
    same(tmp_path / name, images, poses)
    document = json.loads(Store(tmp_path / name).read("dataset.json"))
    assert document["about"] == {"licence": "CC0-1.0"}
    assert [name for name, _ in document["labels"]] == format.image_names(tmp_path / name)
    assert document["labels"][3][0] == "00000/img00000003.png"
    assert len(document["labels"][3][1]) == 25
    assert sorted(os.listdir(tmp_path)) == [name]
    if name == "faces.zip":
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}


def test_resolution_is_an_area_average(tmp_path: Path) -> None:
    images, _ = write(tmp_path / "a")
    half, _ = format.load_arrays(tmp_path / "a", 8)
    exact = torch.nn.functional.avg_pool2d(images.float(), 2)
    assert half.shape == (4, 3, 8, 8)
    assert (half.float() - exact).abs().max() <= 0.5
    with refused("smaller than the 32 asked for"):
        format.load_arrays(tmp_path / "a", 32)
    with refused("power of two, got 12"):
        format.load_arrays(tmp_path / "a", 12)


def test_labels_as_strings_and_null(tmp_path: Path) -> None:
    """Some published sets hold the 25 numbers as strings, others none at all."""
    _, poses = write(tmp_path / "a")
    edit_json(tmp_path / "a", lambda rows: [[n, [str(x) for x in v]] for n, v in rows])
    torch.testing.assert_close(format.load_arrays(tmp_path / "a")[1], poses, rtol=0, atol=1e-6)
    edit_json(tmp_path / "a", lambda rows: None)
    with refused(r"no labels .* prepare-data"):
        format.load_arrays(tmp_path / "a")
    (tmp_path / "a" / "dataset.json").unlink()
    assert [p.file for p in format.validate(tmp_path / "a")] == ["dataset.json"]


def test_geometry_comes_back(tmp_path: Path) -> None:
    mask = torch.rand(4, 16, 16)
    depth = 2.5 + torch.rand(4, 16, 16)
    depth[:, :4] = float("inf")
    normals = torch.nn.functional.normalize(torch.randn(4, 3, 16, 16), dim=1)
    with writer.writing_dataset(tmp_path / "a.zip") as add:
        for k, (image, camera) in enumerate(zip(some_images(), cameras.orbit(YAWS, 0.1), strict=True)):
            add(image, camera, {"mask": mask[k], "depth": depth[k], "normals": normals[k]})
    store = Store(tmp_path / "a.zip")
    stored = [np.load(io.BytesIO(store.read(f"geometry/00000/img{k:08d}.npz"))) for k in range(4)]
    got = {kind: torch.from_numpy(np.stack([one[kind] for one in stored])) for kind in stored[0]}
    assert (got["mask"] / 255 - mask).abs().max() <= 0.5 / 255 + 1e-6
    assert (got["normals"].movedim(-1, 1) / 127 - normals).abs().max() <= 0.5 / 127 + 1e-6
    assert torch.equal(got["depth"][:, 4:], depth[:, 4:])
    assert (got["depth"][:, :4] == 0).all()
    assert format.validate(tmp_path / "a.zip") == []


def test_a_refused_first_image_does_not_set_the_size(tmp_path: Path) -> None:
    with writer.writing_dataset(tmp_path / "a") as add:
        with refused("not written"):
            add(np.zeros((3, 24, 24), np.uint8), cameras.orbit(YAWS[:1])[0])
        add(some_images()[0], cameras.orbit(YAWS[:1])[0])
    assert len(format.load_arrays(tmp_path / "a")[0]) == 1


def test_identities_from_provenance(tmp_path: Path) -> None:
    """As `make-data` writes them: no list, but a number of views per head."""
    write(tmp_path / "a")
    with refused("names no identities"):
        format.load_identities(tmp_path / "a")
    (tmp_path / "a" / "provenance.json").write_text('{"views_per_head": 2}')
    assert format.load_identities(tmp_path / "a").tolist() == [0, 0, 1, 1]
    for text in ("{", "[]", '{"views_per_head": "x"}', '{"views_per_head": 0.5}'):
        (tmp_path / "a/provenance.json").write_text(text)
        with refused("provenance.json"):
            format.load_identities(tmp_path / "a")


# --- what the validator says ---


def edit_json(root: Path, change: Callable[[list[Any]], Any]) -> None:
    document = json.loads((root / "dataset.json").read_text())
    document["labels"] = change(document["labels"])
    (root / "dataset.json").write_text(json.dumps(document))


def opengl(camera: Tensor) -> Tensor:
    matrix, k = cameras.unpack(camera)
    return cameras.pack(matrix @ torch.diag(torch.tensor([1.0, -1, -1, 1])), k)


def transposed(camera: Tensor) -> Tensor:
    return torch.cat([camera[:, :16].reshape(-1, 4, 4).mT.reshape(-1, 16), camera[:, 16:]], -1)


def at(index: int | list[int], value: float, factor: float = 0.0) -> Callable[[Tensor], Tensor]:
    """Entries become factor * entry + value."""

    def change(camera: Tensor) -> Tensor:
        camera = camera.clone()
        camera[:, index] = factor * camera[:, index] + value
        return camera

    return change


def wrong_label(change: Callable[[Tensor], Tensor]) -> Callable[[Path], object]:
    """Changes the second label of a set."""

    def spoil(image: Path) -> None:
        root = image.parents[1]
        edit_json(
            root,
            lambda rows: [rows[0], [rows[1][0], change(torch.tensor([rows[1][1]]))[0].tolist()], *rows[2:]],
        )

    return spoil


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "scaled": (wrong_label(at([0, 1, 2, 4, 5, 6, 8, 9, 10], 0, 1.3)), "not orthonormal .*normalise"),
    "opengl": (wrong_label(opengl), "looks away from the origin, as with OpenGL"),
    "pixels": (wrong_label(at(list(range(16, 22)), 0, 512)), r"in pixels \(focal 2183.*divided by the image width"),
    "reflected": (wrong_label(at([0, 4, 8], 0, -1)), "mirrored \\(determinant -1\\)"),
    "transposed": (wrong_label(transposed), "looks transposed"),
    "origin": (wrong_label(at([3, 7, 11], 0.0)), "stands in the world origin"),
    "not finite": (wrong_label(at(5, float("nan"))), "not finite"),
    "focal": (wrong_label(at(16, -4.26)), "focal lengths are -4.26"),
    "last row": (wrong_label(at(15, 2.0)), "last row of cam2world"),
    "intrinsics row": (wrong_label(at(24, 0.0)), "last row of the intrinsics"),
    "principal point": (wrong_label(at(18, 3.0)), "principal point"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-200]), "truncated or damaged"),
    "not an image": (lambda p: p.write_bytes(b"<html>404</html>"), "not an image"),
    "alpha": (lambda p: Image.new("RGBA", (16, 16)).save(p), "mode RGBA"),
    "odd": (lambda p: Image.new("RGB", (24, 24)).save(p), "24 x 24: expected a power of two, resize it to 16"),
    "wide": (lambda p: Image.new("RGB", (32, 16)).save(p), "32 x 16: expected a square"),
    "other": (lambda p: Image.new("RGB", (32, 32)).save(p), "32 x 32, most others are 16 x 16"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_label_or_image_is_named(tmp_path: Path, name: str) -> None:
    spoil, sentence = MISTAKES[name]
    write(tmp_path / "a")
    spoil(tmp_path / "a/00000/img00000001.png")
    (problem,) = format.validate(tmp_path / "a")
    assert problem.file == "00000/img00000001.png"
    assert re.search(sentence, problem.text)
    assert "\n" not in str(problem)
    with refused(r"img00000001\.png: "):
        format.load_arrays(tmp_path / "a")


def test_good_labels_pass_all_around() -> None:
    """No false alarm for any camera of the two sets, off-centre and skewed intrinsics included."""
    for camera in cameras.orbit(torch.linspace(-3.1, 3.1, 25), torch.linspace(-0.5, 0.5, 25)):
        camera[17], camera[18] = 0.02, 0.55
        assert camera_checks.check_label(camera.tolist()) is None
        assert camera_checks.check_label([str(x) for x in camera.tolist()]) is None
    assert "has 24 numbers" in str(camera_checks.check_label([0.0] * 24))
    assert "not numbers" in str(camera_checks.check_label(["a"] * 25))


def test_missing_and_extra_labels(tmp_path: Path) -> None:
    write(tmp_path / "a")
    edit_json(tmp_path / "a", lambda rows: [*rows[:2], rows[3], rows[3], ["../secret.png", rows[0][1]], "x"])
    found = {(p.file, p.text.split(":")[0]) for p in format.validate(tmp_path / "a")}
    assert found == {
        ("00000/img00000002.png", "no label in dataset.json"),
        ("00000/img00000003.png", "listed twice in dataset.json"),
        ("../secret.png", "the name leads out of the data set"),
        ("dataset.json", "the entry 'x' is not [name, 25 numbers]"),
    }


def test_load_raises_with_the_first_and_the_count(tmp_path: Path) -> None:
    write(tmp_path / "a")
    edit_json(tmp_path / "a", lambda rows: [[n, [*v[:16], 2985.0, *v[17:]]] for n, v in rows])
    MISTAKES["truncated"][0](tmp_path / "a/00000/img00000002.png")
    assert len(format.validate(tmp_path / "a")) == 5
    with refused(r"img00000000.png: the intrinsics .*\(and 4 more problems: "):
        format.load_arrays(tmp_path / "a")


def test_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "short.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "empty").mkdir()
    says = {"nothing": "no data set at", "short.zip": "not a readable zip", "empty": "no images"}
    for name, text in (("broken", "{"), ("list", "[1]")):
        write(tmp_path / name)
        (tmp_path / name / "dataset.json").write_text(text)
    for name, sentence in (says | {"broken": "not valid JSON", "list": "must be"}).items():
        with refused(sentence):
            format.load_arrays(tmp_path / name)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    good = some_images()
    wrong = (good[:3], good.float(), [good[0], good[1, :, :8]], [good[0], some_images(32)[0], *good[1:3]])
    for bad, name in itertools.product(wrong, ("a", "a.zip")):
        refuses(r"not written|must be", format.write_dataset, tmp_path / name, bad, cameras.orbit(YAWS))
    with refused(r"not written, dataset\.json: every camera looks away"):
        format.write_dataset(tmp_path / "a", good, opengl(cameras.orbit(YAWS)))
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "a")
    with refused("exists already"):
        write(tmp_path / "a")


def test_the_command_lists_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poses = cameras.orbit(torch.linspace(-0.5, 0.5, 8), 0.1)
    format.write_dataset(tmp_path / "a", some_images(64, 8), poses)
    assert main(["validate", str(tmp_path / "a"), "--preset", "tiny"]) == 0
    assert "8 images with labels, 0 errors, 0 warnings" in capsys.readouterr().out
    edit_json(tmp_path / "a", lambda rows: [[n, [*v[:16], 4.2 * 256, *v[17:]]] for n, v in rows])
    assert main(["validate", str(tmp_path / "a"), "--preset", "tiny"]) == 1
    out = capsys.readouterr().out
    assert out.count("error: ") == 3
    assert "and 5 more like 'the intrinsics are in pixels" in out
    assert main(["validate", str(tmp_path / "none")]) == 1
    assert "no data set at" in capsys.readouterr().err
