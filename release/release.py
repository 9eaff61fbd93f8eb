"""The checklist of a release: builds twice, checks what is built and what it needs, and lists every component.

python release/release.py [--out dist]     (make release; needs the extras `release` and `export`)
Writes the wheel and the source archive of voxlate, the list of components (voxlate.cdx.json,
CycloneDX) and the licences of both (licences.json, licences_run.json) into --out. Ends with status 1 if a point fails.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
NAME = "voxlate"
LARGEST_BYTES = 10_000_000  # of a file in the wheel
BUILT_AT = "1577836800"  # seconds since 1970 that archives state for each file
REFUSED = re.compile(r"AGPL|Affero|EUPL|European Union Public|non-?commercial|CC-BY-NC", re.I)


def versions_agree(_: Path) -> str:
    """The package, the citation and the changelog have one version."""
    version = str(_project()["version"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", version), f"{version} is no semantic version"
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited is not None, "CITATION.cff: expected a version, found none"
    assert cited[1] == version, f"CITATION.cff: expected version {version}, found {cited[1]}"
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert version in sections, f"CHANGELOG.md: expected a section {version}, found {sections}"
    return version


def _project() -> dict[str, Any]:
    """The project table of the distribution."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def files_of_this_version_are_kept(_: Path) -> str:
    """tests/kept_files has the files that every later version opens."""
    kept = ROOT / "tests" / "kept_files" / f"{_project()['version'].rpartition('.')[0]}.tar.xz"
    assert kept.is_file(), f"{kept}: expected files of this version, found none; run make keep"
    return f"{kept.name}, {kept.stat().st_size} bytes"


def two_builds_have_one_hash(out: Path) -> str:
    """A wheel for every system and a source archive, the same bytes twice."""
    hashes = []
    with tempfile.TemporaryDirectory() as other:
        for folder in (out, Path(other)):
            environment = {**os.environ, "SOURCE_DATE_EPOCH": BUILT_AT}
            command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            hashes.append({file.name: _sha256(file) for file in built(folder)})
    assert hashes[0] == hashes[1], f"the builds differ: {hashes}"
    return ", ".join(f"{name} {digest[:12]}" for name, digest in hashes[0].items())


def built(folder: Path) -> list[Path]:
    """The wheel and the source archive in a folder; AssertionError if there are others."""
    found = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
    assert len(found) == 2, f"{folder}: expected a wheel and a source archive, found {found}"
    return found


def the_wheel_holds_the_package_alone(out: Path) -> str:
    """One tag for all systems, no other top folder, no large file, every licence file."""
    (wheel,) = out.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl"), f"{wheel.name} is not for every system"
    with zipfile.ZipFile(wheel) as archive:
        files = archive.infolist()
    tops = {file.filename.split("/")[0] for file in files}
    assert all(top == NAME or top.endswith(".dist-info") for top in tops), f"found {tops}"
    large = [file.filename for file in files if file.file_size > LARGEST_BYTES]
    assert not large, f"larger than {LARGEST_BYTES} bytes: {large}"
    names = [Path(file.filename).name for file in files]
    assert {"LICENSE", "NOTICE", "entry_points.txt"} <= set(names), "a licence or entry is missing"
    return f"{len(files)} files, {wheel.stat().st_size / 1e6:.1f} MB"


def licences_are_allowed(out: Path) -> str:
    """No dependency, of any extra that is installed, has a licence that forbids what Apache-2.0 allows."""
    found = {name: licence_of(name) for name in sorted(needed(NAME) - {NAME})}
    (out / "licences.json").write_text(json.dumps(found, indent=1) + "\n")
    unknown = [name for name, licence in found.items() if not licence]
    assert not unknown, f"no licence is stated by {unknown}"
    refused = {name: licence for name, licence in found.items() if REFUSED.search(licence)}
    assert not refused, f"not allowed: {refused}"
    return f"{len(found)} dependencies"


def needed(root: str) -> set[str]:
    """The installed packages that a package and its extras need, itself among them."""
    waiting, found = [root], set[str]()
    while waiting:
        name = waiting.pop()
        try:
            requirements = map(Requirement, metadata.requires(name) or ())
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed
        found.add(canonicalize_name(name))
        for one in requirements:
            other = canonicalize_name(one.name)
            asked = name == root or one.marker is None or one.marker.evaluate({"extra": ""})
            if asked and other not in found:
                waiting.append(other)
    return found


def licence_of(name: str) -> str:
    """What the metadata of an installed package state of its licence."""
    known = metadata.metadata(name).json
    classifiers = (line.split(" :: ") for line in known.get("classifier", ()))
    stated = "; ".join(words[-1] for words in classifiers if words[0] == "License")
    text = str(known.get("license", "")).strip().split("\n")[0]
    return str(known.get("license_expression", "")) or stated or text


def components_are_listed(out: Path) -> str:
    """A list of all components in the CycloneDX format."""
    file = out / "voxlate.cdx.json"
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--output-file", str(file)]
    subprocess.run([*command, sys.executable], check=True, stderr=subprocess.DEVNULL)
    return f"{len(json.loads(file.read_text())['components'])} components"


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


POINTS: tuple[Callable[[Path], str], ...] = (
    versions_agree,
    files_of_this_version_are_kept,
    two_builds_have_one_hash,
    the_wheel_holds_the_package_alone,
    licences_are_allowed,
    components_are_listed,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("dist"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for point in POINTS:
        name = point.__name__.replace("_", " ")
        try:
            print(f"ok      {name}: {point(out)}", flush=True)
        except (AssertionError, subprocess.CalledProcessError) as error:
            failed += 1
            print(f"FAILED  {name}: {error}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
