"""`identity(seed)`: every parameter of one head, the same on every machine for ever.

An `Identity` holds numbers rounded to four decimals, names and nothing else; `build_head` turns it into
geometry. Each part draws from its own stream (`draws.Draws`), so a change in one part leaves the others alone.

Two kinds follow the paper's two data sets: "faces" (any seed; glasses and hats included) and "heads"
(no hats or glasses; every block of 50 seeds is stratified over gender, age, skin tone and hairstyle).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from head3d_core.synth import TABLES, wardrobe
from head3d_core.synth.draws import SAMPLER_VERSION, Draws
from head3d_core.synth.masks import smoothstep
from head3d_core.synth.targets import Person, draw_expression, draw_features
from head3d_core.synth.wardrobe import Clothes, Glasses, Hat
from head3d_core.utils.errors import Head3DError

Kind = Literal["faces", "heads"]
HEADS_BLOCK = 50
"""Seeds [50 k, 50 k + 50) of kind "heads" form one stratified set."""
HEADS = range(0, 50)
"""Seeds of the head set."""
HELD_OUT_HEADS = range(1000, 2000)
"""Seeds of heads kept for evaluation; whole strata, as `HEADS_BLOCK` divides the first."""
HELD_OUT_FACES = range(10_000_000, 10_010_000)
"""Seeds of faces kept for evaluation; training uses seeds from 0 up."""

STYLES = tuple(dict.fromkeys([*TABLES["styles"]["men"], *TABLES["styles"]["women"]]))
"""Every hairstyle there is."""


@dataclass(frozen=True)
class Skin:
    """Skin colour and surface."""

    melanin: float
    """0 lightest to 1 darkest."""
    haemoglobin: float
    """0 pale to 1 ruddy."""
    undertone: float
    """-1 rosy to 1 golden."""
    freckles: float
    oil: float
    noise: float
    """Shift of the procedural noise, [0, 9)."""
    lipstick: float
    lip_colour: int
    eyeshadow: float


@dataclass(frozen=True)
class Eyes:
    """Iris colour and gaze."""

    iris: str
    brightness: float
    gaze: tuple[float, float]
    """Yaw and pitch of both eyes, radians."""


@dataclass(frozen=True)
class Hair:
    """Scalp hair. Style, length and curl pick the strands, the rest shapes and colours them."""

    style: str
    length: int
    """0 short, 1 medium, 2 long, within the style."""
    curl: int
    """0 as the style has it, 1 wavier."""
    mirrored: bool
    """Parting and sweep on the other side."""
    recession: float
    """Degrees by which the hairline at the temples has moved back."""
    peak: float
    """Degrees by which it comes forward in the middle."""
    thinning: float
    """0 to 1: share of the strands missing at the crown."""
    colour: str
    brightness: float
    grey: float
    gloss: float


@dataclass(frozen=True)
class Brows:
    """Eyebrows; lengths in dm."""

    thickness: float
    arch: float
    gap: float
    length: float
    height: float
    strands: int


@dataclass(frozen=True)
class Beard:
    """Facial hair: kind is none, full, short, goatee, moustache or circle."""

    kind: str
    length: float
    """Longest strand, dm."""
    stubble: float


@dataclass(frozen=True)
class Identity:
    """One head's parameters."""

    sampler_version: int
    seed: int
    kind: Kind
    person: Person
    features: tuple[tuple[str, float], ...]
    """(target name, weight): face shape."""
    expression: tuple[tuple[str, float], ...]
    """(target name, weight): mild expression."""
    skin: Skin
    eyes: Eyes
    hair: Hair
    brows: Brows
    beard: Beard
    clothes: Clothes
    glasses: Glasses | None
    hat: Hat | None


@dataclass(frozen=True)
class Strata:
    """What a block of heads fixes instead of drawing."""

    male: bool
    years: float
    melanin: float
    style: str


def _r(x: float) -> float:
    return round(float(x), 4)


