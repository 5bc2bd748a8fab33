"""The recorded table: rows of Table 1, what each plane carries, the command with its provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import refuses, visible

from head3d_core import cli
from head3d_core.checkpoints import weights as checkpoint
from head3d_core.experiments import plane_swap, swap_study
from head3d_core.experiments.plane_swap import FINISHED, RAW, Changes
from head3d_core.experiments.swap_study import SwapStudyArgs
from head3d_core.metrics import identity_encoder


def made_up(count: int = 8, carries: tuple[float, float, float] = (0.9, 0.2, 0.1)) -> Changes:
    """Distances of a world in which each plane carries a known share of a difference."""
    apart = np.random.default_rng(0).uniform(0.8, 1.2, (count, count))
    apart = (apart + apart.T) / 2
    np.fill_diagonal(apart, np.nan)
    share = np.array(carries)[:, None, None]
    measures = (FINISHED, RAW, "colour, front")
    return Changes(
        ("xy", "xz", "yz"),
        dict.fromkeys(measures, share * apart),
        dict.fromkeys(measures, (1 - share) * apart),
        dict.fromkeys(measures, apart),
    )


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tiny generators and an encoder where the command looks for it."""
    checkpoint.save_generator(visible(0), tmp_path / "face", notes={"images": 7})
    checkpoint.save_generator(visible(5), tmp_path / "head")
    torch.manual_seed(2)
    encoder = identity_encoder.Encoder(identity_encoder.IdentityNet().eval(), "untrained").eval()
    monkeypatch.setattr(swap_study, "load_encoder", lambda name, device: encoder.requires_grad_(False))
    return tmp_path


def test_rows_are_the_papers() -> None:
    changes = made_up()
    rows = swap_study.table_rows(changes)
    assert [tuple(r["from"].values()) for r in rows] == [p[0] for p in swap_study.PAPER_TABLE_1]
    apart = float(np.nanmean(changes.apart[FINISHED]))
    assert rows[0]["to ID 1"]["value"] == pytest.approx(1 - 0.9 * apart)
    assert rows[0]["to ID 2"]["value"] == pytest.approx(1 - 0.1 * apart)
    assert rows[3]["to ID 1"]["value"] == rows[4]["to ID 2"]["value"] == 1
    assert rows[3]["to ID 2"]["value"] == pytest.approx(1 - apart)
    share = rows[1]["to ID 2, (1+cos)/2"]
    assert share["value"] == pytest.approx((1 + rows[1]["to ID 2"]["value"]) / 2)
    assert share["low"] < share["value"] < share["high"]
    assert share["count"] == 8


def test_carried_and_strongest() -> None:
    found: dict[str, Any] = {"planes": ["xy", "xz", "yz"], "measures": swap_study.measure_rows(made_up())}
    carried = [found["measures"][RAW]["planes"][n]["carried"]["value"] for n in ("xy", "xz", "yz")]
    assert carried == pytest.approx([0.9, 0.2, 0.1])
    assert swap_study.strongest(found, RAW) == ("xy", True)
    equal = {"measures": swap_study.measure_rows(made_up(carries=(0.4, 0.4, 0.4)))}
    assert swap_study.strongest(equal, RAW)[1] is False
    assert "0.90 [0.90, 0.90]" in swap_study.carried_text(found)


def test_studies_under_both_axes_stand_side_by_side() -> None:
    def study(axes: str, planes: list[str], carries: tuple[float, float, float]) -> dict[str, Any]:
        made = {"axes": axes, "planes": planes, "identities": 8}
        rows = swap_study.measure_rows(made_up(carries=carries))
        renamed = {
            m: {**row, "planes": dict(zip(planes, row["planes"].values(), strict=True))}
            for m, row in rows.items()
        }
        return made | {"measures": renamed, "provenance": {"weights": {"face": {"images": 1_000_000}}}}

    both = [
        study("xyz", ["xy", "xz", "yz"], (0.9, 0.2, 0.1)),
        study("eg3d", ["xy", "xz", "zx"], (0.4, 0.3, 0.6)),
    ]
    _, true, twin = swap_study.carried_by_axes(both, RAW).splitlines()
    assert true.split()[:4] == ["xyz", "1,000,000", "8", "0.90"]
    assert true.endswith("0.10 [0.10, 0.10]  F_yz")
    assert twin.startswith("eg3d")
    assert twin.endswith("0.60 [0.60, 0.60]  F_zx")


def test_command_records_and_prints(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = weights / "swap.json"
    face = str(weights / "face")
    assert cli.main(["swap-study", "--weights", face, "--count", "3", "--batch", "4", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    found = json.loads(out.read_text(encoding="utf8"))
    assert found["ordered_pairs"] == 6
    assert found["axes"] == "xyz"
    assert set(found["table_1"]) == {FINISHED, RAW}
    assert len(found["table_1"][RAW]) == 5
    assert "silhouette, side" in found["measures"]
    notes = found["provenance"]
    assert notes["weights"][face]["images"] == 7
    assert notes["encoder"] == "untrained"
    assert f"--weights {face} --count 3" in notes["command"]
    assert {"date", "commit", "device", "torch", "seconds"} <= set(notes)
    for line in swap_study.as_text(found, RAW).splitlines():
        assert line in text
    assert "(1+cos)/2" in text


def test_study_is_repeatable_and_batch_free(weights: Path) -> None:
    args = SwapStudyArgs(str(weights / "face"), weights / "a.json", count=3, batch=2, device="cpu")
    one = swap_study.measure(args)
    two = swap_study.measure(SwapStudyArgs(args.weights, args.out, count=3, batch=6, device="cpu"))
    for measure, row in one["measures"].items():
        other = two["measures"][measure]["apart"]["value"]
        assert row["apart"]["value"] == pytest.approx(other, abs=1e-4), measure


def test_between_two_generators(weights: Path) -> None:
    args = SwapStudyArgs(str(weights / "head"), weights / "b.json", second=str(weights / "face"), count=3)
    swap_study.run(args)
    found = json.loads((weights / "b.json").read_text(encoding="utf8"))
    assert found["second"] == args.second
    row = found["measures"][RAW]["planes"]["xy"]
    assert set(row) == {"to first", "to second", "carried"}
    assert row["carried"]["count"] == 3


def test_mistakes_are_sentences(weights: Path) -> None:
    refuses(
        "at least two identities",
        swap_study.measure,
        SwapStudyArgs(str(weights / "face"), count=1, device="cpu"),
    )


def test_live_study_is_the_raw_half(weights: Path) -> None:
    encoder = swap_study.load_encoder("auto", "cpu")
    G = checkpoint.load_generator(weights / "face")
    live = swap_study.live_study(G, encoder, 3)
    whole = swap_study.measure(SwapStudyArgs(str(weights / "face"), count=3, device="cpu"))
    assert set(live["table_1"]) == {RAW}
    for a, b in zip(live["table_1"][RAW], whole["table_1"][RAW], strict=True):
        assert a["to ID 2"]["value"] == pytest.approx(b["to ID 2"]["value"], abs=1e-4)
    assert plane_swap.RAW in live["measures"]
