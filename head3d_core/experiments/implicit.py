"""An implicit parametric head: one small network and a code per head, as i3DMM (Yenamandra et al. 2021).

A head is the zero level of a signed distance field f(p; c) and a colour field. As in i3DMM a first network
moves a point into a reference head (p' = p + d(p; c)), so that what all heads share is learned once, and a second one
answers there. Codes and networks are found together by gradient descent on the training heads ("auto-decoding", Park et
al. 2019); a new head gets its code by descent with the networks frozen, and random heads come from a Gaussian fitted to
the training codes. Codes act as a scale and shift on every hidden layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional as F

from head3d_core.experiments.head_scans import BOX, Array, Surface, Views
from head3d_core.experiments.study import descend, half_cosine
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import Progress

CORNERS = np.array([[-BOX, -0.335, -BOX], [BOX, 0.36, BOX]])
"""Low and high corner of what is modelled, world units: from just below the scans' images to above the highest hair."""
TRUNCATION = 0.05
"""Distances beyond this are not learned, world units."""
FACE = ((-0.11, -0.16, 0.04), (0.11, 0.16, 0.3))
"""Box around every face: its low and high corner, world units."""
FACE_SHARE = 0.5
"""Share of the points of a finishing step that lie in it: eyes and mouth are small, but looked at."""
FINISHING_COLOUR = 4.0
"""How much more colours count then."""
COLOURED = 0.015
"""Colour is learned within this distance of the surface, world units."""


@dataclass(frozen=True)
class ImplicitConfig:
    """Sizes of the network and of its training."""

    code: int = 48
    """Numbers per head."""
    width: int = 128
    """Of the reference head's hidden layers."""
    depth: int = 4
    """Hidden layers of the reference head."""
    moving_width: int = 64
    """Of the two hidden layers that move points into the reference head."""
    octaves: int = 7
    """Frequencies pi 2^k / BOX, k < octaves, of the reference head's input."""
    steps: int = 4000
    """Of gradient descent with points drawn evenly."""
    finishing_steps: int = 1200
    """Further steps in which `FACE_SHARE` of the points lie on the face and colours count more."""
    heads_per_step: int = 10
    points_per_head: int = 768
    rate: float = 2e-3
    """Learning rate of the networks; codes get half, and both fall to a fiftieth on a cosine."""
    code_penalty: float = 1e-4
    """On the mean squared length of the codes."""
    seed: int = 0


