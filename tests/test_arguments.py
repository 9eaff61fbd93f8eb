"""The commands in Python with wrong arguments: one sentence each, as on the command line."""

import inspect
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import voxlate as package
from rows import every_row
from voxlate.cli import api
from voxlate.system.errors import BadInput

COMMANDS = ("calibrate", "compare", "evaluate", "load", "plan", "prepare", "synthesise", "train")
WRONG: tuple[Any, ...] = (object(), b"bytes", 3 + 4j, {"a": object()}, [object()])


def parameters() -> list[tuple[str, str]]:
    names = [
        (command, inspect.signature(getattr(package, command)).parameters) for command in COMMANDS
    ]
    return [
        (command, one.name)
        for command, some in names
        for one in some.values()
        if one.kind is not one.VAR_KEYWORD
    ]


@every_row(("command", "name"), parameters())
def test_every_argument_of_a_wrong_type_is_refused_in_one_sentence(
    command: str, name: str, tmp_path
) -> None:
    function: Callable[..., Any] = getattr(package, command)
    needed = [
        one.name
        for one in inspect.signature(function).parameters.values()
        if one.default is one.empty
    ]
    given = {one: tmp_path / one for one in needed if one not in ("options", "folders")}
    given |= {"folders": [tmp_path]} if "folders" in needed else {}
    for wrong in WRONG:
        if command == "synthesise" and name == "inputs" and isinstance(wrong, dict):
            continue
        with pytest.raises(BadInput) as error:
            function(**{**given, name: wrong})
        said = str(error.value)
        assert said.startswith(f"{name}: expected "), said
        assert "\n" not in said
        assert f"({type(wrong).__name__})" in said


@every_row(
    ("call", "said"),
    [
        (
            lambda path: package.train("auto", path, path, minutes="two"),
            "minutes: expected a number, found 'two' (str)",
        ),
        (
            lambda path: package.train("auto", path, path, fold="1"),
            "fold: expected a whole number, found '1' (str)",
        ),
        (
            lambda path: package.train("auto", path, path, stepz=1),
            "train: expected a known argument, found 'stepz'",
        ),
        (
            lambda path: package.plan(path, minutes=float("nan")),
            "minutes: expected a number, found nan (float)",
        ),
        (
            lambda path: package.plan(path, minutes=-1),
            "minutes: expected a number above 0, found -1",
        ),
        (lambda path: package.plan(path, minuts=1), "found 'minuts'. Did you mean 'minutes'?"),
        (
            lambda path: package.prepare(path, path, modalities=3),
            "modalities: expected a list (a text), found 3 (int)",
        ),
        (
            lambda path: package.evaluate(path, path, noise="shared"),
            "--noise: expected --run with it",
        ),
        (
            lambda path: package.evaluate(path, path, run=path, cases=["a"]),
            "cases: expected no cases with a run",
        ),
        (
            lambda path: package.synthesise(path, path, path, noise="loud"),
            "noise: expected 'independent', 'shared', 'correlated' or a dict",
        ),
        (
            lambda path: package.synthesise(path, path, path, seed=-1),
            "seed: expected at least 0, found -1",
        ),
        (
            lambda path: package.prepare(path, path, resample="yes"),
            "resample: expected True or False, found 'yes'",
        ),
        (
            lambda path: package.prepare(path, path, spacing_mm=[1, 1]),
            "spacing_mm: expected 3 values, found [1, 1]",
        ),
        (lambda path: package.compare(str(path)), "folders: expected a list (a path or a text)"),
        (
            lambda path: package.load(path, answer="both"),
            "answer: expected 'mean', 'sample', found 'both' (str)",
        ),
    ],
)
def test_the_error_names_the_expected_and_the_found_value(call, said: str, tmp_path) -> None:
    with pytest.raises(BadInput) as error:
        call(tmp_path)
    assert said in str(error.value)


def test_numbers_of_numpy_and_lists_for_tuples_are_taken(cohort, tmp_path) -> None:
    spacing = np.array([3.0, 2.0, 2.0])
    made = package.prepare(
        cohort,
        tmp_path / "out",
        spacing_mm=spacing,
        seed=np.int64(1),
        audit=np.bool_(False),
        workers=1,
    )
    assert len(made.cases) == 6


