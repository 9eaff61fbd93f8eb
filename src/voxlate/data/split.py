"""Which patient goes to which split."""

import hashlib

from voxlate.errors import BadInput


def split_patients(
    cases: list[tuple[str, str | None]], seed: int = 0, shares: tuple[float, float, float] = (0.7, 0.15, 0.15)
) -> dict[str, str]:
    """The split of each patient: the stated one, else by shares of train, val and test patients.

    Patients are ordered by a hash of seed and name, so the order of files does not matter. Two patients or more leave
    at least one for validation, four or more at least one for test; shares of 0 leave none.
    """
    if any(split is not None for _, split in cases):
        return {patient: split for patient, split in cases if split is not None}
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or shares[0] == 0:
        raise BadInput(
            f"shares: expected train, val and test to add up to 1 with some for train, found {shares}. Fix them."
        )
    patients = sorted({patient for patient, _ in cases}, key=lambda name: _order(seed, name))
    count = len(patients)
    val = max(1, round(shares[1] * count)) if shares[1] > 0 and count >= 2 else 0
    test = max(1, round(shares[2] * count)) if shares[2] > 0 and count >= 4 else 0
    val, test = min(val, count - 1), min(test, count - 1 - min(val, count - 1))
    names = ["val"] * val + ["test"] * test + ["train"] * (count - val - test)
    return dict(zip(patients, names))


def _order(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=8).digest()
