"""The commands that hand images and models on: export, push, listen."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from voxlate.base.errors import BadInput
from voxlate.base.hub import PREFIX, check_repo, upload
from voxlate.base.messages import Message
from voxlate.base.option import MainOption
from voxlate.clinic.share_options import (
    NOT_STATED,
    ExportOptions,
    ListenOptions,
    ModelOptions,
    PushOptions,
)
from voxlate.commands.api.entry import (
    Argument,
    Command,
    Place,
    Run,
    Undone,
)
from voxlate.commands.api.progress import Reporter
from voxlate.training.starters.names import is_starter

if TYPE_CHECKING:
    from voxlate.clinic.dicom_out import Exported
    from voxlate.synthesis.exported import Description


def _export_images(
    out: Path, dicom: Path, options: ExportOptions, progress: Reporter
) -> "Exported":
    """Write synthesised images as derived DICOM series."""
    from voxlate.clinic.dicom_out import export_dicom

    like = None if options.like is None else Path(options.like)
    return export_dicom(
        out, dicom, like, progress.count("images"), options.accept_untrusted, options.rtstruct
    )


def _export_model(run: Place, out: Path, options: ModelOptions) -> "Description":
    """Write a trained model to a new folder."""
    from voxlate.exchange.export import export_model
    from voxlate.training.load import load

    model = load(run, "cpu", options.allow_code, options.answer).with_options(
        steps=options.steps,
        samples=options.samples,
        sharpness=options.sharpness,
        intervals=options.intervals,
    )
    return export_model(model, out, _licence(run, options.licence))


def _licence(run: Place, stated: str) -> str:
    """The licence that is stated, or that of a starter, which is voxlate's own."""
    return "Apache-2.0" if stated == NOT_STATED and is_starter(run) else stated


def _export_lines(done: Any, asked: Any) -> Iterator[Any]:
    from voxlate.synthesis.inputs import scans_to_give

    if asked.dicom is not None:
        for said in done.messages:
            yield Undone(f"left out {said.text}") if said.grade == "do not trust" else said
        yield f"{done.summary} in {asked.dicom}: derived, synthetic, not for diagnosis."
    else:
        yield f"{done.facts.title} in {asked.out}: at most {done.graph.largest_loss:.2g} network units from torch on its self-test."
        scans = scans_to_give(done.facts.data, done.facts.completes)
        yield f"Next:  voxlate synth {asked.out} {scans} --out OUT"


