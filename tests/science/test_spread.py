"""How much of the spread of normal data each shipped setting of synthesis keeps, were the network exact."""

import dataclasses
import re
from collections import defaultdict

import pytest
from kept_spread import kept_shares

from rows import slow
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.training import recipe
from voxlate.training.recipe.text import head_of, names, values_of

ENOUGH = 0.9


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
