"""Written by release/stub.py: the commands, with each option as a typed keyword."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import Literal
from voxlate.base.errors import BadInput as BadInput
from voxlate.clinic.dicom_out import Exported
from voxlate.commands.api.demo import Demo
from voxlate.commands.api.exports import Pushed
from voxlate.commands.api.images import Checks
from voxlate.commands.api.images import Syntheses
from voxlate.commands.api.progress import Reporter
from voxlate.commands.api.training import Fitted
from voxlate.evaluation.compare import Comparison
from voxlate.evaluation.scoring.scores import Scores
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.cohorts.case_files import CohortFiles
from voxlate.scans.images.grid import Volume as Volume
from voxlate.synthesis.exported import Description
from voxlate.synthesis.model import Model
from voxlate.training.naive import Baselines
from voxlate.training.planning.plan import Plan
from voxlate.training.run import Run

__version__: str

def list_starters(
    name: str | None = None,
) -> list[dict[str, Any]]:
    """List the weights that come with voxlate, or print one's card.

    Args:
        name: Starter of which all is printed: its training, scans, scores and limits.

    Returns:
        list[dict[str, Any]]: A table for each starter, or for that of the `name`: name, title, source, target, bytes, licence,
            parameters and card.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: no starter has the `name`.

    Example:
        >>> import voxlate
        >>> "starter:head-mr-to-ct" in [starter["name"] for starter in voxlate.list_starters()]
        True
    """


def plan(
    data: Path | str,
    *,
    minutes: float | None = None,
    memory: str | float | None = None,
    speed: float | None = None,
    mode: Literal["both", "mean", "samples"] | None = None,
    source: Sequence[str] | str = (),
    target: Sequence[str] | str = (),
    from_scratch: bool = False,
    device: str = "auto",
    out: Path | str | None = None,
) -> Plan:
    """Choose a recipe for a prepared cohort, and explain it.

    The plan depends on the cohort, the training time and the memory.
    A few training steps are timed on this machine. Where a starter fits, networks compete for a tenth of the minutes.

    Args:
        data: Prepared cohort.
        minutes: Training time on this machine. Default: 60. At least 0.01.
        memory: Memory of the training, such as 8GB. Default: most of the free memory.
        speed: Speed of training steps in GFLOP/s that is assumed instead of timed: the plan has steps and float32, the same on every machine. One core has about 70. At least 0.001.
        mode: Prediction of the model: mean (a regression), both (also a sharp image), or samples (also samples, which show what is uncertain).
        source: Input modality, with target. Repeatable.
        target: Modality to synthesise, with source. Repeatable.
        from_scratch: Begin from random weights even where a starter fits.
        device: Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu. Default: auto.
        out: TOML file of the recipe.

    Returns:
        Plan: The recipe as `tables`, the reason of each key (`why`, `rows`), the predicted `seconds` and `memory` (bytes), and
            `change` and `save`.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the cohort is not prepared or has no such modality; minutes or memory do not suffice; or `out` exists.

    Example:
        >>> import voxlate
        >>> plan = voxlate.plan("PREPARED", minutes=1, mode="mean", from_scratch=True)
        >>> plan.tables["data"]["source"], "net.width" in plan.why
        (['t1'], True)
    """


def recipes(
    name: str | None = None,
    *,
    paper: str | None = None,
    allow_code: bool = False,
) -> list[dict[str, Any]] | dict[str, Any]:
    """List the shipped recipes to start from by source and target, or those of a paper, or print one.

    Args:
        name: Recipe to print, with the meaning of every key.
        paper: Paper whose recipes are listed: its system, baselines and ablations; all: every recipe.
        allow_code: Import and run the model's own Python code.

    Returns:
        list[dict[str, Any]] | dict[str, Any]: Without a `name` a list of tables with the name, title, paper, source and target of each recipe; of a
            `name` the recipe with all its keys.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the recipe or paper is unknown, or it names code without allow_code.

    Example:
        >>> import voxlate
        >>> voxlate.recipes("t1_to_t2_brain")["data"]["target"]
        ['t2']
        >>> "phantom_t1_to_ct" in {recipe["name"] for recipe in voxlate.recipes()}
        True
    """


def info(
    path: Path | str,
    *,
    max_volume: str | None = None,
) -> dict[str, Any]:
    """Describe a scan (grid, unit, range), a prepared cohort or a model.

    Args:
        path: Scan, DICOM folder, FOLDER#series, prepared cohort, run or weights.
        max_volume: Largest scan that is read. Default: 4GB.

    Returns:
        dict[str, Any]: Facts by name. Of a scan: grid, unit, range, warnings; of a prepared cohort: cases, splits and modalities; of a run:
            source, target, network, steps and calibrations.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the path is no scan, prepared cohort or model; or a volume is larger than max_volume.

    Example:
        >>> import voxlate
        >>> facts = voxlate.info("RUN")
        >>> facts["source"], facts["target"]
        (['t1'], ['t2'])
    """


def manifest(
    root: Path | str,
    out: Path | str | None = None,
    *,
    pattern: str | None = None,
    manifest: Path | str | None = None,
    preset: str | Path | None = None,
    patients: str | Path | None = None,
    allow_outside: bool = False,
    exclude: Sequence[str] | str | None = None,
    max_volume: str | None = None,
) -> CohortFiles:
    """Write the table of cases, patients, splits and scans that prepare would read, for corrections.

    Args:
        root: Folder of scans.
        out: Table to write. Default: COHORT/cases.csv.
        pattern: Path of scans, with {patient}, {case}, {modality}.
        manifest: Table (CSV, TSV): cases, patients and paths.
        preset: Public data set (adni, bids, brats, brats2019, brats2023, gold_atlas, isles18, isles24, ixi, mrdpm, msd_brain_tumour, open_ms, rire, rire_rectified, synthrad, synthrad2025, topcow, unitobrain, xmodality) or a TOML file.
        patients: File of 'CASE PATIENT' a line, regular expression of the patient in a case's name, or each (a patient a case).
        allow_outside: Allow a manifest's paths to leave its folder.
        exclude: Case or patient to leave out (*, ?). Repeatable.
        max_volume: Largest scan that is read. Default: 4GB.

    Returns:
        CohortFiles: The cases with their files, and sentences on files that belong to no case or cannot be read.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: no case is found, or the table exists.

    Example:
        >>> import voxlate
        >>> found = voxlate.manifest("COHORT", "cases.csv")
        >>> len(found.cases), sorted(found.cases[0].files)
        (6, ['t1', 't2'])
    """


def phantom(
    out: Path | str,
    *,
    cases: int = 24,
    size: tuple[int, int, int] | None = None,
    labels: Path | str | None = None,
    tissues: str | Path | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    modalities: Sequence[str] | None = None,
    lesion: Literal["none", "tumour", "stroke", "mixed"] = "mixed",
    stripped: bool = False,
    seed: int = 0,
    progress: bool | Callable[..., None] | Reporter = True,
) -> list[Path]:
    """Write a cohort of synthetic heads, or of bodies from label maps, in MR, CT, CTA, TOF, SWI and perfusion.

    Args:
        out: Output folder.
        cases: Number of cases. Default: 24.
        size: Number of voxels in x, y and z, 8 to 1024 each. Default: 96 96 48. Not with labels.
        labels: Label map, or folder of label maps, whose anatomy is varied and drawn in place of simulated heads.
        tissues: Tissues of the labels: charm, synthseg, totalsegmentator, or a TOML file.
        spacing_mm: Voxel size in mm with labels, 0.2 to 10 each. Default: that of the label map.
        modalities: Modality that is written, such as t1, ct, a map of a tissue parameter such as t1_map, or maps for all of these. Repeatable. Default: all images and no map.
        lesion: Lesion of the heads: none, tumour, stroke or mixed. Default: mixed.
        stripped: Write the brain alone, as after skull stripping.
        seed: Random seed of the heads. Default: 0.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        list[Path]: The folder of each case, with a NIfTI file for each modality.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the folder has a phantom cohort of other settings; or a modality or label map is unknown.

    Example:
        >>> import voxlate
        >>> (case,) = voxlate.phantom("HEADS", cases=1, size=(24, 32, 24), modalities=["t1", "ct"], progress=False)
        >>> (case / "t1.nii.gz").is_file(), (case / "ct.nii.gz").is_file()
        (True, True)
    """


def prepare(
    root: Path | str,
    out: Path | str,
    *,
    executor: Literal["local", "ray"] | None = None,
    workers: int | None = None,
    pattern: str | None = None,
    manifest: Path | str | None = None,
    preset: str | Path | None = None,
    patients: str | Path | None = None,
    allow_outside: bool = False,
    exclude: Sequence[str] | str | None = None,
    max_volume: str | None = None,
    modalities: Sequence[str] | None = None,
    resample: bool = False,
    register: Literal["rigid", "bspline"] | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    matrix: tuple[int, int, int] | tuple[int, int] | None = None,
    fixed: str | None = None,
    align: Literal["midline"] | None = None,
    mask: Literal["body", "brain"] = "body",
    mask_from: str | None = None,
    window: tuple[float, float] | None = None,
    shares: tuple[float, float, float] | None = None,
    seed: int = 0,
    audit: bool = True,
    progress: bool | Callable[..., None] | Reporter = True,
) -> Cohort:
    """Check a cohort, split it by patient, and convert it for training; the same call resumes.

    Args:
        root: Folder with one folder per case, or a manifest (CSV).
        out: Output folder.
        executor: Workers: local (processes) or ray (of RAY_ADDRESS, else of this machine).
        workers: Number of workers.
        pattern: Path of scans, with {patient}, {case}, {modality}.
        manifest: Table (CSV, TSV): cases, patients and paths.
        preset: Public data set (adni, bids, brats, brats2019, brats2023, gold_atlas, isles18, isles24, ixi, mrdpm, msd_brain_tumour, open_ms, rire, rire_rectified, synthrad, synthrad2025, topcow, unitobrain, xmodality) or a TOML file.
        patients: File of 'CASE PATIENT' a line, regular expression of the patient in a case's name, or each (a patient a case).
        allow_outside: Allow a manifest's paths to leave its folder.
        exclude: Case or patient to leave out (*, ?). Repeatable.
        max_volume: Largest scan that is read. Default: 4GB.
        modalities: Modality to keep; cases without any of them are left out. Repeatable. Default: all.
        resample: Resample the scans of a case to the grid with the thinnest slices.
        register: Register the scans of a case: rigid or bspline.
        spacing_mm: Voxel size in mm to which all scans are resampled (in Python z, y, x).
        matrix: Columns, rows and slices (0: as they are) to which every scan is resized, instead of spacing_mm (in Python z, y, x).
        fixed: Modality whose grid the other scans are resampled to.
        align: Align heads: midline turns and shifts them until left and right mirror each other.
        mask: Mask of a case that has no mask file: body, or the brain of a CT. Default: body.
        mask_from: Modality in which the brain is segmented. Default: plain CT if there is one.
        window: HU that black and white show in pictures of CT. Default: 0 80 in heads, the window of the brain.
        shares: Shares or numbers of patients for train, val and test. Default: 0.7 0.15 0.15, and no test patients if there are fewer than 10. The splits of a manifest take precedence.
        seed: Random seed of the split by patient. Default: 0.
        audit: Measure how far the scans of a case are misaligned.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        Cohort: The prepared cohort: `cases`, `splits` (names of cases by split), `modalities`, `units` and `warnings`.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: no case is found; a patient would be in two splits; the folder has another cohort; or half of the cases cannot
            be prepared (damaged files; scans of different grids, where neither resample nor register is set). Fewer such
            cases are left out: `provenance["failed"]` names them.

    Example:
        >>> import voxlate
        >>> cohort = voxlate.prepare("COHORT", "READY", audit=False, progress=False)
        >>> cohort.modalities, {split: len(cases) for split, cases in cohort.splits.items()}
        (('t1', 't2'), {'train': 5, 'val': 1, 'test': 0})
    """


def demo(
    out: Path | str = "demo",
    *,
    progress: bool | Callable[..., None] | Reporter = True,
) -> Demo:
    """Run every step on a phantom cohort (a few minutes on a CPU).

    Args:
        out: Output folder. Default: demo.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        Demo: The `compared` scores of two predictions, and the report `pages`.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the folder has other files.

    Example:
        >>> import voxlate
        >>> demo = voxlate.demo("demo")  # doctest: +SKIP
        >>> demo.pages[0]  # doctest: +SKIP
        PosixPath('demo/regression/report.html')
    """


def export(
    path: Path | str,
    dicom: Path | str | None = None,
    out: Path | str | None = None,
    *,
    like: Path | str | None = None,
    rtstruct: bool = False,
    accept_untrusted: bool = False,
    answer: Literal["mean", "sample"] | None = None,
    steps: int | None = None,
    samples: int | None = None,
    sharpness: float | None = None,
    intervals: bool = True,
    licence: str = "not stated",
    allow_code: bool = False,
    progress: bool | Callable[..., None] | Reporter = True,
) -> Exported | Description:
    """Write images as derived DICOM series (research use only), or a model that runs without torch.

    Args:
        path: Folder that synth wrote, or one case's folder in it; with out a run, starter:NAME or hf://NAME/REPO.
        dicom: Folder for the DICOM series: new, or of this very export.
        out: New folder for the model, which runs without torch.
        like: DICOM series of the source, for one case (default: as the provenance states it).
        rtstruct: CT on transverse slices of square pixels, with the body as an RT Structure Set.
        accept_untrusted: Hand on untrusted images.
        answer: Prediction: mean or sample (default: of the last stage).
        steps: Steps of the sampler, which are fixed in the model.
        samples: Images sampled for each case.
        sharpness: Place between the mean prediction (0) and the sample (1).
        intervals: Intervals of a calibrated run.
        licence: Licence of the model, as its users will read it; of a starter, Apache-2.0. Default: not stated.
        allow_code: Import and run the model's own Python code.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        Exported | Description: Of images the folders of the new series (`series`, `maps`, `structures`, `reports`), all `files`, and
            `messages`. Of a model the content of model.json: `facts`, its `graph`, `calibration`, `licence`, and the SHA-256 of each of
            its `files`.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the folder has no images of synth; the source is no DICOM series and `like` names none; a series is of
            another patient, frame of reference or grid; the folder of a model exists; the run's preparation or network
            cannot be exported; or the package onnx is not installed.

    Example:
        >>> import voxlate
        >>> _ = voxlate.synthesise("RUN", {"t1": "SERIES"}, "NEW", anyway=True, progress=False)
        >>> exported = voxlate.export("NEW", "DICOM", accept_untrusted=True, progress=False)
        >>> exported.series[0].name, len(exported.files)
        ('t2', 7)
        >>> description = voxlate.export("RUN", out="MODEL")
        >>> description.graph.largest_loss < 1e-3  # network units
        True
    """


def listen(
    run: str | Path,
    out: Path | str,
    *,
    allow: Sequence[str],
    to: str,
    port: int = 11112,
    title: str = "VOXLATE",
    host: str = "127.0.0.1",
    idle: float = 10.0,
    anyway: bool = False,
    accept_untrusted: bool = False,
    device: str = "auto",
    progress: bool | Callable[..., None] | Reporter = True,
) -> None:
    """Receive studies by C-STORE, synthesise one at a time, and send the images by C-STORE, until interrupted.

    The queue survives a killed process: the same command goes on, and sends no image twice.

    Args:
        run: Run folder, exported model, weights file, starter:NAME or hf://NAME/REPO@COMMIT.
        out: Folder of the queue, on a disk of its own.
        allow: AE title of a sender that is allowed. Repeatable.
        to: Node that takes the images.
        port: Port to listen on. From 1 to 65535. Default: 11112.
        title: Own AE title. Default: VOXLATE.
        host: Own address to listen on, which the senders reach; 0.0.0.0: all. Default: 127.0.0.1.
        idle: Seconds without a new image or an open association, after which a study is complete. Default: 10.0.
        anyway: Also cases graded "do not trust".
        accept_untrusted: Hand on untrusted images.
        device: Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu. Default: auto.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        None: After an interruption (Ctrl-C).

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: an application entity or address is not stated as it must be; the port is taken; or the package pynetdicom is
            not installed.

    Example:
        >>> import voxlate
        >>> voxlate.listen("RUN", "QUEUE", allow=["SCANNER"], to="PACS@10.0.0.5:104")  # doctest: +SKIP
    """


def push(
    run: str | Path,
    repo: str,
    *,
    dry_run: Path | str | None = None,
    licence: str = "not stated",
    private: bool = False,
    allow_code: bool = False,
) -> Pushed:
    """Upload a trained model to a hub of Hugging Face, with a card and without anything on its patients.

    dry_run writes the same files into a folder: look at them first.

    Args:
        run: Run folder, exported model, weights file, starter:NAME or hf://NAME/REPO@COMMIT.
        repo: Repository, which is created if it is absent.
        dry_run: New folder that is written in place of the upload.
        licence: Licence of the model, as its users will read it; of a starter, Apache-2.0. Default: not stated.
        private: A new repository is private.
        allow_code: Import and run the model's own Python code.

    Returns:
        Pushed: The bytes of each of the `files`, the `commit`, `messages`, and the `address`, which is a RUN.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the name of the repository has another form; the run names code without allow_code; the folder of a dry run
            exists; or the hub refuses the upload.

    Example:
        >>> import voxlate
        >>> pushed = voxlate.push("RUN", "name/model", dry_run="FOLDER")
        >>> pushed.address, "weights.safetensors" in pushed.files
        ('hf://name/model@COMMIT', True)
    """


def check(
    run: str | Path | Sequence[str | Path | Model] | Model,
    inputs: Sequence[str | Path] | str | Path | Mapping[str, str | Path],
    *,
    pattern: str | None = None,
    manifest: Path | str | None = None,
    preset: str | Path | None = None,
    patients: str | Path | None = None,
    allow_outside: bool = False,
    exclude: Sequence[str] | str | None = None,
    max_volume: str | None = None,
    split: Literal["train", "val", "test"] | None = None,
    answer: Literal["mean", "sample"] | None = None,
    missing: Sequence[str] | None = None,
    device: str = "auto",
    allow_code: bool = False,
    progress: bool | Callable[..., None] | Reporter = True,
) -> Checks:
    """State whether a model fits scans, before anything is computed.

    The exit code is 3 where a case is graded "do not trust": synth leaves it out unless anyway.

    Args:
        run: Run folder, exported model, weights file, starter:NAME or hf://NAME/REPO@COMMIT.
        inputs: Cohort, case, DICOM series, file or modality=path pairs; several runs give their mean.
        pattern: Path of scans, with {patient}, {case}, {modality}.
        manifest: Table (CSV, TSV): cases, patients and paths.
        preset: Public data set (adni, bids, brats, brats2019, brats2023, gold_atlas, isles18, isles24, ixi, mrdpm, msd_brain_tumour, open_ms, rire, rire_rectified, synthrad, synthrad2025, topcow, unitobrain, xmodality) or a TOML file.
        patients: File of 'CASE PATIENT' a line, regular expression of the patient in a case's name, or each (a patient a case).
        allow_outside: Allow a manifest's paths to leave its folder.
        exclude: Case or patient to leave out (*, ?). Repeatable.
        max_volume: Largest scan that is read. Default: 4GB.
        split: Split to synthesise: train, val or test.
        answer: Model of two stages: mean (least error) or sample (sharp). Default: sample.
        missing: Modality to leave out of the input and synthesise. Repeatable.
        device: Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu. Default: auto.
        allow_code: Import and run the model's own Python code.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        Checks: For each of the `cases` its verdict ("fits", "caution" or "do not trust"), scans and messages; and a sentence
            for each case in `left_out`, which cannot be used.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: no case is found, or a single case cannot be used.

    Example:
        >>> import voxlate
        >>> checks = voxlate.check("RUN", "COHORT", split="val", progress=False)
        >>> [case.verdict for case in checks.cases]
        ['fits']
    """


def load(
    run: str | Path,
    device: str = "auto",
    allow_code: bool = False,
    answer: Literal["mean", "sample"] | None = None,
) -> Model:
    """Open a run for synthesis in memory.

    Args:
        run: Run folder, exported model, weights file, starter:NAME or hf://NAME/REPO@COMMIT.
        device: Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu. Default: auto.
        allow_code: Import and run the model's own Python code.
        answer: Model of two stages: mean (least error) or sample (sharp). Default: sample.

    Returns:
        Model: A model, whose method `synthesise` takes scans in memory and returns a `Synthesised`.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the path is no model; the model cannot give the answer; or it names code without allow_code.

    Example:
        >>> import voxlate
        >>> model = voxlate.load("RUN", device="cpu")
        >>> image = model.synthesise({"t1": "COHORT/case0/t1.nii.gz"}).volume
        >>> image.data.shape, image.unit  # [C, D, H, W]
        ((1, 6, 24, 20), 'a.u.')
    """


def synthesise(
    run: str | Path | Sequence[str | Path | Model] | Model,
    inputs: Sequence[str | Path] | str | Path | Mapping[str, str | Path],
    out: Path | str,
    *,
    executor: Literal["local", "ray"] | None = None,
    workers: int | None = None,
    pattern: str | None = None,
    manifest: Path | str | None = None,
    preset: str | Path | None = None,
    patients: str | Path | None = None,
    allow_outside: bool = False,
    exclude: Sequence[str] | str | None = None,
    max_volume: str | None = None,
    split: Literal["train", "val", "test"] | None = None,
    answer: Literal["mean", "sample"] | None = None,
    missing: Sequence[str] | None = None,
    device: str = "auto",
    allow_code: bool = False,
    samples: int | None = None,
    steps: int | None = None,
    set: Mapping[str, str | float | bool | Sequence[float] | None | Mapping[str, str | float | bool | Sequence[float] | None]] | None = None,
    sharpness: float | None = None,
    sampler: str | None = None,
    keep_states: int | None = None,
    batch: int | None = None,
    exact: bool | None = None,
    anyway: bool = False,
    part: str | None = None,
    like: str | None = None,
    seed: int = 0,
    intervals: bool = True,
    format: Literal["nii.gz", "nii", "nrrd", "mha"] = "nii.gz",
    dicom: str | Path | None = None,
    store: bool = False,
    accept_untrusted: bool = False,
    progress: bool | Callable[..., None] | Reporter = True,
) -> Syntheses:
    """Synthesise the target modalities of a case or a cohort.

    The images are in physical units on the grid of the input.

    Args:
        run: Run folder, exported model, weights file, starter:NAME or hf://NAME/REPO@COMMIT.
        inputs: Cohort, case, DICOM series, file or modality=path pairs; several runs give their mean.
        out: Output folder.
        executor: Workers: local (processes) or ray (of RAY_ADDRESS, else of this machine).
        workers: Number of workers.
        pattern: Path of scans, with {patient}, {case}, {modality}.
        manifest: Table (CSV, TSV): cases, patients and paths.
        preset: Public data set (adni, bids, brats, brats2019, brats2023, gold_atlas, isles18, isles24, ixi, mrdpm, msd_brain_tumour, open_ms, rire, rire_rectified, synthrad, synthrad2025, topcow, unitobrain, xmodality) or a TOML file.
        patients: File of 'CASE PATIENT' a line, regular expression of the patient in a case's name, or each (a patient a case).
        allow_outside: Allow a manifest's paths to leave its folder.
        exclude: Case or patient to leave out (*, ?). Repeatable.
        max_volume: Largest scan that is read. Default: 4GB.
        split: Split to synthesise: train, val or test.
        answer: Model of two stages: mean (least error) or sample (sharp). Default: sample.
        missing: Modality to leave out of the input and synthesise. Repeatable.
        device: Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu. Default: auto.
        allow_code: Import and run the model's own Python code.
        samples: Number of samples a case, of which mean and standard deviation are written.
        steps: Number of times at which the network denoises.
        set: Change of a key of the recipe's synth table, such as overlap=0.25. Repeatable.
        sharpness: Mean at 0, sample at 1. From 0 to 1.
        sampler: Sampler, instead of the recipe's.
        keep_states: States of sampling to write.
        batch: Number of slices at a time: changes memory, and rounding unless exact.
        exact: Compute in float32, one slice at a time: bit-identical for every batch, slower.
        anyway: Also cases graded "do not trust".
        part: Every N-th case from the I-th on, for N jobs.
        like: Recipe whose synth table replaces the model's.
        seed: Random seed. Default: 0.
        intervals: Write calibrated bounds.
        format: Format. Default: nii.gz.
        dicom: Folder for DICOM series.
        store: Store in INPUT's study.
        accept_untrusted: Hand on untrusted images.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        Syntheses: The `cases` that were synthesised, their `folders`, the reason of each case that was `left_out`, and
            `warnings` and error `bounds` by case. The images are NIfTI files OUT/CASE/MODALITY.nii.gz.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: no case is found; a single case lacks a scan; an option does not fit the model; or the folder has other images.
        DoNotTrust: the scans of a single case are graded "do not trust", and `anyway` is not set.

    Example:
        >>> import voxlate
        >>> done = voxlate.synthesise("RUN", "COHORT", "NEW", split="val", progress=False)
        >>> len(done.cases), (done.folders[0] / "t2.nii.gz").is_file()
        (1, True)
    """


def synthesize(
    run: str | Path | Sequence[str | Path | Model] | Model,
    inputs: Sequence[str | Path] | str | Path | Mapping[str, str | Path],
    out: Path | str,
    *,
    executor: Literal["local", "ray"] | None = None,
    workers: int | None = None,
    pattern: str | None = None,
    manifest: Path | str | None = None,
    preset: str | Path | None = None,
    patients: str | Path | None = None,
    allow_outside: bool = False,
    exclude: Sequence[str] | str | None = None,
    max_volume: str | None = None,
    split: Literal["train", "val", "test"] | None = None,
    answer: Literal["mean", "sample"] | None = None,
    missing: Sequence[str] | None = None,
    device: str = "auto",
    allow_code: bool = False,
    samples: int | None = None,
    steps: int | None = None,
    set: Mapping[str, str | float | bool | Sequence[float] | None | Mapping[str, str | float | bool | Sequence[float] | None]] | None = None,
    sharpness: float | None = None,
    sampler: str | None = None,
    keep_states: int | None = None,
    batch: int | None = None,
    exact: bool | None = None,
    anyway: bool = False,
    part: str | None = None,
    like: str | None = None,
    seed: int = 0,
    intervals: bool = True,
    format: Literal["nii.gz", "nii", "nrrd", "mha"] = "nii.gz",
    dicom: str | Path | None = None,
    store: bool = False,
    accept_untrusted: bool = False,
    progress: bool | Callable[..., None] | Reporter = True,
) -> Syntheses:
    """Synthesise the target modalities of a case or a cohort.

    The images are in physical units on the grid of the input.

    Args:
        run: Run folder, exported model, weights file, starter:NAME or hf://NAME/REPO@COMMIT.
        inputs: Cohort, case, DICOM series, file or modality=path pairs; several runs give their mean.
        out: Output folder.
        executor: Workers: local (processes) or ray (of RAY_ADDRESS, else of this machine).
        workers: Number of workers.
        pattern: Path of scans, with {patient}, {case}, {modality}.
        manifest: Table (CSV, TSV): cases, patients and paths.
        preset: Public data set (adni, bids, brats, brats2019, brats2023, gold_atlas, isles18, isles24, ixi, mrdpm, msd_brain_tumour, open_ms, rire, rire_rectified, synthrad, synthrad2025, topcow, unitobrain, xmodality) or a TOML file.
        patients: File of 'CASE PATIENT' a line, regular expression of the patient in a case's name, or each (a patient a case).
        allow_outside: Allow a manifest's paths to leave its folder.
        exclude: Case or patient to leave out (*, ?). Repeatable.
        max_volume: Largest scan that is read. Default: 4GB.
        split: Split to synthesise: train, val or test.
        answer: Model of two stages: mean (least error) or sample (sharp). Default: sample.
        missing: Modality to leave out of the input and synthesise. Repeatable.
        device: Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu. Default: auto.
        allow_code: Import and run the model's own Python code.
        samples: Number of samples a case, of which mean and standard deviation are written.
        steps: Number of times at which the network denoises.
        set: Change of a key of the recipe's synth table, such as overlap=0.25. Repeatable.
        sharpness: Mean at 0, sample at 1. From 0 to 1.
        sampler: Sampler, instead of the recipe's.
        keep_states: States of sampling to write.
        batch: Number of slices at a time: changes memory, and rounding unless exact.
        exact: Compute in float32, one slice at a time: bit-identical for every batch, slower.
        anyway: Also cases graded "do not trust".
        part: Every N-th case from the I-th on, for N jobs.
        like: Recipe whose synth table replaces the model's.
        seed: Random seed. Default: 0.
        intervals: Write calibrated bounds.
        format: Format. Default: nii.gz.
        dicom: Folder for DICOM series.
        store: Store in INPUT's study.
        accept_untrusted: Hand on untrusted images.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        Syntheses: The `cases` that were synthesised, their `folders`, the reason of each case that was `left_out`, and
            `warnings` and error `bounds` by case. The images are NIfTI files OUT/CASE/MODALITY.nii.gz.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: no case is found; a single case lacks a scan; an option does not fit the model; or the folder has other images.
        DoNotTrust: the scans of a single case are graded "do not trust", and `anyway` is not set.

    Example:
        >>> import voxlate
        >>> done = voxlate.synthesise("RUN", "COHORT", "NEW", split="val", progress=False)
        >>> len(done.cases), (done.folders[0] / "t2.nii.gz").is_file()
        (1, True)
    """


def compare(
    folders: Sequence[Path | str],
    *,
    reference: str | None = None,
    report: Path | str | None = None,
    out: Path | str | None = None,
) -> Comparison:
    """Compare scored methods by paired tests.

    Args:
        folders: Scored folders of the same cases.
        reference: Folder against which the others are tested. Default: the best one.
        report: HTML page with the table and pictures.
        out: File of the table: .csv or .tex (LaTeX).

    Returns:
        Comparison: Means, standard deviations and paired tests by modality, metric and method, in `frame`.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: fewer than two folders are given; one is not scored; or they are scored on different cases, voxels or options.

    Example:
        >>> import shutil, voxlate
        >>> _ = shutil.copytree("OUT", "AGAIN")  # both were scored
        >>> comparison = voxlate.compare(["OUT", "AGAIN"])
        >>> {"AGAIN", "OUT"} <= set(comparison.frame["method"])
        True
    """


def evaluate(
    out: Path | str,
    truth: Path | str,
    *,
    executor: Literal["local", "ray"] | None = None,
    workers: int | None = None,
    pattern: str | None = None,
    manifest: Path | str | None = None,
    preset: str | Path | None = None,
    patients: str | Path | None = None,
    allow_outside: bool = False,
    exclude: Sequence[str] | str | None = None,
    max_volume: str | None = None,
    mask: str | Path | None = None,
    regions: Mapping[str, str] | None = None,
    split: Literal["train", "val", "test"] | None = None,
    value_range: tuple[float, float] | Mapping[str, Sequence[float]] | None = None,
    any_truth: bool = False,
    features: Literal["texture"] | Callable[..., Any] | None = None,
    metrics: Sequence[str | Callable[..., float]] = (),
    lpips: Path | str | None = None,
    units: Literal["own", "network"] = "own",
    ssim_from: Literal["low", "zero"] = "low",
    prepared: str | Path | None = None,
    naive: Path | str | Baselines | None = None,
    allow_code: bool = False,
    progress: bool | Callable[..., None] | Reporter = True,
) -> Scores:
    """Score synthesised images and naive baselines against the true scans.

    The scores are written into scores.csv and metrics.json.
    The verdict states whether the images are better than the best baseline.

    Args:
        out: Folder of images.
        truth: Cohort with the true scans.
        executor: Workers: local (processes) or ray (of RAY_ADDRESS, else of this machine).
        workers: Number of workers.
        pattern: Path of scans, with {patient}, {case}, {modality}.
        manifest: Table (CSV, TSV): cases, patients and paths.
        preset: Public data set (adni, bids, brats, brats2019, brats2023, gold_atlas, isles18, isles24, ixi, mrdpm, msd_brain_tumour, open_ms, rire, rire_rectified, synthrad, synthrad2025, topcow, unitobrain, xmodality) or a TOML file.
        patients: File of 'CASE PATIENT' a line, regular expression of the patient in a case's name, or each (a patient a case).
        allow_outside: Allow a manifest's paths to leave its folder.
        exclude: Case or patient to leave out (*, ?). Repeatable.
        max_volume: Largest scan that is read. Default: 4GB.
        mask: Voxels to score: body (the default in HU and for perfusion), whole (else), cohort (its mask files) or a file.
        regions: Region to score: 'lesion=tmax>6', core=seg=1, vessels=MASK_FILE or tissues=ct. Repeatable.
        split: Split to score: train, val or test.
        value_range: Range of PSNR and SSIM.
        any_truth: Count wrong truths, too.
        features: Distance of the slices' features: texture.
        metrics: Score of your own, MODULE:FUNCTION, with allow_code. Repeatable.
        lpips: AlexNet weights (safetensors) for LPIPS.
        units: Unit of MR: own (of its peak) or network (0 to 255). Default: own.
        ssim_from: Zero of SSIM: low (of the range) or zero. Default: low.
        prepared: Prepared cohort with the transforms of registered scans and the window of pictures. Default: that of the run.
        naive: Run whose naive baselines are scored. Default: that of OUT.
        allow_code: Import and run the model's own Python code.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        Scores: The scores as a long table (`frame`), with `verdicts` for each modality, and means in `document()`.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the folder has no images; an image and its true scan do not overlap, or cannot be of one patient; or an option
            does not fit the unit.

    Example:
        >>> import voxlate
        >>> scores = voxlate.evaluate("OUT", "COHORT", progress=False)
        >>> set(scores.frame["modality"]), "mae" in set(scores.frame["metric"])
        ({'t2'}, True)
    """


def report(
    path: Path | str,
    out: Path | str | None = None,
) -> Path:
    """Write an offline HTML page with pictures, curves and tables, and return its path.

    Args:
        path: Run, folder that synth wrote, or prepared cohort.
        out: HTML file. Default: PATH/report.html.

    Returns:
        Path: The HTML file, which needs no network.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the folder is no run, output of synth or prepared cohort.

    Example:
        >>> import voxlate
        >>> voxlate.report("RUN").name
        'report.html'
    """


def adapt(
    run: str | Path,
    data: Path | str,
    out: Path | str,
    *,
    minutes: float = 5,
    steps: int | None = None,
    device: str = "auto",
    allow_code: bool = False,
    progress: bool | Callable[..., None] | Reporter = True,
) -> Run:
    """Continue a run or starter on a few cases of another site.

    The learning rate is lower, and the weights with the least error on held-out cases are kept.
    Calibrate the new run again before its intervals are used.

    Args:
        run: Run folder, exported model, weights file, starter:NAME or hf://NAME/REPO@COMMIT.
        data: Prepared cohort of the other site, with a held-out case.
        out: Output folder.
        minutes: Training time on this machine. At least 0.01. Default: 5.
        steps: Number of steps instead of minutes.
        device: Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu. Default: auto.
        allow_code: Import and run the model's own Python code.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        Run: The folder of the adapted run, as `train` returns it.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the cohort has no held-out case or lacks a modality; the model has an autoencoder; or the folder has another
            run.
        Stopped: the training was interrupted, and its state was saved: the same call resumes it.

    Example:
        >>> import voxlate
        >>> adapted = voxlate.adapt("RUN", "PREPARED", "ADAPTED", steps=2, device="cpu", progress=False)
        >>> adapted.weights().name
        'weights.safetensors'
    """


def calibrate(
    run: str | Path,
    cohort: Path | str,
    *,
    executor: Literal["local", "ray"] | None = None,
    workers: int | None = None,
    pattern: str | None = None,
    manifest: Path | str | None = None,
    preset: str | Path | None = None,
    patients: str | Path | None = None,
    allow_outside: bool = False,
    exclude: Sequence[str] | str | None = None,
    max_volume: str | None = None,
    out: Path | str | None = None,
    split: Literal["train", "val", "test"] | None = None,
    out_of_fold: Sequence[Path | str] = (),
    answer: Literal["mean", "sample"] | None = None,
    samples: int | None = None,
    coverage: float = 0.9,
    seed: int = 0,
    set: Mapping[str, str | float | bool | Sequence[float] | None | Mapping[str, str | float | bool | Sequence[float] | None]] | None = None,
    anyway: bool = False,
    device: str = "auto",
    allow_code: bool = False,
    progress: bool | Callable[..., None] | Reporter = True,
) -> Fitted:
    """Fit prediction intervals and error bounds on held-out patients.

    The calibration is written into RUN (of a starter into out); synth then writes interval bounds.
    A stopped calibration begins again.

    Args:
        run: Run folder, exported model, weights file, starter:NAME or hf://NAME/REPO@COMMIT.
        cohort: Cases with true scans that training did not use.
        executor: Workers: local (processes) or ray (of RAY_ADDRESS, else of this machine).
        workers: Number of workers.
        pattern: Path of scans, with {patient}, {case}, {modality}.
        manifest: Table (CSV, TSV): cases, patients and paths.
        preset: Public data set (adni, bids, brats, brats2019, brats2023, gold_atlas, isles18, isles24, ixi, mrdpm, msd_brain_tumour, open_ms, rire, rire_rectified, synthrad, synthrad2025, topcow, unitobrain, xmodality) or a TOML file.
        patients: File of 'CASE PATIENT' a line, regular expression of the patient in a case's name, or each (a patient a case).
        allow_outside: Allow a manifest's paths to leave its folder.
        exclude: Case or patient to leave out (*, ?). Repeatable.
        max_volume: Largest scan that is read. Default: 4GB.
        out: Folder for a copy of a starter with the new calibration.
        split: Split that calibrates: train, val or test.
        out_of_fold: Another fold of the run's cross-validation: each patient is synthesised by a fold that did not train on them; test patients are left out. Repeatable.
        answer: Model of two stages: mean (least error) or sample (sharp). Default: sample.
        samples: Number of samples a case, of which mean and standard deviation are written.
        coverage: Share of a new patient's voxels that the intervals contain, in whole percents. From 0.5 to 0.99. Default: 0.9.
        seed: Random seed. Default: 0.
        set: Change of a key of the recipe's synth table, such as overlap=0.25. Repeatable.
        anyway: Also cases graded "do not trust".
        device: Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu. Default: auto.
        allow_code: Import and run the model's own Python code.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        Fitted: The file of the calibration, which is in the run's folder, and `sentences` on its coverage, error bounds and warnings.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the run is an autoencoder; cases were in its training, or too few patients are left; coverage is no whole percent; or a
            starter is calibrated without `out`.

    Example:
        >>> import voxlate
        >>> fitted = voxlate.calibrate("RUN", "OTHERS", device="cpu", progress=False)
        >>> voxlate.load("RUN").calibration() is None
        False
    """


def import_weights(
    source: Literal["tof_to_cta_unet", "tof_to_cta_adm", "tof_to_cta_uvit", "tof_to_cta_dit", "kl-f4"],
    weights: Path | str,
    out: Path | str,
) -> Run:
    """Convert published weights into a run.

    The run is a network that synth accepts, or an autoencoder for `train reuse`.

    Args:
        source: Recipe of the weights' network (paper 001), or kl-f4 for an autoencoder of latent diffusion.
        weights: Published file (safetensors).
        out: Output folder.

    Returns:
        Run: The folder of the imported run, as `train` returns it, without a history.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the file has weights of another structure.

    Example:
        >>> import voxlate
        >>> run = voxlate.import_weights("tof_to_cta_adm", "adm.safetensors", "RUN")  # doctest: +SKIP
    """


def train(
    recipe: str | Path | Mapping[str, Any] | Plan,
    data: Path | str,
    out: Path | str,
    *,
    minutes: float | None = None,
    memory: str | float | None = None,
    speed: float | None = None,
    mode: Literal["both", "mean", "samples"] | None = None,
    source: Sequence[str] | str = (),
    target: Sequence[str] | str = (),
    from_scratch: bool = False,
    device: str = "auto",
    set: Mapping[str, str | int | float | bool | Sequence[Any] | Mapping[str, Any] | type | Callable[..., Any] | None] | None = None,
    init: Path | str | None = None,
    reuse: Sequence[Path | str] = (),
    fold: int | None = None,
    folds: int | None = None,
    track: Literal["mlflow", "wandb"] | None = None,
    allow_code: bool = False,
    progress: bool | Callable[..., None] | Reporter = True,
) -> Run:
    """Train a recipe.

    The same command resumes a stopped training and ends with the same weights.

    Args:
        recipe: auto (planned for the cohort), a shipped recipe (NAME_small: its small variant), or a TOML file.
        data: Prepared cohort.
        out: Output folder.
        minutes: Training time on this machine. Default: 60. At least 0.01.
        memory: Memory of the training, such as 8GB. Default: most of the free memory.
        speed: Speed of training steps in GFLOP/s that is assumed instead of timed: the plan has steps and float32, the same on every machine. One core has about 70. At least 0.001.
        mode: Prediction of the model: mean (a regression), both (also a sharp image), or samples (also samples, which show what is uncertain).
        source: Input modality, with target. Repeatable.
        target: Modality to synthesise, with source. Repeatable.
        from_scratch: Begin from random weights even where a starter fits.
        device: Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu. Default: auto.
        set: Change of a key of the recipe, such as train.steps=500. Repeatable.
        init: Run, weights, starter:NAME or hf://NAME/REPO from which the network is initialised.
        reuse: Run whose earlier stages are reused if they are identical. Repeatable.
        fold: Fifth of the patients that validates; the others train, except the test patients. From 0 to 4.
        folds: Train so many of the five folds, each for minutes, into OUT/fold0, OUT/fold1, … (cross-validation). From 2 to 5.
        track: Also send losses and validation scores to MLflow or Weights & Biases.
        allow_code: Import and run the model's own Python code.
        progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers).

    Returns:
        Run: The folder of the run: its `weights()`, `history` (a pandas DataFrame of losses and validation scores by step),
            and `verdicts`.

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: the recipe has an unknown key or does not fit the cohort; or the folder has a run of another recipe or cohort.
        Stopped: the training was interrupted, and its state was saved: the same call resumes it.

    Example:
        >>> import voxlate
        >>> small = {"train.steps": 2}
        >>> run = voxlate.train("recipe.toml", "PREPARED", "NEW", set=small, progress=False)
        >>> voxlate.info("NEW")["steps"]
        2
    """


def serve(
    runs: Sequence[str | Path] | str | Path = (),
    *,
    data: Path | str | None = None,
    port: int = 8765,
    host: str = "127.0.0.1",
    name: Sequence[str] = (),
    token_file: Path | str | None = None,
    keep: float = 24.0,
    device: str = "auto",
) -> None:
    """Serve a page on this machine: choose a scan, see which model fits, synthesise, view, download; until interrupted.

    The printed URL has a token, which lets browsers in. No request leaves the machine.

    Args:
        runs: Run folders, exported models, weights files, starter:NAME or hf://NAME/REPO; without any, the installed starters.
        data: Folder of uploads, queue and results (default: in the user's cache).
        port: Port of the page. From 1 to 65535. Default: 8765.
        host: Own IPv4 address to listen on, which needs token_file; 0.0.0.0: all. Default: 127.0.0.1.
        name: Further host name by which browsers reach the page. Repeatable.
        token_file: File with an own token of at least 16 characters, for several browsers.
        keep: Hours after which uploads and results are removed. At least 0.1. Default: 24.0.
        device: Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu. Default: auto.

    Returns:
        None: After an interruption (Ctrl-C).

    Raises:
        BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do.
        BadInput: a run is absent; the address is open to other machines without a token; the port is taken; or the packages of the
            extra serve are not installed.

    Example:
        >>> import voxlate
        >>> voxlate.serve("RUN", port=8765)  # doctest: +SKIP
    """
