"""The recipes of paper 003's baselines: alike where the paper compares them. Their networks go the whole way elsewhere."""

import pytest

from rows import every_row
from voxlate.training import recipe as recipes

MODALITIES = ("flair", "t1", "t1c", "t2")
ANY = ("mm_gan", "mm_syn", "coca_gan", "ucd_gan")


@every_row("size", ["", "_small"])
def test_all_baselines_see_the_same_contrasts_on_the_same_scale(size):
    first = recipes.read("mm_gan").intensity
    for name in (*ANY, "hi_net_flair"):
        made = recipes.read(f"{name}{size}")
        targets = [*MODALITIES] if name in ANY else ["flair"]
        others = [one for one in MODALITIES if [one] != targets]
        assert made.intensity == first
        assert made.data.foreground == recipes.read("mm_gan").data.foreground
        assert (made.data.target, {*made.data.source}) == (targets, {*others})


@every_row(
    "name, gan, extras",
    [
        ("mm_gan", 0.1 / 0.9, {}),
        ("mm_syn", None, {"reconstructions": 1, "images_by_latent": 1, "latent_variance": 0.5}),
        ("hi_net_flair", 1 / 100, {"reconstructions": 3 * 20 / 100}),
        ("coca_gan", 1 / 100, {"modality_logits": 0.1 / 100, "segmentation": 1 / 100}),
        ("ucd_gan", 1 / 100, {"reconstructions": 10 / 100, "codes": 1 / 100}),
    ],
)
def test_losses_have_the_weights_of_the_specification_relative_to_the_l1(name, gan, extras):
    for size in ("", "_small"):
        made = recipes.read(f"{name}{size}")
        assert made.method.loss == "l1"
        assert made.method.extras == pytest.approx(extras)
        if gan is None:
            assert made.opponent is None
        else:
            game = made.opponent
            assert game.weight == pytest.approx(gan, rel=1e-3)
            assert (game.gan_loss, game.critic_turns, game.penalty) == ("least_squares", 1, 0)
        optimiser = made.train.optimiser
        assert (made.train.clip_norm, optimiser.kind) == (0, "adam")
        if not size:
            wanted = (1e-4, (0.9, 0.999)) if name == "mm_syn" else (2e-4, (0.5, 0.999))
            assert (optimiser.lr, optimiser.betas) == wanted
