"""Training from the page: folders, what a cohort holds, plans, trainings, calibrations and comparisons."""

import html
import re
import shutil
from pathlib import Path

import pytest
import tomli_w
from markupsafe import Markup
from paging import Here, until

from refusals import refuses
from rows import slow
from trainings import same_weights
from voxlate.base.files import read_json
from voxlate.page.facts import without_styles
from voxlate.page.folders import find_runs, list_folder, new_folder
from voxlate.page.words import in_settings
from voxlate.page.workers import start_process
from voxlate.training.recipe import read, to_dict


@pytest.fixture
def made(page, tmp_path):
    """A page of the folder of the test that does its jobs in this process."""
    return page(root=tmp_path, start=Here)


def ended(made, answer, state="done", seconds=60):
    """The page of the job that a form began, once it has ended in this state."""
    assert answer.status_code == 303, answer.text
    address = answer.headers["location"]
    text = made.finished(address, seconds)
    job = made.jobs.read(address.rpartition("/")[2])
    assert job.state == state, job.why
    return html.unescape(text)


def sentence(answer):
    """The sentence of a refusal."""
    found = re.search(r'role="alert">(.*?)</p>', answer.text, re.DOTALL)
    assert found is not None, answer.text
    return html.unescape(found[1])


def test_folders_are_listed_with_what_they_hold(made, run, cohort, tmp_path):
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "out").symlink_to("/usr")
    text = made.get("/training").text
    assert '<a href="/training?place=cohort">cohort</a>' in text
    assert '<a href="/training/prepared?place=prepared">prepared</a>' in text
    assert '<a href="/training/runs?place=run">run</a>' in text
    assert str(tmp_path) not in text
    inner = made.get("/training", params={"place": "cohort"}).text
    assert "place=cohort/case0" in inner


def test_no_place_outside_of_the_root_is_listed_surveyed_or_trained(page, cohort, tmp_path):
    (tmp_path / "out").symlink_to("/usr")
    made = page(root=tmp_path)
    for place in ("..", "../..", "/etc", "out", "cohort/../..", "x" * 300, "a\0b"):
        answers = [
            made.get(f"/training{part}", params={"place": place})
            for part in ("", "/prepared", "/runs")
        ]
        answers += [
            made.post(f"/training/{form}", data={"place": place, "cohort": place})
            for form in ("survey", "plan", "further", "calibrate")
        ]
        answers += [made.post("/training/compare", data={"runs": place, "cohort": "cohort"})]
        for answer in answers:
            assert answer.status_code == 400, place
            assert "folder: expected" in sentence(answer)
    assert made.jobs.all() == []
    without = page(folder="other").post("/training/survey", data={"place": "."})
    assert without.status_code == 400


