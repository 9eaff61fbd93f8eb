"""Plans by the command line, on tiny cohorts."""

import json
import shutil
import time
import tomllib
from dataclasses import dataclass
from typing import ClassVar

import nibabel as nib
import numpy as np
import pytest

import voxlate as package
from rows import every_row
from voxlate import recipe
from voxlate.cases.prepare import prepare
from voxlate.cases.prepared import open_cohort
from voxlate.phantoms import write_cohort
from voxlate.planning import rules
from voxlate.planning.facts import check_scales, facts_of
from voxlate.planning.fit import fits
from voxlate.planning.law import relative_error
from voxlate.planning.plan import plan_training
from voxlate.planning.probe import Limits, Measured, Probe
from voxlate.planning.rules import Size
from voxlate.planning.search import BATCHES, FILLED, WIDTHS, Candidate, reason
from voxlate.starters import names
from voxlate.system.errors import BadInput
from voxlate.training.train import train

SHORT = ("--minutes", 0.2, "--set", "train.steps=4")  # planned, and cut


@pytest.fixture(scope="module")
def planned(prepared_once):
    return plan_training(prepared_once, minutes=0.2, memory_bytes=8 * 2**30)


def test_a_plan_is_an_ordinary_recipe_that_says_why(voxlate, prepared, tmp_path):
    answer = voxlate(
        "plan", prepared, "--minutes", 0.3, "--mode", "samples", "--out", tmp_path / "plan.toml"
    )
    assert answer.code == 0, answer.err
    text = (tmp_path / "plan.toml").read_text()
    made = recipe.read(str(tmp_path / "plan.toml"))
    assert (made.data.source, made.data.target, made.data.patch) == (["t1"], ["t2"], (1, 24, 20))
    assert [stage.name for stage in made.all_stages] == ["regression", "final"]
    for key in (
        "data.source",
        "data.patch",
        "data.augment",
        "intensity.t1",
        "net.width",
        "train.steps",
    ):
        assert f"# {key}: " in text
        assert f"{key}: " in answer.out
    assert "patch = [1, 24, 20]" in text  # lists stand on a line


def test_the_same_facts_give_the_same_rules_whatever_the_time(planned, prepared):
    again = plan_training(prepared, minutes=0.4, memory_bytes=8 * 2**30)
    same = ("data.source", "data.patch", "intensity.t1", "intensity.t2")
    assert {key: planned.why[key] for key in same} == {key: again.why[key] for key in same}


def test_a_plan_states_the_precision_of_this_machine_in_every_stage(planned):
    assert {stage.train.precision for stage in planned.recipe.all_stages} == {"float32"}
    reason = "train.precision: float32: a step in bfloat16 takes 2 times as long as in float32 here"
    assert f"# {reason}." in planned.text


def test_what_a_plan_predicts_lies_within_what_it_may_take(planned):
    assert 0 < planned.seconds <= 12
    assert planned.memory <= 8 * 2**30


@pytest.mark.slow
def test_train_auto_ends_within_a_tenth_of_its_minutes(voxlate, prepared, tmp_path):
    begun = time.monotonic()
    assert (
        voxlate("train", "auto", "--data", prepared, "--out", tmp_path / "run", "--minutes", 2).code
        == 0
    )
    assert 108 < time.monotonic() - begun < 132


def test_train_auto_gives_both_answers(voxlate, prepared, tmp_path, cohort):
    answer = voxlate(
        "train",
        "auto",
        "--data",
        prepared,
        "--out",
        tmp_path / "run",
        "--minutes",
        0.1,
        "--mode",
        "samples",
    )
    assert answer.code == 0, answer.err
    assert (tmp_path / "run" / "weights.regression.safetensors").exists()
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["planned"]["seconds"] < 20  # of 6, on a machine that may be busy
    assert last["took"]["seconds"] > 0
    assert "; took 0." in answer.err
    assert "# data.source: " in (tmp_path / "run" / "recipe.toml").read_text()
    made = voxlate("synth", tmp_path / "run", cohort / "case0", "--out", tmp_path / "out")
    assert made.code == 0, made.err


def test_train_auto_resumes_the_plan_that_was_begun(voxlate, prepared, tmp_path):
    options = ("train", "auto", "--data", prepared, "--out", tmp_path / "run", "--mode", "mean")
    assert voxlate(*options, *SHORT).code == 0
    before = (tmp_path / "run" / "recipe.toml").read_bytes()
    answer = voxlate(*options, "--minutes", 0.3)
    assert answer.code == 0, answer.err
    assert "is resumed as it was planned" in " ".join(answer.err.split())
    assert (tmp_path / "run" / "recipe.toml").read_bytes() == before


