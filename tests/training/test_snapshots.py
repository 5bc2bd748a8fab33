"""Snapshots: whole or absent, checked when read; killed, damaged and out of space."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import refuses
from safetensors.torch import save_file

from head3d_core.checkpoints import weights
from head3d_core.training import snapshots
from head3d_core.utils.errors import Head3DError


def tensors(value: float = 1.0, count: int = 64) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.full((count, 3), value), "step": torch.tensor(7), "half": torch.ones(3).half()}


def test_round_trip_keeps_bits_types_and_meta(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 6, generator=generator)[:, ::2]
    saved = {"x": x, "n": torch.arange(4), "s": torch.tensor(2.5)}
    path = snapshots.save(tmp_path, 128, saved, {"step": 3, "visits": [1, 2]})
    assert path.name == "state-0000000128.safetensors"
    found, meta = snapshots.load(path)
    assert meta == {"step": 3, "visits": [1, 2]}
    for name, value in saved.items():
        assert torch.equal(found[name], value)
        assert found[name].dtype == value.dtype


def test_only_the_newest_stay(tmp_path: Path) -> None:
    for images in (1, 2, 3, 20):
        snapshots.save(tmp_path, images, tensors(images), {}, keep=2)
    kept = [p.name for p in snapshots.all_snapshots(tmp_path)]
    assert kept == ["state-0000000020.safetensors", "state-0000000003.safetensors"]
    assert snapshots.latest(tmp_path / "nothing") is None


def test_damage_is_named_and_the_older_one_taken(tmp_path: Path) -> None:
    paths = [snapshots.save(tmp_path, images, tensors(images), {"images": images}) for images in (1, 2)]
    data = bytearray(paths[1].read_bytes())
    data[-1] ^= 1
    paths[1].write_bytes(data)
    refuses(r"state-0000000002\.safetensors does not have the sha256 written in it", snapshots.load, paths[1])
    assert snapshots.load_latest(tmp_path)[1]["images"] == 1
    paths[1].write_bytes(data[:-5])  # shorter than its header says: not even a candidate
    assert snapshots.latest(tmp_path) == paths[0]
    paths[0].write_text("{")
    refuses("holds no readable snapshot", snapshots.load_latest, tmp_path)


def test_a_damaged_newest_one_costs_no_good_one(tmp_path: Path) -> None:
    newest = snapshots.save(tmp_path, 5, tensors(5), {"images": 5})
    older = snapshots.save(tmp_path, 2, tensors(2), {"images": 2}, keep=1)
    assert snapshots.load(older)[1]["images"] == 2  # not the one that made room
    newest = snapshots.save(tmp_path, 5, tensors(5), {"images": 5})
    data = newest.read_bytes()
    newest.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert snapshots.load_latest(tmp_path, set_aside=True)[1]["images"] == 2
    assert snapshots.latest(tmp_path) == older
    assert newest.with_name(f"{newest.name}.damaged").is_file()
    snapshots.save(tmp_path, 5, tensors(7), {"images": 5})
    assert torch.equal(snapshots.load_latest(tmp_path)[0]["a.weight"], tensors(7)["a.weight"])


def test_other_formats_are_refused(tmp_path: Path) -> None:
    """A run of older code is neither resumed nor taken for no run at all."""
    old = tmp_path / "state-0000000001.safetensors"
    save_file(tensors(), old, {"version": "2", "meta": "{}"})
    assert snapshots.latest(tmp_path) == old
    refuses("not written by this head3d_core", snapshots.load_latest, tmp_path)


def test_a_small_state_is_of_one_moment(tmp_path: Path) -> None:
    """It leaves out Adam's moments, keeps sums over many images whole, and refuses what does not fit float16."""
    state = {
        "average.w": torch.full((32,), 0.5),
        "average.n": torch.tensor([70000]),
        "generator.w": torch.ones(2),
    }
    sums = {"ada0": torch.tensor([0.1, 70000.0, 90000.0])}
    carry = snapshots.save_carry(tmp_path, {**state, **sums, "adam.d0.1": torch.ones(9)}, {"images": 1})
    assert snapshots.latest(tmp_path) == carry
    found, meta = snapshots.load_latest(tmp_path)
    assert (set(found), meta) == ({*state, *sums}, {"images": 1})
    assert (found["average.w"].dtype, found["average.n"].dtype) == (torch.float16, torch.int64)
    assert torch.equal(found["ada0"], sums["ada0"])
    snapshots.save_carry(tmp_path / "later", state, {"images": 2})
    (tmp_path / "later" / "carry" / "average.safetensors").replace(carry / "average.safetensors")
    refuses("networks of one moment", snapshots.load, carry)
    big = {"average.weight": torch.full((32,), 1e6)}
    refuses("weight has values beyond float16", snapshots.save_carry, tmp_path, big, {})


def test_full_disk_is_one_sentence_and_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = snapshots.save(tmp_path, 1, tensors(), {})

    def full(content: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(Head3DError, match=r"No space left .*free some space.*last good.*--resume") as caught:
        snapshots.save(tmp_path, 2, tensors(), {})
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [good.name]
    snapshots.load(good)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refuses("cannot write", snapshots.save, tmp_path / "file", 1, tensors(), {})


def save_forever(run: str, start: int) -> None:
    torch.set_num_threads(1)
    for k in range(1, 100_000):
        value = {"x": torch.full((200_000,), float(k)), "k": torch.tensor(k)}
        snapshots.save(run, k + start, value, {"k": k}, keep=2)


@pytest.mark.skipif(os.name != "posix", reason="kill -9 and fork are POSIX")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_killed_at_any_moment_a_whole_snapshot_remains(tmp_path: Path) -> None:
    """kill -9 at 40 different moments of continuous saving; the newest must be complete and consistent each time."""
    start, hit = 0, 0
    for k in range(40):
        process = multiprocessing.get_context("fork").Process(
            target=save_forever, args=(str(tmp_path), start)
        )
        process.start()
        until = time.monotonic() + 30
        while snapshots.latest(tmp_path) is None and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(0.0037 * (k + 3))
        process.kill()
        process.join()
        found, meta = snapshots.load(snapshots.latest(tmp_path) or tmp_path)
        assert torch.equal(found["x"], torch.full((200_000,), float(meta["k"])))
        hit += any(tmp_path.glob(".*"))
        start = int(snapshots.all_snapshots(tmp_path)[0].stem.partition("-")[2])
    assert hit > 3, "too few kills hit the middle of a save: the test would prove nothing"
    snapshots.save(tmp_path, start + 1, tensors(), {})
    assert not list(tmp_path.glob(".*")), "left-overs are cleared by the next save"
