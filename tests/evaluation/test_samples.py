"""Samples follow from seed and number alone; what is measured on them is kept and comes back."""

from __future__ import annotations

from pathlib import Path

import torch
from helpers import refuses
from test_real import stub

from head3d_core.config import preset
from head3d_core.evaluation import samples
from head3d_core.evaluation.real import STEPS, Reference, Tensors, Wanted
from head3d_core.evaluation.samples import Model, Sampling
from head3d_core.model.cameras import frontal, orbit
from head3d_core.model.generator import Generator

SIDE = preset("tiny").generator.image_resolution
HOW = Sampling(count=14, detector=12, around=11, turned=2, again=9, straight=11, mapping=10)


def model(seed: int) -> Model:
    torch.manual_seed(seed)
    return Model(Generator(preset("tiny").generator))


def reference(people: int = 24) -> Reference:
    """Random features behind real cameras."""
    generator = torch.Generator().manual_seed(3)

    def features(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, 24, generator=generator)

    yaw = torch.cat([torch.zeros(1), torch.deg2rad(torch.arange(STEPS) * 15.0 + 7)])
    tensors: Tensors = {
        "front.features": features(30),
        "front.camera": orbit(torch.linspace(-0.3, 0.3, 30)),
        "front.found": torch.ones(30),
        "back.features": features(30),
        "back.camera": orbit(torch.linspace(2.6, 3.6, 30)),
        "back.found": torch.zeros(30),
        "back.index": torch.arange(30) * 100,  # two views of each of 15 heads
        "around.features": features(people, STEPS + 1),
        "around.camera": orbit(yaw).expand(people, STEPS + 1, 25),
        "around.found": torch.ones(4, STEPS + 1),
        "around.face": torch.zeros(people, STEPS + 1, 0),
        "around.silhouette": (features(people, STEPS + 1, 64, 64)[..., 0] * 255).to(torch.uint8),
        "front.face": torch.zeros(30, 0),
    }
    return Reference(tensors, Wanted(resolution=SIDE, held_out=50))


def test_the_batch_changes_nothing() -> None:
    one, other = (samples.draw_samples(model(0), reference(), stub(batch), HOW) for batch in (3, 8))
    assert one.keys() == other.keys()
    assert one["straight.face"].shape == (12, 0)  # no encoder
    for name in set(one) - {"straight.face", "straight.dlib", "around.face"}:
        a, b = (x[name].float().nan_to_num() for x in (one, other))  # what cannot be measured is NaN in both
        worst = float((a - b).abs().max())
        assert worst <= (1 if name == "around.silhouette" else 2e-3), (name, worst)
    assert one["front.features"].shape == (14, 24)
    assert one["again.features"].shape == (9, 24)
    assert one["around.found"].shape == (2, STEPS + 1)
    assert one["front.rendering"].shape == one["back.random"].shape == (10, 24)


def test_a_mapping_camera_changes_the_head_and_the_frontal_one_does_not() -> None:
    """ "rendering" and "random" go through the mapping network; the frontal camera gives the plain samples."""
    found = samples.draw_samples(model(0), reference(), stub(), HOW, parts=("plain", "mapping"))
    plain = found["front.features"][:10]
    for name in samples.MAPPING:
        assert (found[f"front.{name}"] - plain).abs().max() > 1e-4, name
    straight = reference()
    straight.tensors["front.camera"] = frontal(30)
    same = samples.draw_samples(model(0), straight, stub(), HOW, parts=("plain", "mapping"))
    for name in samples.MAPPING:
        torch.testing.assert_close(same[f"front.{name}"], same["front.features"][:10], atol=2e-3, rtol=1e-3)


def test_kept_samples_come_back_and_other_weights_do_not(tmp_path: Path) -> None:
    small = Sampling(count=3, detector=2, around=0, again=0, straight=0, mapping=0)
    first = samples.draw_samples(model(0), reference(), stub(), small, tmp_path)
    again = samples.draw_samples(model(0), reference(), stub(), small, tmp_path)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert len(list(tmp_path.iterdir())) == 2, "a file a part"
    samples.draw_samples(model(1), reference(), stub(), small, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_straight_samples_are_none_that_the_measure_was_developed_on() -> None:
    """The first straight sample is number 48, whatever the batch."""
    found = samples.draw_samples(model(0), reference(), stub(3), HOW, parts=("straight",))
    head = model(0).heads(range(48, 49), HOW.seed, HOW.truncation)
    images, _ = model(0).view(head, orbit(0.0))
    torch.testing.assert_close(found["ahead.features"][:1], stub().describe(images), atol=2e-3, rtol=1e-3)
    assert samples.FIRST_STRAIGHT == 48


def test_a_swapped_model_has_the_others_front_plane() -> None:
    a, b = model(0), model(1)
    swapped = Model(b.generator, a.generator)
    planes = [m.heads(range(2), 0, 0.7)[1] for m in (a, b, swapped)]
    assert torch.equal(planes[2][:, 0], planes[0][:, 0])
    assert torch.equal(planes[2][:, 1:], planes[1][:, 1:])
    assert len({m.digest() for m in (a, b, swapped)}) == 3


def test_pictures_of_two_sizes_are_refused() -> None:
    real = reference()
    other = Reference(real.tensors, Wanted(resolution=2 * SIDE, held_out=50))
    refuses(f"{2 * SIDE} pixels a side", samples.draw_samples, model(0), other, stub(), HOW)


def test_a_diverged_model_is_named() -> None:
    broken = model(0)
    with torch.no_grad():
        next(broken.generator.decoder.parameters()).fill_(float("nan"))
    refuses("not finite", broken.view, broken.heads(range(1), 0, 1.0), frontal(1))
