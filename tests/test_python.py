"""The commands in Python, each once: from a cohort to tables, pages and pictures."""

import re
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import pytest

import voxlate as package
from rows import every_row
from voxlate.base.errors import BadInput


@pytest.fixture
def results(cohort, tmp_path, monkeypatch) -> SimpleNamespace:
    """What every step from a cohort to scores returns, of a plan with two stages that is cut to two steps each."""
    monkeypatch.chdir(tmp_path)
    package.prepare("cohort", "PREPARED", audit=False)
    plan = package.plan("PREPARED", minutes=0.3, mode="samples", progress=False)
    small = {"train.steps": "2", "train.batch": "2", "train.validation_items": "2"}
    small |= {f"stages.regression.{key}": value for key, value in small.items()}
    plan = plan.change({**small, "train.seed": "1"})
    package.train(plan, "PREPARED", "RUN")
    mean = package.synthesise("RUN", "cohort", "MEAN", split="val", answer="mean")
    samples = package.synthesise("RUN", "cohort", "SAMPLES", split="val", samples=2)
    scores = package.evaluate("SAMPLES", "cohort")
    package.evaluate("MEAN", "cohort")
    table = package.compare(["SAMPLES", "MEAN"])
    one = package.load("RUN").synthesise({"t1": cohort / "case0" / "t1.nii.gz"}, samples=2)
    page = package.report("SAMPLES")
    return SimpleNamespace(
        plan=plan, mean=mean, samples=samples, scores=scores, table=table, one=one, page=page
    )


def test_every_step_returns_a_result_that_shows_itself(results, tmp_path):
    assert results.plan.tables["train"]["seed"] == 1
    assert nib.load(tmp_path / "MEAN" / results.mean.cases[0] / "t2.nii.gz").shape == (20, 24, 6)
    assert (tmp_path / "SAMPLES" / results.samples.cases[0] / "t2_std_uncalibrated.nii.gz").exists()
    assert results.one.std["t2"].data.shape == (1, 6, 24, 20)
    for name, word in (("plan", "data.patch"), ("scores", "MAE"), ("table", "MEAN")):
        assert word in getattr(results, name)._repr_html_()
        assert word in repr(getattr(results, name))
    assert results.samples._repr_png_().startswith(b"\x89PNG")
    frame = results.scores.frame
    assert {"case", "modality", "method", "metric", "value"} <= set(frame.columns)
    assert set(frame["method"]) > {"synthesis"}
    assert {"MEAN", "SAMPLES"} <= set(results.table.to_frame()["method"])
    assert results.page.name == "report.html"
    assert results.one.bounds == {}, "there is no calibration"


def test_several_runs_are_one_ensemble(run, cohort, tmp_path):
    made = package.synthesise([run, run], cohort / "case0", tmp_path / "out")
    assert made.cases == ("case0",)
    assert (tmp_path / "out" / "case0" / "t2_std_uncalibrated.nii.gz").is_file()


@every_row("name", sorted({*package.__all__} - {"__version__", "load"}))
def test_a_function_stays_one_when_its_folder_is_imported(name):
    import voxlate.anatomy
    import voxlate.evaluation.reports  # noqa: F401

    assert callable(getattr(package, name))


def test_progress_goes_to_stderr_to_a_function_or_nowhere(cohort, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(
        "voxlate.commands.api.progress.SECONDS", 0.0
    )  # a line, however quick the command is
    package.prepare(cohort, tmp_path / "loud", audit=False, workers=0)
    loud = capfd.readouterr().err
    assert "6 patients: 5 for training" in loud
    assert "prepare 6/6" in loud
    package.prepare(cohort, tmp_path / "quiet", audit=False, workers=0, progress=False)
    assert capfd.readouterr() == ("", "")
    seen = []
    package.prepare(
        cohort, tmp_path / "own", audit=False, workers=0, progress=lambda *found: seen.append(found)
    )
    assert seen[-1] == ("prepare", 6, 6, {})


@pytest.mark.slow
def test_recipes_of_a_cohort_and_reports_are_plain_values(run, prepared, tmp_path):
    assert {one["name"] for one in package.recipes(cohort=prepared)} >= {"t1_to_t2_brain"}
    assert package.report(run).read_text().startswith("<!doctype html>")
    assert package.report(prepared, tmp_path / "cohort.html") == tmp_path / "cohort.html"


def test_a_run_shows_its_history_and_its_losses(run):
    from voxlate.training.run import Run

    assert len(Run(run).figure().axes) == len(set(Run(run).history["stage"]))


def test_changes_may_be_numbers_and_truths(prepared, tiny, tmp_path):
    changes = {"train.steps": 2, "synth.exact": True}
    run = package.train(tiny, prepared, tmp_path / "run", changes=changes, progress=False)
    assert package.info(run.folder)["steps"] == 2
    with pytest.raises(BadInput, match=r"found 'train\.stps'"):
        package.train(tiny, prepared, tmp_path / "other", changes={"train.stps": 5}, progress=False)


@pytest.mark.slow
def test_a_planned_run_resumes_and_one_of_another_target_is_refused(prepared, tmp_path, voxlate):
    options = {"mode": "mean", "minutes": 1, "changes": {"train.steps": 2}, "progress": False}
    run = package.train("auto", prepared, tmp_path / "run", source="t1", target="t2", **options)
    begun = run.recipe.read_bytes()
    package.train("auto", prepared, tmp_path / "run", minutes=5, progress=False)
    assert run.recipe.read_bytes() == begun, "it resumes, whatever the minutes"
    with pytest.raises(BadInput, match="found one that was planned with t1"):
        package.train("auto", prepared, tmp_path / "run", source="t2", target="t1", **options)
    line = ("train", "auto", "--data", prepared, "--out", tmp_path / "run", "--target", "t1")
    said = "expected a run with the target t1, found one that was planned with t2"
    assert said in voxlate(*line).refusal


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
