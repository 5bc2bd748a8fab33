"""What models are compared with: real pictures, described once by the fixed networks and kept.

Four groups, all of people or heads that no generator was trained on, and one that they were:

- front: near-frontal pictures of held-out faces (|yaw| <= 20°, |pitch| <= 15°), the domain of the teacher;
- back: back views of held-out heads (|yaw| >= 135°), the domain of D_back;
- around: held-out people of the *face* set seen from all sides, one view per 15° of |yaw|. No generator has seen
  such pictures; only the head factory can make them, and they say what a perfect Head3D would show;
- training: near-frontal pictures of the training sets, for nearest neighbours, and back views of the 50 heads.

Pictures are turned into features, embeddings and probabilities a part at a time and then dropped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import sys
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from head3d_core.datasets import face_detector
from head3d_core.datasets.format import load_arrays
from head3d_core.metrics.accessories import labels_of
from head3d_core.metrics.features import FeatureNetwork
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.metrics.silhouettes import FRONTAL_PITCH, FRONTAL_YAW, is_back, is_frontal
from head3d_core.model.cameras import yaw_pitch
from head3d_core.synth import sets
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.synth.make_data import render, render_stream
from head3d_core.synth.pool import Progress, Task, run_tasks
from head3d_core.synth.renderer import Renderer
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError

STEPS = 12
"""Steps of 15° of |yaw| from front to back; a person around has one view in each, and one more from the front."""
MASK_SIDE = 64
"""Side of the silhouettes, pixels: what the classroom generator renders volumes at."""
BACK_VIEWS = 192
"""Views per held-out head of which the back ones are taken (a quarter)."""
VERSION = 2
"""Of what is kept in a cache folder."""
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Networks:
    """The fixed networks, on one device."""

    features: FeatureNetwork
    encoder: Encoder | None
    """None: identity is not measured."""
    device: str
    batch: int = 32

    @torch.inference_mode()
    def describe(self, images: Tensor) -> Tensor:
        """Features float32 [N, d] on the CPU, of uint8 [N, 3, R, R]."""
        parts = images.split(self.batch)
        return torch.cat([self.features(part.to(self.device)).float().cpu() for part in parts])

    def embed(self, images: Tensor, camera: Tensor) -> Tensor:
        """Identity embeddings [N, d] on the CPU; [N, 0] without an encoder."""
        if self.encoder is None:
            return torch.zeros(len(images), 0)
        return self.encoder.embed(images, camera, self.batch)

    def find(self, images: Tensor) -> Tensor:
        """Probability of the most certain face, [N] on the CPU."""
        return face_detector.face_probability(images, device=self.device)


@dataclass(frozen=True)
class Wanted:
    """Which real pictures, and how many of them go through the detector."""

    faces: str = "synth:faces:5000"
    """Near-frontal ones: so many held-out faces, or a data set in EG3D's format."""
    heads: str = "synth:heads:2400"
    """Back views: so many of held-out heads, or a data set."""
    around: int = 400
    """People seen from all sides; 0: none (then nothing is said about the sides)."""
    training: int = 5000
    """Training faces among which nearest neighbours are looked for."""
    detector: int = 1000
    """Pictures of each group that the detector sees."""
    turned: int = 100
    """People around that it sees, in every step."""
    resolution: int = 256
    workers: int = 0
    """Rendering processes; 0: one per core."""


class Reference:
    """Everything measured on real pictures, by name.

    `tensors` holds, each group's under its name and a dot: `features` [N, d], `camera` [N, 25], `found` [n],
    `face` [N, e], `index` [N] (of the picture in its set) and, for rendered faces, `worn` bool [N, 2] (hat, glasses).
    "around" has [P, 13, ...] (views 0 and 1 frontal) and `silhouette` uint8 [P, 13, 64, 64]. Groups: front, back,
    around, faces (training), heads (training, frontal), heads_back (training).
    """

    def __init__(self, tensors: Tensors, wanted: Wanted) -> None:
        self.tensors, self.wanted = tensors, wanted

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def has(self, group: str) -> bool:
        """Whether anything of that group is there."""
        return f"{group}.features" in self.tensors

    def heads(self, group: str) -> Tensor | None:
        """Which head each back view shows, int [N]; None for groups whose pictures each show another person.

        A data set of your own does not say which of its views belong together: None too.
        """
        count = source_count(self.wanted.heads, "heads")
        if group not in ("back", "heads_back") or count is None:
            return None
        return self[f"{group}.index"] // back_views(count)


