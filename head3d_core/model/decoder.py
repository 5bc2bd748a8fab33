"""The tri-plane decoder: a small MLP from a point's feature to sigma (density before its
softplus) and colour features (section 3.1)."""

from __future__ import annotations

from torch import Tensor, nn

from head3d_core.model.planes import DecoderWeights, decode
from head3d_core.model.stylegan2 import FullyConnected


class Decoder(nn.Module):
    """C -> hidden (softplus) -> 1 + features.

    Args:
        channels: plane channels C.
        hidden: hidden units.
        features: number of colour features.
        lr_multiplier: learning-rate multiplier of both layers.
    """

    def __init__(self, channels: int, hidden: int, features: int, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        # Index 1 of the format's sequence is the parameter-free softplus, hence layers "0" and "2".
        self.net = nn.ModuleDict(
            {
                "0": FullyConnected(channels, hidden, lr_multiplier=lr_multiplier),
                "2": FullyConnected(hidden, 1 + features, lr_multiplier=lr_multiplier),
            }
        )

    def weights(self) -> DecoderWeights:
        """Both layers with their gains folded in, as the renderer takes them."""
        first, second = self.net["0"], self.net["2"]
        assert isinstance(first, FullyConnected)
        assert isinstance(second, FullyConnected)
        return DecoderWeights(*first.effective(), *second.effective())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[..., C] -> sigma [..., 1], colour features [..., F]."""
        return decode(features, self.weights())
