"""Wrong options: every one is refused in one sentence, which is the same in Python and on the command line."""

from dataclasses import MISSING, fields
from typing import Any, Literal, get_args, get_origin

import nibabel as nib
import numpy as np

import voxlate as package
from refusals import refuses
from rows import every_row
from voxlate.base.checked import checked
from voxlate.base.option import (
    field_types,
    flag_of,
    option_of,
    text_type,
    without_notes,
)
from voxlate.synthesis.inputs import by_name

LINES = {  # what a command needs beside its options
    "adapt": "RUN --data DATA --out OUT",
    "calibrate": "RUN COHORT",
    "check": "RUN COHORT",
    "compare": "OUT",
    "evaluate": "OUT --truth COHORT",
    "export": "OUT --dicom TO",
    "import": "xmodality WEIGHTS --out OUT",
    "listen": "RUN --out OUT --allow A@b:1 --to A@b:1",
    "phantom": "--out OUT",
    "plan": "DATA",
    "prepare": "COHORT --out OUT",
    "serve": "RUN",
    "synth": "RUN COHORT --out OUT",
    "train": "auto --data DATA --out OUT",
}
TABLES = {name: getattr(package, f"{name.title()}Options") for name in LINES}
OBJECTS: tuple[Any, ...] = (object(), b"bytes", 3 + 4j, {"a": object()}, [object()])


def needed_by(table):
    """Values of the options that have no default."""
    return {one.name: ["A@b:1"] for one in fields(table) if one.default is MISSING} | (
        {"to": "A@b:1"} if table is TABLES["listen"] else {}
    )


def wrong_texts(hint, option):
    """Texts that an option refuses: no number, a number out of its range, no choice of its list."""
    kind = text_type(hint)
    if kind in (int, float):
        yield "many"
        yield f"{option.most + 1:.15g}"
        yield f"{option.least - 1:.15g}"
    if get_origin(kind) is Literal:
        yield "none_of_these"


def options_on_command_line():
    """Each command and option with each text that it refuses."""
    rows = []
    for command, table in TABLES.items():
        for name, hint in field_types(table).items():
            option = option_of(hint)
            if option is not None:
                rows += [(command, name, text) for text in wrong_texts(hint, option)]
    return rows


@every_row("command, name, text", options_on_command_line())
def test_python_and_the_command_line_refuse_the_same_option_in_the_same_sentence(
    command, name, text, voxlate
):
    table = TABLES[command]
    hint = field_types(table)[name]
    flag = flag_of(name)
    answer = voxlate(command, *LINES[command].split(), flag, text)
    number = text_type(hint) in (int, float) and text != "many"
    with refuses() as error:
        checked(table, {name: text_type(hint)(float(text)) if number else text})
    sentence = str(error.value)
    assert sentence.startswith(f"{flag}: expected ")
    assert answer.sentence == f"voxlate: {sentence}\n"


def test_every_default_is_a_value_that_its_option_takes():
    for table in TABLES.values():
        for field in fields(table):
            name, default = field.name, field.default
            if default is not MISSING and default is not None:
                assert checked(table, {**needed_by(table), name: default})[name] == default


@every_row(
    "table, name",
    [(table, name) for table in TABLES.values() for name in field_types(table)],
)
def test_every_option_refuses_objects_of_another_type_in_one_sentence(table, name):
    hint, label = field_types(table)[name], name.replace("_", "[-_]")

    def refusal(wrong):
        with refuses(rf"^(--)?{label}: expected ") as error:
            checked(table, {**needed_by(table), name: wrong})
        return str(error.value)

    for wrong in OBJECTS:
        said = refusal(wrong)
        assert "\n" not in said
        assert f"({type(wrong).__name__})" in said
    refusal("")
    members = get_args(without_notes(hint)) or (without_notes(hint),)
    swapped: list[Any] = [True, "0"] if {int, float} & {*members} else []
    swapped += [1, "true"] if bool in members else []
    for wrong in swapped:
        if type(wrong) not in members:
            refusal(wrong)
    kind = text_type(hint)
    if option_of(hint) is not None and get_origin(kind) is tuple:
        with refuses(f"expected {len(get_args(kind))} numbers"):
            checked(table, {name: ("a",)}, texts=True)


