"""How the arithmetic of training is done on a device: precision, meters that are read rarely, CUDA graphs."""

from __future__ import annotations

import collections
import gc
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from head3d_core.utils.devices import usable_device


@dataclass(frozen=True)
class Numerics:
    """How the arithmetic is done; none of it changes what is computed beyond rounding."""

    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Autocast of convolutions on a GPU. Parameters, optimiser, mapping and losses are fp32."""
    channels_last: bool = True
    """Keep images and features channels-innermost on a GPU."""
    graphs: bool = True
    """Capture each phase as a CUDA graph once it has run a few times."""
    compile: bool = False
    """torch.compile the synthesis and super-resolution networks (first-order phases only; slow to start)."""
    tf32: bool = True
    """Allow TF32 in what stays in fp32."""


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int
    size: int
    device: torch.device


def join_world(device: str) -> World:
    """Reads torchrun's environment; starts NCCL (GPU) or gloo (CPU) if there is more than one process."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if size > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    place = usable_device(device)
    if place.type == "cuda":
        place = torch.device("cuda", place.index or 0)
        torch.cuda.set_device(place)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    return World(rank, size, place)


class Meters:
    """Running sums of named scalars on the device, read once per report."""

    def __init__(self, names: list[str], device: torch.device) -> None:
        self.names = names
        self.sums = torch.zeros(2, len(names), device=device)

    def add(self, name: str, value: Tensor) -> None:
        """Adds one value."""
        k = self.names.index(name)
        self.sums[0, k] += value.detach()
        self.sums[1, k] += 1

    def read(self) -> dict[str, float]:
        """Means since the last call; the only place that waits for the device."""
        total, count = self.sums.tolist()
        self.sums.zero_()
        return {name: t / c for name, t, c in zip(self.names, total, count, strict=True) if c}


class DeviceQueue:
    """Runs the phases of training in order on the device: on a GPU on a stream of its own, soon as CUDA graphs.

    Graphs cannot be captured on the default stream. A phase runs plainly three times before it is captured.
    """

    def __init__(self, device: torch.device, numerics: Numerics) -> None:
        cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if cuda else None
        self._captures = cuda and numerics.graphs
        self._memory = torch.cuda.graph_pool_handle() if self._captures else None
        self._events: collections.deque[torch.cuda.Event] = collections.deque()
        self._setting: tuple[int, ...] = ()
        self._runs: collections.Counter[tuple[int, ...]] = collections.Counter()
        self.graphs: dict[tuple[int, ...], torch.cuda.CUDAGraph] = {}
        if cuda:
            torch.backends.cuda.matmul.allow_tf32 = numerics.tf32
            torch.backends.cudnn.allow_tf32 = numerics.tf32
            torch.backends.cudnn.benchmark = True
            torch.cuda.synchronize()  # set-up ran on the default stream

    def stream(self) -> AbstractContextManager[Any]:
        """The context in which everything that trains must run."""
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def run(self, key: tuple[int, ...], setting: tuple[int, ...], function: Callable[[], None]) -> None:
        """Runs `function`, or the graph that was captured of it.

        Args:
            key: names the function.
            setting: host-side values that it reads; graphs of another setting are dropped.
        """
        if not self._captures:
            function()
            return
        if setting != self._setting:
            self.graphs, self._runs, self._setting = {}, collections.Counter(), setting
        if key not in self.graphs and self._runs[key] < 3:
            self._runs[key] += 1
            function()
            return
        if key not in self.graphs:
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
            # thread_local: with several processes NCCL's watchdog asks for events from its own thread meanwhile.
            with torch.cuda.graph(graph, self._memory, stream, capture_error_mode="thread_local"):
                function()
            self.graphs[key] = graph
        self.graphs[key].replay()

    def throttle(self) -> None:
        """Lets the host run a few steps ahead, not hundreds: clocks and signals would be noticed too late."""
        if self._stream is not None:
            self._events.append(self._stream.record_event())
            if len(self._events) > 8:
                self._events.popleft().synchronize()

    def release(self) -> None:
        """Frees the captured phases: NCCL does not shut down while graphs hold its collectives."""
        if self._stream is not None:
            torch.cuda.synchronize()
        self.graphs.clear()
        gc.collect()
