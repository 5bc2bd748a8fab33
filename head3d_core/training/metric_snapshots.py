"""While a stage trains: how far the averaged generator's pictures are from the training pictures, front and back.

A few hundred pictures say whether training still improves; they are no result. Results are measured by `evaluate`, on
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
"""Pictures below which a view is left out."""
_BATCH = 32


class MetricSnapshots:
    """Kernel distances x 100 between a run's own pictures and the pictures it learns from.

    Args:
        pools: real pictures of the run; views with fewer than 16 pictures in all are left out.
        count: pictures of each view, real and generated.
        seed: of the samples, which are the same at every snapshot.

    Raises:
        Head3DError: the feature network is not there, with what to install.
    """

    def __init__(self, pools: list[Pool], count: int, seed: int = 0) -> None:
        self.pools, self.count, self.seed = pools, count, seed
        self.network: FeatureNetwork = feature_network("auto", pools[0].cameras.device)
        self.real: dict[str, tuple[Tensor, Tensor]] = {}

    def _real(self, view: str) -> tuple[Tensor, Tensor] | None:
        """Features [n, d] and cameras [n, 25] of real pictures, spread evenly over what the pools hold by now."""
        if view in self.real:
            return self.real[view]
        held = [pool.cameras[0, : len(pool)] for pool in self.pools]
        chosen = [VIEWS[view](camera).nonzero()[:, 0] for camera in held]
        total = sum(map(len, chosen))
        if total < _ENOUGH:
            return None
        pick = torch.linspace(0, total - 1, min(self.count, total)).round().long().to(held[0].device)
        images, cameras, start = [], [], 0
        for pool, camera, index in zip(self.pools, held, chosen, strict=True):
            part = index[pick[(pick >= start) & (pick < start + len(index))] - start]
            images.append(pool.images[part])
            cameras.append(camera[part])
            start += len(index)
        found = extract(self.network, torch.cat(images), _BATCH), torch.cat(cameras)
        self.real[view] = found
        return found

    @torch.no_grad()
    def measure(self, net: Generator) -> dict[str, float]:
        """`front` and `back` (where the run has such images): kernel distance x 100, by the network's own name."""
        found: dict[str, float] = {}
        for view in VIEWS:
            real = self._real(view)
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
            found[f"{self.network.kernel_name}_x100_{view}"] = round(100 * value, 3)
        return found
