"""Recipe keys that have new names: the old names load everywhere, and are said once."""

import json
import shutil
import warnings

import pytest

from voxlate.base.errors import BadInput
from voxlate.base.files import read_json, write_json
from voxlate.training import recipe
from voxlate.training.recipe import renamed
from voxlate.training.run import Run
from voxlate.training.train import train
from voxlate.training.weights import load_method, read_header, reuse_weights, save_weights

OLD = """
title = "tiny"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "percentile" }, t2 = { kind = "percentile" } }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 1, batch = 2, precision = "float32" }

[method]
kind = "regression"

[opponent]
game = "hinge"
critic = { widths = [4, 4], answer = "patches", each = true }
"""
NEW = OLD.replace("game", "gan_loss").replace("answer", "output").replace("each", "separate")


@pytest.fixture(autouse=True)
def _nothing_said_yet():
    renamed._SAID.clear()


def _old(tables):
    opponent = dict(tables["opponent"])
    critic = dict(opponent["critic"])
    critic |= {"answer": critic.pop("output"), "each": critic.pop("separate")}
    return {**tables, "opponent": opponent | {"game": opponent.pop("gan_loss"), "critic": critic}}


def test_a_recipe_with_old_names_is_the_recipe_with_the_new_ones_and_says_so_once(tmp_path):
    for name, text in (("old", OLD), ("new", NEW)):
        (tmp_path / f"{name}.toml").write_text(text)
    with pytest.warns(renamed.RenamedKey) as said:
        old = recipe.read(str(tmp_path / "old.toml"))
    assert len(said) == 1
    assert str(said[0].message).startswith(
        "Recipe keys have new names: 'opponent.game' is called 'opponent.gan_loss', "
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert old == recipe.read(str(tmp_path / "new.toml"))
        changed = recipe.read(str(tmp_path / "old.toml"), {"opponent.game": "least_squares"})
        assert changed.opponent.gan_loss == "least_squares"


def test_old_names_change_shipped_recipes_their_bases_and_their_stages(tmp_path):
    changes = {"opponent.game": "hinge", "opponent.critic.answer": "image"}
    changed = recipe.read("pix2pix_tmax", changes)
    assert (changed.opponent.gan_loss, changed.opponent.critic.output) == ("hinge", "image")
    (tmp_path / "own.toml").write_text(
        'base = "cyclegan_tmax"\nmethod = { game = "cross_entropy", data = { loss = "mse" } }'
    )
    own = recipe.read(str(tmp_path / "own.toml")).method
    found = (own.gan_loss, own.distance.loss, own.distance.reduction)
    assert found == ("cross_entropy", "mse", "all")
    staged = recipe.read("make_a_volume_swi_mra", {"stages.autoencoder.opponent.game": "hinge"})
    assert staged.stages[0].opponent.gan_loss == "hinge"


def test_old_names_are_kept_where_the_settings_are_of_other_code():
    own = {
        "method": {"kind": "mine:Method", "game": 1, "data": 2},
        "opponent": {"critic": {"kind": "a:B", "each": 3}},
    }
    assert renamed.with_new_names(own) == own


def test_a_run_with_old_names_loads_resumes_and_lends_its_stages(prepared, tmp_path, capsys):
    (tmp_path / "new.toml").write_text(NEW)
    wanted, run = recipe.read(str(tmp_path / "new.toml")), Run(tmp_path / "run")
    train(wanted, prepared, run.folder, device="cpu")
    method, _, header = load_method(run.folder)
    save_weights(run.weights(), method, {**header, "recipe": _old(header["recipe"])})
    stated = read_json(run.provenance)
    write_json(run.provenance, {**stated, "recipe": _old(stated["recipe"])})
    run.recipe.write_text(OLD)
    text = json.dumps(read_json(run.provenance))
    assert '"game"' in text
    assert '"gan_loss"' not in text
    loaded, again, _ = load_method(run.folder)
    assert again == wanted
    assert read_header(run.weights())["recipe"] == recipe.to_dict(wanted)
    train(wanted, prepared, run.folder, device="cpu")  # the same run: nothing is trained anew
    assert all(
        (a == b).all() for a, b in zip(loaded.parameters(), load_method(run.folder)[0].parameters())
    )
    copy = Run(tmp_path / "copy")
    copy.folder.mkdir()
    shutil.copy(run.provenance, copy.provenance)
    (message,) = reuse_weights(copy, [run], wanted, "final")
    assert message.text == f"stage 'final' is taken from {run.folder}."
    other = recipe.read(str(tmp_path / "new.toml"), {"opponent.gan_loss": "least_squares"})
    with pytest.raises(BadInput, match="expected an empty folder or this very run"):
        train(other, prepared, run.folder)


def test_a_file_that_states_a_key_by_both_names_is_refused(tmp_path):
    text = OLD.replace('game = "hinge"', 'game = "hinge"\ngan_loss = "least_squares"')
    (tmp_path / "both.toml").write_text(text)
    with pytest.raises(
        BadInput, match=r"opponent\.gan_loss' once, found it also by an old name \(game\)"
    ):
        recipe.read(str(tmp_path / "both.toml"))
