"""What models are compared with: real images, described once by the fixed networks and kept.

Groups, all but the last of people or heads that no generator was trained on:

- front: near-frontal images of held-out faces (|yaw| <= 20°, |pitch| <= 15°), the domain of the teacher;
- back: back views of held-out heads (|yaw| >= 135°), the domain of D_back;
- around: held-out people of the *face* set seen from all sides, one view per 15° of |yaw|. No generator has seen
  such images; only the head factory can make them, and they say what a perfect Head3D would show;
- straight: held-out heads and held-out people of the face set from straight behind and straight in front. Some of
  them set the limits of the ghost measure, the others, fresh ones, say how often real backs are above these limits;
- training: near-frontal images of the training sets, for nearest neighbours, and back views of the 50 heads.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from head3d_core.datasets import face_detector
from head3d_core.datasets.format import load_arrays
from head3d_core.metrics import silhouettes as outlines
from head3d_core.metrics.accessories import labels_of
from head3d_core.metrics.features import FeatureNetwork
from head3d_core.metrics.ghost import DEPTH_SIDE, SCORES, SIDE, GhostScores, GhostViews, ghost_scores, limits
from head3d_core.metrics.identity_encoder import Encoder, dlib_embeddings
from head3d_core.synth import sets
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.synth.identity import identity
from head3d_core.synth.make_data import render, render_stream
from head3d_core.synth.pool import Task, run_tasks
from head3d_core.synth.renderer import Frame, Renderer
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import bar

STEPS = 12
"""Steps of 15° of |yaw| from front to back; a person around has one view in each, and one more from the front."""
PART = 25
"""People of the group "straight" that are kept together: a run that was stopped goes on where it was."""
VERSION = 3
"""Of what is kept in a cache folder."""
Tensors = dict[str, Tensor]
Kind = Literal["heads", "faces"]
KINDS: tuple[Kind, Kind] = ("heads", "faces")


@dataclass(frozen=True)
class Networks:
    """The fixed networks, on one device."""

    features: FeatureNetwork
    encoder: Encoder | None
    """None: identity is not measured."""
    device: str
    batch: int = 32
    dlib: bool = False
    """Whether dlib's encoder, which never saw our people, gives a second opinion on identity."""

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

    def embed_again(self, images: Tensor) -> Tensor:
        """dlib's embeddings [N, 128] of frontal images, NaN where it finds no face; [N, 0] without dlib."""
        if not self.dlib:
            return torch.zeros(len(images), 0)
        known, seen = dlib_embeddings(images)
        found = torch.full((len(images), 128), math.nan)
        found[seen] = known
        return found

    def find(self, images: Tensor) -> Tensor:
        """Probability of the most certain face, [N] on the CPU."""
        return face_detector.face_probability(images, device=self.device)

    @cached_property
    def fingerprint(self) -> str:
        """Names the networks' weights: results of others must not be mixed up with theirs."""
        digest = hashlib.sha256(self.features.name.encode() + b"dlib" * self.dlib)
        if self.encoder is not None:
            for name, tensor in sorted(self.encoder.state_dict().items()):
                digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Wanted:
    """Which real images, and how many of them go through the detector."""

    faces: str = "synth:faces:5000"
    """Near-frontal ones: so many held-out faces, or a data set in EG3D's format."""
    heads: str = "synth:heads:2400"
    """Back views: so many of held-out heads, or a data set."""
    around: int = 400
    """People seen from all sides; 0: none (then nothing is said about the sides)."""
    training: int = 5000
    """Training faces among which nearest neighbours are looked for."""
    detector: int = 1000
    """Images of each group that the detector sees."""
    turned: int = 100
    """People around that it sees, in every step."""
    resolution: int = 256
    workers: int = 0
    """Rendering processes; 0: one per core."""
    held_out: int = 500
    """Held-out heads that the back views are of, evenly (records before 2026-11-30 have 50)."""
    straight: int = 400
    """Held-out heads, and as many people of the face set, whose backs set the ghost measure's limits; 0: none."""
    fresh: int = 200
    """Other heads, and as many people, on whose backs the limits are tried."""


