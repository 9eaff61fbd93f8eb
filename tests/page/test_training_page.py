"""Training from the page: folders, what a cohort holds, plans, trainings, calibrations and comparisons."""

import html
import json
import re
import shutil
import time
from pathlib import Path

import pytest
import tomli_w
from markupsafe import Markup
from paging import Here

from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.page.facts import without_styles
from voxlate.page.folders import find_runs, list_folder, new_folder
from voxlate.page.words import in_settings
from voxlate.page.workers import start_process
from voxlate.training.recipe import read, to_dict


def ended(made, answer, state: str = "done", seconds: float = 60) -> str:
    """The page of the job that a form began, once it has ended in this state."""
    assert answer.status_code == 303, answer.text
    address = answer.headers["location"]
    over = time.monotonic() + seconds
    while not made.jobs.read(address.rpartition("/")[2]).has_ended:
        assert time.monotonic() < over, made.client.get(address).text
        time.sleep(0.05)
    job = made.jobs.read(address.rpartition("/")[2])
    assert job.state == state, job.why
    answer = made.client.get(address)
    assert answer.status_code == 200, answer.text
    return html.unescape(answer.text)


def sentence(answer) -> str:
    """The sentence of a refusal."""
    found = re.search(r'role="alert">(.*?)</p>', answer.text, re.DOTALL)
    assert found is not None, answer.text
    return html.unescape(found[1])


def test_without_a_root_the_page_says_that_whoever_starts_the_server_chooses_one(page):
    made = page()
    answer = made.client.post("/training/survey", data={"place": "."})
    assert answer.status_code == 400


def test_folders_are_listed_with_what_they_hold(page, run, cohort, tmp_path):
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "out").symlink_to("/usr")
    made = page(root=tmp_path)
    text = made.client.get("/training").text
    assert '<a href="/training?place=cohort">cohort</a>' in text
    assert '<a href="/training/prepared?place=prepared">prepared</a>' in text
    assert '<a href="/training/runs?place=run">run</a>' in text
    assert str(tmp_path) not in text
    inner = made.client.get("/training", params={"place": "cohort"}).text
    assert "place=cohort/case0" in inner


def test_no_place_outside_of_the_root_is_listed_surveyed_or_trained(page, cohort, tmp_path):
    (tmp_path / "out").symlink_to("/usr")
    client = (made := page(root=tmp_path)).client
    for place in ("..", "../..", "/etc", "out", "cohort/../..", "x" * 300, "a\0b"):
        answers = [
            client.get(f"/training{part}", params={"place": place})
            for part in ("", "/prepared", "/runs")
        ]
        answers += [
            client.post(f"/training/{form}", data={"place": place, "cohort": place})
            for form in ("survey", "plan", "further", "calibrate")
        ]
        answers += [client.post("/training/compare", data={"runs": place, "cohort": "cohort"})]
        for answer in answers:
            assert answer.status_code == 400, place
            assert "folder: expected" in sentence(answer)
    assert made.jobs.all() == []


