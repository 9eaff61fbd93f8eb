"""The commands in Python, each once: from a cohort to tables, pages and pictures."""

import re
from pathlib import Path

import nibabel as nib

import voxlate as package
from rows import every_row


def test_results_show_themselves_as_pictures_and_tables(
    run, prepared, cohort, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    images = package.synthesise("run", "cohort", "OUT", split="val")
    assert nib.load(f"OUT/{images.cases[0]}/t2.nii.gz").shape == (20, 24, 6)
    scores = package.evaluate("OUT", "cohort")
    assert {"case", "modality", "method", "metric", "value"} <= set(scores.frame.columns)
    assert set(scores.frame["method"]) > {"synthesis"}
    table = package.compare(["OUT"])
    plan = package.plan("prepared", minutes=0.3, mode="samples")
    assert plan.rows[0].keys() == {"key", "value", "reason"}
    for shown, word in ((scores, "MAE"), (table, "OUT")):
        assert word in shown._repr_html_()
        assert word in repr(shown)
    assert plan.change({"train.seed": "1"}).tables["train"]["seed"] == 1
    assert package.report("OUT").name == "report.html"


@every_row("name", sorted({*package.__all__} - {"__version__", "load"}))
def test_a_function_stays_one_when_its_folder_is_imported(name):
    import voxlate.anatomy
    import voxlate.evaluation.reports  # noqa: F401

    assert callable(getattr(package, name))


def test_progress_goes_to_stderr_to_a_function_or_nowhere(cohort, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(
        "voxlate.commands.api.progress.SECONDS", 0.0
    )  # a line, however quick the command is
    seen = []

    def said(progress):
        package.prepare(cohort, tmp_path / "out", audit=False, workers=0, progress=progress)
        return capfd.readouterr()

    loud = said(True).err
    assert "6 patients: 5 for training" in loud
    assert "prepare 6/6" in loud
    assert said(False) == ("", "")
    said(lambda *found: seen.append(found))
    assert seen[-1] == ("prepare", 6, 6, {})


def test_changes_may_be_numbers_and_truths_and_a_run_shows_its_history(prepared, tiny, tmp_path):
    def train(**changes):
        return package.train(tiny, prepared, tmp_path / "run", set=changes, progress=False)

    run = train(**{"train.steps": 2, "synth.exact": True})
    assert package.info(run.folder)["steps"] == 2
    assert run.history["step"].max() == 2


def test_every_name_of_the_package_in_messages_and_docs_exists():
    root = Path(package.__file__).parent
    docs = root.parents[1] / "docs"
    texts = [*root.rglob("*.py"), *docs.rglob("*.md")]
    known = {*dir(package), *(path.name.removesuffix(".py") for path in root.iterdir())}
    for path in texts:
        for name in re.findall(
            r"(?<![\w/.\-])voxlate\.([a-z]\w+)\b(?!\.(?:toml|md))", path.read_text()
        ):
            assert name in known | {"egg", "readthedocs"}, f"{path}: voxlate.{name}"