def test_keys_of_a_plan_are_changed_by_set(voxlate, prepared, tmp_path):
    answer = voxlate(
        "train", "auto", "--data", prepared, "--out", tmp_path / "run", "--minutes", 0.2, "--mode", "mean",
        "--set", "train.steps=2",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())["train"]["steps"] == 2
    assert "✗ WORSE THAN the best naive baseline" in answer.out, "two steps teach nothing"
    longer = f"What may help: a longer training (voxlate train {tmp_path / 'run'} --minutes +1)."
    assert longer in " ".join(answer.err.split())


@every_row(
    ("options", "words"),
    [
        (("--minutes", 0.0001), "expected time for one pass over the 24 slices"),
        (("--memory", "1MB"), "expected enough for the smallest network, found 0.00 GiB"),
        (("--memory", "much"), "expected a size such as 8GB, found 'much'"),
        (("--target", "ct"), "expected modalities of the cohort (t1, t2), found 'ct'"),
        (
            ("--source", "t1", "--target", "t1"),
            "expected each modality in one of them, found t1 in both",
        ),
        (("--out", "plan.txt"), "expected the name of a .toml file"),
    ],
)
def test_a_plan_that_cannot_be_met_is_refused_in_one_sentence(
    voxlate, prepared, tmp_path, monkeypatch, options, words
):
    monkeypatch.chdir(tmp_path)
    answer = voxlate("plan", prepared, *options)
    assert answer.code == 2
    assert words in " ".join(answer.err.split())
    assert not (tmp_path / "plan.toml").exists()


def test_a_plan_never_replaces_a_file(voxlate, prepared, tmp_path):
    (tmp_path / "plan.toml").write_text("mine")
    answer = voxlate("plan", prepared, "--out", tmp_path / "plan.toml")
    assert answer.code == 2
    assert (tmp_path / "plan.toml").read_text() == "mine"


def test_options_of_a_plan_are_refused_for_a_recipe(voxlate, prepared, tiny, tmp_path):
    answer = voxlate("train", tiny, "--data", prepared, "--out", tmp_path / "run", "--mode", "mean")
    assert answer.code == 2
    assert "--mode: expected the recipe auto" in answer.err


def test_one_patient_is_too_few(voxlate, small_head, tmp_path):
    small_head(tmp_path / "scans" / "one", 0)
    voxlate("prepare", tmp_path / "scans", "--out", tmp_path / "ready")
    answer = voxlate("plan", tmp_path / "ready", "--out", tmp_path / "plan.toml")
    assert answer.code == 2
    assert "expected two patients or more" in answer.err


def test_recipes_that_fit_a_cohort_are_separated_from_those_that_do_not(voxlate, prepared):
    found = {
        one["name"]: one for one in json.loads(voxlate("recipes", "--for", prepared, "--json").out)
    }
    assert len(found) == len(recipe.names())
    assert not found["t1_to_t2_brain"]["against"]
    assert (
        "filled in" in found["t1_to_t2_brain"]["notes"][0]
    )  # its patches are far larger than these slices
    assert found["phantom_t1_to_ct"]["against"] == "needs ct, which the cohort lacks"
    plain = voxlate("recipes", "--for", prepared).out
    assert "t1_to_t2_brain" in plain
    assert "needs ct, which the cohort lacks:" in plain


def test_the_recipes_that_fit_are_ranked_and_each_says_by_what(voxlate, prepared):
    found = json.loads(voxlate("recipes", "--for", prepared, "--json").out)
    fitting = [row for row in found if not row["against"]]
    assert found[: len(fitting)] == fitting
    first = fitting[0]
    assert f"4 of 4 training cases; every modality used; {first['steps']} steps" in first["why"]
    plain = voxlate("recipes", "--for", prepared).out
    assert f"1. {first['name']}  " in plain
    assert "Methods for pairs come first" in plain


@pytest.fixture(scope="module")
def heads_of_papers(tmp_path_factory):
    """Two phantoms in every modality of the five papers."""
    folder = tmp_path_factory.mktemp("heads")
    write_cohort(folder, cases=2, size=(96, 96, 8))
    return folder


