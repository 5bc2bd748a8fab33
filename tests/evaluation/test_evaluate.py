"""A row is measured and written; a model that is the teacher looks like it, another does not."""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import refuses
from PIL import Image
from test_real import Stub, stub, with_straight
from test_samples import HOW, model, reference

from head3d_core import cli
from head3d_core.checkpoints import weights as checkpoint
from head3d_core.evaluation import evaluate, measures, rows, samples
from head3d_core.evaluation.evaluate import EvaluateArgs, command_of, evaluate_weights
from head3d_core.evaluation.measures import people_figures, seen_pairs, set_distance
from head3d_core.evaluation.real import Reference, Wanted
from head3d_core.evaluation.rows import Row
from head3d_core.evaluation.samples import MAPPING, Sampling
from head3d_core.metrics import identity_encoder
from head3d_core.metrics.ghost import SCORES
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.metrics.verification import paired_verification
from head3d_core.training import snapshots
from head3d_core.utils import files
from head3d_core.utils.estimates import share


class Thumb(torch.nn.Module):
    """Crops to their 8 x 8 thumbnail: two different pictures differ."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(crops, 8).flatten(1)
        return (small - small.mean(1, keepdim=True)) * self.scale


def with_faces() -> Reference:
    """The reference with embeddings: two frontal views of a person are nearly one vector."""
    real = reference()
    generator = torch.Generator().manual_seed(9)
    person = torch.randn(24, 1, 192, generator=generator)
    real.tensors["around.face"] = person + 0.1 * torch.randn(24, 13, 192, generator=generator)
    real.tensors["front.face"] = torch.randn(30, 192, generator=generator)
    wears = torch.arange(80) % 2 == 0  # what they wear shows in the first two features
    features = torch.rand(80, 24, generator=generator)
    features[:, :2] += wears[:, None].float()
    real.tensors |= with_straight(80, 40) | {
        "around.dlib": torch.zeros(24, 2, 0),
        "faces.features": features[:50],
        "faces.worn": wears[:50, None].expand(50, 2),
        "faces.face": torch.randn(50, 192, generator=generator),
        "faces.index": torch.arange(50),
        "front.features": features[50:],
        "front.worn": wears[50:, None].expand(30, 2),
    }
    return real


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three sets of weights (head3d is the teacher's twin), and stand-ins for networks and real pictures."""
    folder = tmp_path_factory.mktemp("weights")
    for name, seed in (("face", 0), ("head", 1), ("head3d", 0)):
        net = model(seed).generator
        if name == "head3d":
            with torch.no_grad():
                net.backbone.synthesis.get_parameter("b4.const").mul_(1.0001)
        checkpoint.save_generator(net, folder / name, notes={"images": 7, "preset": "tiny", "seed": 0})
    networks = Stub(stub().features, Encoder(Thumb(), "thumb"), "cpu", 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "open_networks", lambda args: (networks, {}))
        patch.setattr(evaluate, "real_reference", lambda *_: with_faces())
        patch.setattr(samples, "_neighbours", lambda *_: None)  # needs OpenGL
        yield folder


def arguments(place: Path, weights: str, **changes: Any) -> EvaluateArgs:
    args = EvaluateArgs(
        weights if weights in ("real", "plane-swap") else str(place / weights),
        teacher=str(place / "face"),
        head=str(place / "head"),
        sampling=HOW,
        replicates=20,
        device="cpu",
        cache=place / "cache",
        out=place / "out",
    )
    return dataclasses.replace(args, **changes)


@functools.cache
def measured(place: Path, weights: str, **changes: Any) -> Row:
    return evaluate_weights(arguments(place, weights, **changes))


def test_a_twin_of_the_teacher_keeps_its_identities(place: Path) -> None:
    record = measured(place, "head3d")
    assert record.row == "head3d"
    assert record.weights | {"images": 7, "preset": "tiny", "seed": 0} == record.weights
    assert record.identity.cosine.value > 0.999
    assert record.identity.auc.value > 0.99
    assert set(record.silhouettes) == {"front", "side", "back"}
    assert [step.low for step in record.by_yaw] == list(range(0, 180, 15))
    assert [step.consistency is None for step in record.by_yaw] == [False] * 12
    assert record.people.near_duplicates.count == 12
    assert record.people.other_looks is None  # no record is about this encoder
    assert record.distance["back"].real_heads == 15  # its interval redraws heads, not views
    assert record.distance["front"].real_heads is None
    hat = record.accessories["hat"]
    assert hat.probe.recall.value > 0.5
    assert hat.teacher.count == 14
    assert record.behind.diversity.count == len(record.behind.scores["eye_pair"]) == 11
    assert set(record.behind.ghost) == set(SCORES)
    assert record.behind.hats is not None
    assert record == rows.load_row(place / "out" / "head3d.json")
    for name in record.pictures:
        with Image.open(place / "out" / name) as picture:
            assert picture.width >= 5 * 64
    assert str(place) not in json.dumps(record.provenance["arguments"].get("out", ""))


