"""How a model is trained, as data: stages, rows of the comparison and the numbers of the paper's section 4.1.

A `Recipe` says everything that the one training loop (`trainer.Trainer`) needs: which images each discriminator
sees, which losses act, how fast, for how long. The four stages of the method and every row of Tables 2 and 3 are
values of it; there is no code per row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from head3d_core.config import check_fields
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.nested import changed

Stage = Literal["teacher", "whiten", "head", "distill"]
Start = Literal["scratch", "teacher", "head"]
Source = Literal["faces", "heads", "heads_back", "heads_side"]
Perceptual = Literal["auto", "lpips", "random", "efflite2"]

STAGES: tuple[Stage, ...] = ("teacher", "whiten", "head", "distill")
"""In the order in which they are run."""


@dataclass(frozen=True)
class Domain:
    """The images that one discriminator sees, and how much it counts."""

    name: str
    """"front", "back" or "all"; the metrics in the log carry it."""
    sources: tuple[Source, ...]
    """Real images it sees. "heads_back": those with |yaw| above the split angle; "heads_side" adds the views
    from the side, which neither the face set (beyond its widest yaw) nor L_rgb and L_lpips (beyond τ) reach."""
    start: Start
    """Whose discriminator it starts from (4.1: D_front from the face D, D_back from the fine-tuned head D)."""
    gamma: float
    """R1 weight γ; the code's penalty is γ/2 ‖∇D‖² (decision 4 of Eq. 6, see `losses.r1_penalty`)."""
    weight: float = 1.0
    """λ_gan of Eq. 10 in the generator's loss."""


@dataclass(frozen=True)
class LossWeights:
    """λ of Eq. 10 for the terms that compare student and teacher; 0 drops a term and its cost."""

    kd: float = 0.0
    """λ_kd, Eq. 5."""
    map: float = 0.0
    """λ_map, Eq. 7."""
    rgb: float = 0.0
    """λ_rgb, Eq. 8."""
    lpips: float = 0.0
    """λ_lpips, Eq. 9."""
    kd_back: float = 0.0
    """Two slices of F_xy only, not in the paper: xy_back follows the frozen head generator's, as xy_front follows the
    teacher's in L_kd."""

    @property
    def any(self) -> bool:
        """Whether a teacher of faces is needed at all."""
        return any((self.kd, self.map, self.rgb, self.lpips))


