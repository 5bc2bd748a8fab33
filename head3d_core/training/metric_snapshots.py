"""Kernel distances of the averaged generator to the training images while a stage trains, front and back.

A few hundred images say whether training still improves; they are no result. Results are measured by `evaluate`, on
many more samples and against people that no generator has seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from head3d_core.metrics.distances import kernel_distance
from head3d_core.metrics.features import FeatureNetwork, extract, feature_network
from head3d_core.metrics.silhouettes import is_back, is_frontal
from head3d_core.model.cameras import frontal
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import z_of_numbers
from head3d_core.training.parts import Pool
from head3d_core.utils.images import to_uint8

VIEWS = {"front": is_frontal, "back": is_back}
"""What is measured, with the cameras that see it."""
_ENOUGH = 16
"""Images below which a view is left out."""
_BATCH = 32


class MetricSnapshots:
    """Kernel distances x 100 between generated images of a run and the real images that it learns from.

    Args:
        pools: real images of the run; views with fewer than 16 images in all are left out.
        count: images of each view, real and generated.
        seed: of the samples, which are the same at every snapshot.

    Raises:
        Head3DError: the feature network is not there, with what to install.
    """

    def __init__(self, pools: list[Pool], count: int, seed: int = 0) -> None:
        self.pools, self.count, self.seed = pools, count, seed
        self.network: FeatureNetwork = feature_network("auto", pools[0].cameras.device)
        self.real = {view: self._real(view) for view in VIEWS}

    def _real(self, view: str) -> tuple[Tensor, Tensor] | None:
        """Features [n, d] and cameras [n, 25] of real images, spread evenly over the pools; None if there are few."""
        cameras = torch.cat([pool.cameras[0] for pool in self.pools])
        seen = VIEWS[view](cameras).nonzero()[:, 0]
        if len(seen) < _ENOUGH:
            return None
        pick = torch.linspace(0, len(seen) - 1, min(self.count, len(seen))).round().long()
        chosen, images, start = seen[pick.to(seen.device)], [], 0
        for pool in self.pools:
            images.append(pool.images[chosen[(chosen >= start) & (chosen < start + len(pool))] - start])
            start += len(pool)
        return extract(self.network, torch.cat(images), _BATCH), cameras[chosen]

    @torch.no_grad()
    def measure(self, net: Generator) -> dict[str, float]:
        """`front` and `back` (where the run has such images): kernel distance x 100, by the network's own name."""
        distances: dict[str, float] = {}
        for view, real in self.real.items():
            if real is None:
                continue
            features, cameras = real
            parts = []
            for start in range(0, len(cameras), _BATCH):
                camera = cameras[start : start + _BATCH].to(net.device)
                z = z_of_numbers(self.seed, range(start, start + len(camera)), net.z_dim, net.device)
                ws = net.mapping(z, frontal(len(z), net.device))
                image = net.render(net.planes(ws), ws, camera).image
                parts.append(extract(self.network, to_uint8(image), _BATCH))
            value = kernel_distance(features, torch.cat(parts), replicates=2).value
            distances[f"{self.network.kernel_name}_x100_{view}"] = round(100 * value, 3)
        return distances