LEANING = np.eye(4)
LEANING[3, 0] = 0.5  # its last row is not 0 0 0 1
PAIRS = [  # calls with one option without another, or not with it
    ("train", "RUN", {"minutes": 5, "steps": "+2"}),
    ("train", "tiny PREPARED NEW", {"target": "ct"}),
    ("train", "tiny PREPARED NEW", {"minutes": 5}),
    ("train", "tiny PREPARED NEW", {"steps": "+5"}),
    ("train", "RUN", {"fold": 1}),
    ("train", "auto PREPARED NEW", {"minutes": "+5"}),
    ("prepare", "COHORT NEW", {"address": "auto"}),
    ("evaluate", "OUT COHORT", {"noise": "shared"}),
    ("evaluate", "OUT COHORT", {"missing": "all"}),
    ("synthesise", "RUN COHORT NEW", {"store": True}),
    ("synthesise", "RUN COHORT NEW", {"steps": 8}),  # of a regression, which draws no noise
    ("import_weights", "kl-f4 WEIGHTS NEW", {"set": {"train.steps": 3}}),
    ("serve", "RUN", {"host": "0.0.0.0"}),
    ("calibrate", "RUN COHORT", {"out": "CAL"}),
]


@every_row("function, words, options", PAIRS)
def test_options_that_exclude_or_need_each_other_are_refused(
    function, words, options, run, prepared, cohort, tiny, tmp_path
):
    places = {"RUN": run, "tiny": tiny, "COHORT": cohort, "PREPARED": prepared}
    places |= {word: tmp_path / word for word in ("NEW", "OUT", "WEIGHTS")}
    with refuses("expected"):
        getattr(package, function)(*(places.get(word, word) for word in words.split()), **options)
    assert not places["NEW"].exists()


@every_row(
    "call, said",
    [
        (
            lambda path: package.synthesise("run", (np.zeros((9, 9, 9)), np.eye(4)), path),
            "found (ndarray of the shape (9, 9, 9), ndarray of the shape (4, 4)). Change it.",
        ),
        (lambda path: package.load(path, device="gpu9"), "device: expected auto, cpu, cuda,"),
        (lambda path: package.synthesise(path, path, path, set="x"), "set: expected KEY=VALUE"),
        (
            lambda path: package.synthesise(path, path, path, pattern="{foo}"),
            "pattern: '{foo}': expected {patient}, {case}, {modality}, {split}, {slice} or {time}, found 'foo'",
        ),
        (lambda path: package.compare(3), "folders: expected "),
        (lambda path: package.prepare(path, path, path), "options: expected PrepareOptions"),
        (
            lambda path: package.evaluate(path, path, run=path, cases=["a"]),
            "cases: expected no cases with a run",
        ),
        (
            lambda path: package.listen(path, path, to="A@b:1"),
            "allow: expected a value, found none",
        ),
    ],
)
def test_the_error_names_the_expected_and_the_found_value(call, said, tmp_path):
    with refuses() as error:
        call(tmp_path)
    assert said in str(error.value)


def test_options_are_an_object_or_names_with_numbers_of_numpy_and_lists_for_tuples(
    cohort, tmp_path
):
    made = package.prepare(
        cohort,
        tmp_path / "out",
        package.PrepareOptions(audit=False, workers=1),
        modalities=["t1"],
        progress=np.bool_(False),
        spacing_mm=np.array([3.0, 2.0, 2.0]),
        seed=np.int64(1),
    )
    assert made.modalities == ("t1",)
    assert len(made.cases) == 6


def test_a_model_of_one_source_takes_a_scan_without_its_name(run, cohort, monkeypatch):
    model, path = package.load(run), cohort / "case0" / "t1.nii.gz"
    image = nib.load(path)
    named = model.synthesise({"t1": path}).volumes["t2"].data
    for scan in (path, str(path), image, (image.get_fdata(), image.affine)):
        assert np.array_equal(model.synthesise(scan).volumes["t2"].data, named)
    image.set_qform(np.diag([-1, 1, 1, 1]) @ image.affine, 1)
    (said,) = [one for one in model.check(image).messages if one.code == "guess"]
    assert said.grade == "caution"
    monkeypatch.setenv("VOXLATE_MAX_VOLUME", "1kB")
    with refuses("--max-volume"):
        model.check(path)


