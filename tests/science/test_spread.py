"""How much of the spread of normal data each shipped setting of synthesis keeps, were the network exact."""

import dataclasses
import re
from collections import defaultdict

import pytest
from kept_spread import STDS, kept_shares, share_after_closing

from rows import every_row, slow
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.diffusion.schedules import LinearVP
from voxlate.training import recipe
from voxlate.training.recipe.text import head_of, names, values_of

ENOUGH = 0.9
EARLY_END = {"sampler": "dpmpp_2m", "steps": 32, "end": 0.005}
ADVISED = {  # a sampler, what it keeps at least of 0.2 to 1 (docs/papers/spread.md)
    "umm_csgm_small": ({"sampler": "dpmpp_2m", "steps": 32}, 0.93),
    "make_a_volume_swi_mra_small": (EARLY_END, 0.91),
    "make_a_volume_slices_swi_mra_small": (EARLY_END, 0.91),
    "make_a_volume_t1_t2_small": (EARLY_END, 0.91),
    "palette_tuned_swi_mra_small": ({"sampler": "dpmpp_2m", "steps": 32}, 0.91),
}


def shipped_settings() -> dict[str, list[str]]:
    """The recipes of each setting of synthesis, told apart by all that decides how noise becomes an image."""
    found = defaultdict[str, list[str]](list)
    for name in names():
        if values_of(name)["method"].get("kind") == "diffusion":
            made = recipe.read(name)
            own = [getattr(made.synth, one.name) for one in dataclasses.fields(SamplerSettings)]
            found[repr([own, made.method.schedule])].append(name)
    return found


@slow
def test_heads_say_what_a_sample_keeps_where_that_is_not_nine_tenths():
    for recipes in shipped_settings().values():
        made = recipe.read(recipes[0])
        shares = kept_shares(made.synth, made.method.schedule)
        wanted = [100 * min(shares), 100 * max(shares)] if min(shares) < ENOUGH else []
        for name in recipes:
            said = re.search(r"One sample keeps (\d+) to (\d+) %", head_of(name))
            found = [float(share) for share in said.groups()] if said else []
            assert found == pytest.approx(wanted, abs=1.0), (
                f"{name}: a sample keeps {wanted} %, its head says {found}"
            )


@every_row("name", ADVISED)
def test_the_advised_settings_keep_nine_tenths_of_what_is_a_tenth_of_the_range_or_more(
    name,
):
    changes, least = ADVISED[name]
    made = recipe.read(name)
    advised = dataclasses.replace(made.synth, eta=0.0, **changes)
    wide = [std for std in STDS if std >= 0.2]
    shares = kept_shares(advised, made.method.schedule, wide)
    assert least <= min(shares) < least + 0.03
    assert max(shares) < 1.03
    assert min(kept_shares(made.synth, made.method.schedule, wide)) < 0.7


def test_what_is_lost_with_many_steps_is_what_the_closing_denoising_takes():
    schedule = LinearVP()
    fine = SamplerSettings(sampler="dpmpp_2m", steps=400, end=0.02)
    wanted = [share_after_closing(fine, schedule, std) for std in STDS]
    assert kept_shares(fine, schedule) == pytest.approx(wanted, rel=0.015)
    assert wanted == pytest.approx([0.542, 0.791, 0.933, 0.988, 0.997], abs=1e-3)


def test_one_step_without_closing_noise_gives_the_mean_alone():
    one = SamplerSettings(steps=1, end=0.0)
    assert max(kept_shares(one, LinearVP())) < 0.01