@pytest.mark.parametrize(
    ("modalities", "first"),
    [
        ("ncct cta1 cta2 cta3 tmax", "mrdpm_small"),
        ("tof cta", "tof_to_cta_adm_small"),
        ("t2 ct", "mr_to_ct_ddpm_small"),
        ("t1 t1c t2 flair", "umm_csgm_small"),
        ("swi tof", "make_a_volume_swi_mra_small"),
    ],
)
def test_the_system_of_each_paper_is_the_first_for_its_modalities(
    tmp_path, heads_of_papers, modalities, first
):
    for name in [*modalities.split(), "seg"]:
        for file in heads_of_papers.glob(f"*/{name}.nii.gz"):
            copy = tmp_path / "scans" / file.parent.name / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    prepare(tmp_path / "scans", tmp_path / "ready")
    fitting = [fit for fit in fits(tmp_path / "ready") if not fit.against]
    assert fitting[0].name == first
    unpaired = [fit.unpaired for fit in fitting]
    assert unpaired == sorted(unpaired)
    assert any(unpaired) == any("cyclegan" in fit.name for fit in fitting)


def test_starters_that_take_a_cohort_are_listed_after_its_recipes(
    voxlate, prepared, monkeypatch, shipped_starters
):
    monkeypatch.setattr(names, "FOLDER", shipped_starters)
    found = json.loads(voxlate("recipes", "--for", prepared, "--json").out)
    starters = {row["name"]: row["against"] for row in found if row["name"].startswith("starter:")}
    assert starters["starter:head-tof-to-cta"] == "needs tof, cta, which the cohort lacks"
    assert starters["starter:brain-mr-to-mr"].startswith("its pixels are")


@pytest.fixture
def apart(tmp_path, small_head, voxlate):
    """Four training cases with t1 alone, four with ct alone, and one with both to validate on."""
    rows = ["case,patient,split,t1,ct"]
    for number in range(9):
        names = ("t1", "ct") if number == 8 else ("t1",) if number < 4 else ("ct",)
        small_head(tmp_path / "scans" / f"c{number}", number, modalities=names)
        files = (f"c{number}/{name}.nii.gz" if name in names else "" for name in ("t1", "ct"))
        rows.append(f"c{number},c{number},{'val' if number == 8 else 'train'},{','.join(files)}")
    (tmp_path / "scans" / "cases.csv").write_text("\n".join(rows) + "\n")
    assert voxlate("prepare", tmp_path / "scans", "--out", tmp_path / "apart").code == 0
    return tmp_path / "apart"


def test_scans_that_no_case_has_both_of_are_learned_without_pairs(voxlate, apart, tmp_path):
    answer = voxlate("train", "auto", "--data", apart, "--out", tmp_path / "run", *SHORT)
    assert answer.code == 0, answer.err
    assert len([*answer.err.splitlines(), *answer.out.splitlines()]) <= 20
    said = " ".join(answer.err.split())
    assert "no training case has both: unpaired" in said
    assert "without pairs: 4 training cases have t1, 4 have ct" in said
    made = voxlate(
        "synth", tmp_path / "run", tmp_path / "scans", "--split", "val", "--out", tmp_path / "out"
    )
    assert made.code == 0, made.err
    assert voxlate("evaluate", tmp_path / "out", "--truth", tmp_path / "scans").code == 0


def test_a_method_of_pairs_refuses_scans_that_lie_apart(voxlate, apart, tiny, tmp_path):
    answer = voxlate(
        "train", tiny, "--data", apart, "--out", tmp_path / "run", "--set", "data.apart=true"
    )
    assert answer.code == 2
    assert "expected data.apart = false for a method that learns from pairs" in " ".join(
        answer.err.split()
    )


def test_gaps_among_three_contrasts_make_a_completion(voxlate, tmp_path, small_head):
    for number in range(6):
        names = ("t1", "t2", "ct") if number % 2 else ("t1", "t2")
        small_head(tmp_path / "scans" / f"c{number}", number, modalities=names)
        for name in names:  # three contrasts of MR
            (tmp_path / "scans" / f"c{number}" / f"{name}.nii.gz").rename(
                tmp_path / "scans" / f"c{number}" / f"{ {'ct': 'flair'}.get(name, name) }.nii.gz"
            )
    assert voxlate("prepare", tmp_path / "scans", "--out", tmp_path / "gaps").code == 0
    answer = voxlate(
        "train", "auto", "--data", tmp_path / "gaps", "--out", tmp_path / "run", *SHORT
    )
    assert answer.code == 0, answer.err
    assert "any missing contrast is synthesised from the others" in " ".join(answer.err.split())
    made = voxlate("synth", tmp_path / "run", tmp_path / "scans", "--out", tmp_path / "out")
    assert made.code == 0, made.err