class Reference:
    """Everything measured on real images, by name.

    `tensors` holds, each group's under its name and a dot: `features` [N, d], `camera` [N, 25], `found` [n],
    `face` [N, e], `index` [N] (of the image in its set) and, for rendered faces, `worn` bool [N, 2] (hat, glasses).
    "around" has [P, 13, ...] (views 0 and 1 frontal), `silhouette` uint8 [P, 13, 64, 64] and `dlib` [P, 2, 128].
    "straight" has features of backs, `numbers` float64 [P, 9] (three ghost scores, hair colour in front and behind),
    `hat` bool [P] and `fresh` bool [P], heads first. Groups: front, back, around, straight, faces (training), heads
    (training, frontal), heads_back (training).
    """

    def __init__(self, tensors: Tensors, wanted: Wanted) -> None:
        self.tensors, self.wanted = tensors, wanted

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def has(self, group: str) -> bool:
        """Whether anything of that group is there."""
        return f"{group}.features" in self.tensors

    def heads(self, group: str) -> Tensor | None:
        """Which head each back view shows, int [N]; None for groups whose images each show another person.

        A data set of your own does not say which of its views belong together: None too.
        """
        count = source_count(self.wanted.heads, "heads")
        if group not in ("back", "heads_back") or count is None:
            return None
        heads = self.wanted.held_out if group == "back" else len(sets.SETS["heads"].seeds)
        return self[f"{group}.index"] // back_views(count, heads)

    def ghost_limits(self) -> dict[str, float] | None:
        """The 95th percentile of each ghost score of those real backs that set the limits; None without images."""
        if not self.has("straight"):
            return None
        rows = self["straight.numbers"][~self["straight.fresh"]]
        return limits(GhostScores(*rows[:, : len(SCORES)].unbind(1)))


