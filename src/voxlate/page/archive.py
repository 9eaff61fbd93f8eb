"""Archives of scans: a zip is unpacked after a check, and so that nothing leaves its folder."""

import re
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from voxlate.base.errors import BadInput
from voxlate.base.files import LONGEST_NAME

MB = 2**20
FOLDER = 0o700  # for its owner alone
DEEPEST = 12  # folders above a file
# Bytes to which an archive may expand whatever its size, because headers of slices pack well.
FREE_BYTES = 16 * MB
# Files that systems add to folders and archives, and that hold no scan.
CLUTTER = ("__macosx", "thumbs.db", "desktop.ini")


@dataclass
class Received:
    """The number of files that were written, of their bytes, and of those that were left out as clutter; and what may be at most.

    most_ratio: of unpacked to packed bytes of an archive.
    """

    most_files: int
    most_bytes: int
    most_ratio: float
    files: int = 0
    size: int = 0
    clutter: int = 0

    def write(self, source: IO[bytes], name: str, folder: Path) -> None:
        """Write a file of this name, with its folders, below a folder; clutter is left out.

        Raises BadInput for too many files or bytes, names that lead out of the folder, and a name that is taken.
        """
        parts = safe_parts(name)
        if not parts:
            self.clutter += 1
            return
        self.files += 1
        if self.files > self.most_files:
            raise BadInput(
                f"scans: expected at most {self.most_files} files, found more. Choose one study."
            )
        path = folder.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            target = path.open("xb")
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(
                f"scans: expected files and folders of different names, found '{path.name}' twice. Rename one."
            ) from error
        with target:
            while chunk := source.read(MB):
                self.size += len(chunk)
                if self.size > self.most_bytes:
                    raise BadInput(
                        f"scans: expected files of at most {self.most_bytes / MB:.4g} MB, found more. Choose fewer files."
                    )
                target.write(chunk)

    def unpack(self, path: Path, folder: Path) -> None:
        """Write the files of a zip below a folder; archives inside of it are not unpacked.

        Raises BadInput for a damaged zip, links and devices, and for one that expands too far.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                self._check(entries, path)
                for entry in entries:
                    with archive.open(entry) as source:
                        self.write(source, entry.filename, folder)
        except BadInput:
            raise
        except (
            Exception
        ) as error:  # each kind of compression raises errors of its own for damaged data
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise BadInput(
                f"{path.name}: expected a zip archive without a password, found a damaged or another one. Make it again."
            ) from error

    def _check(self, entries: list[zipfile.ZipInfo], path: Path) -> None:
        kinds = {stat.S_IFMT(entry.external_attr >> 16) for entry in entries}
        if kinds - {0, stat.S_IFREG}:
            raise BadInput(
                f"{path.name}: expected plain files in an archive, found a link or a device. Make it again without."
            )
        size = sum(entry.file_size for entry in entries)
        ratio = size / path.stat().st_size
        if size > FREE_BYTES and ratio > self.most_ratio:
            raise BadInput(
                f"{path.name}: expected files at most {self.most_ratio:g} times as large as the archive, found {ratio:.0f} times. Give the files without the archive."
            )


def safe_parts(name: str) -> list[str]:
    """The folders and the name of a file as parts that any system takes; [] for hidden files and clutter.

    Raises BadInput for an absolute path, and for one that leads out of its folder or is too deep.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    parts = list(path.parts)
    if path.is_absolute() or ".." in parts or re.match(r"[A-Za-z]:", name) or len(parts) > DEEPEST:
        raise BadInput(
            f"scans: expected the name of a file inside a folder, found {name[:LONGEST_NAME]!r}. Choose the folder itself."
        )
    if any(part.startswith(".") or part.lower() in CLUTTER for part in parts):
        return []
    safe = [re.sub(r"[^\w.-]+", "_", part).strip(".")[-LONGEST_NAME:].lstrip(".") for part in parts]
    return safe if all(safe) else []