def strata(seed: int) -> Strata:
    """The stratum of a head: each block of 50 seeds has 25 women and 25 men, and within each gender one head
    per 1/25 of the range of ages and of skin tones, and the hairstyles that the tables list for a block."""
    block, place = divmod(seed, HEADS_BLOCK)
    male, slot = bool(place % 2), place // 2
    d = Draws(block, f"strata-{'male' if male else 'female'}")
    styles = TABLES["styles"]["block_of_men" if male else "block_of_women"]
    ages = d.permutation("ages", len(styles))
    if male:  # the first three styles are bald heads: they take ages from the upper 60 %
        old = [a for a in ages if a >= 10][:3]
        ages = old + [a for a in ages if a not in old]
    tones = d.permutation("tones", len(styles))
    item = d.permutation("order", len(styles))[slot]
    within = Draws(seed, "strata")
    years = 15 + 63 * (ages[item] + within.uniform("age")) / len(styles)
    melanin = 0.03 + 0.92 * (tones[item] + within.uniform("tone")) / len(styles)
    return Strata(male, years, melanin, styles[item])


def _person(d: Draws, fixed: Strata | None, melanin: float) -> Person:
    if fixed is None:
        male = d.chance("male", 0.5)
        low, high = d.choice("band", ((10, 17), (18, 34), (35, 54), (55, 80)), (0.08, 0.40, 0.30, 0.22))
        years = d.uniform("years", low, high)
    else:
        male, years = fixed.male, fixed.years
    gender = min(max((0.93 if male else 0.07) + d.normal("gender", 0.07), 0.0), 1.0)
    # Ancestry follows the (balanced) skin tone, not the other way round: dark skin leans to the african
    # meshes, light skin to the caucasian ones, with a wide overlap.
    african = smoothstep(0.30, 0.85, melanin + d.normal("african", 0.12))
    asian = (1 - african) * smoothstep(0.12, 0.88, d.uniform("asian"))
    asian *= 1 - 0.6 * smoothstep(0.65, 0.95, melanin)
    first, second = _r(african), _r(asian)
    return Person(
        years=round(years, 1),
        gender=_r(gender),
        ancestry=(first, second, _r(1 - first - second)),
        muscle=_r(min(max(d.normal("muscle", 0.15, 0.5), 0.05), 0.95)),
        weight=_r(min(max(d.normal("weight", 0.18, 0.48), 0.08), 0.92)),
    )


def _skin(d: Draws, person: Person, melanin: float) -> Skin:
    woman = person.gender < 0.5 and person.years > 16
    freckled = d.uniform("freckles")
    return Skin(
        melanin=_r(melanin),
        haemoglobin=_r(d.uniform("haemoglobin", 0.15, 0.9)),
        undertone=_r(d.uniform("undertone", -1, 1)),
        freckles=_r(freckled * freckled * freckled if melanin < 0.4 else 0.0),
        oil=_r(d.uniform("oil")),
        noise=_r(d.uniform("noise", 0, 9)),
        lipstick=_r(d.uniform("lipstick", 0.3, 0.8) if woman and d.chance("made up", 0.35) else 0.0),
        lip_colour=d.choice("lip colour", (0, 1, 2, 3, 4)),
        eyeshadow=_r(d.uniform("eyeshadow", 0.15, 0.5) if woman and d.chance("shadow", 0.3) else 0.0),
    )


def _fairness(person: Person, melanin: float) -> float:
    """How likely light eyes and hair are: 0 to 1."""
    return person.ancestry[2] * (1 - smoothstep(0.3, 0.65, melanin))


def _eyes(d: Draws, person: Person, melanin: float) -> Eyes:
    light = 1.4 * _fairness(person, melanin) + 0.01
    weights = [1.0, 1.0, 0.9, 0.5 * light, 0.7 * light, 0.6 * light, 0.45 * light]
    return Eyes(
        iris=d.choice("iris", tuple(TABLES["colours"]["iris"]), weights),
        brightness=_r(d.uniform("brightness", 0.85, 1.2)),
        gaze=(_r(d.normal("yaw", 0.06)), _r(d.normal("pitch", 0.03))),
    )


