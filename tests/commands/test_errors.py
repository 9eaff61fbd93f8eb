"""Every bad input gives one sentence that says what was expected, what was found and where; exit 2; no half file."""

import shutil
import subprocess
import sys
from unittest.mock import Mock

import nibabel as nib
import numpy as np
import pytest

from rows import every_row, slow
from scans import contents_of
from voxlate.base import files
from voxlate.commands.cli import terminal as app
from voxlate.training.run import Run

SPEAKS = ("expected", "found")


def refused(answer, *words):
    assert answer.code == 2, answer
    lines = [line for line in answer.err.splitlines() if line.startswith("voxlate: ")]
    assert len(lines) == 1, answer.err
    assert "Traceback" not in answer.err
    for word in (*SPEAKS, *words):
        assert word in lines[0], f"{word!r} is not in: {lines[0]}"


def test_a_modality_that_a_case_lacks_is_accepted_and_stated_with_and_without_its_name(
    typed, cohort
):
    (cohort / "case3" / "t2.nii.gz").unlink()
    for options in ("--out all", "--out named --modalities t1 --modalities t2"):
        answer = typed(f"prepare cohort {options}")
        assert answer.code == 0
        assert "without t2: case3" in answer.out


DEEP = "[" * 3000 + "]" * 3000
TRAIN = "train tiny.toml --data prepared --out new --set"
SYNTH = "synth run cohort --out new"
OVERSHOOTING = "method.kind=diffusion --set synth.sampler=euler_maruyama --set synth.steps=4"
LINES = [  # with the words that the refusal has besides
    f"{TRAIN} train.stepz=3 | train.stepz | Did you mean 'train.steps'",
    f"{TRAIN} train.steps=0 | train.steps | 0",
    f"{TRAIN} synth.sampler=dimm | synth.sampler | dimm",
    f"{TRAIN} method.kind=wizard | method.kind | diffusion | wizard",
    f"{TRAIN} data.patch='[1, 2]' | data.patch",
    f"{TRAIN} data.source.9=t2 | data.source",
    f"{TRAIN} train.steps | KEY=VALUE",
    f"{TRAIN} net.width=16 --init run/weights.safetensors | weights.safetensors | recipe | net.stem.weight",
    f"{TRAIN} {OVERSHOOTING} --set method.schedule.kind=linear_betas | synth.sampler | linear_betas | euler_maruyama | overshoot | Raise steps",
    "train bad.toml --data prepared --out new | TOML | line",
    "train other.toml --data prepared --out new | ct | t1, t2",  # modalities that the cohort lacks
    "train nonesuch --data prepared --out new | nonesuch | phantom_t1_to_ct",
    "train tiny.toml --data prepared --out run --set train.optimiser.lr=0.5 | another run | lr",
    "train tiny.toml --data prepared --out cohort | other files",
    f"{SYNTH} --sampler dimm | sampler | ddim | dimm",
    f"{SYNTH} --sampler dpmpp_2m --set eta=0.5 | eta | dpmpp_2m",
    f"{SYNTH} --device abacus | --device | abacus",
    f"{SYNTH} --set schedule=cosines | schedule",
    f"{SYNTH} --set rr=0.1 | rr",
    f"{SYNTH} --set steps=3 --set synth.steps=4 | steps",
    f"{SYNTH} --split valid | 'train' | 'val' | 'test'",
    f"{SYNTH} --samples 0 | --samples: expected it to be at least 1",
    f"{SYNTH} --set samples=1000000000 | samples | 10000 | 1000000000",
    f"{SYNTH} --sampler rk45 --set rtol=0 | 'rtol' | found 0 | --set rtol=VALUE",
    f"{SYNTH} --sampler predictor_corrector --set r=1 | 'r' | found 1",
    f"{SYNTH} --set synth.steps={DEEP}",
    "synth run lacking/case --out new | t1 | case",
    "prepare empty --out new | empty",
    "prepare nowhere --out new | nowhere",
    "prepare cohort --out new --manifest cases.csv | anna | train | val",
    "prepare cohort --out bad.toml/new",
    f"prepare cohort --out {'n' * 300}",
    "prepare . --manifest masks.csv --out new",
    "prepare cohort --preset deep.toml --out new",
    "phantom --cases 1 --out bad.toml",
    "recipes deep.toml",
    "recipes loop.toml | base",
    "info '[/] [bold]:x:' | [/] [bold]:x:",
]


