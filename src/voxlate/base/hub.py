"""Models of a hub: hf://NAME/REPO@REVISION in place of a run means files of that repository, in the hub's own cache.

Only the files that voxlate reads are downloaded: no code, no pickles, and nothing of them is executed.
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.optional import Package

PREFIX = "hf://"
FILES = ("weights*.safetensors", "anatomy.safetensors", "calibration.*.safetensors")
COMMIT = re.compile(r"[0-9a-f]{40}")
# A path has one slash where the address has two.
ADDRESS = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?/?")
LONGEST = 200  # characters of a server's message

huggingface_hub = Package("huggingface_hub", "hub", PREFIX, "the package huggingface_hub")


def is_on_hub(run: object) -> bool:
    """Whether a run is named as hf://NAME/REPO."""
    return isinstance(run, Path | str) and Path(run).as_posix().startswith("hf:/")


def address_of(folder: Path) -> str | None:
    """hf://NAME/REPO@COMMIT of a folder of the hub's cache (or a file in it); None for any other path."""
    for commit in (folder, folder.parent):
        owner, _, name = commit.parent.parent.name.removeprefix("models--").partition("--")
        if commit.parent.name == "snapshots" and COMMIT.fullmatch(commit.name) and name:
            return f"{PREFIX}{owner}/{name}@{commit.name}"
    return None


def server() -> str | None:
    """The address of the hub where HF_ENDPOINT names another than the usual one."""
    return os.environ.get("HF_ENDPOINT")


def download(run: Path | str) -> Path:
    """The folder of hf://NAME/REPO@REVISION in the hub's cache, which is filled first unless the hub is offline.

    Warns where the revision is no commit's hash, with the hash. Raises BadInput where the repository, the revision, the
    permission or voxlate's files are missing.
    """
    matched = ADDRESS.fullmatch(Path(run).as_posix())
    if matched is None:
        raise BadInput(
            f"{run}: expected a model as hf://NAME/REPO@REVISION, found another form. Check the address."
        )
    repo, revision = matched[1], matched[2] or "main"
    address = f"{PREFIX}{repo}@{revision}"
    with refusals(address):
        folder = Path(
            huggingface_hub.snapshot_download(
                repo,
                revision=revision,
                allow_patterns=list(FILES),
                library_name="voxlate",
                endpoint=server(),
            )
        )
        if not (folder / "weights.safetensors").is_file():
            raise BadInput(
                f"{address}: expected a model that voxlate push wrote (weights.safetensors), found none in the repository. Check its name."
            )
    if revision != folder.name:
        text = (
            f"{address} is commit {folder.name} now, and may change. Pin it: {address_of(folder)}"
        )
        warnings.warn(text, stacklevel=2)
    return folder


def check_repo(repo: str) -> None:
    """Raise BadInput unless a name is NAME/REPO."""
    matched = ADDRESS.fullmatch(f"{PREFIX}{repo}")
    if matched is None or matched[1] != repo:
        raise BadInput(f"{repo}: expected NAME/REPO, found another form. Check the name.")


def upload(folder: Path, repo: str, private: bool) -> str:
    """Make the files of a folder those of NAME/REPO, which is created if it is absent; returns the commit's hash.

    Raises BadInput where the hub refuses, or is not reached.
    """
    with refusals(f"{PREFIX}{repo}"):
        api = huggingface_hub.HfApi(server(), library_name="voxlate")
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:  # one that was there keeps its visibility
            raise BadInput(
                f"{PREFIX}{repo}: expected a private repository, found one that everybody may read. Make it private on the hub, or choose another name; nothing was uploaded."
            )
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message="A model of voxlate",
            delete_patterns=[*FILES, "onnx/*"],  # of an earlier push
        )
    return str(done.oid)


@contextmanager
def refusals(address: str) -> Iterator[None]:
    """Raise BadInput, in one sentence, for all that the hub's client raises."""
    try:
        yield
    except BadInput:
        raise
    # its client for HTTP, and with it the types, differ between versions
    except Exception as error:
        text = f"{getattr(error, 'server_message', None) or error}".strip().partition("\n")[0]
        said = f"{type(error).__name__}: {text[:LONGEST]}"
        if token := huggingface_hub.get_token():
            said = said.replace(token, "…")  # a server might repeat it
        raise BadInput(
            f"{address}: expected the hub to allow this, found a refusal ({said}). Check the name and what follows @, the network, HF_ENDPOINT and HF_HUB_OFFLINE; for a private or gated repository log in (hf auth login)."
        ) from error