@dataclass
class Clockwork:
    """A probe on a machine whose steps cost what `step_seconds` says."""

    cohort: object
    limits: Limits
    device_name: str = "auto"
    probe_seconds: float = 0.0
    most: float = 0.0
    last: Measured | None = None
    elsewhere: None = None
    tried: ClassVar[list[Size]] = []

    @property
    def seconds(self) -> float:
        return self.limits.minutes * 60

    def again(self, tables, seconds):
        return seconds

    @property
    def has_time(self):
        return True

    def measure(self, tables, stage):
        net = tables["net"]
        size = Size(net["width"], net.get("patch", 1), tables["train"]["batch"])
        self.tried.append(size)
        memory = 2**20 * size.width / size.stem
        self.last = Measured(step_seconds(size) * (1 + stage), memory)
        return self.last if memory <= self.limits.memory_bytes else None


def step_seconds(size: Size) -> float:
    """Of a step on Clockwork's machine; four times as fast with a stem of two times the size."""
    return 2.5e-6 * (size.width / size.stem) ** 2 * size.batch


@pytest.fixture
def clockwork(monkeypatch):
    """Plans probe a machine whose speed is known; the list of sizes that they try."""
    monkeypatch.setattr("voxlate.planning.plan.Probe", Clockwork)
    monkeypatch.setattr(Clockwork, "tried", [])
    return lambda: Clockwork.tried


@pytest.fixture
def any_length(monkeypatch):
    """However long patients are seen, they are not learned by heart."""
    monkeypatch.setattr("voxlate.planning.rules.most_items", lambda *_, **__: 10**9)


@pytest.mark.parametrize(
    ("minutes", "largest"), [(0.2, 1000), (1, 1000), (2, 1000), (60, 1000), (60, 40)]
)
def test_the_network_of_least_predicted_error_is_taken_that_fits_in_memory(
    prepared, clockwork, any_length, minutes, largest
):
    made = plan_training(prepared, minutes=minutes, memory_bytes=largest * 2**20, mode="mean")
    facts = facts_of(open_cohort(prepared))
    stems = rules.stems(facts)

    def error(size: Size) -> float:
        steps = int(minutes * 60 * 0.96 / step_seconds(size))
        return relative_error(size.width, size.stem * facts.pixel_mm, size.batch, steps)

    every = [Size(width, stem, batch) for stem in stems for width in WIDTHS for batch in BATCHES]
    fitting = [size for size in every if size.width / size.stem <= largest]
    best = min(fitting, key=error)
    assert (made.tables["net"]["width"], made.tables["net"].get("patch", 1)) == (
        best.width,
        best.stem,
    )
    assert made.tables["train"]["steps"] == int(minutes * 60 * 0.96 / step_seconds(best))
    assert len(clockwork()) <= 7  # the law passes over the others
    assert f"{best} gets" in made.why["net.width"]


def test_the_two_runners_up_are_named_with_what_they_would_lose(prepared, clockwork, any_length):
    made = plan_training(prepared, minutes=2, memory_bytes=2**33, mode="mean")
    _, others = made.why["net.width"].split("others: ")
    assert others.count("steps of") == 2
    assert all(float(part.split("%")[0]) >= 0 for part in others.split(" +")[1:])


def test_a_coarser_stem_that_is_hardly_faster_is_never_taken(
    prepared, clockwork, any_length, monkeypatch
):
    monkeypatch.setattr("voxlate.planning.rules.stems", lambda _: [1, 2])
    monkeypatch.setattr("voxlate.planning.law.COARSE", 0.0)  # features of any size are equally good
    short = {"minutes": 0.05, "memory_bytes": 2**33, "mode": "mean"}
    assert plan_training(prepared, **short).tables["net"]["patch"] == 2
    slower = lambda size: 2.5e-6 * size.width**2 * size.batch / (1.4 if size.stem == 2 else 1)  # noqa: E731
    monkeypatch.setitem(globals(), "step_seconds", slower)
    assert "patch" not in plan_training(prepared, **short).tables["net"]