ZEROS = np.zeros((2, 2, 2))


@every_row(
    "scan, said",
    [
        (3, "t1: expected a path, a Volume, a nibabel image, or a pair"),
        ("gone.nii.gz", "gone.nii.gz"),
        ((np.zeros((2, 2)), np.eye(4)), "found the shape (2, 2)"),
        ((ZEROS, np.eye(3)), "an affine [4, 4]"),
        (nib.Nifti1Image(ZEROS, LEANING), "expected an affine"),
        ((ZEROS, "RAS"), "expected numbers"),
        ((np.ma.masked_less(ZEROS, 1), np.eye(4)), "masked voxels"),
        ((np.zeros((2, 2, 2), complex), np.eye(4)), "complex128"),
        (ZEROS, "t1: expected a path, a Volume, a nibabel image, or a pair"),
        ((np.full((2, 2, 2), "1"), np.eye(4)), "expected an array [x, y, z] of real numbers"),
        ({"t9": "scan.nii.gz"}, "found 't9'"),
        (
            package.Volume(np.zeros((2, 2, 2, 2), np.float32), np.eye(4), "a.u.", "t1"),
            "(2, 2, 2, 2)",
        ),
        (
            package.Volume(np.full((1, 2, 2, 2), np.inf, np.float32), np.eye(4), "HU", "t1"),
            "not finite",
        ),
    ],
)
def test_an_input_that_is_not_a_scan_is_refused_in_one_sentence(run, scan, said):
    with refuses() as error:
        package.load(run).synthesise(scan)
    assert said in str(error.value)
    assert str(error.value).count("expected") == 1


@every_row(
    "function, old, new",
    [
        ("train", "changes", "set"),
        ("train", "start", "init"),
        ("plan", "memory_bytes", "memory"),
        ("adapt", "share", "replay_share"),
        ("evaluate", "synth", "set"),
        ("evaluate", "range", "value_range"),
        ("prepare", "modality", "modalities"),
    ],
)
def test_an_old_name_of_an_option_is_refused_with_the_one_of_today(function, old, new):
    with refuses(rf"^{old}: expected .*\b{new}\b"):
        getattr(package, function)(**{old: 1})


def test_a_size_in_python_is_a_text_as_on_the_command_line_or_a_number_of_bytes():
    sizes = [
        checked(TABLES["plan"], {"memory": size})["memory"] for size in ("8GB", 2**33, 2.0**33)
    ]
    assert sizes == [2**33] * 3


CALLED = [
    ({"seed": 2**70}, None),
    ({"seed": True}, None),
    ({"sead": 1}, "'seed'"),
    ({"anyways": True}, "'anyway'"),
    ({"overlop": 0.2}, "'overlap'"),
]


@every_row("given, near", CALLED)
def test_wrong_keywords_are_refused_by_those_of_the_function(run, given, near, tmp_path):
    (name,) = given
    model = package.load(run)
    calls = [lambda: model.synthesise("t1.nii.gz", **given)]
    if name != "overlop":  # the function has a key of the recipe in `set`
        calls.append(lambda: package.synthesise(model, "t1.nii.gz", tmp_path, **given))
    for call in calls:
        with refuses(near) as error:
            call()
        assert error.value.parts["where"].lstrip("-") == name


def test_scans_that_are_all_declared_missing_are_one_sentence(run, cohort):
    path = cohort / "case0/t1.nii.gz"
    image = nib.load(path)
    for scan in (path, (image.get_fdata(), image.affine)):
        with refuses():
            package.check(run, {"t1": scan}, missing="t1", progress=False)


def test_a_model_of_several_sources_asks_for_their_names():
    with refuses("by modality for a model of t1, flair, found one"):
        by_name("scan.nii.gz", ["t1", "flair"])


def test_a_value_of_the_command_line_is_read_as_there(run, cohort, tmp_path):
    tables = {"exclude": ["case[1-5]"], "slices": {"kind": "tiled"}}
    images = []
    for number, options in enumerate(({"exclude": "case[1-5]", "slices": "tiled"}, tables)):
        out = tmp_path / f"{number}"
        assert package.synthesise(run, cohort, out, **options).cases == ("case0",)
        images.append(nib.load(out / "case0" / "t2.nii.gz").get_fdata())
    assert np.array_equal(*images)