def test_a_folder_that_cannot_be_read_is_refused_with_one_sentence(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(BadInput, match="expected one that can be read, found 'Permission denied'"):
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
        with pytest.raises(BadInput, match=why):
            new_folder(root, text, apart_from=cohort)


def test_the_table_of_a_cohort_is_that_of_the_dry_run(page, voxlate, cohort, tmp_path):
    (cohort / "case0/notes.txt").write_text("no scan")
    (cohort / "case1/localizer.nii.gz").write_bytes((cohort / "case1/t1.nii.gz").read_bytes())
    (cohort / "case2/t2.nii.gz").write_bytes(b"damaged")
    answer = voxlate("prepare", cohort, "--dry-run", "--json")
    told = json.loads(answer.out)
    made = page(root=tmp_path, start=Here)
    text = ended(made, made.client.post("/training/survey", data={"place": "cohort"}))
    files = re.search(r'<table id="files">(.*?)</table>', text, re.DOTALL)
    shown = [re.findall(r"<td>(.*?)</td>", row) for row in files[1].split("<tr>")[2:]]
    expected = [
        [one["case"], one["name"], str(Path(one["path"]).relative_to(cohort)), one["grid"], one["unit"]]
        for one in told["files"]
    ]  # fmt: skip
    assert len(expected) >= 12
    assert shown == expected
    listed = re.search(r'<ul id="left-out">(.*?)</ul>', text, re.DOTALL)[1]
    sentences = re.findall(r"<li[^>]*>(.*?)</li>", listed)
    told_of = [*told["left_out"], *told["unread"], *told["problems"]]
    assert len(told_of) >= 1
    assert sentences == [one.replace(str(tmp_path), "ROOT") for one in told_of]
    for name, counts in told["rows"].items():
        row = "".join(f"<td>{counts[key]}</td>" for key in ("all", "train", "val", "test"))
        assert f'<th scope="row">{name}</th>{row}' in text
    assert str(tmp_path) not in text


def test_a_link_that_leads_out_of_the_root_is_not_read(page, cohort, tmp_path):
    root = tmp_path / "root"
    shutil.move(cohort, root / "cohort")
    outside = tmp_path / "outside"
    shutil.copytree(root / "cohort/case0", outside)
    (root / "cohort/case0" / "t1.nii.gz").unlink()
    (root / "cohort/case0" / "t1.nii.gz").symlink_to(outside / "t1.nii.gz")
    made = page(root=root.resolve(), start=Here)
    text = ended(made, made.client.post("/training/survey", data={"place": "cohort"}), "failed")
    assert "cohort/case0/t1.nii.gz: expected a link to a place below the root folder" in text
    assert str(tmp_path) not in text


def test_a_cohort_is_prepared_as_by_the_command_line(page, voxlate, cohort, tmp_path):
    made = page(root=tmp_path, start=Here)
    form = {"place": "cohort", "modalities": "t1, t2"}
    answer = made.client.post("/training/survey", data=form)
    ended(made, answer)
    address = answer.headers["location"]
    inside = made.client.post(f"{address}/prepare", data={"folder": "cohort/new"})
    assert "outside of the cohort" in sentence(inside)
    ended(made, made.client.post(f"{address}/prepare", data={"folder": "ours"}))
    options = ("--modality", "t1", "--modality", "t2")
    assert voxlate("prepare", cohort, "--out", tmp_path / "theirs", *options).code == 0
    ours, theirs = (read_json(tmp_path / name / "cohort.json") for name in ("ours", "theirs"))
    assert ours == theirs
    text = made.client.get("/training/prepared", params={"place": "ours"}).text
    assert '<th scope="row">patients</th><td>6</td>' in text
    distances = sum(len(entry["misaligned"]) for entry in ours["cases"])
    assert distances >= 1
    assert text.count("<tr>") >= distances
    assert str(tmp_path) not in text


def test_a_training_from_the_page_has_the_weights_of_voxlate_train(
    page, voxlate, prepared, tiny, tmp_path
):
    made = page(root=tmp_path, start=Here)
    form = {"place": "prepared", "recipe": "tiny.toml", "folder": "new"}
    form["changes"] = "train.steps=4\ntrain.seed=7"
    text = ended(made, made.client.post("/training/recipe", data=form))
    options = ("--set", "train.steps=4", "--set", "train.seed=7", "--device", "cpu")
    assert (
        voxlate("train", tiny, "--data", prepared, "--out", tmp_path / "theirs", *options).code == 0
    )
    ours = (tmp_path / "new/weights.safetensors").read_bytes()
    theirs = (tmp_path / "theirs/weights.safetensors").read_bytes()
    assert _tensors(ours) == _tensors(theirs)
    assert '<svg class="chart"' in text
    assert " style=" not in text
    name = re.search(r"name=(final_\d+)", text)[1]
    picture = made.client.get("/training/picture", params={"place": "new", "name": name})
    assert picture.content == (tmp_path / "new/validation" / f"{name}.png").read_bytes()
    other = made.client.get("/training/picture", params={"place": "new", "name": "../../tiny"})
    assert other.status_code == 400
    assert str(tmp_path) not in text
    assert "<li>new</li>" in made.client.get("/").text  # among the models of the synthesis page


def _tensors(content: bytes) -> bytes:
    """The tensors of a safetensors file, without its header, which states seconds."""
    return content[8 + int.from_bytes(content[:8], "little") :]


@pytest.mark.slow
def test_a_plan_is_that_of_plan_training_and_its_training_keeps_the_recipe(
    page, monkeypatch, prepared, tmp_path
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
    made = page(root=tmp_path, start=Here)
    form = {"place": "prepared", "minutes": "0.5", "memory_bytes": "8GB", "mode": "mean"}
    answer = made.client.post("/training/plan", data={**form, "changes": "train.steps=4"})
    text = ended(made, answer)
    assert asked["data"] == str(prepared)
    assert {name: asked[name] for name in limits} == limits
    assert asked["mode"] == "mean"
    planned = made_by.change({"train.steps": "4"})
    reasons = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    assert dict(reasons) == {key: in_settings(why) for key, why in planned.why.items()}
    assert f"Predicted: {planned.seconds / 60:.1f} of 0.5 minutes" in text
    started = made.client.post(f"{answer.headers['location']}/start", data={"folder": "auto"})
    ended(made, started)
    recipe = (tmp_path / "auto/recipe.toml").read_text()
    assert recipe.startswith("# Planned by voxlate from")
    assert to_dict(read(str(tmp_path / "auto/recipe.toml"))) == to_dict(planned.recipe)
    assert (tmp_path / "auto/weights.safetensors").is_file()
    again = made.client.post(f"{answer.headers['location']}/start", data={"folder": "auto"})
    assert "which is there" in sentence(again)


@pytest.mark.slow
def test_a_finished_run_is_trained_further_as_by_the_command_line(page, voxlate, run, tmp_path):
    theirs = shutil.copytree(run, tmp_path / "theirs")
    assert voxlate("train", theirs, "--steps", "+2", "--device", "cpu").code == 0
    made = page(root=tmp_path, start=Here)
    ended(made, made.client.post("/training/further", data={"place": "run", "steps": "2"}))
    ours = (run / "weights.safetensors").read_bytes()
    assert _tensors(ours) == _tensors((theirs / "weights.safetensors").read_bytes())
    both = made.client.post(
        "/training/further", data={"place": "run", "steps": "2", "minutes": "1"}
    )
    assert "expected steps or minutes, found both" in sentence(both)


@pytest.mark.slow
def test_a_run_is_calibrated_and_compared_as_by_the_command_line(
    page, voxlate, run, small_head, tmp_path
):
    for number in range(3):
        small_head(tmp_path / "others" / f"new{number}", 100 + number)
    shutil.copytree(run, tmp_path / "second")
    made = page(root=tmp_path, start=Here)
    form = {"place": "run", "cohort": "others", "split": ""}
    text = ended(made, made.client.post("/training/calibrate", data=form))
    answer = voxlate("calibrate", tmp_path / "second", tmp_path / "others", "--device", "cpu")
    told = answer.out[: answer.out.rindex("\n", 0, answer.out.index(". Next:"))].strip()
    shown = re.search(r'<pre id="calibration">(.*?)</pre>', text, re.DOTALL)[1]
    assert shown.split() == told.split()
    places = {"runs": ["run", "second"], "cohort": "others", "split": ""}
    answer = made.client.post("/training/compare", data=places)
    text = ended(made, answer)
    assert "<th scope=\"col\">run</th><th scope=\"col\">second</th>" in text  # fmt: skip
    report = made.client.get(f"/jobs/{answer.headers['location'].rpartition('/')[2]}/report.html")
    assert report.status_code == 200
    assert str(tmp_path) not in report.text + text


def test_what_is_no_recipe_number_or_choice_is_refused(page, prepared, tiny, tmp_path):
    code = read(str(tiny))
    tables = {**to_dict(code), "net": {"kind": "evil:Net"}}
    (tmp_path / "evil.toml").write_text(tomli_w.dumps(tables))
    made = page(root=tmp_path, start=Here)
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
        answer = made.client.post(f"/training/{form}", data=changed)
        assert answer.status_code == 400, answer.text
        assert why in sentence(answer)
    assert made.jobs.all() == []
    text = ended(
        made, made.client.post("/training/recipe", data=recipe | {"recipe": "evil.toml"}), "failed"
    )
    assert "found one that needs the code of evil:Net" in text
    assert not (tmp_path / "new/recipe.toml").exists()


def test_the_styles_of_a_chart_become_attributes():
    chart = Markup(
        '<path id="line2d_1" style="fill: none; stroke: var(--c1)"/><text style="">a&lt;b'
    )
    plain = '<path fill="none" stroke="var(--c1)"/><text>a&lt;b'
    assert without_styles(chart) == Markup(plain)


def test_runs_are_found_below_the_root_but_not_inside_of_links(run, tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    shutil.copytree(run, tmp_path / "a/b" / "deep")
    (tmp_path / "again").symlink_to(run)
    (run / "weights.safetensors").rename(run / "other.safetensors")
    assert find_runs(tmp_path) == {"a/b/deep": tmp_path / "a/b" / "deep"}
    assert find_runs(None) == {}


@pytest.mark.slow
def test_a_stopped_training_saves_resumes_and_ends_with_the_same_weights(
    page, voxlate, prepared, tiny, tmp_path
):
    made = page(root=tmp_path, start=start_process)
    changes = "train.steps=1500\ntrain.validate_every=1500"
    form = {"place": "prepared", "recipe": "tiny.toml", "folder": "new", "changes": changes}
    address = made.client.post("/training/recipe", data=form).headers["location"]
    name = address.rpartition("/")[2]
    _wait_for(lambda: (made.jobs.progress(name) or _NONE).done >= 5)
    made.client.post(f"{address}/stop")
    _wait_for(lambda: (tmp_path / "new/state.pt").is_file())
    assert not (tmp_path / "new/weights.safetensors").exists()
    resumed = made.client.post(f"{address}/again")
    ended(made, resumed, seconds=500)
    options = [part for line in changes.split() for part in ("--set", line)]
    theirs = tmp_path / "theirs"
    assert voxlate("train", tiny, "--data", prepared, "--out", theirs, *options).code == 0
    ours = (tmp_path / "new/weights.safetensors").read_bytes()
    assert _tensors(ours) == _tensors((theirs / "weights.safetensors").read_bytes())


class _NONE:
    done = 0


def _wait_for(holds, seconds: float = 300) -> None:
    over = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < over
        time.sleep(0.05)


@pytest.mark.slow
def test_a_cohort_is_prepared_by_workers_of_a_process_of_its_own(page, cohort, tmp_path):
    made = page(root=tmp_path, start=start_process)
    answer = made.client.post("/training/survey", data={"place": "cohort"})
    ended(made, answer, seconds=300)
    again = made.client.post(f"{answer.headers['location']}/prepare", data={"folder": "ours"})
    ended(made, again, seconds=300)
    assert len(read_json(tmp_path / "ours/cohort.json")["cases"]) == 6