def test_time_beyond_what_few_patients_are_worth_is_filled_up_to_a_quarter(
    prepared, clockwork, monkeypatch
):
    for most, filled in ((10**9, True), (10, False)):
        monkeypatch.setattr("voxlate.planning.rules.most_items", lambda *_, most=most, **__: most)
        made = plan_training(prepared, minutes=0.25, memory_bytes=2**30, mode="mean")
        steps, seconds = made.tables["train"]["steps"], made.seconds
        assert steps * made.tables["train"]["batch"] <= FILLED * max(
            most, made.tables["train"]["batch"]
        )
        assert (seconds > 0.9 * 0.96 * 15) == filled


def test_few_patients_are_not_learned_by_heart(prepared, clockwork):
    made = plan_training(prepared, minutes=60, memory_bytes=8 * 2**30)
    items = 25 * 24  # passes over the 24 slices of four patients
    first = made.tables["stages"][0]["train"]
    assert first["steps"] * first["batch"] == items
    assert made.tables["train"]["steps"] * rules.BATCH == 2 * items
    assert made.tables["net"]["width"] == 128  # what time is left goes into width
    assert "overfit to 4 patients" in made.why["stages.regression.train.steps"]


def test_time_is_shared_between_the_two_answers(prepared, clockwork, any_length):
    made = plan_training(prepared, minutes=1, memory_bytes=8 * 2**30).tables
    of_first, of_second = made["stages"][0]["train"], made["train"]
    first, second = (one["steps"] * one["batch"] for one in (of_first, of_second))
    assert first / (first + 2 * second) == pytest.approx(0.55, abs=0.01)


def test_a_time_too_short_for_samples_plans_the_mean_alone_and_says_from_when_on_they_pay(
    prepared, clockwork, any_length, monkeypatch
):
    monkeypatch.setitem(globals(), "step_seconds", lambda size: 0.1)
    short = plan_training(prepared, minutes=1, memory_bytes=2**33)
    assert "stages" not in short.tables
    assert short.tables["train"]["steps"] == pytest.approx(
        576, abs=1
    )  # all of the minute, less 4 %
    minutes = int(short.why["stages"].split("--minutes ")[1].rstrip(")"))
    assert len(plan_training(prepared, minutes=minutes, memory_bytes=2**33).recipe.stages) == 1
    assert (
        len(plan_training(prepared, minutes=1, memory_bytes=2**33, mode="samples").recipe.stages)
        == 1
    )  # asked for


def rescaled(scans, cases, scale, offset, name="ct"):
    """Rewrite the CT, or another scan, of some cases as scale * CT + offset."""
    for case in cases:
        path = scans / case / f"{name}.nii.gz"
        image = nib.load(path)
        values = np.asanyarray(image.dataobj).astype(np.float32) * scale + offset
        nib.save(nib.Nifti1Image(values, image.affine), path)


@pytest.fixture
def ct_cohort(tmp_path, small_head):
    for number in range(6):
        small_head(tmp_path / "scans" / f"case{number}", number, modalities=("t1", "ct"))
    return tmp_path / "scans"


@pytest.mark.parametrize(
    ("cases", "scale", "offset", "words"),
    [
        (range(1, 4), 1, 1024, "and nothing below 24"),
        (range(6), 0.001, 0, "bodies that vary by"),
    ],
)
def test_hounsfield_units_on_several_scales_or_on_none_are_refused(
    voxlate, ct_cohort, tmp_path, cases, scale, offset, words
):
    rescaled(ct_cohort, [f"case{number}" for number in cases], scale, offset)
    assert voxlate("prepare", ct_cohort, "--out", tmp_path / "ready").code == 0
    answer = voxlate("plan", tmp_path / "ready", "--minutes", 1, "--out", tmp_path / "plan.toml")
    assert answer.code == 2
    assert "ct: expected Hounsfield units in every scan, found" in answer.err
    assert words in answer.err