def kept(
    cache: Path | None, name: str, settings: Mapping[str, Any] | Sequence[Any], make: Callable[[], Tensors]
) -> Tensors:
    """What `make` returns, or what `cache` holds of an earlier call of that name and with these settings."""
    text = json.dumps([name, settings, VERSION, SAMPLER_VERSION], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = None if cache is None else Path(cache) / f"{name}-{key}.safetensors"
    if path is not None and path.is_file():
        return load_file(path)
    tensors = {k: t.contiguous() for k, t in make().items()}
    if path is not None:
        with files.atomic(path) as temporary:
            save_file(tensors, temporary)
    return tensors


def around_camera(person: int) -> NDArray[np.float32]:
    """Cameras [13, 25] of one person: a frontal one, then one in every 15° of |yaw| (sides alternate at random)."""
    draw = np.random.default_rng([person, 77])
    frontal = draw.uniform(0, outlines.FRONTAL_YAW, 1)
    yaw = np.concatenate([frontal, (np.arange(STEPS) + draw.uniform(size=STEPS)) * 15])
    yaw = np.radians(yaw * draw.choice([-1, 1], len(yaw)))
    pitch = np.radians(draw.uniform(-outlines.FRONTAL_PITCH, outlines.FRONTAL_PITCH, len(yaw)))
    return np.stack([sets.orbit_camera(float(y), float(p)) for y, p in zip(yaw, pitch, strict=True)])


class Renders(NamedTuple):
    """People, each from V views."""

    images: Tensor
    """uint8 [P, V, 3, R, R]"""
    coverage: Tensor
    """uint8 [P, V, R, R], 255 = head."""
    depth: Tensor = torch.zeros(0)
    """float32 [P, V, R, R], 0 beside the head, where it was asked for."""


def _frames(
    kind: Kind, cameras: NDArray[np.float32], depth: bool, renderer: Renderer, task: Task
) -> list[Frame]:
    """The views of the one person of a task."""
    slot, seed = task[0]
    items = [(v, sets.Example(seed, kind, camera, None)) for v, camera in enumerate(cameras[slot])]
    return [frame for _, frame in render_stream(renderer, items, geometry=depth)]


def render_people(
    kind: Kind,
    seeds: Sequence[int],
    cameras: NDArray[np.float32],
    resolution: int,
    workers: int = 0,
    depth: bool = False,
) -> Renders:
    """People of a kind from cameras [P, V, 25] of their own; raises Head3DError without OpenGL."""
    tasks = [[(k, seed)] for k, seed in enumerate(seeds)]
    draw = partial(_frames, kind, cameras, depth)
    with bar(f"views of {kind}") as step:
        drawn = run_tasks(partial(Renderer, resolution), draw, tasks, workers, step)
        frames = [frame for _, views in sorted(drawn, key=lambda one: one[0][0]) for frame in views]
    arrays: list[list[NDArray[Any]]] = [[f.rgb.transpose(2, 0, 1) for f in frames], [f.alpha for f in frames]]
    arrays += [[f.depth for f in frames if f.depth is not None]] if depth else []
    found = [torch.from_numpy(np.stack(array)).unflatten(0, cameras.shape[:2]) for array in arrays]
    return Renders(*found)


def straight_numbers(people: Renders) -> tuple[Tensor, Tensor]:
    """[P, 9] float64 (ghost scores, hair in front, hair behind) and back images uint8 [P, 3, 256, 256].

    Args:
        people: at 256², from straight behind and from straight in front, with depth.
    """
    images, coverage, depth = people.images, people.coverage.float() / 255, people.depth
    factor = SIDE // DEPTH_SIDE
    share = F.avg_pool2d((depth > 0).float(), factor)
    mean = F.avg_pool2d(depth, factor) / share.clamp_min(1e-3)
    reliefs = (mean[:, 0], share[:, 0], mean[:, 1], share[:, 1])
    scores = ghost_scores(GhostViews(images[:, 0], coverage[:, 0], *reliefs))
    hair = [outlines.hair_colour(images[:, v], coverage[:, v]).double() for v in (1, 0)]
    return torch.cat([torch.stack(scores, 1), *hair], 1), images[:, 0].contiguous()


def _fitting(name: str, count: int, views: int, front: bool, heads: int | None = None) -> list[int]:
    """The first `count` images of a set, or of its first heads, that are frontal, or seen from behind."""
    fits = outlines.is_frontal if front else outlines.is_back
    whole = sets.size(name, views) if heads is None else heads * views
    angles = (torch.from_numpy(sets.example(name, i, views).camera)[None] for i in range(whole))
    return list(islice((i for i, camera in enumerate(angles) if bool(fits(camera))), count))


def frontal_pictures(name: str, count: int) -> list[int]:
    """The first `count` near-frontal images of a face set."""
    return _fitting(name, count, 1, True)


def source_count(source: str, name: str) -> int | None:
    """N of `synth:NAME:N`; None for a path. Raises Head3DError for another set, no number, or a path to nothing."""
    if Path(source).exists():
        return None
    named = re.fullmatch(rf"synth:{name}:([0-9]+)", source)
    if not named or int(named[1]) < 20:
        raise Head3DError(f"real pictures are synth:{name}:COUNT (20 or more) or a data set, got {source!r}")
    return int(named[1])


def back_views(count: int, heads: int) -> int:
    """Views per head of which `count` back views (a quarter of all) of so many heads are taken."""
    return 4 * math.ceil(count / heads) + 8


def _spread(items: list[int], count: int) -> list[int]:
    """`count` of the items, evenly, so that all heads are among them."""
    if count >= len(items):
        return items
    return [items[k * len(items) // count] for k in range(count)]


def _named(group: str, tensors: Tensors) -> Tensors:
    return {f"{group}.{name}": tensor for name, tensor in tensors.items()}


class _Maker:
    """Renders and describes group by group; every group is kept for itself."""

    def __init__(self, wanted: Wanted, networks: Networks, cache: Path | None) -> None:
        self.wanted, self.networks, self.cache = wanted, networks, cache

    def keep(self, group: str, settings: Mapping[str, Any], make: Callable[[], Tensors]) -> Tensors:
        known = {**settings, "resolution": self.wanted.resolution, "networks": self.networks.fingerprint}
        return kept(self.cache, f"real-{group}", known, lambda: _named(group, make()))

    def describe(self, images: Tensor, camera: Tensor, index: Sequence[int], detector: int) -> Tensors:
        n = self.networks
        return {
            "features": n.describe(images),
            "face": n.embed(images, camera),
            "found": n.find(images[:detector]) if detector else torch.zeros(0),
            "camera": camera.float(),
            "index": torch.tensor(index, dtype=torch.int64),
        }

    def synthetic(self, group: str, name: str, indices: list[int], views: int, detector: int) -> Tensors:
        def make() -> Tensors:
            with bar(group) as step:
                drawn = render(name, indices, self.wanted.resolution, self.wanted.workers, views, step)
            images, camera = torch.from_numpy(drawn.images), torch.from_numpy(drawn.labels)
            worn = {"worn": labels_of(name, indices)} if sets.spec(name).kind == "faces" else {}
            return self.describe(images, camera, indices, detector) | worn

        return self.keep(group, {"of": [name, indices, views], "detector": detector}, make)

    def stored(self, group: str, path: str, front: bool) -> Tensors:
        images, camera = load_arrays(path, self.wanted.resolution)
        fits = outlines.is_frontal(camera) if front else outlines.is_back(camera)
        index = torch.nonzero(fits).flatten().tolist()
        if len(index) < 20:
            what = "frontal" if front else "back"
            raise Head3DError(f"{path} has {len(index)} {what} views: 20 or more are needed")
        return _named(group, self.describe(images[fits], camera[fits], index, self.wanted.detector))

    def around(self) -> Tensors:
        w, n = self.wanted, self.networks
        seeds = list(sets.SETS["held_out_faces"].seeds)[-w.around :]  # others than "front" begins with

        def make() -> Tensors:
            views = np.stack([around_camera(s) for s in seeds])
            people = render_people("faces", seeds, views, w.resolution, w.workers)
            images, camera = people.images.flatten(0, 1), torch.from_numpy(views).flatten(0, 1)
            found = self.describe(images, camera, seeds, min(w.turned, len(seeds)) * (STEPS + 1))
            index = found.pop("index")
            found["silhouette"] = outlines.silhouettes(people.coverage.flatten(0, 1), camera)
            found = {name: x.unflatten(0, (-1, STEPS + 1)) for name, x in found.items()}
            again = n.embed_again(people.images[:, :2].flatten(0, 1))
            return found | {"index": index, "dlib": again.unflatten(0, (-1, 2))}

        return self.keep("around", {"seeds": seeds, "turned": w.turned}, make)

    def straight(self) -> Tensors:
        w = self.wanted
        cameras = np.stack([sets.orbit_camera(yaw, 0.0) for yaw in (math.pi, 0.0)])

        def part(kind: Kind, seeds: range) -> Tensors:
            people = render_people(kind, seeds, np.stack([cameras] * len(seeds)), SIDE, w.workers, True)
            numbers, backs = straight_numbers(people)
            hats = torch.tensor([identity(s, kind).hat is not None for s in seeds])
            return {"numbers": numbers, "features": self.networks.describe(backs), "hat": hats}

        rows = []
        for kind in KINDS:
            first = sets.SETS[f"held_out_{kind}"].seeds.start
            for low in range(0, w.straight + w.fresh, PART):
                seeds = range(first + low, first + min(low + PART, w.straight + w.fresh))
                of = {"kind": kind, "seeds": [seeds.start, seeds.stop]}
                found = self.keep("straight", of, partial(part, kind, seeds))
                fresh = torch.arange(low, low + len(seeds)) >= w.straight
                rows.append(found | {"straight.fresh": fresh})
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def make(self, repeats: bool, only: Sequence[str]) -> Tensors:
        w = self.wanted
        if w.detector or w.turned:
            face_detector.load(self.networks.device)  # before OpenGL, see there
        turned = self.around() if w.around and (not only or "around" in only) else {}
        turned |= self.straight() if w.straight and (not only or "straight" in only) else {}
        if only and not set(only) - {"around", "straight"}:
            return turned
        faces, heads = source_count(w.faces, "faces"), source_count(w.heads, "heads")
        if faces is None:
            found = self.stored("front", w.faces, True)
        else:
            front = frontal_pictures("held_out_faces", faces)
            found = self.synthetic("front", "held_out_faces", front, 1, w.detector)
        if heads is None:
            found |= self.stored("back", w.heads, False)
        else:
            of = {"back": ("held_out_heads", w.held_out)}
            of |= {"heads_back": ("heads", len(sets.SETS["heads"].seeds))} if repeats else {}
            for group, (name, count) in of.items():
                views = back_views(heads, count)
                chosen = _spread(_fitting(name, 10**9, views, False, count), heads)
                found |= self.synthetic(group, name, chosen, views, w.detector if group == "back" else 0)
        if w.training and faces is not None:
            found |= self.synthetic("faces", "faces", frontal_pictures("faces", w.training), 1, 0)
        if w.training and heads is not None:
            frontal = _spread(_fitting("heads", 10**9, sets.HEAD_VIEWS, True), min(w.training, 200))
            found |= self.synthetic("heads", "heads", frontal, sets.HEAD_VIEWS, 0)
        return found | turned


def real_reference(
    wanted: Wanted,
    networks: Networks,
    cache: Path | None = None,
    repeats: bool = False,
    only: Sequence[str] = (),
) -> Reference:
    """Renders the real images and describes them, or takes what `cache` holds of an earlier call, group by group.

    Args:
        repeats: back views of the training heads as well, for real images' own figures.
        only: parts of `samples.ALL` that will be measured; default: all.

    Raises:
        Head3DError: no OpenGL, no such data set, more held-out heads than there are, or too few such views.
    """
    there = len(sets.SETS["held_out_heads"].seeds)
    most = max(wanted.held_out, wanted.straight + wanted.fresh)
    if most > there or wanted.held_out < 2 or 0 < wanted.straight < 20:
        raise Head3DError(
            f"there are {there} held-out heads: wanted.held_out takes 2 to {there} of them, wanted.straight 0 or 20 "
            f"and more, wanted.straight + wanted.fresh at most {there}"
        )
    return Reference(_Maker(wanted, networks, cache).make(repeats, only), wanted)
