"""What changes while a stage trains: functions of the recipe and of the number of real images seen so far."""

from __future__ import annotations

from head3d_core.training.recipes import Recipe


def blur_sigma(recipe: Recipe, images: int) -> float:
    """σ of the blur of what D sees, pixels of the full image; fades to 0."""
    return recipe.blur_sigma * max(0.0, 1 - images / max(recipe.blur_images, 1))


def swap_probability(recipe: Recipe, images: int) -> float:
    """Probability that the mapping camera is another sample's (generator pose conditioning); fades from 1."""
    fade = min(1.0, images / recipe.gpc_images) if recipe.gpc_images else 1.0
    return 1 + (recipe.gpc - 1) * fade


def neural_resolution(recipe: Recipe, images: int, final: int) -> int:
    """Volume-rendered resolution; all integers between the recipe's and `final` occur."""
    if recipe.neural_resolution is None or recipe.neural_images == 0:
        return final
    fade = min(1.0, images / recipe.neural_images)
    return round(recipe.neural_resolution + (final - recipe.neural_resolution) * fade)


def ema_beta(recipe: Recipe, images: int) -> float:
    """Decay of the averaged generator per step: 0.5^(batch / half-life)."""
    half_life = recipe.ema_images
    if recipe.ema_rampup is not None:
        half_life = min(half_life, images * recipe.ema_rampup)
    return 0.5 ** (recipe.batch / max(half_life, 1e-8))


def warmth(recipe: Recipe, steps: int) -> float:
    """Factor on the learning rates, `steps` after Adam started without its second moments; rises to 1."""
    return min(1.0, (steps + 1) / max(recipe.warmup_steps, 1))