@dataclass(frozen=True)
class Recipe:
    """Everything that training needs except the architecture."""

    stage: Stage
    """Which step of the method this is."""
    start: Start
    """Whose generator it starts from."""
    domains: tuple[Domain, ...]
    """The discriminators' data; two domains take turns."""
    images: int
    """Real images shown to discriminators in the whole run; those of `planes_first` count as if shown."""
    batch: int = 16
    """Global batch, over all processes. Paper: 16."""
    lr_g: float = 0.0025
    """Adam's rate for G. Paper: 0.0025, distillation 0.001."""
    lr_d: float = 0.002
    """Adam's rate for D. Paper: 0.002, distillation 0.0005."""
    beta2: float = 0.99
    """Adam's second decay; the first is 0."""
    g_reg_interval: int = 4
    """Density regularisation runs every so many steps (lazy regularisation)."""
    d_reg_interval: int = 16
    """R1 runs every so many steps of each domain."""
    one_discriminator: bool = False
    """One network for both domains, each with its own images, γ and weight (Fig. 8 c)."""
    back_share: float = 0.5
    """With two domains: the share of steps that train the second. 0.5 alternates strictly."""
    split_angle: float = math.pi / 2
    """|yaw| above which a head view is a back view, radians."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Distillation terms."""
    distil_planes: tuple[int, ...] = (0,)
    """Planes in L_kd, each with weight λ_kd. The paper: only F_xy, plane 0; 0 1 2 is the ablation of Fig. 8 (b)."""
    kd_norm: Literal["mse", "l2"] = "mse"
    """Mean squared error over the plane (decision 3), or the plain norm that Eq. 5 prints."""
    planes_first: int = 0
    """Images at the start for which the targets of planes and w alone act (L_kd, L_map, xy_back's): nothing is
    rendered and no discriminator learns, which is several times as fast. Not in the paper."""
    tau: float = math.pi / 4
    """Largest |yaw| at which L_rgb and L_lpips act, radians. Paper: π/4."""
    mapping_camera: Literal["render", "faces"] = "render"
    """"render": the rendering camera, swapped with `gpc` (EG3D). "faces": an independent draw from the face set,
    shared by teacher and student (decision 7)."""
    gpc: float = 0.8
    """Probability that the mapping camera is another sample's. EG3D: 0.5 for FFHQ, 0.8 for the rebalanced set."""
    gpc_images: int = 0
    """Images over which that probability fades from 1."""
    density_weight: float = 0.25
    """Weight of the density regularisation (EG3D). 0 switches it off."""
    density_points: int = 1000
    """Points per sample in it."""
    density_distance: float = 0.004
    """Standard deviation of the neighbour's offset, world units."""
    blur_sigma: float = 0.0
    """Initial blur of what D sees, pixels of the image; fades to 0. EG3D: 10 at 512²."""
    blur_images: int = 1
    """Images over which the blur fades."""
    neural_resolution: int | None = None
    """Volume-rendered resolution at the start; None: the generator's own from the first image on."""
    neural_images: int = 0
    """Images over which it fades linearly to the generator's own."""
    ema_images: float = 10_000.0
    """Half-life of the averaged generator, images."""
    ema_rampup: float | None = 0.05
    """The half-life is at most this share of the images seen so far; None (when fine-tuning): no ramp."""
    mirror: bool = True
    """Show every image also mirrored, with its camera mirrored."""
    noise: Literal["random", "const"] = "random"
    """Noise maps of the backbone while training."""
    ada_target: float = 0.0
    """Adaptive augmentation: wanted mean sign of D(real); 0 switches it off. StyleGAN2-ADA: 0.6."""
    ada_images: int = 500_000
    """Images over which the augmentation probability could rise from 0 to 1."""
    ada_start: float = 0.0
    """Initial probability."""
    perceptual: Perceptual = "auto"
    """Features of L_lpips: LPIPS where its weights are on disk, else an untrained VGG ("auto"); or trained ones that no
    metric uses."""
    perceptual_scale: float = 10.0
    """Extra factor on the offline substitute of LPIPS, whose values are about ten times smaller."""
    wrong_camera: float = 0.0
    """Weight in D's loss of real images shown with another image's camera, which count as generated: D must look at
    the camera, too (not in the paper). 0 switches it off."""
    only_discriminator: bool = False
    """The generator is frozen and only its discriminators learn: for weights that come without one."""
    discriminator_first: int = 0
    """Images at the start for which only the discriminators learn: for one that is weaker than its generator."""
    warmup_steps: int = 200
    """Learning rates rise linearly over so many steps whenever Adam starts without its second moments."""
    notes: tuple[str, ...] = ()
    """Where and why a number differs from the paper's."""

    def __post_init__(self) -> None:
        if not self.domains or len(self.domains) > 2:
            raise Head3DError(f"a recipe has one or two discriminators, got {len(self.domains)}")
        sizes = ("batch", "g_reg_interval", "d_reg_interval", "density_points", "ada_images", "ema_images")
        check_fields(self, "0 or more", lambda v: v >= 0, "images", "planes_first")
        check_fields(self, "at least 1", lambda v: v >= 1, *sizes)
        check_fields(self, "some of 0, 1 and 2", lambda v: v and set(v) <= {0, 1, 2}, "distil_planes")
        check_fields(self, "between 0 and 1", lambda v: 0 < v < 1, "back_share")
        if self.planes_first and (self.discriminator_first or self.only_discriminator):
            raise Head3DError("planes and discriminators cannot both learn alone: set planes_first to 0")
        if self.planes_first and not (self.losses.kd or self.losses.kd_back):
            raise Head3DError(
                "without losses.kd and losses.kd_back no plane has a target: set planes_first to 0"
            )
        if self.one_discriminator and len({domain.start for domain in self.domains}) > 1:
            raise Head3DError("one discriminator has one start: give both domains the same `start`")

    @property
    def needs_heads(self) -> bool:
        """Whether the multi-view head set is among its data."""
        return any(source != "faces" for domain in self.domains for source in domain.sources)

    @property
    def discriminator_starts(self) -> tuple[Start, ...]:
        """Where each discriminator network starts from: one for every domain, or one for all."""
        return tuple(domain.start for domain in self.domains[: 1 if self.one_discriminator else None])

    def compares_images(self, domain: int) -> bool:
        """Whether L_rgb and L_lpips can act on views of `domain`: never on back views that all lie outside τ."""
        sources = set(self.domains[domain].sources)
        only_back = sources <= {"heads_back", "heads_side"} and self.split_angle >= self.tau
        return bool(self.losses.rgb or self.losses.lpips) and not only_back

    def domain_at(self, step: int) -> int:
        """Which domain trains at `step`: the second one in `back_share` of all steps, as evenly as possible."""
        if len(self.domains) == 1:
            return 0
        return int(math.floor((step + 1) * self.back_share) - math.floor(step * self.back_share))

    def blur_at(self, images: int) -> float:
        """σ of the blur of what D sees after so many images, pixels of the full image; fades to 0."""
        return self.blur_sigma * max(0.0, 1 - images / max(self.blur_images, 1))

    def swap_at(self, images: int) -> float:
        """Probability that the mapping camera is another sample's (generator pose conditioning); fades from 1."""
        fade = min(1.0, images / self.gpc_images) if self.gpc_images else 1.0
        return 1 + (self.gpc - 1) * fade

    def resolution_at(self, images: int, final: int) -> int:
        """Volume-rendered resolution; all integers between the initial one and `final` occur."""
        if self.neural_resolution is None or self.neural_images == 0:
            return final
        fade = min(1.0, images / self.neural_images)
        return round(self.neural_resolution + (final - self.neural_resolution) * fade)

    def ema_beta_at(self, images: int) -> float:
        """Decay of the averaged generator per step: 0.5^(batch / half-life)."""
        ramp = math.inf if self.ema_rampup is None else images * self.ema_rampup
        return 0.5 ** (self.batch / max(min(self.ema_images, ramp), 1e-8))

    def warmth_at(self, steps: int) -> float:
        """Factor on the learning rates, `steps` after Adam started without its second moments; rises to 1."""
        return min(1.0, (steps + 1) / max(self.warmup_steps, 1))

    def unused(self) -> dict[str, str]:
        """Fields that have no effect in this recipe, each with what would give them one."""
        needs = {
            "mapping_camera render": (self.mapping_camera == "render", "gpc gpc_images"),
            "a density_weight": (self.density_weight, "density_points density_distance g_reg_interval"),
            "a blur_sigma": (self.blur_sigma, "blur_images"),
            "a neural_resolution": (self.neural_resolution, "neural_images"),
            "an ada_target": (self.ada_target, "ada_images ada_start"),
            "losses.kd": (self.losses.kd, "distil_planes"),
            "losses.kd or losses.kd_back": (self.losses.kd or self.losses.kd_back, "kd_norm"),
            "losses.rgb or losses.lpips": (self.losses.rgb or self.losses.lpips, "tau"),
            "losses.lpips": (self.losses.lpips, "perceptual perceptual_scale"),
            "two domains": (len(self.domains) == 2, "back_share one_discriminator"),
            "a domain of back or side views": (
                any(s.startswith("heads_") for d in self.domains for s in d.sources),
                "split_angle",
            ),
        }
        return {name: what for what, (acts, names) in needs.items() if not acts for name in names.split()}


