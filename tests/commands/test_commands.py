"""The command line: what its options reach."""

from rich.console import Console
from rich.progress import Progress

from voxlate.base.executors.case_work import report_part
from voxlate.base.files import read_json
from voxlate.commands.api.progress import Bars, progress_on


def test_an_option_of_synthesis_may_be_named_as_in_a_recipe(typed, run, cohort, tmp_path):
    stated = []
    for name in ("mirror", "synth.mirror"):
        typed(f"synth run cohort/case0 --out {name} --set batch=2 --set {name}=true").done()
        stated.append(read_json(tmp_path / name / "case0" / "provenance.json")["synth"])
    assert stated[0] == stated[1]
    assert stated[0]["mirror"] is True


def test_the_time_left_of_a_second_case_begins_anew(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("voxlate.commands.api.progress.SECONDS", 0.0)
    monkeypatch.setattr("voxlate.commands.api.progress.time.monotonic", lambda: now[0])
    with progress_on(Console(stderr=True, force_terminal=False)) as report:
        for done in (0, 5, 10, 0, 5):  # ten seconds a slice
            report("slices", done, 10)
            now[0] += 50
    assert capsys.readouterr().err.splitlines()[-1] == "slices 5/10, 0:00:50 left"
    with Progress() as progress:
        bars = Bars(progress)
        for done in (0, 10, 2):
            bars("slices", done, 10)
        bars("cases", 1, 4)
        assert [task.completed for task in progress.tasks] == [2, 1]


def test_slices_of_three_planes_count_as_those_of_the_image():
    seen = []
    for plane, own in enumerate((4, 9, 7)):
        report_part(lambda *found: seen.append(found), plane, 3, 6, own, own)
    assert seen == [(2, 6), (4, 6), (6, 6)]


def test_a_recipe_that_is_its_own_base_is_refused(typed, tmp_path):
    (tmp_path / "loop.toml").write_text('base = "loop.toml"\n')
    assert "base" in typed("recipes loop.toml").refusal
