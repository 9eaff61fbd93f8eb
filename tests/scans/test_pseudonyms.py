"""Pseudonyms depend on the key and on the name, and nothing else; the key must be random and private."""

import hashlib
import hmac
import os

from refusals import refuses
from rows import every_row
from voxlate.scans.cohorts.pseudonyms import (
    Pseudonyms,
    read_key,
    without_names,
    write_key,
)

KEY = bytes(range(32))
BY_KEY = Pseudonyms(KEY)


def test_the_pseudonym_is_the_beginning_of_hmac_sha256():
    whole = hmac.new(KEY, b"patient\0Anna", hashlib.sha256).hexdigest()
    assert BY_KEY.patient("Anna") == whole[:12]
    assert BY_KEY.case("Anna") == f"sub-{whole[:12]}"


def test_studies_of_a_patient_share_its_pseudonym_and_other_keys_give_others():
    first, second = BY_KEY.case("2019", "Anna"), BY_KEY.case("2020", "Anna")
    assert first.partition("_")[0] == second.partition("_")[0] == BY_KEY.case("Anna", "Anna")
    assert first != second
    assert Pseudonyms(KEY[::-1]).patient("Anna") != BY_KEY.patient("Anna")
    assert "0001020304" not in repr(BY_KEY)
    assert str(KEY) not in repr(BY_KEY)


def test_a_written_key_is_private_random_and_read_back(tmp_path):
    for name in ("a", "b"):
        write_key(tmp_path / name)
    one, other = (read_key(tmp_path / name) for name in ("a", "b"))
    assert len(one.key) == 32
    assert one != other
    if os.name == "posix":
        assert (tmp_path / "a").stat().st_mode & 0o077 == 0
    with refuses():
        write_key(tmp_path / "a")
    assert read_key(tmp_path / "a") == one


@every_row("content", [b"secret", b"", bytes(64), b"ab" * 32, b"ab" * 8])
def test_a_key_that_is_short_or_not_random_is_refused(tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    with refuses():
        read_key(tmp_path / "key")


@every_row(
    "text, clean",
    [
        ("Anna: no brain in Anna/t1.nii.gz", "sub-1: no brain in sub-1/t1.nii.gz"),
        ("/data/Anna Meier/t1.nii.gz: damaged", "SCAN: damaged"),
        ("see /home/meier/runs/a.toml, please", "see PATH, please"),
        (r"see C:\Users\meier\a.toml", "see PATH"),
        ("Annabel is another", "Annabel is another"),
        ("Anna_t1.nii.gz", "sub-1_t1.nii.gz"),
        ("5 mm/s and 1/2 of t1/t2", "5 mm/s and 1/2 of t1/t2"),
    ],
)
def test_names_and_absolute_paths_are_replaced(text, clean):
    names = {"Anna": "sub-1", "/data/Anna Meier/t1.nii.gz": "SCAN"}
    assert without_names(text, names) == clean