def around_camera(person: int) -> NDArray[np.float32]:
    """Cameras [13, 25] of one person: a frontal one, then one in every 15° of |yaw| (sides alternate at random)."""
    draw = np.random.default_rng([person, 77])
    yaw = np.concatenate(
        [draw.uniform(0, FRONTAL_YAW, 1), (np.arange(STEPS) + draw.uniform(size=STEPS)) * 15]
    )
    yaw = np.radians(yaw * draw.choice([-1, 1], len(yaw)))
    pitch = np.radians(draw.uniform(-FRONTAL_PITCH, FRONTAL_PITCH, len(yaw)))
    return np.stack([sets.orbit_camera(float(y), float(p)) for y, p in zip(yaw, pitch, strict=True)])


def _around(renderer: Renderer, task: Task) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """Images [13, 3, R, R] and coverage [13, R, R] of each person of a task."""
    images, masks = [], []
    for _, seed in task:
        items = [(v, sets.Example(seed, "faces", v, c, None)) for v, c in enumerate(around_camera(seed))]
        frames = [frame for _, frame in render_stream(renderer, items, geometry=False)]
        images.append(np.stack([frame.rgb.transpose(2, 0, 1) for frame in frames]))
        masks.append(np.stack([frame.alpha for frame in frames]))
    return images, masks


def render_around(seeds: tuple[int, ...], resolution: int, workers: int = 0) -> tuple[Tensor, Tensor]:
    """People of the face set from all sides: images uint8 [P, 13, 3, R, R], coverage uint8 [P, 13, R, R]."""
    images = torch.empty(len(seeds), STEPS + 1, 3, resolution, resolution, dtype=torch.uint8)
    masks = torch.empty(len(seeds), STEPS + 1, resolution, resolution, dtype=torch.uint8)
    tasks = [[(k, seed)] for k, seed in enumerate(seeds)]
    show = Progress("around", sys.stderr, 15.0)
    for task, found in run_tasks(partial(Renderer, resolution), _around, tasks, workers, show):
        for k, (slot, _) in enumerate(task):
            images[slot], masks[slot] = (torch.from_numpy(part[k]) for part in found)
    return images, masks


def silhouettes(coverage: Tensor, camera: Tensor) -> Tensor:
    """Coverage [N, R, R] (uint8 or [0, 1]) as uint8 [N, 64, 64], views from the subject's right mirrored."""
    x = coverage.float() / (255 if coverage.dtype == torch.uint8 else 1)
    small = F.interpolate(x[:, None], size=(MASK_SIDE, MASK_SIDE), mode="area")[:, 0]
    yaw = yaw_pitch(camera)[0].to(small.device)
    small = torch.where(yaw[:, None, None] < 0, small.flip(-1), small)
    return (small * 255).round().clamp(0, 255).to(torch.uint8).cpu()


def _angles(name: str, index: int, views: int) -> Tensor:
    return torch.from_numpy(sets.example(name, index, views).camera)[None]


def _fitting(name: str, count: int, views: int, front: bool) -> list[int]:
    """The first `count` pictures of a set that are frontal, or seen from behind."""
    fits = is_frontal if front else is_back
    good = (i for i in range(sets.size(name, views)) if bool(fits(_angles(name, i, views))))
    return list(islice(good, count))


def frontal_pictures(name: str, count: int) -> list[int]:
    """The first `count` near-frontal pictures of a face set."""
    return _fitting(name, count, 1, True)


def source_count(source: str, name: str) -> int | None:
    """N of `synth:NAME:N`; None for a path. Raises Head3DError for another set or no number."""
    if not source.startswith("synth:"):
        return None
    parts = source.split(":")
    if len(parts) != 3 or parts[1] != name or not parts[2].isdecimal() or int(parts[2]) < 20:
        raise Head3DError(f"real pictures are synth:{name}:COUNT (20 or more) or a data set, got {source!r}")
    return int(parts[2])


def back_views(heads: int) -> int:
    """Views per head of which `heads` back views of 50 heads are taken."""
    return max(BACK_VIEWS, 4 * math.ceil(heads / 50) + 8)