def test_ratios_are_paired_with_the_teacher_and_the_head_generator(place: Path) -> None:
    """A twin of the teacher is as far from real images as the teacher, in every replicate."""
    record = measured(place, "head3d")
    twin = record.ratios["front / face"]
    assert twin.value == pytest.approx(1, abs=1e-3)
    assert twin.high - twin.low < 0.01
    cameras = {f"{side}, {name}" for side in ("front", "back") for name in MAPPING}
    assert {f"{side} / head" for side in ("front", "back", "front, truncated")} <= set(record.ratios)
    assert {f"{name} / frontal" for name in cameras} <= set(record.ratios)
    assert cameras <= set(record.distance)


def test_other_models_do_not(place: Path) -> None:
    record = measured(place, "head")
    assert record.identity.auc.value < 0.9
    assert record.identity.cosine.value < 0.9
    untrained = measured(place, "plane-swap")
    assert untrained.row == "plane-swap"
    about = untrained.weights
    assert (about["minutes"], about["images"], about["starts_from"]) == (0, 0, 7)
    assert -1 < untrained.identity.cosine.value < 0.999


def test_adding_keeps_what_is_recorded(place: Path, tmp_path: Path) -> None:
    before, path = measured(place, "head3d"), tmp_path / "head3d.json"
    args = arguments(place, "head3d", add=True, out=tmp_path)
    far = dataclasses.replace(before.distance["back"], real_heads=50)
    rows.write_row(path, dataclasses.replace(before, behind=None, distance={"back": far}))
    after = evaluate_weights(args)
    assert after.distance["back"] == far
    assert after.distance["back, 15 heads"].kernel == before.distance["back"].kernel
    assert after.behind == before.behind
    assert "behind" in after.added["fields"]
    assert after.added["arguments"]["add"]
    rows.write_row(path, dataclasses.replace(before, weights={"digest": "another"}))
    refuses("recorded of other weights", evaluate_weights, args)


def test_real_images_have_a_row_of_their_own(place: Path) -> None:
    record = measured(place, "real", only=("straight",))
    assert (record.row, record.seed, record.weights) == ("real", 0, {})
    assert set(SCORES) <= set(record.limits)
    assert set(record.behind_of) == {"heads", "faces"}
    assert len(record.behind.scores["eye_pair"]) == 40


def test_dlib_is_asked_where_it_sees_both_faces() -> None:
    person = torch.randn(20, 128, generator=torch.Generator().manual_seed(2))
    again = person.clone()
    again[:4] = torch.nan
    found = seen_pairs(person, again, 20)
    assert found.seen == share(16, 20)
    assert found.cosine.value == pytest.approx(1)
    assert seen_pairs(person, again.fill_(torch.nan), 20) is None
    assert seen_pairs(torch.zeros(20, 0), torch.zeros(20, 0), 20) is None


def test_the_straight_figures_of_real_images_are_those_of_fresh_ones() -> None:
    found = measures.real_behind(Reference(with_straight(80, 40), Wanted()))
    counts = {name: len(one.scores["eye_pair"]) for name, one in found.items()}
    assert counts == {"all": 40, "heads": 20, "faces": 20}
    assert found["all"].ghost["eye_pair"].above.count == 40
    assert found["heads"].ghost["eye_pair"].above.value == 0, "scores rise with the number, people come last"
    assert found["faces"].ghost["eye_pair"].above.value > 0.5


def test_the_teacher_is_not_compared_with_itself(place: Path) -> None:
    record = measured(place, "face", name="teacher")
    assert record.identity is None
    assert record.accessories == {}
    assert (place / "out" / "teacher_views.jpg").is_file()


def test_what_is_missing_is_said(place: Path, tmp_path: Path) -> None:
    """Without a teacher nothing is compared at the same z, without training pictures nothing with those."""
    changes = {"teacher": str(place / "nobody"), "wanted": Wanted(training=0), "out": tmp_path}
    record = measured(place, "head3d", **changes)
    assert set(record.missing) == {"nearest training people", "hats and glasses", "same z"}
    assert "nobody" in record.missing["same z"]
    assert record.identity is None
    assert "not measured" in evaluate.summary(record)