def head_points(views: Views, count: int = 40_000, seed: int = 0) -> Array:
    """What the network learns of a scanned head: points around it with their signed distance and colour.

    The distance is to the nearest scanned point, the sign says whether the cameras look through the place. Two fifths
    of the points lie within a few thousandths of the surface, two fifths within a few hundredths, the rest anywhere.

    Returns:
        [M, 7] with M of at most `count`: the point (world units), its signed distance (negative inside, world units),
        and the colour of the nearest place on the surface (sRGB in [0, 1]).
    """
    rng = np.random.default_rng(seed)
    surface, colours = views.surface()
    chosen = rng.choice(len(surface), min(len(surface), 100_000), replace=False)
    surface, colours = surface[chosen], colours[chosen]
    tree = cKDTree(surface)
    near = surface[rng.integers(len(surface), size=4 * count // 5)]
    spread = np.repeat([0.004, 0.02], 2 * count // 5)[:, None]
    anywhere = rng.uniform(CORNERS[0], CORNERS[1], (count - len(near), 3))
    points = np.concatenate([near + spread * rng.standard_normal(near.shape), anywhere])
    points = points[((points > CORNERS[0]) & (points < CORNERS[1])).all(1)]
    empty, unseen = views.carved(points, margin=0.001)
    points, empty = points[~unseen], empty[~unseen]
    distance, index = tree.query(points, k=4)
    sign = np.where(empty, 1.0, -1.0)
    rows = [points, (sign * distance[:, 0])[:, None], colours[index].mean(1)]
    return np.concatenate(rows, 1).astype(np.float32)


class _Modulated(nn.Module):
    """Linear layer whose output the code scales and shifts, then ReLU."""

    def __init__(self, inputs: int, outputs: int, code: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.modulation = nn.Linear(code, 2 * outputs)
        nn.init.normal_(self.modulation.weight, std=0.3 / math.sqrt(code))
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """x [N, M, inputs], code [N, code] -> [N, M, outputs]."""
        scale, shift = self.modulation(code)[:, None].chunk(2, -1)
        return F.relu(torch.addcmul(shift, self.linear(x), 1 + scale))


class ImplicitHeads(nn.Module):
    """f(p; c) -> signed distance and colour, with the training heads' codes.

    Args:
        config: sizes.
        heads: how many heads have a code.
    """

    def __init__(self, config: ImplicitConfig, heads: int) -> None:
        super().__init__()
        self.config = config
        c, w, m = config.code, config.width, config.moving_width
        inputs = 3 + 6 * config.octaves
        self.codes = nn.Parameter(0.1 * torch.randn(heads, c))
        self.moving = nn.ModuleList([_Modulated(3 + 12, m, c), _Modulated(m, m, c)])
        self.move = nn.Linear(m, 3)
        nn.init.zeros_(self.move.weight)
        nn.init.zeros_(self.move.bias)
        self.reference = nn.ModuleList(
            [_Modulated(inputs if k == 0 else w, w, c) for k in range(config.depth)]
        )
        self.distance = nn.Linear(w, 1)
        self.painting = _Modulated(w + inputs, w, c)
        self.colour = nn.Linear(w, 3)

    @staticmethod
    def _waves(x: Tensor, octaves: int) -> Tensor:
        """x [..., 3] in [-1, 1] with sines and cosines of pi 2^k x: [..., 3 + 6 octaves]."""
        angle = x[..., None] * (math.pi * 2.0 ** torch.arange(octaves, device=x.device))
        return torch.cat([x, angle.sin().flatten(-2), angle.cos().flatten(-2)], -1)

    def forward(self, points: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance [N, M] (world units) and colour [N, M, 3] at points [N, M, 3]; code [N, code]."""
        x = points / BOX
        h = self._waves(x, 2)
        for layer in self.moving:
            h = layer(h, code)
        x = x + 0.3 * torch.tanh(self.move(h))
        waves = self._waves(x, self.config.octaves)
        h = waves
        for layer in self.reference:
            h = layer(h, code)
        distance = 0.1 * self.distance(h)[..., 0]
        colour = self.colour(self.painting(torch.cat([h, waves], -1), code))
        return distance, torch.sigmoid(colour)

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean [code] of the training codes and a root [N, code] of their covariance: mean + e @ root, e normal [N]."""
        mean = self.codes.detach().mean(0)
        return mean, (self.codes.detach() - mean) / math.sqrt(len(self.codes) - 1)

    def sample_codes(self, count: int, seed: int, spread: float = 1.0) -> Tensor:
        """Codes [count, code] drawn from the Gaussian fitted to the training codes.

        Args:
            spread: factor on the deviation from the mean; below 1 heads stay nearer to it.
        """
        mean, root = self.gaussian()
        noise = torch.randn(count, len(root), generator=torch.Generator().manual_seed(seed))
        return mean + spread * noise @ root


class _Batches:
    """Random points of random heads."""

    def __init__(self, heads: Sequence[Array], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.count = min(map(len, heads))
        shuffled = [np.random.default_rng(k).permutation(rows)[: self.count] for k, rows in enumerate(heads)]
        self.rows = torch.from_numpy(np.stack(shuffled))
        low, high = torch.tensor(FACE)
        on_face = ((self.rows[..., :3] > low) & (self.rows[..., :3] < high)).all(-1)
        on_face &= self.rows[..., 3].abs() < COLOURED
        self.face = [found.nonzero()[:, 0] for found in on_face]

    def draw(self, heads: int, points: int, face_share: float = 0.0) -> tuple[Tensor, Tensor]:
        """Which heads [heads], and their rows [heads, points, 7], of which `face_share` lie on the face."""
        who = torch.from_numpy(self.rng.choice(len(self.rows), min(heads, len(self.rows)), replace=False))
        start = int(self.rng.integers(self.count))
        # Rows are shuffled already: a stride by a prime draws them evenly.
        index = ((torch.arange(points) * 7919 + start) % self.count).expand(len(who), points).clone()
        faces = round(face_share * points)
        for k, head in enumerate(who.tolist()):
            if faces and len(self.face[head]):
                chosen = self.rng.integers(len(self.face[head]), size=faces)
                index[k, :faces] = self.face[head][torch.from_numpy(chosen)]
        return who, self.rows[who[:, None], index]


def _loss(model: ImplicitHeads, rows: Tensor, code: Tensor, colour_weight: float = 1.0) -> Tensor:
    """Distance error (truncated) and colour error near the surface; [] tensor."""
    points, true, colours = rows.split((3, 1, 3), -1)
    distance, colour = model(points, code)
    true = true[..., 0]
    error = distance.clamp(-TRUNCATION, TRUNCATION) - true.clamp(-TRUNCATION, TRUNCATION)
    weight = 1 + 3 * (true.abs() < COLOURED)  # the surface matters more than its surroundings
    near = (true.abs() < COLOURED).float()
    painted = ((colour - colours).abs().sum(-1) * near).sum() / near.sum().clamp_min(1)
    return 20 * (error.abs() * weight).mean() + 0.5 * colour_weight * painted


def train_implicit(
    heads: Sequence[Array], config: ImplicitConfig, device: str = "cpu", progress: Progress | None = None
) -> ImplicitHeads:
    """Networks and codes of the training heads.

    Args:
        heads: of `head_points`, at least two.
        progress: called with (done, total) steps.

    Raises:
        Head3DError: a loss that is not finite.
    """
    torch.manual_seed(config.seed)
    model = ImplicitHeads(config, len(heads)).to(device)
    batches = _Batches(heads, config.seed)
    nets = [p for name, p in model.named_parameters() if name != "codes"]

    def phase(steps: int, rate: float, face_share: float, colour_weight: float) -> None:
        def loss(step: int) -> tuple[Tensor, Tensor]:
            who, rows = batches.draw(config.heads_per_step, config.points_per_head, face_share)
            code = model.codes[who.to(device)]
            error = _loss(model, rows.to(device), code, colour_weight)
            return error + config.code_penalty * code.square().sum(1).mean(), error

        groups = [{"params": nets, "lr": rate}, {"params": [model.codes], "lr": rate / 2}]
        descend(groups, loss, steps, rate=lambda done: 0.02 + 0.98 * half_cosine(done), progress=progress)

    phase(config.steps, config.rate, 0.0, 1.0)
    phase(config.finishing_steps, config.rate / 2, FACE_SHARE, FINISHING_COLOUR)
    return model.cpu().eval().requires_grad_(False)


def fit_code(model: ImplicitHeads, head: Array, steps: int = 200) -> Tensor:
    """Code [code] of a head that the model has not seen: descent on its points from the mean code, networks frozen.

    The code is searched within the training codes' span and paid for by its length under their Gaussian, as a new head
    has no other reason to be likely.
    """
    mean, root = model.gaussian()
    batches = _Batches([head], 0)
    weights = torch.zeros(len(root), requires_grad=True)

    def loss(step: int) -> tuple[Tensor, Tensor]:
        _, rows = batches.draw(1, 2048)
        error = _loss(model, rows, (mean + weights @ root)[None])
        return error + 2e-4 * weights.square().mean() * len(root), error

    descend([{"params": [weights], "lr": 0.2}], loss, steps, rate=lambda done: 1 - done)
    return (mean + weights @ root).detach()


@torch.no_grad()
def _answers(model: ImplicitHeads, points: Array, code: Tensor) -> tuple[Array, Array]:
    """Signed distances [M] and colours [M, 3] at points [M, 3] of one head, in blocks."""
    blocks = [model(block[None], code[None]) for block in torch.from_numpy(points).split(2**15)]
    distance, colour = (torch.cat(part, 1)[0].numpy() for part in zip(*blocks, strict=True))
    return distance, colour


def implicit_surface(model: ImplicitHeads, code: Tensor, resolution: int = 160) -> Surface:
    """The zero level as a mesh: marching cubes, largest piece, colours asked for at the vertices.

    Args:
        code: [code].
        resolution: grid points along the box' longest side. A grid four times coarser says where to look closely.

    Raises:
        Head3DError: the field has no zero level.
    """
    from skimage.measure import label, marching_cubes

    step = 2 * BOX / resolution
    axes = [np.arange(low, high, step, dtype=np.float32) for low, high in CORNERS.T]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    sparse = grid[::4, ::4, ::4]
    rough = _answers(model, sparse.reshape(-1, 3), code)[0].reshape(sparse.shape[:3])
    field = rough.repeat(4, 0).repeat(4, 1).repeat(4, 2)[: grid.shape[0], : grid.shape[1], : grid.shape[2]]
    close = np.abs(field) < 7 * step
    field[close] = _answers(model, grid[close], code)[0]
    for k in range(3):  # closed where the box ends
        side = np.moveaxis(field, k, 0)
        side[[0, -1]] = np.maximum(side[[0, -1]], step)
    if not (field < 0).any():
        raise Head3DError("the implicit model's field has no zero level for this code: train it longer")
    pieces = label(field < 0)
    largest = np.bincount(pieces.ravel())[1:].argmax() + 1
    field = np.where((field < 0) & (pieces != largest), step, field)
    vertices, faces, _, _ = marching_cubes(field, 0.0, spacing=(step,) * 3, gradient_direction="descent")
    vertices = (vertices + [a[0] for a in axes]).astype(np.float32)
    return Surface(vertices, faces.astype(np.int32), _answers(model, vertices, code)[1])