def test_a_model_of_one_source_takes_a_scan_without_its_name(run, cohort) -> None:
    model, path = package.load(run), cohort / "case0" / "t1.nii.gz"
    image = nib.load(path)
    named = model.synthesise({"t1": path}).volumes["t2"].data
    for scan in (path, str(path), image, (image.get_fdata(), image.affine)):
        assert np.array_equal(model.synthesise(scan).volumes["t2"].data, named)


@every_row(
    ("scan", "said"),
    [
        (3, 'scans: expected scans by modality, as {"t1": "scan.nii.gz"}, found int'),
        (None, "found NoneType"),
        ("gone.nii.gz", "gone.nii.gz"),
        (
            (np.zeros((2, 2)), np.eye(4)),
            "expected an array [x, y, z] of finite values, found the shape (2, 2)",
        ),
        ((np.zeros((2, 2, 2)), np.eye(3)), "expected an affine of the shape (4, 4), found (3, 3)"),
        ((np.zeros((2, 2, 2)), "RAS"), "expected numbers for an array and its affine"),
        (
            (np.ma.masked_less(np.zeros((2, 2, 2)), 1), np.eye(4)),
            "t1: expected an array in which no voxel is masked",
        ),
        ((np.zeros((2, 2, 2), complex), np.eye(4)), "expected real numbers, found complex ones"),
        (([[1, 2], [3]], np.eye(4)), "expected numbers for an array and its affine"),
        ((np.zeros((2, 2, 2)),), "expected a path, a Volume, a nibabel image, or a pair"),
        ({3: "scan.nii.gz"}, "scans: expected names of modalities (t1), found 3"),
        ({"t1": 3}, "t1: expected a path, a Volume, a nibabel image"),
        ({"T1": "scan.nii.gz"}, "Did you mean 't1'?"),
    ],
)
def test_an_input_that_is_not_a_scan_is_refused_in_one_sentence(run, scan: Any, said: str) -> None:
    with pytest.raises(BadInput) as error:
        package.load(run).synthesise(scan)
    assert said in str(error.value)
    assert str(error.value).count("expected") == 1


def test_a_model_of_several_sources_asks_for_their_names() -> None:
    from voxlate.synthesis.inputs import by_name

    with pytest.raises(
        BadInput, match="expected scans by modality for a model of t1, flair, found one"
    ):
        by_name("scan.nii.gz", ["t1", "flair"])


def test_showing_a_case_that_was_not_made_is_one_sentence(tmp_path) -> None:
    with pytest.raises(BadInput, match=r"case: expected a synthesised case \(a\), found 'b'"):
        api.Syntheses(tmp_path, ("a",)).show("b")


@pytest.mark.parametrize("option", ["exclude", "exclude_file", "prefer"])
def test_synthesise_and_calibrate_choose_among_the_files_of_a_cohort(option: str) -> None:
    for command in ("prepare", "synthesise", "evaluate", "calibrate"):
        assert option in inspect.signature(getattr(package, command)).parameters


def test_synthesise_leaves_cases_out(run, cohort, tmp_path) -> None:
    made = package.synthesise(run, cohort, tmp_path / "out", exclude=["case[1-5]"])
    assert made.cases == ("case0",)


def test_a_value_of_the_command_line_is_read_as_there(run, cohort, tmp_path) -> None:
    texts = {"exclude": "case[1-5]", "slices": "tiled"}
    tables = {"exclude": ["case[1-5]"], "slices": {"kind": "tiled"}}
    for name, options in (("texts", texts), ("tables", tables)):
        package.synthesise(run, cohort, tmp_path / name, **options)
    first, second = (
        nib.load(tmp_path / name / "case0" / "t2.nii.gz").get_fdata()
        for name in ("texts", "tables")
    )
    assert np.array_equal(first, second)


def test_an_option_of_the_sampling_is_refused_where_no_noise_is_drawn(
    run, cohort, tmp_path
) -> None:
    with pytest.raises(BadInput, match=r"synth\.steps: expected no option of the sampling"):
        package.synthesise(run, cohort, tmp_path / "out", steps=8)
    assert not (tmp_path / "out").exists()