@Command(
    """
    export OUT --dicom TO
    export OUT/CASE --dicom TO --like SERIES
    export OUT --dicom TO --rtstruct
    export RUN --out MODEL
    """,
    lines=_export_lines,
)
def export(
    path: Annotated[
        Place,
        Argument(
            "Folder that synth wrote, or one case's folder in it; with --out a run, starter:NAME or hf://NAME/REPO.",
            metavar="OUT|RUN",
        ),
    ],
    dicom: Annotated[
        Place | None, MainOption("Folder for the DICOM series: new, or of this very export.")
    ] = None,
    out: Annotated[
        Place | None,
        MainOption("New folder for the model, which runs without torch."),
    ] = None,
    *,
    images: ExportOptions,
    model: ModelOptions,
    progress: Reporter,
) -> "Exported | Description":
    """Write images as derived DICOM series (research use only), or a model that runs without torch.
    \f
    Returns:
        Exported | Description: Of images the folders of the new series (`series`, `maps`, `structures`, `reports`), all `files`, and
            `messages`. Of a model the content of model.json: `facts`, its `graph`, `calibration`, `licence`, and the SHA-256 of each of
            its `files`.

    Raises:
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
    if dicom is not None and out is None:
        return _export_images(Path(path), Path(dicom), images, progress)
    if out is not None and dicom is None:
        return _export_model(path, Path(out), model)
    found = "neither" if out is None else "both"
    raise BadInput(
        f"export: expected --dicom (for images) or --out (for a model), found {found}. Pass one of them."
    )


@dataclass(frozen=True)
class Pushed:
    """A model on a hub, or the folder of a dry run, as `voxlate.push` returns it.

    Args:
        repo: NAME/REPO.
        files: bytes of each file by its place.
        commit: hash of the commit, "" of a dry run.
        messages: on what is no part of it.

    Example:
        >>> from voxlate.commands.api.exports import Pushed
        >>> Pushed("name/model", {}, "0123456789abcdef", ()).address
        'hf://name/model@0123456789abcdef'
    """

    repo: str
    files: dict[str, int]
    commit: str
    messages: tuple[Message, ...]

    @property
    def address(self) -> str:
        """The model as a RUN, pinned to its commit."""
        return f"{PREFIX}{self.repo}@{self.commit or 'COMMIT'}"


def _pushed_lines(done: Pushed, asked: Any) -> Iterator[Any]:
    from voxlate.exchange.hub_folder import ABSENT

    yield from done.messages
    size = sum(done.files.values()) / 1e6
    yield f"{size:.2f} MB: {', '.join(done.files)}"
    yield ABSENT
    if done.commit:
        yield f"Commit {done.commit}. Next:  voxlate synth {done.address} COHORT --out OUT"
    else:
        yield f"Nothing was uploaded. Next:  voxlate push {asked.run} {asked.repo}"


@Command(
    """
    push RUN NAME/REPO --licence apache-2.0
    push RUN NAME/REPO --dry-run FOLDER
    """,
    lines=_pushed_lines,
)
def push(
    run: Run,
    repo: Annotated[
        str, Argument("Repository, which is created if it is absent.", metavar="NAME/REPO")
    ],
    *,
    options: PushOptions,
) -> Pushed:
    """Upload a trained model to a hub of Hugging Face, with a card and without anything on its patients.

    --dry-run writes the same files into a folder: look at them first.
    \f
    Returns:
        Pushed: The bytes of each of the `files`, the `commit`, `messages`, and the `address`, which is a RUN.

    Raises:
        BadInput: the name of the repository has another form; the run names code without allow_code; the folder of a dry run
            exists; or the hub refuses the upload.

    Example:
        >>> import voxlate
        >>> pushed = voxlate.push("RUN", "name/model", dry_run="FOLDER")
        >>> pushed.address, "weights.safetensors" in pushed.files
        ('hf://name/model@COMMIT', True)
    """
    from voxlate.exchange.hub_folder import build_folder
    from voxlate.training.load import load

    check_repo(repo)
    model, licence = load(run, "cpu", options.allow_code), _licence(run, options.licence)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.dry_run or Path(temporary) / "model")
        messages = build_folder(model, repo, folder, licence)
        files = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        commit = "" if options.dry_run else upload(folder, repo, options.private)
    return Pushed(repo, files, commit, tuple(messages))


@Command("listen RUN --host 10.0.0.7 --allow SCANNER --to PACS@10.0.0.5:104 --out QUEUE")
def listen(
    run: Run,
    out: Annotated[Place, MainOption("Folder of the queue, on a disk of its own.")],
    *,
    options: ListenOptions,
    progress: Reporter,
) -> None:
    """Receive studies by C-STORE, synthesise one at a time, and send the images by C-STORE, until interrupted.

    The queue survives a killed process: the same command goes on, and sends no image twice.
    \f
    Returns:
        None: After an interruption (Ctrl-C).

    Raises:
        BadInput: an application entity or address is not stated as it must be; the port is taken; or the package pynetdicom is
            not installed.

    Example:
        >>> import voxlate
        >>> voxlate.listen("RUN", "QUEUE", allow=["SCANNER"], to="PACS@10.0.0.5:104")  # doctest: +SKIP
    """
    from voxlate.clinic.listen import serve as answer_studies

    answer_studies(run, Path(out), options, progress.say)
