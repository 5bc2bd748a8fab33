"""Makes pickles with the structure of EG3D's, for tests: stub modules, no code of EG3D's.

A network is a tree of plain `torch.nn.Module`s built from a state dict. Its nodes are pickled as EG3D's are: most by a
call of the persistence function with one dictionary, four classes and torch's containers by reference and state.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

AXES = {
    "zx": [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    "zy": [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
    "yz": [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
}
"""Third plane -> the matrix that EG3D-like code keeps for it (rows are axes)."""
BUFFERS = ("resample_filter", "noise_const", "w_avg", "dataset_label_std")
SOURCE = "open({marker!r}, 'w').write('executed')\nimport os\nos.system('touch ' + {marker!r})\n"
"""What stands in for the embedded source code: if anyone runs it, the marker file appears."""


def plane_axes(third: str = "zx") -> Tensor:
    first = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]]]
    return torch.tensor([*first, AXES[third]], dtype=torch.float32)


class Node(nn.Module):
    """A persistent module: pickled as a call with one dictionary."""


class Plain(nn.Module):
    """A module that is pickled by reference to its class."""


class EasyDict(dict):  # type: ignore[type-arg]
    """Stands in for the attribute dictionary."""


def reconstruct(meta: Mapping[str, Any]) -> None:
    """Stands in for the function that would run the embedded source."""
    raise AssertionError("the embedded source would have been executed")


PLACES = {
    "torch_utils.persistence": {"_reconstruct_persistent_obj": reconstruct},
    "dnnlib.util": {"EasyDict": EasyDict},
    "training.triplane": {"OSGDecoder": None},
    "training.volumetric_rendering.renderer": {"ImportanceRenderer": None},
    "training.volumetric_rendering.ray_marcher": {"MipRayMarcher2": None},
    "training.volumetric_rendering.ray_sampler": {"RaySampler": None},
}


@contextmanager
def eg3d_on_the_path() -> Iterator[dict[str, type]]:
    """Empty modules under EG3D's names, only while a pickle is written. Yields the stub classes by name."""
    made: dict[str, type] = {}
    places = [".".join(name.split(".")[: k + 1]) for name in PLACES for k in range(name.count(".") + 1)]
    for place in places:
        sys.modules.setdefault(place, types.ModuleType(place))
    for place, names in PLACES.items():
        for name, value in names.items():
            thing: Any = value or type(name, (Plain,), {})
            thing.__module__, thing.__name__, thing.__qualname__ = place, name, name
            setattr(sys.modules[place], name, thing)
            if value is None:
                made[name] = thing
    try:
        yield made
    finally:
        for place in places:
            sys.modules.pop(place, None)


class Writer(pickle.Pickler):
    """Writes `Node`s the persistent way."""

    marker = "unused"

    def reducer_override(self, thing: Any) -> Any:
        if type(thing) is Node:
            meta = {"type": "class", "version": 6, "module_src": SOURCE.format(marker=self.marker)}
            meta["class_name"] = thing.class_name
            meta["state"] = {k: v for k, v in thing.__dict__.items() if k != "class_name"}
            return reconstruct, (meta,)
        return NotImplemented


def network(
    state: Mapping[str, Tensor],
    init_kwargs: Mapping[str, Any],
    class_name: str,
    made: Mapping[str, type],
    axes: Tensor | None = None,
    resolution: int = 64,
) -> nn.Module:
    """The tree of modules that holds `state`."""
    top = Node()
    top.class_name = class_name
    for name, value in state.items():
        *path, last = name.split(".")
        here: nn.Module = top
        for k, part in enumerate(path):
            if part not in here._modules:
                here.add_module(part, _child(path[: k + 1], made))
            here = here._modules[part]  # type: ignore[assignment]
        if last in BUFFERS:
            here.register_buffer(last, value.clone())
        else:
            here.register_parameter(last, nn.Parameter(value.clone(), requires_grad=False))
    top._init_args = ()
    top._init_kwargs = _easy(init_kwargs)
    top.weight_gain = np.float64(0.125)
    top.neural_rendering_resolution = resolution
    top._last_planes = None
    if class_name == "TriPlaneGenerator":
        renderer = made["ImportanceRenderer"]()
        renderer.add_module("ray_marcher", made["MipRayMarcher2"]())
        if axes is not None:
            renderer.plane_axes = axes
        top.add_module("renderer", renderer)
        top.add_module("ray_sampler", made["RaySampler"]())
        net = top.get_submodule("decoder.net")
        net._modules = {"0": net._modules["0"], "1": nn.Softplus(), "2": net._modules["2"]}
    return top.eval()


def _child(path: list[str], made: Mapping[str, type]) -> nn.Module:
    if path == ["decoder"]:
        return made["OSGDecoder"]()  # type: ignore[no-any-return]
    if path == ["decoder", "net"]:
        return nn.Sequential()
    node = Node()
    node.class_name = "Layer"
    return node


def _easy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return EasyDict({k: _easy(v) for k, v in value.items()})
    return value


def write(
    path: Path,
    generator: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None = None,
    discriminator: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None = None,
    *,
    axes: Tensor | None = None,
    resolution: int = 64,
    protocol: int = 4,
    marker: str = "unused",
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """A file as EG3D's trainer writes it: a dictionary of networks."""
    with eg3d_on_the_path() as made:
        content: dict[str, Any] = {"training_set_kwargs": {"class_name": "x", "path": "y", "xflip": False}}
        if generator is not None:
            content["G"] = content["G_ema"] = network(*generator, "TriPlaneGenerator", made, axes, resolution)
        if discriminator is not None:
            content["D"] = network(*discriminator, "DualDiscriminator", made)
        content["augment_pipe"] = None
        content.update(extra or {})
        buffer = io.BytesIO()
        writer = Writer(buffer, protocol=protocol)
        writer.marker = marker
        writer.dump(content)
    path.write_bytes(buffer.getvalue())
    return path