def test_a_folder_that_cannot_be_read_is_refused_with_one_sentence(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with refuses("expected one that can be read, found 'Permission denied'"):
        list_folder(tmp_path.resolve(), ".")


def test_a_new_folder_is_below_the_root_and_outside_of_the_cohort(cohort, tmp_path):
    root = tmp_path.resolve()
    (root / "out").symlink_to("/usr")
    (root / "there/file").mkdir(parents=True)
    assert new_folder(root, "some/new") == root / "some/new"
    for text, why in (
        ("../new", "expected a name of letters"),
        ("out/new", "below the root folder"),
        ("there", "which is there"),
        ("cohort/new", "outside of the cohort"),
        ("", "expected a name, found none"),
    ):
        with refuses(why):
            new_folder(root, text, apart_from=cohort)


def test_the_table_of_a_cohort_is_that_of_the_dry_run(made, voxlate, cohort, tmp_path):
    (cohort / "case0/notes.txt").write_text("no scan")
    (cohort / "case1/localizer.nii.gz").write_bytes((cohort / "case1/t1.nii.gz").read_bytes())
    (cohort / "case2/t2.nii.gz").write_bytes(b"damaged")
    told = voxlate("prepare", cohort, "--dry-run", "--json").json
    text = ended(made, made.post("/training/survey", data={"place": "cohort"}))
    files = re.search(r'<table id="files">(.*?)</table>', text, re.DOTALL)
    shown = [re.findall(r"<td>(.*?)</td>", row) for row in files[1].split("<tr>")[2:]]
    expected = [
        [one["case"], one["name"], str(Path(one["path"]).relative_to(cohort)), one["grid"], one["unit"]]
        for one in told["files"]
    ]  # fmt: skip
    assert len(expected) >= 12
    assert shown == expected
    listed = re.search(r'<ul id="left-out">(.*?)</ul>', text, re.DOTALL)[1]
    told_of = [*told["left_out"], *told["unread"], *told["problems"]]
    assert len(told_of) >= 1
    assert re.findall(r"<li[^>]*>(.*?)</li>", listed) == [
        one.replace(str(tmp_path), "ROOT") for one in told_of
    ]
    for name, counts in told["rows"].items():
        row = "".join(f"<td>{counts[key]}</td>" for key in ("all", "train", "val", "test"))
        assert f'<th scope="row">{name}</th>{row}' in text
    assert str(tmp_path) not in text


def test_a_link_that_leads_out_of_the_root_is_not_read(page, cohort, tmp_path):
    linked = cohort / "case0/t1.nii.gz"
    linked.symlink_to(linked.rename(tmp_path / "outside.nii.gz"))
    made = page(root=cohort, start=Here)
    text = ended(made, made.post("/training/survey", data={"place": "."}), "failed")
    assert "case0/t1.nii.gz: expected a link to a place below the root folder" in text
    assert str(tmp_path) not in text


def test_a_cohort_is_prepared_as_by_the_command_line(made, typed, cohort, tmp_path):
    form = {"place": "cohort", "modalities": "t1, t2"}
    answer = made.post("/training/survey", data=form)
    ended(made, answer)
    address = answer.headers["location"]
    inside = made.post(f"{address}/prepare", data={"folder": "cohort/new"})
    assert "outside of the cohort" in sentence(inside)
    ended(made, made.post(f"{address}/prepare", data={"folder": "ours"}))
    typed("prepare cohort --out theirs --modality t1 --modality t2").done()
    ours, theirs = (read_json(tmp_path / name / "cohort.json") for name in ("ours", "theirs"))
    assert ours == theirs
    text = made.get("/training/prepared", params={"place": "ours"}).text
    assert '<th scope="row">patients</th><td>6</td>' in text
    distances = sum(len(entry["misaligned"]) for entry in ours["cases"])
    assert distances >= 1
    assert text.count("<tr>") >= distances
    assert str(tmp_path) not in text


def test_a_training_from_the_page_has_the_weights_of_voxlate_train(
    made, typed, prepared, tiny, tmp_path
):
    form = {"place": "prepared", "recipe": "tiny.toml", "folder": "new"}
    form["changes"] = "train.steps=4\ntrain.seed=7"
    text = ended(made, made.post("/training/recipe", data=form))
    options = "--set train.steps=4 --set train.seed=7 --device cpu"
    typed(f"train tiny.toml --data prepared --out theirs {options}").done()
    assert same_weights(tmp_path / "new", tmp_path / "theirs")
    assert '<svg class="chart"' in text
    assert " style=" not in text
    name = re.search(r"name=(final_\d+)", text)[1]
    picture = made.get("/training/picture", params={"place": "new", "name": name})
    assert picture.content == (tmp_path / "new/validation" / f"{name}.png").read_bytes()
    other = made.get("/training/picture", params={"place": "new", "name": "../../tiny"})
    assert other.status_code == 400
    assert str(tmp_path) not in text
    assert "<li>new</li>" in made.get("/").text  # among the models of the synthesis page


@slow
def test_a_plan_is_that_of_plan_training_and_its_training_keeps_the_recipe(
    made, monkeypatch, prepared, tmp_path
):
    from voxlate.commands.api import training
    from voxlate.training.planning import planner as planning

    limits = {"minutes": 0.5, "memory_bytes": 8 * 2**30}
    made_by = planning.plan_training(prepared, mode="mean", device="cpu", **limits)
    asked = {}

    def once(data, **options):
        asked.update(options, data=data)
        return made_by  # a second plan would have other timings

    monkeypatch.setattr(training, "plan", once)
    form = {"place": "prepared", "minutes": "0.5", "memory_bytes": "8GB", "mode": "mean"}
    answer = made.post("/training/plan", data={**form, "changes": "train.steps=4"})
    text = ended(made, answer)
    assert asked["data"] == str(prepared)
    assert {name: asked[name] for name in limits} == limits
    assert asked["mode"] == "mean"
    planned = made_by.change({"train.steps": "4"})
    reasons = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    assert dict(reasons) == {key: in_settings(why) for key, why in planned.why.items()}
    assert f"Predicted: {planned.seconds / 60:.1f} of 0.5 minutes" in text
    started = made.post(f"{answer.headers['location']}/start", data={"folder": "auto"})
    ended(made, started)
    recipe = (tmp_path / "auto/recipe.toml").read_text()
    assert recipe.startswith("# Planned by voxlate from")
    assert to_dict(read(str(tmp_path / "auto/recipe.toml"))) == to_dict(planned.recipe)
    assert (tmp_path / "auto/weights.safetensors").is_file()
    again = made.post(f"{answer.headers['location']}/start", data={"folder": "auto"})
    assert "which is there" in sentence(again)


@slow
def test_a_finished_run_is_trained_further_as_by_the_command_line(made, typed, run, tmp_path):
    theirs = shutil.copytree(run, tmp_path / "theirs")
    typed("train theirs --steps +2 --device cpu").done()
    form = {"place": "run", "steps": "2"}
    ended(made, made.post("/training/further", data=form))
    assert same_weights(run, theirs)
    both = made.post("/training/further", data=form | {"minutes": "1"})
    assert "expected steps or minutes, found both" in sentence(both)


@slow
def test_a_run_is_calibrated_and_compared_as_by_the_command_line(
    made, typed, run, small_head, tmp_path
):
    for number in range(3):
        small_head(tmp_path / "others" / f"new{number}", 100 + number)
    shutil.copytree(run, tmp_path / "second")
    form = {"place": "run", "cohort": "others", "split": ""}
    text = ended(made, made.post("/training/calibrate", data=form))
    answer = typed("calibrate second others --device cpu")
    told = answer.out[: answer.out.rindex("\n", 0, answer.out.index(". Next:"))].strip()
    shown = re.search(r'<pre id="calibration">(.*?)</pre>', text, re.DOTALL)[1]
    assert shown.split() == told.split()
    places = {"runs": ["run", "second"], "cohort": "others", "split": ""}
    answer = made.post("/training/compare", data=places)
    text = ended(made, answer)
    assert "<th scope=\"col\">run</th><th scope=\"col\">second</th>" in text  # fmt: skip
    report = made.get(f"/jobs/{answer.headers['location'].rpartition('/')[2]}/report.html")
    assert report.status_code == 200
    assert str(tmp_path) not in report.text + text


def test_what_is_no_recipe_number_or_choice_is_refused(made, prepared, tiny, tmp_path):
    tables = {**to_dict(read(str(tiny))), "net": {"kind": "evil:Net"}}
    (tmp_path / "evil.toml").write_text(tomli_w.dumps(tables))
    recipe = {"place": "prepared", "recipe": "tiny.toml", "folder": "new"}
    for form, changed, why in (
        ("recipe", recipe | {"recipe": "/etc/passwd"}, "found nothing there"),
        ("recipe", recipe | {"folder": "prepared"}, "which is there"),
        ("recipe", recipe | {"place": "cohort"}, "expected one with a prepared cohort"),
        ("plan", {"place": "prepared", "minutes": "-1"}, "minutes: expected at least 0, found -1"),
        ("survey", {"place": "cohort", "preset": "/etc/passwd"}, "preset: expected 'bids'"),
        ("survey", {"place": "cohort", "manifest": "other.csv"}, "found 'manifest'"),
        ("further", {"place": "prepared"}, "expected one with a run"),
    ):
        answer = made.post(f"/training/{form}", data=changed)
        assert answer.status_code == 400, answer.text
        assert why in sentence(answer)
    assert made.jobs.all() == []
    evil = made.post("/training/recipe", data=recipe | {"recipe": "evil.toml"})
    assert "found one that needs the code of evil:Net" in ended(made, evil, "failed")
    assert not (tmp_path / "new/recipe.toml").exists()


def test_the_styles_of_a_chart_become_attributes():
    chart = Markup(
        '<path id="line2d_1" style="fill: none; stroke: var(--c1)"/><text style="">a&lt;b'
    )
    plain = '<path fill="none" stroke="var(--c1)"/><text>a&lt;b'
    assert without_styles(chart) == Markup(plain)


def test_runs_are_found_below_the_root_but_not_inside_of_links(run, tmp_path):
    shutil.copytree(run, tmp_path / "a/b" / "deep")
    (tmp_path / "again").symlink_to(run)
    (run / "weights.safetensors").rename(run / "other.safetensors")
    assert find_runs(tmp_path) == {"a/b/deep": tmp_path / "a/b" / "deep"}
    assert find_runs(None) == {}


@slow
def test_processes_prepare_with_workers_and_stop_save_and_resume_a_training_with_the_same_weights(
    page, typed, cohort, prepared, tiny, tmp_path
):
    made = page(root=tmp_path, start=start_process)
    survey = made.post("/training/survey", data={"place": "cohort"})
    ended(made, survey, seconds=300)
    again = made.post(f"{survey.headers['location']}/prepare", data={"folder": "ours"})
    ended(made, again, seconds=300)
    assert len(read_json(tmp_path / "ours/cohort.json")["cases"]) == 6
    changes = "train.steps=1500\ntrain.validate_every=1500"
    form = {"place": "prepared", "recipe": "tiny.toml", "folder": "new", "changes": changes}
    address = made.post("/training/recipe", data=form).headers["location"]
    name = address.rpartition("/")[2]
    until(lambda: getattr(made.jobs.progress(name), "done", 0) >= 5, 300)
    made.post(f"{address}/stop")
    until((tmp_path / "new/state.pt").is_file, 300)
    assert not (tmp_path / "new/weights.safetensors").exists()
    resumed = made.post(f"{address}/again")
    ended(made, resumed, seconds=500)
    options = changes.replace("train", "--set train")
    typed(f"train tiny.toml --data prepared --out theirs {options}").done()
    assert same_weights(tmp_path / "new", tmp_path / "theirs")
