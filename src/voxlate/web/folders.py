"""Folders of this machine that the page may read: only those below the root that the command line names."""

import os
from pathlib import Path

from voxlate.system.errors import BadInput
from voxlate.system.files import inside


def below_root(root: Path | None, text: str) -> Path:
    """The folder or file that a text names relative to the root; raises BadInput for any other place.

    Links that lead out of the root are refused. Whether another place exists is not said.
    """
    if root is None:
        raise BadInput(
            "folder: expected a server with a root folder, found one without. Start voxlate serve with --root FOLDER."
        )
    named = Path(text.strip().lstrip("/\\") or ".")
    if "\0" in text or named.is_absolute() or not inside(root, root / named):
        raise BadInput(
            "folder: expected a place below the root folder, found another. Choose one below it."
        )
    path = (root / named).resolve()
    if not os.path.exists(
        path
    ):  # unlike path.exists, which raises an error for a name that is too long
        raise BadInput(
            f"folder: expected {named.as_posix()!r} below the root folder, found nothing there. Check its name."
        )
    return path