# -- section 4.1, and smaller scales -------------------------------------------------------------------------------

_NOT_GIVEN = "EMA, ADA target, images per stage and camera layout are not in the paper (decision 6)"

TEACHER = Recipe(
    stage="teacher",
    start="scratch",
    domains=(Domain("front", ("faces",), "scratch", gamma=1.0),),
    images=25_000_000,
    batch=32,
    gpc_images=1_000_000,
    blur_sigma=10.0,
    blur_images=200_000,
    neural_resolution=64,
    neural_images=1_000_000,
    notes=(_NOT_GIVEN, "EG3D's stage 1 (64², 25 M images) and stage 2 (to 128²) as one schedule"),
)
WHITEN = dataclasses.replace(
    TEACHER,
    stage="whiten",
    start="teacher",
    domains=(Domain("front", ("faces",), "teacher", gamma=1.0),),
    images=400_000,
    gpc_images=0,
    blur_sigma=0.0,
    neural_resolution=None,
    neural_images=0,
    ema_rampup=None,
    notes=(_NOT_GIVEN, "4.1 only says that EG3D is fine-tuned on faces whose background is removed"),
)
HEAD = dataclasses.replace(
    WHITEN,
    stage="head",
    domains=(Domain("all", ("heads",), "teacher", gamma=20.0),),
    images=200_000,
    batch=16,
    mapping_camera="faces",
    ada_target=0.6,
    notes=(_NOT_GIVEN, "mapping cameras from the face set already here, so that w keeps its meaning"),
)
DISTILL = dataclasses.replace(
    HEAD,
    stage="distill",
    start="head",
    domains=(
        Domain("front", ("faces",), "teacher", gamma=1.0),
        Domain("back", ("heads_back",), "head", gamma=20.0, weight=10.0),
    ),
    images=400_000,
    lr_g=0.001,
    lr_d=0.0005,
    losses=LossWeights(kd=0.5, map=1.0, rgb=1.0, lpips=1.0),
    ada_target=0.0,
    notes=(_NOT_GIVEN, "split at 90° and strict alternation are ours (decision 5)"),
)
PAPER: dict[Stage, Recipe] = {"teacher": TEACHER, "whiten": WHITEN, "head": HEAD, "distill": DISTILL}
"""Section 4.1 at 512²."""