def _hair(d: Draws, person: Person, melanin: float, fixed: Strata | None) -> Hair:
    male, old = person.gender > 0.5, smoothstep(30, 75, person.years)
    shares = dict(TABLES["styles"]["men" if male else "women"])
    if male:
        shares["balding"] = 0.20 * old
        shares["bald"] = 0.02 + 0.10 * old if person.years > 18 else 0.0
    if person.ancestry[0] > 0.6:
        factors = TABLES["styles"]["tight_curls"]
        shares = {name: share * factors.get(name, 1.0) for name, share in shares.items()}
    style = fixed.style if fixed is not None else d.choice("style", tuple(shares), tuple(shares.values()))
    light = _fairness(person, melanin)
    weights = [1.2, 1.1, 1.0, *(w * max(0.01, light) for w in (1.3, 1.1, 0.9, 0.8, 0.35, 0.35))]
    wave = 0.15 + 0.5 * person.ancestry[0]
    receding = male and style not in ("long", "long_wavy", "bob", "topknot") and person.years > 22
    recession = d.uniform("recession", 0, 3 + 8 * old) if receding else 0.0
    if style == "balding":
        recession = d.uniform("recession", 8, 15)
    greying = 1.25 * old - 0.45 if male else 0.95 * old - 0.4  # women dye it more often
    return Hair(
        style=style,
        length=d.choice("length", (0, 1, 2)),
        curl=int(d.chance("curl", wave)),
        mirrored=d.chance("mirrored", 0.5),
        recession=_r(recession),
        peak=_r(d.uniform("peak", 0, 4)),
        thinning=_r(d.uniform("thinning", 0, 0.7 * old) if receding else 0.0),
        colour=d.choice("colour", tuple(TABLES["colours"]["hair"]), weights),
        brightness=_r(d.uniform("brightness", 0.85, 1.15)),
        grey=_r(min(max(d.normal("grey", 0.22, greying), 0.0), 1.0) if person.years > 35 else 0.0),
        gloss=_r(d.uniform("gloss", *((0.35, 0.55) if style in ("afro", "curly") else (0.55, 1.1)))),
    )


def _brows(d: Draws, person: Person) -> Brows:
    male = person.gender > 0.5
    return Brows(
        thickness=_r(d.uniform("thickness", 0.021, 0.032) * (1.1 if male else 0.82)),
        arch=_r(d.uniform("arch", 0.015, 0.05) * (0.8 if male else 1.1)),
        gap=_r(d.uniform("gap", 0.11, 0.16)),
        length=_r(d.uniform("length", 0.42, 0.49)),
        height=_r(d.uniform("height", 0.005, 0.03)),
        strands=1100 + 100 * d.choice("strands", (0, 1, 2, 3, 4)),
    )


def _beard(d: Draws, person: Person) -> Beard:
    if person.gender < 0.5 or person.years < 18:
        return Beard("none", 0.0, 0.0)
    kind = "none"
    if d.chance("any", 0.38):
        kind = d.choice("kind", tuple(TABLES["beards"]), (0.3, 0.3, 0.13, 0.12, 0.15))
    low, high = {"full": (0.16, 0.34), "short": (0.07, 0.10)}.get(kind, (0.09, 0.14))
    length = 0.0 if kind == "none" else d.uniform("length", low, high)
    return Beard(kind, _r(length), _r(d.uniform("stubble", 0.05, 0.7) if kind == "none" else 0.7))


def identity(seed: int, kind: Kind = "faces") -> Identity:
    """The head of a seed (>= 0): a pure function of (seed, kind, SAMPLER_VERSION).

    Raises Head3DError if the seed is negative or the kind is neither "faces" nor "heads".
    """
    if seed < 0 or kind not in ("faces", "heads"):
        raise Head3DError(f'identity needs a seed >= 0 and kind "faces" or "heads", got {seed} and {kind!r}.')
    fixed = strata(seed) if kind == "heads" else None

    def part(name: str) -> Draws:
        return Draws(seed, f"{kind}-{name}")

    u = part("tone").uniform("melanin")
    # Close to uniform, a little more of the light half.
    melanin = 0.03 + 0.92 * u * (0.8 + 0.2 * u) if fixed is None else fixed.melanin
    person = _person(part("person"), fixed, melanin)
    hair = _hair(part("hair"), person, melanin, fixed)
    bare = kind == "heads"
    return Identity(
        sampler_version=SAMPLER_VERSION,
        seed=seed,
        kind=kind,
        person=person,
        features=draw_features(part("features"), child=person.years < 18),
        expression=draw_expression(part("expression"), strong=not bare),
        skin=_skin(part("skin"), person, melanin),
        eyes=_eyes(part("eyes"), person, melanin),
        hair=hair,
        brows=_brows(part("brows"), person),
        beard=_beard(part("beard"), person),
        clothes=wardrobe.draw_clothes(part("clothes"), male=person.gender > 0.5),
        glasses=None if bare else wardrobe.draw_glasses(part("glasses"), person.years),
        hat=None if bare else wardrobe.draw_hat(part("hat"), hair.style),
    )
