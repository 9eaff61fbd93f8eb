"""Digests of results that a change of the source must not change: phantoms, weights, images, scores, calibrations.

python benchmarks/equal.py OUT    # writes OUT/digests.json; compare the files of two versions of the source

Commands run with one thread, through the command line. Times, versions and paths are left out of the digests.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from safetensors import safe_open

SMALL = {"train.steps": 3, "train.batch": 2, "train.validation_items": 1, "data.patch": [1, 32, 32]}
FIRST = {f"stages.0.{key}": value for key, value in SMALL.items() if key != "data.patch"}
DENOISED = ["--steps", 2]
ROWS = {  # one small recipe of each paper: modalities of its phantoms, changes of its keys, further words of its synthesis
    "mrdpm_masked_small": ("ncct cta1 cta2 cta3 tmax", SMALL, DENOISED),
    "tof_to_cta_adm_small": ("tof cta", SMALL | FIRST, DENOISED),
    "mr_to_ct_cnn_small": ("t2 ct", SMALL, []),
    "umm_csgm_small": (
        "t1 t1c t2 flair",
        SMALL | {"net.width": 32},
        [*DENOISED, "--missing", "t1c"],
    ),
    "pix2pix_swi_mra_small": ("swi tof", SMALL, []),
}
LEFT_OUT = {"seconds", "voxlate", "made_by", "versions", "folder", "path", "run", "command"}


def voxlate(*words: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "voxlate", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
    )
    if done.returncode:
        sys.exit(f"voxlate {' '.join(map(str, words))}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")


def digest(values: np.ndarray) -> str:
    plain = np.ascontiguousarray(values)
    return hashlib.sha256(f"{plain.dtype}{plain.shape}".encode() + plain.tobytes()).hexdigest()[:16]


def digests_of(folder: Path) -> dict[str, str]:
    """Digests of the images, tensors and scores in a folder, by their paths."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.endswith((".nii.gz", ".nii")):
            found[name] = digest(np.asarray(nib.load(path).dataobj))
        elif name.endswith(".safetensors"):
            with safe_open(path, "np") as file:
                found[name] = ",".join(digest(file.get_tensor(key)) for key in sorted(file.keys()))
                found[name] = hashlib.sha256(found[name].encode()).hexdigest()[:16]
        elif path.name == "metrics.json":
            found[name] = hashlib.sha256(
                json.dumps(numbers(json.loads(path.read_text()))).encode()
            ).hexdigest()[:16]
    return found


def numbers(content: Any) -> Any:
    """All numbers of a file in their order; sentences may change."""
    if isinstance(content, dict):
        return [numbers(content[key]) for key in sorted(content) if key not in LEFT_OUT]
    if isinstance(content, list):
        return [numbers(value) for value in content]
    return content if isinstance(content, int | float) else None


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for row, (modalities, changes, further) in ROWS.items():
        place = out / row
        if place.exists():  # an earlier command got here
            found |= {f"{row}/{name}": value for name, value in digests_of(place).items()}
            continue
        phantoms(place / "cohort", modalities.split())
        voxlate(
            "prepare",
            place / "cohort",
            "--shares",
            2,
            1,
            1,
            "--no-audit",
            "--out",
            place / "prepared",
        )
        sets = [f"--set={key}={value}" for key, value in changes.items()]
        voxlate(
            "train",
            row,
            "--data",
            place / "prepared",
            *sets,
            "--device",
            "cpu",
            "--out",
            place / "run",
        )
        case = next((place / "cohort").iterdir())
        voxlate(
            "synth", place / "run", case, *further, "--device", "cpu", "--out", place / "images"
        )
        found |= {f"{row}/{name}": value for name, value in digests_of(place).items()}
        print(row, flush=True)
    place = out / "starter"
    phantoms(place / "cohort", ["t1", "ct"])
    voxlate(
        "synth",
        "starter:head-mr-to-ct",
        place / "cohort",
        "--device",
        "cpu",
        "--out",
        place / "images",
    )
    voxlate(
        "evaluate",
        place / "images",
        "--truth",
        place / "cohort",
        "--any-truth",
    )
    found |= {f"starter/{name}": value for name, value in digests_of(place).items()}
    (out / "digests.json").write_text(json.dumps(found, indent=1))


def phantoms(out: Path, modalities: list[str]) -> None:
    names = [word for name in modalities for word in ("--modality", name)]
    voxlate(
        "phantom", "--out", out, "--cases", 4, "--size", 64, 64, 24, "--lesion", "stroke", *names
    )


if __name__ == "__main__":
    main()