_QUARTER = "γ = 5 for the paper's 20: R1 sums over pixels, and 256² has a quarter of 512²'s"
_SHORT = "images, EMA, blur and fades shortened in proportion to a run of minutes"
_GAN_BACK = (
    "λ_gan_back = 1 for the paper's 10: here the back's gradient is about as large as all others together "
    "before its weight (data/results/LOG.md); `--recipe.domains.1.weight 10` gives the paper's"
)
_CLASSROOM: dict[Stage, dict[str, Any]] = {
    "teacher": {
        "images": 2_000_000,
        "gpc_images": 200_000,
        "blur_sigma": 6.0,
        "blur_images": 60_000,
        "neural_resolution": None,
        "neural_images": 0,
        "notes": (_SHORT, "γ = 1, StyleGAN2's value for faces at 256²"),
    },
    "whiten": {"images": 100_000, "notes": (_SHORT,)},
    "head": {"domains.0.gamma": 5.0, "images": 150_000, "ada_images": 200_000, "notes": (_SHORT, _QUARTER)},
    "distill": {
        "domains.1.gamma": 5.0,
        "domains.1.weight": 1.0,
        "images": 150_000,
        "notes": (_SHORT, f"{_QUARTER}; γ = 1 for D_front as the teacher's own", _GAN_BACK),
    },
}


def _tiny(recipe: Recipe) -> Recipe:
    return dataclasses.replace(
        recipe,
        batch=4,
        images=64,
        density_points=16,
        blur_sigma=min(recipe.blur_sigma, 2.0),
        blur_images=32,
        gpc_images=min(recipe.gpc_images, 32),
        neural_resolution=8 if recipe.neural_resolution else None,
        neural_images=min(recipe.neural_images, 32),
        ema_images=16.0,
        ada_images=64,
        warmup_steps=2,
        notes=("for tests: a few steps of everything",),
    )


_BY_PRESET: dict[str, dict[Stage, Recipe]] = {
    "tiny": {stage: _tiny(recipe) for stage, recipe in PAPER.items()},
    "classroom": {stage: changed(recipe, _CLASSROOM[stage]) for stage, recipe in PAPER.items()},
    "paper": PAPER,
}
"""tiny: 64², seconds on a CPU. classroom: 256², one GPU, minutes. paper: 512²."""


