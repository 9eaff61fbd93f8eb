"""The recipes of paper 003's baselines: alike where the paper compares them. Their networks go the whole way elsewhere."""

import pytest

from voxlate.training import recipe as recipes

MODALITIES = ("flair", "t1", "t1c", "t2")
HI_NETS = {f"hi_net_{name}": name for name in MODALITIES}
ANY = ("mm_gan", "mm_syn", "coca_gan", "ucd_gan")


def test_all_baselines_see_the_same_contrasts_on_the_same_scale():
    first = recipes.read("mm_gan")
    assert tuple(first.data.target) == MODALITIES
    for name in (*ANY, *HI_NETS):
        for size in ("", "_small"):
            made = recipes.read(f"{name}{size}")
            assert made.intensity == first.intensity
            assert made.data.foreground == first.data.foreground
            assert {*made.data.source, *made.data.target} == set(MODALITIES)
    for name, target in HI_NETS.items():
        data = recipes.read(name).data
        others = [name for name in MODALITIES if name != target]
        assert (data.target, data.source) == ([target], others)


@pytest.mark.parametrize(
    ("name", "gan", "extras"),
    [
        ("mm_gan", 0.1 / 0.9, {}),
        ("mm_syn", None, {"reconstructions": 1, "images_by_latent": 1, "latent_variance": 0.5}),
        ("hi_net_t1", 1 / 100, {"reconstructions": 3 * 20 / 100}),
        ("coca_gan", 1 / 100, {"modality_logits": 0.1 / 100, "segmentation": 1 / 100}),
        ("ucd_gan", 1 / 100, {"reconstructions": 10 / 100, "codes": 1 / 100}),
    ],
)
def test_losses_have_the_weights_of_the_specification_relative_to_the_l1(name, gan, extras):
    for size in ("", "_small"):
        made = recipes.read(f"{name}{size}")
        assert made.method.loss == "l1"
        assert made.method.extras == pytest.approx(extras)
        opponent = made.opponent
        assert (opponent is None) == (gan is None)
        if opponent is not None:
            assert opponent.weight == pytest.approx(gan, rel=1e-3)
            game = (opponent.gan_loss, opponent.critic_turns, opponent.penalty)
            assert game == ("least_squares", 1, 0)
        assert made.train.clip_norm == 0
        assert made.train.optimiser.kind == "adam"
    optimiser = recipes.read(name).train.optimiser
    wanted = (1e-4, (0.9, 0.999)) if name == "mm_syn" else (2e-4, (0.5, 0.999))
    assert (optimiser.lr, optimiser.betas) == wanted