class _Maker:
    """Renders and describes group by group."""

    def __init__(self, wanted: Wanted, networks: Networks) -> None:
        self.wanted, self.networks = wanted, networks
        self.tensors: Tensors = {}

    def add(self, group: str, images: Tensor, camera: Tensor, index: list[int], detector: int) -> None:
        n = self.networks
        self.tensors |= {
            f"{group}.features": n.describe(images),
            f"{group}.face": n.embed(images, camera),
            f"{group}.found": n.find(images[:detector]) if detector else torch.zeros(0),
            f"{group}.camera": camera.float().contiguous(),
            f"{group}.index": torch.tensor(index, dtype=torch.int64),
        }

    def synthetic(self, group: str, name: str, indices: list[int], views: int, detector: int) -> None:
        show = Progress(group, sys.stderr, 15.0)
        drawn = render(name, indices, self.wanted.resolution, self.wanted.workers, views, progress=show)
        self.add(group, torch.from_numpy(drawn.images), torch.from_numpy(drawn.labels), indices, detector)
        if sets.spec(name).kind == "faces":
            self.tensors[f"{group}.worn"] = labels_of(name, indices)

    def stored(self, group: str, path: str, front: bool) -> None:
        images, camera = load_arrays(path, self.wanted.resolution)
        fits = is_frontal(camera) if front else is_back(camera)
        kept = torch.nonzero(fits).flatten().tolist()
        if len(kept) < 20:
            raise Head3DError(
                f"{path} has {len(kept)} {'frontal' if front else 'back'} views: 20 or more are needed"
            )
        self.add(group, images[fits], camera[fits], kept, self.wanted.detector)

    def around(self) -> None:
        seeds = tuple(sets.SETS["held_out_faces"].seeds)[
            -self.wanted.around :
        ]  # others than "front" begins with
        images, masks = render_around(seeds, self.wanted.resolution, self.wanted.workers)
        camera = torch.from_numpy(np.stack([around_camera(s) for s in seeds]))
        shape = (len(seeds), STEPS + 1)
        flat, views = images.flatten(0, 1), camera.flatten(0, 1)
        self.add("around", flat, views, list(seeds), 0)
        turned = min(self.wanted.turned, len(seeds))
        found = self.networks.find(flat[: turned * (STEPS + 1)]) if turned else torch.zeros(0)
        for name in ("features", "face", "camera"):
            self.tensors[f"around.{name}"] = self.tensors[f"around.{name}"].reshape(*shape, -1)
        self.tensors["around.found"] = found.reshape(turned, STEPS + 1)
        self.tensors["around.silhouette"] = silhouettes(masks.flatten(0, 1), views).reshape(
            *shape, MASK_SIDE, MASK_SIDE
        )

    def make(self) -> Tensors:
        w = self.wanted
        faces, heads = source_count(w.faces, "faces"), source_count(w.heads, "heads")
        if w.detector or w.turned:
            face_detector.load(self.networks.device)  # before OpenGL, see there
        if faces is None:
            self.stored("front", w.faces, True)
        else:
            self.synthetic(
                "front", "held_out_faces", frontal_pictures("held_out_faces", faces), 1, w.detector
            )
        if heads is None:
            self.stored("back", w.heads, False)
        else:
            views = back_views(heads)
            chosen = _spread(_fitting("held_out_heads", 10**9, views, False), heads)
            self.synthetic("back", "held_out_heads", chosen, views, w.detector)
            train = _spread(_fitting("heads", 10**9, views, False), heads)
            self.synthetic("heads_back", "heads", train, views, 0)
        if w.training:
            if faces is not None:
                self.synthetic("faces", "faces", frontal_pictures("faces", w.training), 1, 0)
            if heads is not None:
                frontal = _fitting("heads", 10**9, sets.HEAD_VIEWS, True)
                self.synthetic("heads", "heads", _spread(frontal, min(w.training, 200)), sets.HEAD_VIEWS, 0)
        if w.around:
            self.around()
        return self.tensors


def _spread(items: list[int], count: int) -> list[int]:
    """`count` of the items, evenly, so that all heads are among them."""
    if count >= len(items):
        return items
    return [items[k * len(items) // count] for k in range(count)]


def fingerprint(networks: Networks) -> str:
    """Names the networks' weights: results of others must not be mixed up with theirs."""
    digest = hashlib.sha256(networks.features.name.encode())
    if networks.encoder is not None:
        for name, tensor in sorted(networks.encoder.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def real_reference(wanted: Wanted, networks: Networks, cache: Path | None = None) -> Reference:
    """Renders or loads the real pictures and describes them, or takes what `cache` holds of an earlier call.

    Raises:
        Head3DError: no OpenGL, no such data set, or too few pictures with such views.
    """
    settings = {k: v for k, v in dataclasses.asdict(wanted).items() if k != "workers"}
    text = json.dumps([settings, VERSION, SAMPLER_VERSION, fingerprint(networks)], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = None if cache is None else Path(cache) / f"real-{key}.safetensors"
    if path is not None and path.is_file():
        return Reference(load_file(path), wanted)
    tensors = {k: t.contiguous() for k, t in _Maker(wanted, networks).make().items()}
    if path is not None:
        with files.atomic(path) as temporary:
            save_file(tensors, temporary)
    return Reference(tensors, wanted)