# -- rows of the comparison ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One row of Table 2, Table 3 or Fig. 8, as changes to the recipe of stage distill."""

    help: str
    """How it differs from the full method, in a few words."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Values by dotted name, as `--recipe.NAME VALUE` takes them."""
    generator: Mapping[str, Any] = field(default_factory=dict)
    """Likewise, of `--generator.NAME VALUE`."""
    like: Stage = "distill"
    """The stage whose numbers it takes, but for `images`."""
    untrained: bool = False
    """No training: the teacher's F_xy is put into the head generator's planes when rendering."""


def _fine_tuned(start: Start) -> dict[str, Any]:
    # Naive union, as the baselines of 4.2: each image is as likely as any other.
    return {"start": start, "domains.0.start": start, "domains.0.sources": ("faces", "heads")}


_ONE_D = {"domains.0.start": "head", "one_discriminator": True}
_BACK_TARGET = {
    "losses.kd_back": 0.1,
    "planes_first": 100_000,
    "domains.1.sources": ("heads_side",),  # one view shows both sides' hair, so that both get one colour
}
_SHARED = {"front_slices": 2}
_OWN_BLOCKS = {"front_slices": 2, "back_blocks": 32}
_POOLED = (Domain("all", ("faces", "heads_back"), "teacher", gamma=1.0),)

ROWS: dict[str, Row] = {
    "head3d": Row("the full method"),
    "single-d": Row("one discriminator for both sides (Fig. 8 c)", _ONE_D),
    "no-kd": Row("without L_kd (Table 3)", {"losses.kd": 0.0}),
    "dft": Row(
        "DFT: the face generator fine-tuned on faces and heads (Table 2)", _fine_tuned("teacher"), like="head"
    ),
    "fh": Row(
        "FH: the head generator trained on faces and heads (Table 2)", _fine_tuned("head"), like="head"
    ),
    "no-gan-front": Row("without L_gan_front (Table 3)", {"domains.0.weight": 0.0}),
    "no-rgb-lpips": Row("without L_rgb and L_lpips (Table 3)", {"losses.rgb": 0.0, "losses.lpips": 0.0}),
    "all-planes": Row("all three planes distilled (Fig. 8 b)", {"distil_planes": (0, 1, 2)}),
    "plane-swap": Row("the teacher's F_xy put in, untrained (Fig. 8 a)", {"images": 0}, untrained=True),
    "two-sided": Row(
        "two slices of F_xy, each with its own target and its own last blocks",
        {**_BACK_TARGET, "planes_first": 150_000},
        _OWN_BLOCKS,
    ),
    "two-sided-shared": Row("two slices of F_xy that share all blocks", _BACK_TARGET, _SHARED),
    "two-sided-single-d": Row(
        "two slices of F_xy that share all blocks, and one discriminator", {**_BACK_TARGET, **_ONE_D}, _SHARED
    ),
    "single-d-pooled": Row("one discriminator, faces and backs in one pool", {"domains": _POOLED}),
}
"""Rows of the comparison, in the order in which they are trained."""


def recipe(stage: str, preset: str, row: str | None = None) -> Recipe:
    """The recipe of a stage at a preset's scale, changed by a row of the comparison if one is named.

    Raises Head3DError with the list of names for an unknown stage, preset or row.
    """
    if stage not in STAGES:
        raise Head3DError(f"no stage called {stage!r}: choose one of {', '.join(STAGES)}")
    if preset not in _BY_PRESET:
        raise Head3DError(f"no preset called {preset!r}: choose one of {', '.join(_BY_PRESET)}")
    own = _BY_PRESET[preset][next(s for s in STAGES if s == stage)]
    if row is None:
        return own
    if row not in ROWS:
        raise Head3DError(f"no row called {row!r}: choose one of {', '.join(ROWS)}")
    if stage != "distill":
        raise Head3DError(f"row {row!r} belongs to stage 'distill', not {stage!r}")
    base = dataclasses.replace(_BY_PRESET[preset][ROWS[row].like], stage=own.stage, images=own.images)
    made = changed(base, ROWS[row].changes)
    return dataclasses.replace(made, planes_first=min(made.planes_first, 8)) if preset == "tiny" else made
