"""Recipes as people write, look for and change them."""

import inspect
import subprocess
import sys

from torch import nn

import voxlate as package
from refusals import refuses
from rows import every_row, slow
from voxlate.training import recipe
from voxlate.training.recipe.text import SMALL, papers, table_of_recipes
from voxlate.training.run import Run
from voxlate.training.weights import read_header


def test_recipes_are_those_to_start_from_or_of_a_paper_as_their_files_state(tmp_path):
    starts = {row["name"] for row in table_of_recipes()}
    assert {"phantom_t1_to_ct", "mrdpm", "mrdpm_small"} <= starts
    assert 8 <= len([name for name in starts if not name.endswith(SMALL)]) <= 14
    of_papers = [{row["name"] for row in table_of_recipes(paper)} for paper in papers()[:-1]]
    assert set(papers()) == {"lyu_wang", "make_a_volume", "mrdpm", "umm_csgm", "xmodality", "all"}
    assert all(of_paper & starts for of_paper in of_papers)
    assert {row["name"] for row in table_of_recipes("all")} == {*recipe.names()}
    assert sum(map(len, of_papers)) == len(set().union(*of_papers))
    with refuses("found 'mrdp'"):
        table_of_recipes("mrdp")
    (tmp_path / "own.toml").write_text('base = "mrdpm"\npaper = "own"\nstart = true\n')
    assert recipe.read(str(tmp_path / "own.toml")) == recipe.read("mrdpm")


def test_the_small_variant_of_a_recipe_is_a_recipe_over_it_or_over_that_of_its_base():
    full, small = recipe.read("mrdpm"), recipe.read("mrdpm_small")
    assert small.net.width < full.net.width
    assert small.data.source == full.data.source
    of_base = recipe.read("cyclegan_tmax_small")  # its base: mrdpm_small
    assert of_base.data.patch == small.data.patch


def test_stages_are_changed_by_their_names():
    made = recipe.read("mr_to_ct_slices", {"stages.regression.train.steps": "1e3"})
    assert made.stages[0].train.steps == 1000
    with refuses("found 'regresion'"):
        recipe.read("mr_to_ct_slices", {"stages.regresion.train.steps": "7"})


@every_row(
    "change, key",
    [
        ("train = { steps = '12' }", "train.steps"),
        ("train = { steps = true }", "train.steps"),
        ("train = { optimiser = { lr = '1e-3' } }", "train.optimiser.lr"),
        ("data = { patch = ['1', 24, 20] }", "data.patch.0"),
        ("synth = { mirror = 1 }", "synth.mirror"),
    ],
)
def test_a_value_of_another_type_than_its_key_is_refused(tiny, tmp_path, change, key):
    path = tmp_path / "more.toml"
    path.write_text(f'base = "{tiny}"\n{change}\n')
    with refuses(f"expected '{key}' to"):
        recipe.read(str(path))


@every_row("name", ["../../evil", "a/b", ".t1", "t" * 101])
def test_names_that_are_no_file_names_are_refused_in_recipes(tiny, name):
    values = recipe.to_dict(recipe.read(str(tiny)))
    for key in ("source", "target", "labels"):
        data = {**values["data"], key: [name]}
        intensity = {**values["intensity"], name: values["intensity"]["t1"]}
        with refuses("expected a name of letters"):
            recipe.from_dict({**values, "data": data, "intensity": intensity}, "mine")


def test_a_recipe_may_update_the_stages_of_its_base_by_name_and_their_data_but_have_no_empty_level(
    tmp_path,
):
    def of_base(base, text):
        (tmp_path / "own.toml").write_text(f'base = "{base}"\n{text}\n')
        return recipe.read(str(tmp_path / "own.toml"))

    (before,) = recipe.read("phantom_t1_to_ct").stages
    (after,) = of_base("phantom_t1_to_ct", "[stages.regression.train]\nsteps = 7").stages
    assert after.train.steps == 7
    assert (after.net, after.train.batch) == (before.net, before.train.batch)
    stages = recipe.read("make_a_volume_t1_t2").all_stages
    assert [stage.data.source for stage in stages] == [["t1"]] * 3
    assert [stage.data.patch[0] for stage in stages] == [1, 1, 16]
    for base, text, said in (
        (
            "phantom_t1_to_ct",
            "[stages.regressed.train]\nsteps = 7",
            "found 'regressed'",
        ),
        ("t1_to_t2_brain", "net = { multipliers = [1, 0] }", "multipliers"),
        ("t1_to_t2_brain", "data = { source = ['t1'], target = ['t1'] }", "found t1 in both"),
    ):
        with refuses(said):
            of_base(base, text)


class Small(nn.Module):
    """A network that a later command can import."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.layer = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, image):
        return self.layer(image)


def test_code_inside_a_class_or_function_is_refused(prepared, tiny):
    with refuses(f"found {__name__}:Small.forward"):
        package.train(tiny, prepared, "run", set={"net.kind": Small.forward})


@slow
def test_a_network_of_a_notebook_is_trained_and_loaded_where_it_is_defined(
    prepared, tiny, tmp_path
):
    code = f"import voxlate\nfrom torch import nn\n{inspect.getsource(Small)}\n"
    run = tmp_path / "run"
    training = f"{code}voxlate.train(r'{tiny}', r'{prepared}', r'{run}', set={{'net': {{'kind': Small}}, 'train.steps': 1}})\n"
    loading = f"import voxlate\nvoxlate.load(r'{run}', allow_code=True)"
    for cell, ended in ((training, 0), (code + loading, 0), (loading, 1)):
        assert subprocess.run([sys.executable, "-"], input=cell, text=True).returncode == ended
    assert read_header(Run(run).weights())["recipe"]["net"]["kind"] == "__main__:Small"


def test_a_recipe_that_begins_with_a_byte_order_mark_is_read_like_any_other(tiny, tmp_path):
    marked = tmp_path / "marked.toml"
    marked.write_text(tiny.read_text(), encoding="utf-8-sig")
    assert recipe.read(str(marked)) == recipe.read(str(tiny))
