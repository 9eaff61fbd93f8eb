"""The docstrings of the names that users import: parameters, results, errors, and an example, which runs."""

import dataclasses
import doctest
import importlib
import inspect
import re
import shutil
from pathlib import Path

import pytest

import voxlate as package
from rows import every_row

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "python.md").read_text()
RESULTS = re.findall(r"autoclass:: voxlate\.(\S+)", PAGE)
# Further results, and what a recipe's own parts are made of.
PARTS = """base.config.settings base.errors.DoNotTrust base.messages.Message commands.api.demo.Demo
commands.api.images.CheckedCase evaluation.scoring.metrics.Metric
scans.images.grid.Grid scans.images.intensity.IntensityMap scans.images.intensity.Scale science.batch.Batch
science.diffusion.samplers.Traits science.diffusion.samplers.ddim science.diffusion.samplers.with_traits
science.diffusion.schedules.Schedule science.methods.method.Method science.methods.method.MethodSettings
science.methods.method.TaskSettings science.nets.interface.Channels science.nets.interface.NetSettings
science.nets.interface.NetworkInput science.nets.interface.Output"""
NAMES = sorted({*package.__all__, *RESULTS, *PARTS.split()} - {"__version__"})


@pytest.fixture
def places(cohort, prepared, run, series, small_head, tmp_path):
    """The folders that examples read, whose names have capital letters there."""
    out, others = tmp_path / "out", tmp_path / "others"
    package.synthesise(run, cohort, out, split="val", progress=False)
    package.evaluate(out, cohort, progress=False)
    for number in range(10):
        small_head(others / f"head{number}", 100 + number, modalities=("t1", "t2"))
    return [cohort, prepared, run, series, out, others]


@every_row("name", NAMES)
def test_a_docstring_states_all_and_its_example_gives_what_it_shows(
    name, places, tiny, shipped_starters, quick_widths, tmp_path, monkeypatch
):
    module, _, own = f"voxlate.{name}".rpartition(".")
    kind = getattr(importlib.import_module(module), own)
    text = inspect.getdoc(kind)
    is_class = inspect.isclass(kind)
    assert is_class or ("\nReturns:\n" in text and "\nRaises:\n" in text)
    if not is_class or dataclasses.is_dataclass(kind):
        signature = inspect.signature(kind)
        assert "Option(" not in str(signature)
        for parameter in signature.parameters.values():
            if parameter.kind is not parameter.VAR_KEYWORD:
                assert f"\n    {parameter.name}: " in text
    for place in places:
        if place.name.upper() in text:
            shutil.copytree(place, tmp_path / place.name.upper())
    shutil.copy(tiny, tmp_path / "recipe.toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("voxlate.training.starters.names.FOLDER", shipped_starters)
    (example,) = doctest.DocTestFinder(recurse=False).find(kind, name, globs={})
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
