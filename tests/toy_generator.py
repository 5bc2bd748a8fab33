"""A generator that shows toy head A whatever it is asked for: known geometry behind the real interface."""

from __future__ import annotations

import dataclasses
import functools

import torch

from head3d_core.config import preset
from head3d_core.experiments import toys
from head3d_core.model.generator import Generator
from head3d_core.model.planes import Decoder, DecoderWeights


class _ToyDecoder(Decoder):
    def __init__(self, fitted: DecoderWeights) -> None:
        super().__init__(8, 16, 3)
        self.fitted = fitted

    def weights(self) -> DecoderWeights:
        return self.fitted


def _solid(weights: DecoderWeights, factor: float = 10.0) -> DecoderWeights:
    """The same surface sigma = 0 around something ten times as dense: the toy itself is fog 0.1 deep."""
    w1, b1 = weights.w1.clone(), weights.b1.clone()
    w1[0], b1[0] = factor * w1[0], factor * b1[0]
    return weights._replace(w1=w1, b1=b1)


@functools.cache
def toy_generator() -> Generator:
    """Its planes are those of `toys.TOY_A`, fitted in seconds and once a process; `codes` are some that it takes."""
    fit = toys.fit_planes([toys.TOY_A], steps=250)
    render = dataclasses.replace(
        preset("tiny").generator.render, depth_resolution=32, depth_resolution_importance=32
    )
    config = dataclasses.replace(preset("tiny").generator, decoder_features=3, render=render)
    G = Generator(config).eval()
    G.decoder = _ToyDecoder(_solid(fit.weights))
    G.planes = lambda ws, *_: fit.planes.expand(len(ws), -1, -1, -1, -1)  # type: ignore[method-assign]
    G.codes = torch.zeros(1, G.num_ws, G.config.w_dim)
    return G