def test_mr_targets_of_which_some_are_z_scored_are_refused_by_plan_and_train(
    ct_cohort, tmp_path, tiny
):
    splits = "".join(f"case{number},{'val' if number == 5 else 'train'}\n" for number in range(6))
    (ct_cohort / "cases.csv").write_text("case,split\n" + splits)
    rescaled(ct_cohort, ["case1", "case2"], 0.02, -1, name="t1")
    prepare(ct_cohort, tmp_path / "ready", audit=False, workers=1)
    expected = r"the target t1 on one scale, found 2 of 5 training cases z-scored \(case1, case2\)"
    facts = facts_of(open_cohort(tmp_path / "ready"))
    with pytest.raises(BadInput, match=expected):
        check_scales(facts, ["ct", "t1"], ["t1"])
    check_scales(facts, ["t1", "ct"], ["ct"])  # a source is mapped by its own percentiles
    words = {"data.source": '["ct"]', "data.target": '["t1"]', "train.steps": "1"}
    maps = dict.fromkeys(("intensity.ct", "intensity.t1"), '{kind = "percentile"}')
    with pytest.raises(BadInput, match=expected):
        train(recipe.read(str(tiny), {**words, **maps}), tmp_path / "ready", tmp_path / "run")


@pytest.fixture
def odd_case(ct_cohort, tmp_path):
    """A prepared cohort whose case1 has no t1, and a CT with another offset, and is for training."""
    rescaled(ct_cohort, ["case1"], 1, -1024)
    (ct_cohort / "case1" / "t1.nii.gz").unlink()
    splits = "".join(f"case{number},{'val' if number == 5 else 'train'}\n" for number in range(6))
    (ct_cohort / "cases.csv").write_text("case,split\n" + splits)
    prepare(ct_cohort, tmp_path / "ready", audit=False, workers=1)
    return tmp_path / "ready"


def test_a_case_without_the_source_does_not_stop_a_plan_for_its_scale(odd_case):
    facts = facts_of(open_cohort(odd_case))
    with pytest.raises(BadInput, match="ct: expected Hounsfield units in every scan"):
        check_scales(facts, ["ct"])
    used = facts.of_cases_with(["t1", "ct"])
    assert len(used.training) == 4
    check_scales(used, ["t1", "ct"])


def test_a_case_without_the_source_does_not_stop_a_training_for_its_floor(odd_case, tiny, tmp_path):
    words = {"data.source": '["t1"]', "data.target": '["ct"]', "train.steps": "1"}
    maps = {
        "intensity.ct": '{kind = "percentile", floor = 0}',
        "intensity.t1": '{kind = "percentile"}',
    }
    made = recipe.read(str(tiny), {**words, **maps})
    assert train(made, odd_case, tmp_path / "run", device="cpu").weights().is_file()
    other = recipe.read(
        str(tiny), {**words, **maps, "intensity.ct": '{kind = "percentile", floor = 100}'}
    )
    with pytest.raises(BadInput, match=r"case\d: expected ct to be above 100"):
        train(other, odd_case, tmp_path / "other", device="cpu")


def test_a_ct_without_its_offset_is_refused_whatever_pads_it(voxlate, ct_cohort, tmp_path):
    path = ct_cohort / "case1" / "ct.nii.gz"
    image = nib.load(path)
    values = np.asanyarray(image.dataobj) + 1024
    values[0] = -1024  # as air lies there
    nib.save(nib.Nifti1Image(values.astype(np.float32), image.affine), path)
    assert voxlate("prepare", ct_cohort, "--shares", 4, 1, 1, "--out", tmp_path / "ready").code == 0
    if "case1" not in open_cohort(tmp_path / "ready").splits["train"]:
        pytest.skip("it is held out")
    answer = voxlate("plan", tmp_path / "ready", "--minutes", 1, "--out", tmp_path / "plan.toml")
    assert answer.code == 2
    assert "as the upper quartile of case1" in " ".join(answer.err.split())


def test_cases_that_teach_nothing_decide_nothing(voxlate, tmp_path, small_head):
    """Those without a T2 have a z-scored T1, with air below 0: the plan and the weights know the others alone."""
    scans = tmp_path / "scans"
    for number in range(8):
        small_head(scans / f"case{number}", number)
    for number in range(5):
        path = scans / f"case{number}" / "t1.nii.gz"
        image = nib.load(path)
        values = (np.asanyarray(image.dataobj) - 600) / 100
        nib.save(nib.Nifti1Image(values.astype(np.float32), image.affine), path)
        (scans / f"case{number}" / "t2.nii.gz").unlink()
    rows = [f"case{k},case{k},{'val' if k == 7 else 'train'}" for k in range(8)]
    (scans / "cases.csv").write_text("\n".join(["case,patient,split", *rows]))
    assert voxlate("prepare", scans, "--out", tmp_path / "ready", "--no-audit").code == 0
    made = plan_training(
        tmp_path / "ready",
        source=("t1",),
        target=("t2",),
        minutes=0.3,
        memory_bytes=8 * 2**30,
        mode="mean",
    )
    assert made.tables["intensity"]["t1"].get("floor") == 0
    assert "of 2 patients" in made.why["data.augment"]


