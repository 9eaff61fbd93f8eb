"""A trained model for others: its export, and its upload to a hub."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.base.hub import PREFIX, check_repo, upload
from voxlate.base.messages import Message
from voxlate.base.options.check import check_options
from voxlate.clinic.options.share import NOT_STATED, ModelOptions, PushOptions
from voxlate.commands.api.entry import command
from voxlate.exchange.export import export_model as write_model
from voxlate.exchange.hub_card import scores_of
from voxlate.exchange.hub_folder import build_folder
from voxlate.exchange.model_file import Description
from voxlate.training.model import load
from voxlate.training.starters.names import is_starter


@command
def export_model(
    run: Path | str, out: Path | str, options: ModelOptions | None = None, **changes: Any
) -> Description:
    """Write a trained model to a new folder that voxlate-run reads, and run its self-test there.

    run: run folder, weights file, starter:NAME or hf://NAME/REPO.
    out: new folder of the model.
    """
    asked = check_options(ModelOptions, options, changes)
    model = load(run, "cpu", asked.allow_code, asked.answer)
    model = model.with_options(
        precision="float32", steps=asked.steps, samples=asked.samples, sharpness=asked.sharpness
    )
    model = model if asked.intervals else model.without_intervals()
    return write_model(model, Path(out), asked.weights, _licence(run, asked.licence))


def _licence(run: Path | str, stated: str) -> str:
    """The licence that is stated, or that of a starter, which is voxlate's own."""
    return "Apache-2.0" if stated == NOT_STATED and is_starter(run) else stated


@dataclass(frozen=True)
class Pushed:
    """A model on a hub, or the folder of a dry run.

    files: bytes of each file by its place; commit: hash of the commit, "" of a dry run; messages: on what is no part of it.
    """

    repo: str
    files: dict[str, int]
    commit: str
    messages: tuple[Message, ...]

    @property
    def address(self) -> str:
        """The model as a RUN, pinned to its commit."""
        return f"{PREFIX}{self.repo}@{self.commit or 'COMMIT'}"


@command
def push(run: Path | str, repo: str, options: PushOptions | None = None, **changes: Any) -> Pushed:
    """Upload a trained model to a hub of Hugging Face, with a card and without anything on its patients.

    run: run folder, weights file, starter:NAME or hf://NAME/REPO.
    repo: NAME/REPO, which is created if it is absent.
    """
    asked = check_options(PushOptions, options, changes)
    check_repo(repo)
    model = load(run, "cpu", asked.allow_code)
    scores = None if asked.scores is None else scores_of(Path(asked.scores), model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(asked.dry_run or Path(temporary) / "model")
        messages = build_folder(
            model,
            repo,
            folder,
            scores,
            _licence(run, asked.licence),
            asked.onnx,
            asked.allow_code,
        )
        places = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in places}
        commit = "" if asked.dry_run else upload(folder, repo, asked.private)
    return Pushed(repo, files, commit, tuple(messages))
