"""Pages and the heads of recipes promise commands; the parser reads each, and what they name ships."""

import argparse
import contextlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from rows import every_row
from voxlate.base.option import pairs
from voxlate.commands.cli.terminal import command_line
from voxlate.training import recipe as recipes

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("[a-z]*/*.md"))]
BLOCK = re.compile(r"```(?:sh)?\n(.*?)```", flags=re.S)
COMMAND = re.compile(r"^(?:\S+/)?voxlate ([a-z].*)$", flags=re.M)
BENCHMARK = re.compile(r"(?<=python )benchmarks/[^`\n]+")


@pytest.fixture(scope="module")
def commands():
    """The commands of the command line, by name."""
    group: Any = command_line()
    return dict(group.commands)


def commands_on(page):
    """The lines of a page that are commands, without the name voxlate."""
    text = page.read_text().replace("\\\n", " ")
    return [line for block in BLOCK.findall(text) for line in COMMAND.findall(block)]


def read(commands, line):
    """Have a documented line read by the command line itself, its recipes and their changes, too."""
    for part in line.split("  #")[0].split("&&"):
        words = shlex.split(part.strip().removeprefix("voxlate "))
        with contextlib.suppress(typer.Exit):  # of --help
            commands[words[0]].make_context(words[0], words[1:])
        named = [word for before, word in pairwise(words) if before in ("train", "--like")]
        if named and named[0].islower() and named[0] != "auto" and ".toml" not in named[0]:
            changes = [word for before, word in pairwise(words) if before == "--set"]
            recipes.read(named[0], pairs(changes) if words[0] == "train" else {})


@every_row("page", PAGES)
def test_each_command_on_a_page_is_read_by_the_command_line_and_each_link_leads_to_a_file(
    commands, page
):
    for line in commands_on(page):
        read(commands, line)
    for path in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / path).exists(), path


def test_each_command_at_the_head_of_a_recipe_is_read_by_the_command_line(commands):
    for name in recipes.names():
        head = recipes.head_of(name).replace("\\\n#", "")
        for line in re.findall(r"^# {3}(voxlate \w[^…;]*?)(?: {3}.*)?$", head, flags=re.M):
            read(commands, line)


@every_row("page", PAGES)
def test_each_benchmark_on_a_page_exists_and_reads_its_words(page, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_alone(parser):
        parse(parser)
        raise InterruptedError  # before it runs

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_alone)
    for line in BENCHMARK.findall(page.read_text().replace("\\\n", " ")):
        program, *words = shlex.split(line, comments=True)
        if "ArgumentParser" in (ROOT / program).read_text():
            monkeypatch.setattr(sys, "argv", [program, *words])
            with pytest.raises(InterruptedError):
                runpy.run_path(str(ROOT / program), run_name="__main__")


def test_the_readme_shows_a_starter_first_and_then_the_way_from_scans_to_scores_on_two_screens():
    shown = commands_on(PAGES[0])
    assert shown[0].startswith("synth starter:head-mr-to-ct ")
    assert [line.split()[0] for line in shown[1:5]] == ["prepare", "train", "synth", "evaluate"]
    lines = README.splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) < 120


def test_each_make_target_in_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make ([a-z-]+)|   make ([a-z-]+)", README, flags=re.M)):
        assert re.search(rf"^{''.join(target)}:", makefile, flags=re.M), target


@pytest.fixture
def made(tmp_path):
    """Runs make install with stubs in place of every Python: each is a script that ends with its exit code."""

    def run(stubs, *options):
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, tmp_path / name)
        for name, code in stubs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
            (tmp_path / name).chmod(0o755)
        command = [str(shutil.which("make")), *options, "install"]
        return subprocess.run(
            command, cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True
        )

    return run


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_takes_whichever_python_runs_and_says_in_one_sentence_which_it_needs(made):
    assert '"python3" -m venv .venv' in made({"python3.11": 127, "python3": 0}, "--dry-run").stdout
    ended = made({"python3": 1})
    assert ended.returncode == 2
    first, *_ = ended.stderr.splitlines()
    assert first.startswith("make: expected Python 3.11 to 3.14 with venv, found none")
    assert "make PYTHON=" in first
    assert ended.stdout == ""
