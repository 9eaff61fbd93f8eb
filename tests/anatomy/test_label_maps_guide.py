"""The guide on label maps, end to end on a small pelvis: its commands, its recipe and its table of tissues."""

import re
import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest

from made_volumes import save
from rows import slow
from voxlate.anatomy.label_map import read_table
from voxlate.anatomy.tissue import Label

GUIDE = (Path(__file__).parents[2] / "docs/guides/label_maps.md").read_text()
RECIPE, TABLE = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
(COMMANDS,) = re.findall(r"```\n(voxlate .*?)```", GUIDE, re.DOTALL)
SMALL_COMMANDS = {"--cases 40": "--cases 3", "--spacing-mm 3 3 3": "--spacing-mm 6 6 6"}
SMALL = {
    "patch = [1, 96, 120]": "patch = [1, 32, 32]",
    "width = 32": "width = 32, multipliers = [1]",
    "steps = 4000": "steps = 4",
    "batch = 4": "batch = 2",
}


def pelvis() -> np.ndarray:
    """A hip, a gluteal muscle, sacrum and prostate: ellipsoids in voxels of 6 mm."""
    z, y, x = np.mgrid[:30, :28, :40].astype(float)
    labels = np.zeros(z.shape, np.int16)
    organs = [
        (80, (15, 9, 10), (11, 6, 7)),
        (77, (15, 14, 11), (9, 5, 3)),
        (25, (17, 7, 20), (8, 3, 4)),
        (22, (12, 13, 20), (3, 3, 3)),
    ]
    for value, centre, axes in organs:
        squares = [((a - c) / b) ** 2 for a, c, b in zip((z, y, x), centre, axes)]
        labels[sum(squares) < 1] = value
    return labels


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a", "b", "c"):
        save(tmp_path / f"maps/{name}.nii.gz", pelvis(), affine=np.diag([6.0, 6, 6, 1]))
    recipe = RECIPE
    for text, short in SMALL.items():
        assert text in recipe
        recipe = recipe.replace(text, short)
    (tmp_path / "body_mr_to_ct.toml").write_text(recipe)
    return tmp_path


def words_of(line: str, folder: Path) -> list[str]:
    """The words of a command with small numbers, whose names in capitals are in a folder."""
    for text, short in SMALL_COMMANDS.items():
        line = line.replace(text, short)
    words = shlex.split(line)[1:]
    is_path = [word.isupper() or word.endswith(".toml") for word in words]
    return [str(folder / w.lower()) if path else w for w, path in zip(words, is_path)]


@slow
def test_the_commands_of_the_guide_train_on_a_pelvis_and_synthesise_its_ct(voxlate, folder):
    *making, synthesis = COMMANDS.strip().splitlines()
    for line in making:
        voxlate(*words_of(line, folder)).done()
    scan = folder / "scan"
    voxlate(
        *("phantom", "--labels", folder / "maps/a.nii.gz", "--tissues", "totalsegmentator"),
        *("--cases", 1, "--spacing-mm", 6, 6, 6, "--modalities", "t1", "--out", scan),
    ).done()
    words = synthesis.replace("scan.nii.gz", str(scan / "a_000/t1.nii.gz"))
    voxlate(*words_of(words, folder)).done()
    made = list((folder / "out").rglob("ct.nii.gz"))
    assert len(made) == 1
    assert np.isfinite(nibabel.load(made[0]).get_fdata()).all()


def test_the_table_of_the_guide_names_the_tissues_of_a_pelvis(tmp_path):
    (tmp_path / "pelvis.toml").write_text(TABLE)
    table = read_table(tmp_path / "pelvis.toml")
    assert table.inside == "soft"
    assert table.codes[82] == Label.MUSCLE
    assert table.names["prostate"] == len(Label)
    table.convert(pelvis().astype(np.int64), "pelvis")
