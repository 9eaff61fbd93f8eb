"""What errors suggest where a name is unknown, and keys that are left unset by name."""

from refusals import refuses
from rows import every_row
from voxlate.training import recipe


@every_row(
    "key, meant",
    [
        ("train.step", "'train.steps'"),
        ("net.widht", "'net.width'"),
        ("dropout", "'net.dropout'"),
    ],
)
def test_a_key_is_looked_for_in_its_table_then_in_all(key, meant):
    with refuses() as error:
        recipe.read("phantom_t1_to_ct", {key: "1"})
    assert f"found '{key}'. Did you mean {meant}" in str(error.value)


def test_an_unknown_option_is_answered_with_those_that_are_near(typed):
    assert "--resample" in typed("prepare cohort --resampel").refusal


@every_row("word", ["unset", '"unset"'])
def test_an_optional_key_is_unset_by_name_where_none_is_no_choice_and_a_key_is_not_needed(word):
    optional = ("synth.grid", "synth.end", "stages.regression.train.workers")
    made = recipe.read("phantom_t1_to_ct", dict.fromkeys(optional, word))
    assert (made.synth.grid, made.synth.end, made.stages[0].train.workers) == (None, None, None)
    assert recipe.read("phantom_t1_to_ct").synth.grid == "log_snr"
    kept = recipe.read("phantom_t1_to_ct", {"train.optimiser.decay": "none"})
    assert kept.train.optimiser.decay == "none"
    with refuses(r"expected 'train.batch' to.*found"):
        recipe.read("phantom_t1_to_ct", {"train.batch": word})


def test_all_wrong_keys_of_a_recipe_are_listed_at_once():
    wrong = {"net.widht": "1", "train.batch": "0", "synth.steps": "few", "no_such_table": "1"}
    with refuses() as error:
        recipe.read("phantom_t1_to_ct", wrong)
    said = str(error.value)
    assert said.startswith("phantom_t1_to_ct: expected")
    assert (said.count("phantom_t1_to_ct"), said.count(" Also expected ")) == (1, 3)
    assert "\n" not in said
    for key in wrong:
        assert f"'{key}'" in said
    tables = recipe.values_of("phantom_t1_to_ct") | {
        "train": {"steps": "1"},
        "synth": {"mirror": 1},
    }
    with refuses(r"'train\.steps'.*Also expected 'synth\.mirror'"):
        recipe.from_dict(tables, "own")
