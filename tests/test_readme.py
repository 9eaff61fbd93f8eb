"""README.md promises commands; each exists, takes the options it is used with, and ships what it names."""

import re
import shlex
from pathlib import Path

import pytest

from voxlate import recipe as recipes

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
LINES = re.findall(r"^(voxlate [a-z].*)$", README, flags=re.M)


@pytest.mark.parametrize("line", LINES)
def test_each_command_in_the_readme_is_one_that_voxlate_has(voxlate, line):
    for command in line.split("#")[0].split("&&"):
        words = shlex.split(command)
        help_text = re.sub(r"\s+", " ", voxlate(words[1], "--help").out)
        for option in (word for word in words[2:] if word.startswith("--")):
            assert option in help_text, f"{option} is no option of {words[1]}"


def test_each_recipe_in_the_readme_ships():
    trained = re.findall(r"voxlate train ([a-z0-9_]+) ", README)
    assert trained
    assert set(trained) <= {"auto", *recipes.names()}


def test_each_make_target_in_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_each_picture_in_the_readme_is_there():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README, flags=re.S):
        assert (ROOT / path).stat().st_size > 10_000


def test_the_readme_says_that_this_is_no_medical_device():
    assert "not a medical device" in README


def test_the_whole_way_of_the_readme_on_a_small_cohort(voxlate, cohort, tiny, tmp_path):
    prepared, run, out = tmp_path / "p", tmp_path / "r", tmp_path / "o"
    assert voxlate("prepare", cohort, "--out", prepared).code == 0
    assert voxlate("train", tiny, "--data", prepared, "--out", run).code == 0
    assert voxlate("synth", run, cohort, "--out", out).code == 0
    answer = voxlate("evaluate", out, "--truth", cohort)
    assert answer.code == 0
    assert "best naive" in answer.out
    assert answer.out.splitlines()[-1].startswith("✗ WORSE THAN the best naive baseline"), "six steps teach nothing"
    assert voxlate("report", out).code == 0
    page = (out / "report.html").read_text()
    assert "data:image/" in page
    assert not re.search(r"""(src|href)=["']https?://""", page)  # opens offline
