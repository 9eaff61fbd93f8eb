"""Pseudonyms of cases and patients by a keyed hash (HMAC-SHA256).

Without the key nobody can compute a pseudonym from a name, or test a guess; equal keys give equal pseudonyms.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.files import inside

KEY_BYTES = 32
FEWEST_VALUES = 12  # different bytes among 32 random ones; fewer have a probability below 1e-15
PATIENT_DIGITS, STUDY_DIGITS = 12, 8  # hexadecimal, of a pseudonym
PATH = re.compile(r"(?<![\w.~])(?:/|[A-Za-z]:\\)[^\s:,;()'\"/\\]+[/\\][^\s:,;()'\"]*")


@dataclass(frozen=True)
class Pseudonyms:
    """Pseudonyms by one key."""

    key: bytes = field(repr=False)

    def digest(self, kind: str, name: str) -> bytes:
        """32 bytes that depend on the key, on what is named (such as "patient") and on its name."""
        return hmac.new(self.key, f"{kind}\0{name}".encode(), hashlib.sha256).digest()

    def patient(self, name: str) -> str:
        """The pseudonym of a patient: 12 hexadecimal digits."""
        return self.digest("patient", name).hex()[:PATIENT_DIGITS]

    def case(self, case: str, patient: str = "") -> str:
        """The pseudonym of a case, as a BIDS name: its patient, and its study where the two have different names."""
        subject = f"sub-{self.patient(patient or case)}"
        if patient in ("", case):
            return subject
        return f"{subject}_ses-{self.digest('study', case).hex()[:STUDY_DIGITS]}"


def without_names(text: str, names: Mapping[str, str]) -> str:
    """A text in which each of these names or paths has its replacement, and no absolute path remains."""
    for name in sorted(names, key=len, reverse=True):
        # not inside of words and numbers; '_' separates words
        whole = rf"(?<![^\W_])(?<!\d\.){re.escape(name)}(?![^\W_])(?!\.\d)"
        text = re.sub(whole, names[name].replace("\\", r"\\"), text)
    return PATH.sub("PATH", text)


def write_key(path: Path) -> None:
    """Write a new key of 32 random bytes, as 64 hexadecimal digits, readable by its owner alone.

    Raises BadInput where a file has this name: its pseudonyms could not be computed again.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError as error:
        raise BadInput(
            f"{path}: expected a new file for the key, found one of this name. Choose another name; a key that is overwritten is lost."
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{secrets.token_hex(KEY_BYTES)}\n")


def read_key(path: Path) -> Pseudonyms:
    """The pseudonyms by a key file: hexadecimal digits as `write_key` writes them, or at least 32 random bytes."""
    command = f"Make one: voxlate pseudonym-key {path}"
    if not path.is_file():
        raise BadInput(f"{path}: expected a key for the pseudonyms, found no file. {command}")
    content = path.read_bytes()
    text = content.strip()
    if re.fullmatch(rb"(?:[0-9a-fA-F]{2})+", text):
        content = bytes.fromhex(text.decode())
    if len(content) < KEY_BYTES or len(set(content)) < FEWEST_VALUES:
        raise BadInput(
            f"{path}: expected a key of at least {KEY_BYTES} random bytes, found {len(content)} bytes of {len(set(content))} different values. Remove the file, or choose another. {command}"
        )
    return Pseudonyms(content)


def check_outside(key: Path, out: Path) -> None:
    """Raise BadInput where the key is in the folder of the images, with which it would be given away."""
    if inside(out, key):
        raise BadInput(
            f"{key}: expected the key outside {out}, found it inside. Move it: whoever has the key can compute the pseudonyms."
        )
