"""The page that computes in a browser: voxlate's own code, whose graph onnxruntime-web computes (run/browser)."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnxruntime

from carried import head, tiny_model
from voxlate.exchange.export import export_model
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.synthesis.exported import load_exported

ROOT = Path(__file__).parents[2]
OWN = ROOT / "run" / "browser"
FLOW = "a flow from the mean"


def _module(name: str, folder: Path = OWN) -> ModuleType:
    """A file of run/browser as a module, which nothing else sees."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Proxy(SimpleNamespace):
    """A value of JavaScript: its fields, and itself as a value of Python."""

    def to_py(self) -> Any:
        return self.value


def _scripts() -> dict[str, ModuleType]:
    """The modules that the worker gives to Python, with onnxruntime in the place of onnxruntime-web."""

    def open_graph(model: bytes) -> Proxy:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        names = [wanted.name for wanted in session.get_inputs()]
        return Proxy(value=session, inputNames=Proxy(value=names))

    def compute(session: Proxy, given: list[Any], names: list[str]) -> list[Proxy]:
        kinds = {"float32": np.float32, "bool": bool}
        inputs = {
            name: np.asarray(values).view(kinds[kind]).reshape(shape)
            for name, kind, values, shape in given
        }
        outputs = session.value.run(names, inputs)
        return [Proxy(data=Proxy(value=x.ravel()), dims=Proxy(value=[*x.shape])) for x in outputs]

    js = SimpleNamespace(ort_version="1", open_graph=open_graph, compute=compute)
    ffi = SimpleNamespace(run_sync=lambda value: value, to_js=lambda value: value)
    return {"js": js, "pyodide": SimpleNamespace(ffi=ffi), "pyodide.ffi": ffi}  # type: ignore[dict-item]


def _page(folder: Path, monkeypatch) -> ModuleType:
    """The page's own module of Python, with its places in a folder."""
    for name, module in _scripts().items():
        monkeypatch.setitem(sys.modules, name, module)
    page = _module("page")
    for name in ("MODEL", "SCANS", "OUT", "VIEWS"):
        monkeypatch.setattr(page, name, folder / name)
    return page


@pytest.fixture
def scan(tmp_path) -> Path:
    """A scan as the page keeps it."""
    path = tmp_path / "SCANS" / "t1" / "scan.nii.gz"
    write_volume(path, head("LPS"))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of a flow, which draws noise."""
    path = tmp_path_factory.mktemp("exported") / "MODEL"
    export_model(tiny_model(FLOW), path, licence="CC0")
    return path


def test_the_page_gives_the_image_of_python_bit_for_bit(folder, scan, tmp_path, monkeypatch):
    load_exported(folder).synthesise({"t1": scan}, seed=3).save(tmp_path / "cli")
    page = _page(tmp_path, monkeypatch)
    monkeypatch.setattr(page, "MODEL", folder)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", _module("onnxruntime", OWN / "stand_ins"))
    stated = json.loads(page.open_model())
    assert (stated["title"], stated["source"], stated["licence"]) == (FLOW, ["t1"], "CC0")
    steps = []
    done = json.loads(page.synthesise(3, lambda *step: steps.append(step)))
    assert steps[-1][0] == steps[-1][1]
    assert [Path(file).name for file in done["files"]] == ["t2.nii.gz", "provenance.json"]
    assert [view["role"] for view in done["views"]] == ["source", "synthesis"]
    expected, found = (
        read_volume(tmp_path / place / "t2.nii.gz", "t2").data for place in ("cli", "OUT")
    )
    np.testing.assert_array_equal(found, expected)


@pytest.fixture
def written(folder, tmp_path, monkeypatch) -> Path:
    """The page's own files, with a model, without the packages of others."""
    build = _module("build")
    page = tmp_path / "page"
    (page / "models").mkdir(parents=True)
    build.write_page(page)
    build.add_models(page, [folder])
    return page


def test_the_built_page_holds_each_file_that_it_asks_for(written):
    names = re.findall(r'(?:href|src)="([^"#]+)"', (written / "index.html").read_text())
    for script in written.glob("*.js"):
        names += re.findall(r'^import .*?"\./([^"]+)";', script.read_text(), re.MULTILINE)
    packages = {"pyodide/pyodide.mjs", "onnxruntime-web/ort.jspi.min.mjs"}
    assert packages <= {*names}
    assert "viewer.js" in names
    assert [name for name in {*names} - packages if not (written / name).is_file()] == []
    models = json.loads((written / "models.json").read_text())
    assert set(models["MODEL"]) == {"arrays.safetensors", "model.json", "network.onnx"}


def test_the_page_allows_webassembly_but_no_other_origin_and_no_inline_script(written):
    text = (written / "index.html").read_text()
    (policy,) = re.findall(r'content-security-policy" content="([^"]+)"', text)
    allowed = dict(part.split(" ", 1) for part in policy.replace("&#39;", "'").split("; "))
    assert allowed["default-src"] == "'self'"
    assert allowed["connect-src"] == "'self' blob:"
    assert allowed["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", text)