def test_a_plan_that_is_too_short_says_what_would_be_enough(prepared, clockwork, monkeypatch):
    monkeypatch.setitem(globals(), "step_seconds", lambda size: 0.00257 if size.batch == 2 else 1.0)
    short = plan_training(prepared, minutes=0.005, memory_bytes=2**30, mode="mean")  # 288 ms
    assert "112 steps show each slice 9.3 times: EXPECT BLUR" in short.why["minutes"]
    assert "minutes" not in plan_training(prepared, minutes=5, memory_bytes=2**30, mode="mean").why


def test_only_cases_that_teach_are_counted(voxlate, tmp_path, ct_cohort):
    for number in range(3):
        (ct_cohort / f"case{number}" / "ct.nii.gz").unlink()
    assert voxlate("prepare", ct_cohort, "--shares", 4, 1, 1, "--out", tmp_path / "ready").code == 0
    made = plan_training(tmp_path / "ready", minutes=0.2, memory_bytes=8 * 2**30)
    learned = [
        one
        for one in open_cohort(tmp_path / "ready").cases
        if one.split == "train" and "ct" in one.present
    ]
    assert len(learned) < 4
    assert f"of {len(learned)} patient" in made.why["data.augment"]


def test_reasons_of_keys_that_were_changed_are_no_longer_stated(planned):
    changed = planned.change({"net.width": "40", "train.optimiser.lr": "0.1"})
    assert changed.why["net.width"] == changed.why["train.optimiser.lr"] == "set by hand"
    assert changed.why["data.patch"] == planned.why["data.patch"]
    assert "net.width, train.optimiser.lr" in changed.why["by hand"]


def test_a_resumed_plan_says_that_set_changes_nothing(voxlate, prepared, tmp_path):
    options = (
        "train",
        "auto",
        "--data",
        prepared,
        "--out",
        tmp_path / "run",
        *SHORT,
        "--mode",
        "mean",
    )
    assert voxlate(*options).code == 0
    answer = voxlate(*options, "--set", "train.batch=2")
    assert "--set train.steps, --set train.batch change nothing" in " ".join(answer.err.split())


def test_wishes_in_python_are_checked_as_on_the_command_line(prepared):
    with pytest.raises(BadInput, match="mode: expected 'both', 'mean', 'samples', found 'man'"):
        package.plan(prepared, mode="man", minutes=1)
    with pytest.raises(BadInput, match="minutes: expected a number, found inf"):
        package.plan(prepared, minutes=float("inf"))
    assert package.plan(prepared, source="t2", target="t1", minutes=0.2).recipe.data.source == [
        "t2"
    ]


def test_a_stage_of_fewer_steps_than_the_probe_takes_is_timed_too(planned, prepared):
    tables = {**planned.tables, "train": {**planned.tables["train"], "steps": 1}}
    assert Probe(open_cohort(prepared), Limits(1, 8 * 2**30)).measure(tables, 0).seconds > 0


@pytest.mark.parametrize(("minutes", "timed"), [(20, 30), (4, 10), (1, 0)])
def test_what_is_left_of_the_probes_time_goes_into_a_second_try(
    prepared, monkeypatch, minutes, timed
):
    taken = []
    monkeypatch.setattr(Probe, "measure", lambda self, *_, steps: taken.append(steps))
    assert Probe(open_cohort(prepared), Limits(minutes, 2**33)).again({}, 1.0) == 1.0
    assert taken == (
        [timed] if timed else []
    )  # 5 % of the minutes are 60, 12 and 3 seconds, less what has passed; one step warms up


def test_a_network_that_was_not_tried_is_never_called_worse_than_the_one_taken():
    tried, untried = (
        Candidate(Size(16, 1, 2), 0.3, 78, 1.0),
        Candidate(Size(16, 2, 2), 0.1, 397, 0.85),
    )
    assert "of the networks whose step was timed" in reason([tried, untried])
    assert "-15.0%" in reason([tried, untried])
    assert "were tried" not in reason([untried, tried])
