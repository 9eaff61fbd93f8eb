"""Files and folders that their owner alone may read, whatever the umask."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

FOLDER, FILE = 0o700, 0o600
FOR_OWNER = 0o077  # as an umask


def open_new(path: Path) -> BinaryIO:
    """A new file that the owner alone may read; raises FileExistsError where there is one."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, FILE))


def make_folders(path: Path) -> None:
    """Make a folder and the absent ones above it, all for the owner alone."""
    for folder in reversed([path, *path.parents]):
        if not folder.is_dir():
            folder.mkdir(FOLDER, exist_ok=True)


@contextmanager
def for_owner() -> Iterator[None]:
    """Files that this process writes meanwhile are for the owner alone."""
    former = os.umask(FOR_OWNER)
    try:
        yield
    finally:
        os.umask(former)