def test_what_cannot_work_is_said_before_the_work(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "open_networks", lambda _: pytest.fail("it began to work"))
    (tmp_path / "file").write_text("x")

    def few(**counts: int) -> Sampling:
        return dataclasses.replace(HOW, **counts)

    for changes, says in (
        ({"out": tmp_path / "file" / "results"}, "cannot write to"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"replicates": 0}, "replicates must be at least 1, got 0"),
        ({"sampling": few(count=9)}, "sampling.count .* samples .* at least 10, got 9"),
        ({"sampling": few(detector=10)}, "sampling.detector .* samples .* at least 11, got 10"),
    ):
        refuses(says, evaluate_weights, arguments(place, "real", **changes))


def test_the_limit_of_other_looks_is_recorded_of_these_weights(tmp_path: Path) -> None:
    weights, record = tmp_path / "encoder", tmp_path / "roc.json"
    weights.write_bytes(b"these")
    ours = Encoder(Thumb(), identity_encoder.NAME)
    assert measures.other_looks(ours, weights, record) is None
    known = {"provenance": {"sha256": files.sha256(weights)}, "frontal": {"same_median": 0.9}}
    record.write_text(json.dumps(known))
    assert measures.other_looks(ours, weights, record) == 0.9
    assert measures.other_looks(Encoder(Thumb(), "thumb"), weights, record) is None
    weights.write_bytes(b"others")
    assert measures.other_looks(ours, weights, record) is None


def test_near_duplicates_at_both_limits() -> None:
    x = torch.eye(12)
    x = torch.cat([x, x[:1], x[1:2] + 0.5 * x[2:3]])
    pairs = paired_verification(torch.eye(12), torch.eye(12), 20)
    pairs = dataclasses.replace(pairs, same_median=0.95)
    people = people_figures(x, None, pairs, 20, looks=0.8)
    wider = people.other_looks
    assert people.near_duplicates.value == pytest.approx(2 / 14)
    assert (wider.above, wider.near_duplicates.value) == (0.8, pytest.approx(4 / 14))


def test_no_frechet_distance_of_fewer_pictures_than_features() -> None:
    generator = torch.Generator().manual_seed(1)
    many, few = (torch.rand(n, 6, generator=generator) for n in (40, 12))
    assert set_distance(many, many, stub(), 20).frechet is not None
    narrow = set_distance(many.repeat(1, 3), few.repeat(1, 3), stub(), 20)
    assert narrow.frechet is None
    assert "more pictures of each than features (18), got 40 and 12" in narrow.no_frechet


def test_a_runs_folder(tmp_path: Path) -> None:
    net = model(3).generator
    meta = {
        "generator": net.config.to_dict(),
        **{"images": 40, "preset": "tiny", "recipe": {}, "row": "no-kd", "seed": 5},
    }
    snapshots.save(tmp_path, 40, {f"average.{k}": t for k, t in net.state_dict().items()}, meta)
    lines = [
        {"event": "start", "images": 0, "device": "some GPU"},
        {"event": "progress", "images": 20, "seconds": 60.0},
        {"event": "start", "images": 20, "device": "some GPU", "args": {"preset": "tiny", "out": "x"}},
        {"event": "end", "images": 40, "seconds": 30.0},
    ]
    killed = '{"event": "progr\n'  # the line that a kill left half written
    (tmp_path / "log.jsonl").write_text(killed + "\n".join(map(json.dumps, lines)))
    found, notes = evaluate.open_weights(str(tmp_path), "cpu")
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), net.parameters(), strict=True))
    assert (notes["row"], notes["minutes"], notes["trained_on"]) == ("no-kd", 1.5, "some GPU")
    assert notes["preset"] == "tiny"
    other = model(4).generator  # weights of a run are looked at where its snapshots are gone
    checkpoint.save_generator(other, tmp_path / "weights", notes={"images": 41})
    for images, expected in ((40, net), (41, other)):
        found, notes = evaluate.open_weights(str(tmp_path), "cpu")
        assert notes["images"] == images
        assert torch.equal(next(found.parameters()), next(expected.parameters())), images
        for path in tmp_path.glob("state-*"):
            path.unlink()
    refuses("no weights called", evaluate.open_weights, "nobody", "cpu")


def test_the_recorded_command_gives_the_same_arguments() -> None:
    how = Sampling(count=200, truncation=0.5)
    args = EvaluateArgs("head3d", row="second seed", teacher="runs/a b", sampling=how, replicates=50)
    args = dataclasses.replace(args, add=True, dlib=False, only=("straight", "around"))
    again, _ = cli.parse("evaluate", shlex.split(command_of(args))[4:])
    assert again == args
    assert command_of(EvaluateArgs("face")) == "python -m head3d_core evaluate face"
