"""Wrong options: every one is refused in one sentence, which is the same in Python and on the command line."""

import inspect
from dataclasses import replace
from typing import Any, Literal, get_origin

import nibabel as nib
import numpy as np

import voxlate as package
from refusals import refuses
from rows import every_row
from voxlate.base.config import check_options
from voxlate.base.option import flag_of, option_in, table_of, text_type
from voxlate.commands.api.entry import commands

LINES = {  # what a command needs beside its options
    "adapt": "RUN --data DATA --out OUT",
    "calibrate": "RUN COHORT",
    "check": "RUN COHORT",
    "compare": "OUT",
    "evaluate": "OUT --truth COHORT",
    "export": "OUT --dicom TO",
    "import": "tof_to_cta_adm WEIGHTS --out OUT",
    "listen": "RUN --out OUT --allow A@b:1 --to A@b:1",
    "phantom": "--out OUT",
    "plan": "DATA",
    "prepare": "COHORT --out OUT",
    "serve": "RUN",
    "synth": "RUN COHORT --out OUT",
    "train": "auto --data DATA --out OUT",
}
COMMANDS = commands(LINES)
OPTIONS = [
    (command, name)
    for command, one in COMMANDS.items()
    for name, parameter in one.given.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
]
OBJECTS: tuple[Any, ...] = (object(), 3 + 4j, {"a": object()}, [object()])


def refused(command, name, value):
    """The sentence with which a value of an option is refused."""
    with refuses(rf"^(--)?{name.replace('_', '[-_]')}: expected ") as error:
        check_options(table_of({name: COMMANDS[command].given[name]}), {name: value})
    assert "\n" not in str(error.value)
    return str(error.value)


def texts_refused():
    """Each command and option with each text that it refuses: no number, one out of its range, no choice of its list."""
    for command, name in OPTIONS:
        parameter = COMMANDS[command].given[name]
        kind, option = text_type(parameter.annotation), option_in(parameter)
        texts = ["none_of_these"] if kind in (int, float) or get_origin(kind) is Literal else []
        texts += [] if option.least is None else [f"{option.least - 1:.15g}"]
        texts += [] if option.most is None else [f"{option.most + 1:.15g}"]
        yield from ((command, name, text) for text in texts if option.flag == "")


@every_row(
    "command, name, text", [row for row in texts_refused() if flag_of(row[1]) not in LINES[row[0]]]
)
def test_python_and_the_command_line_refuse_the_same_text_in_the_same_sentence(
    command, name, text, voxlate
):
    answer = voxlate(command, *LINES[command].split(), flag_of(name), text)
    sentence = refused(command, name, text)
    assert answer.sentence == f"voxlate: {sentence}\n"


@every_row("command, name", OPTIONS)
def test_every_option_refuses_objects_of_another_type_in_one_sentence(command, name):
    for wrong in OBJECTS:
        assert f"({type(wrong).__name__})" in refused(command, name, wrong)
    refused(command, name, "")


@every_row("command, name", OPTIONS)
def test_every_default_is_a_value_that_its_option_takes(command, name):
    one = COMMANDS[command].given[name]
    if one.default not in (one.empty, None):
        assert check_options(table_of({name: one}), {name: one.default}) == {name: one.default}


def test_all_wrong_options_are_said_at_once(voxlate):
    answer = voxlate("synth", *LINES["synth"].split(), "--samples", "0", "--format", "bmp")
    assert answer.sentence.count("expected") == 2


LEANING = np.eye(4)
LEANING[3, 0] = 0.5  # its last row is not 0 0 0 1
PAIRS = [  # calls with one option without another, or not with it
    ("train", "tiny PREPARED NEW", {"target": "ct"}),
    ("train", "tiny PREPARED NEW", {"minutes": 5}),
    ("train", "tiny PREPARED NEW", {"steps": 5}),
    ("prepare", "COHORT NEW", {"address": "auto"}),
    ("synthesise", "RUN COHORT NEW", {"store": True}),
    ("synthesise", "RUN COHORT NEW", {"steps": 8}),  # of a regression, which draws no noise
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


def test_options_are_names_with_numbers_of_numpy_and_lists_for_tuples(cohort, tmp_path):
    made = package.prepare(
        cohort,
        tmp_path / "out",
        audit=False,
        workers=1,
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
    "scan",
    [
        3,
        "gone.nii.gz",
        ZEROS,
        (ZEROS, "RAS"),
        (np.full((2, 2, 2), "1"), np.eye(4)),
        (np.zeros((2, 2, 2), complex), np.eye(4)),
        nib.Nifti1Image(ZEROS, LEANING),
        package.Volume(np.zeros((2, 2, 2, 2), np.float32), np.eye(4), "a.u.", "t1"),
        package.Volume(np.full((1, 2, 2, 2), np.inf, np.float32), np.eye(4), "HU", "t1"),
    ],
)
def test_an_input_that_is_not_a_scan_is_refused_in_one_sentence(run, scan):
    with refuses("expected") as error:
        package.load(run).synthesise(scan)
    assert str(error.value).count("expected") == 1


def test_a_size_in_python_is_a_text_as_on_the_command_line_or_a_number_of_bytes():
    sizes = [
        check_options(COMMANDS["plan"].table, {"data": "x", "memory": size})["memory"]
        for size in ("8GB", 2**33, 2.0**33)
    ]
    assert sizes == [2**33] * 3


CALLED = [
    ({"seed": 2**70}, None),
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
        assert str(error.value).partition(": ")[0].lstrip("-") == name


def test_scans_that_are_all_declared_missing_are_one_sentence(run, cohort):
    with refuses():
        package.check(run, {"t1": cohort / "case0/t1.nii.gz"}, missing="t1", progress=False)


def test_a_model_of_several_sources_asks_for_their_names(run, cohort):
    model = package.load(run)
    data = replace(model.facts.data, source=["t1", "flair"])
    several = replace(model, facts=replace(model.facts, data=data))
    with refuses("by modality for a model of t1, flair, found one"):
        several.check(cohort / "case0/t1.nii.gz")


def test_a_value_of_the_command_line_is_read_as_there(run, cohort, tmp_path):
    texts = {"exclude": "case[1-5]", "set": {"slices.kind": "tiled"}}
    tables = {"exclude": ["case[1-5]"], "set": {"slices": {"kind": "tiled"}}}
    images = []
    for number, options in enumerate((texts, tables)):
        out = tmp_path / f"{number}"
        assert package.synthesise(run, cohort, out, **options).cases == ("case0",)
        images.append(nib.load(out / "case0" / "t2.nii.gz").get_fdata())
    assert np.array_equal(*images)