@pytest.fixture
def here(cohort, prepared, run, tiny, tmp_path):
    """The folder in which the lines are typed."""
    (tmp_path / "bad.toml").write_text("title = [")
    (tmp_path / "loop.toml").write_text('base = "loop.toml"')
    (tmp_path / "deep.toml").write_text(f"a = {DEEP}")
    (tmp_path / "other.toml").write_text(tiny.read_text().replace("t2", "ct"))
    (tmp_path / "masks.csv").write_text("case,mask\na,t1.xyz\n")
    rows = [
        f"case{k},{'anna' if k in (0, 5) else k},{'val' if k == 5 else 'train'}" for k in range(6)
    ]
    (tmp_path / "cases.csv").write_text("\n".join(["case,patient,split", *rows]))
    (tmp_path / "empty").mkdir()
    (tmp_path / "lacking/case").mkdir(parents=True)
    shutil.copy(cohort / "case3" / "t2.nii.gz", tmp_path / "lacking/case")
    return tmp_path


@every_row("row", LINES)
def test_a_wrong_line_is_refused_with_its_words_and_leaves_all_files_as_they_were(typed, here, row):
    before = contents_of(here)
    line, *words = row.split(" | ")
    refused(typed(line), *words)
    assert contents_of(here) == before


def test_a_run_whose_weights_are_cut_short_or_missing(typed, run, cohort):
    weights = Run(run).weights()
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(typed(SYNTH), "weights.safetensors")
    weights.unlink()
    refused(typed(SYNTH), "resume")


@every_row(
    "error, words",
    [
        (OSError(5, "Input/output error"), ["system: ", "Input/output error"]),
        (PermissionError(13, "Permission denied", "/there"), ["/there: ", "Permission denied"]),
        (
            OSError("With tag (0010,0010): [Errno 5] Input/output error\nTraceback"),
            ["output error"],
        ),
        (RuntimeError("writing failed (os error 30)"), ["Read-only"]),
        (RuntimeError("writing failed (os error 28)"), ["No space"]),
    ],
)
def test_an_error_of_the_system_is_one_sentence_whatever_it_is_met_by(
    voxlate, tmp_path, monkeypatch, error, words
):
    monkeypatch.setattr("voxlate.commands.api.describe.describe_path", Mock(side_effect=error))
    refused(voxlate("info", tmp_path), *words)


def test_a_full_disk_leaves_no_half_file(typed, run, prepared, cohort, tiny, tmp_path, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(files.os, "fsync", Mock(side_effect=full))
    monkeypatch.setattr("voxlate.scans.prepare.cores", lambda: 1)  # in this process
    for line in (
        "prepare cohort --out new --seed 1",
        "train tiny.toml --data prepared --out new",
        SYNTH,
    ):
        refused(typed(line), "No space")
        written = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
        assert not [path for path in written if path.stat().st_size]
        shutil.rmtree(tmp_path / "new", ignore_errors=True)


def test_our_own_fault_is_exit_1_and_one_line(voxlate, monkeypatch, tmp_path):
    monkeypatch.setattr("voxlate.commands.api.describe.describe_path", lambda _: 1 / 0)
    answer = voxlate("info", tmp_path)
    assert answer.code == 1
    assert "ZeroDivisionError" in answer.err
    assert "Traceback" not in answer.err


@slow
def test_info_of_a_large_scan_takes_at_most_five_times_its_memory(tmp_path):
    """A scan of 23 MB as floats, whose slices are compared, too, beyond what a small one takes."""
    peaks = {}
    for size in (8, 180):
        nib.save(
            nib.Nifti1Image(np.ones((size, size, size), np.int16), np.eye(4)),
            tmp_path / f"{size}.nii",
        )
        look = (
            "import sys; from voxlate.commands import cli; from voxlate.base import machine; sys.argv[0] = 'voxlate'\n"
            "try: cli.main()\nexcept SystemExit: print(machine.peak_memory())"
        )
        line = [sys.executable, "-c", look, "info", tmp_path / f"{size}.nii"]
        peaks[size] = float(subprocess.check_output(line, text=True).split()[-1])
    assert peaks[180] - peaks[8] < 5 * 4 * 180**3


def test_every_command_shows_the_traceback_of_an_error_where_asked(typed, monkeypatch):
    monkeypatch.setattr(app, "debug", False)
    assert "--debug" in typed("info --help").out
    assert "Traceback" in typed("info nowhere --debug").err
