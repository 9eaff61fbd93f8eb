"""The client of scripts and of 3D Slicer's module against a running server, and the addresses that openapi.json states."""

import ast
import gzip
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import threading
import types
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from paging import TOKEN, Here, serving

from rows import every_row, slow
from voxlate.base.files import read_json
from voxlate.page.jobs import JOB
from voxlate.page.pages import NO_PAGE
from voxlate.page.synthesise import _descriptions
from voxlate.page.words import in_settings
from voxlate.page.work import start_process

MODULE = Path(__file__).parents[2] / "slicer" / "VoxlateSynthesis"
JSON = {"accept": "application/json"}
GRADE = "do not trust"


def loaded(name):
    """A file of the module's folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, MODULE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client_file(monkeypatch):
    """voxlate_client.py."""
    monkeypatch.setitem(sys.modules, "voxlate_client", types.ModuleType("voxlate_client"))
    return loaded("voxlate_client")


@pytest.fixture
def serve(tmp_path, diffusion):
    """serve(start): the address that a running server with one model prints; start starts its jobs."""
    runs = {"run": str(diffusion)}
    with ExitStack() as servers:

        def run(start):
            server = serving(runs, tmp_path / "data", start)
            return f"{servers.enter_context(server)}enter?token={TOKEN.replace(' ', '%20')}"

        yield run


@pytest.fixture
def server(serve):
    """The address of a server whose jobs are done in this process."""
    return serve(Here)


def first_by(process):
    """Starts the first synthesis by process(folder), and does all other jobs in this process."""
    begun = []

    def start(folder):
        if begun or read_json(folder / JOB)["kind"] == "check":
            return Here(folder)
        begun.append(folder)
        return process(folder)

    return start


@slow
def test_a_script_gets_the_images_of_voxlate_synth_and_leaves_nothing_behind(
    serve, client_file, cohort, typed, tmp_path
):
    client = client_file.Client(server := serve(first_by(start_process)))
    assert client.models() == ["run"]
    told = []
    scan = cohort / "case1" / "t1.nii.gz"
    result = client.synthesise(
        {"t1.nii.gz": scan.read_bytes()},
        tell=lambda stage, _: told.append(stage),
    )
    assert told[-1] == "Synthesising: done"
    assert "report.html" in result["files"]
    assert result["windows"].keys() == {"t2"}
    assert client.options().keys() == {"anyway"}
    assert isinstance(result["summary"], str)
    typed(f"synth drun {scan} --out out --device cpu").done()
    (path,) = (tmp_path / "out").glob("*/t2.nii.gz")
    assert client.read(result["images"]["t2"]) == path.read_bytes()
    client.delete(result)
    assert client._ask("/")["jobs"] == []
    with pytest.raises(client_file.VoxlateError, match="expected a job that exists, found none"):
        client.wait(result)
    with pytest.raises(client_file.VoxlateError, match="token: expected the one that the server"):
        client_file.Client(f"{server}x")


@slow
def test_who_stops_to_wait_leaves_no_job_and_the_warnings_of_the_check_are_kept(
    serve, client_file, cohort
):
    def wait(_):
        return subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)

    client = client_file.Client(serve(first_by(wait)))
    scan = {"t2.nii.gz": (cohort / "case1" / "t1.nii.gz").read_bytes()}

    def stop(stage, percent):
        if stage == "Synthesising: running":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.synthesise(scan, tell=stop)
    assert client._ask("/")["jobs"] == []
    said = client.synthesise(scan)["warnings"]
    assert any("taken as t1" in one["text"] for one in said)


def test_a_connection_that_ends_is_no_absent_server_and_names_no_token(client_file):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up():
            listening.accept()[0].close()

        threading.Thread(target=hang_up).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/enter?token=secret"
        with pytest.raises(client_file.VoxlateError, match="expected a whole answer") as refused:
            client_file.Client(address)
    assert "secret" not in str(refused.value)


@slow
def test_a_scan_that_no_model_takes_is_refused_with_its_reason(server, client_file):
    client = client_file.Client(server)
    odd = nib.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), np.eye(4))
    with pytest.raises(client_file.VoxlateError, match="run: "):
        client.synthesise({"t1.nii": odd.to_bytes()})
    with pytest.raises(client_file.VoxlateError, match="found none"):
        client.check({"notes.txt": b"no scan"})
    assert client._ask("/")["jobs"] == [], "failed checks are removed"


def test_the_script_of_the_guide_writes_the_images_by_no_proxy_of_the_environment(
    server, client_file, cohort, tmp_path, monkeypatch
):
    guide = (MODULE.parents[1] / "docs" / "guides" / "slicer.md").read_text()
    script = guide.split("```python\n")[1].split("```")[0]
    printed = "http://127.0.0.1:8765/enter?token=TOKEN"
    assert printed in script
    shutil.copy(cohort / "case1" / "t1.nii.gz", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    exec(script.replace(printed, server), {})
    assert nib.load(tmp_path / "t2.nii.gz").shape == nib.load(tmp_path / "t1.nii.gz").shape


@every_row("address, sentence",
    [
        ("http://127.0.0.1:8765/", "address: expected what `voxlate serve` printed"),
        ("http://[::1/enter?token=x", "address: expected what `voxlate serve` printed"),
        ("127.0.0.1:8765/enter?token=x", "address: expected what `voxlate serve` printed"),
        ("http://127.0.0.1:9/enter?token=x", "http://127.0.0.1:9: expected a running `voxlate serve`"),
    ],
)  # fmt: skip
def test_a_wrong_address_is_one_sentence(address, sentence, client_file):
    with pytest.raises(client_file.VoxlateError) as refused:
        client_file.Client(address)
    assert sentence in str(refused.value)


@dataclass
class Node:
    """A volume of the scene: a file."""

    path: Any
    name: str = "head"
    transform: Any = None
    description: str = ""

    def GetName(self):
        return self.name

    def GetParentTransformNode(self):
        return self.transform

    def SetDescription(self, text):
        self.description = text


@pytest.fixture
def slicer_module(client_file, monkeypatch):
    """VoxlateSynthesis.py between stand-ins of Slicer's modules, whose volumes are files."""
    names = ("slicer", "qt", "slicer.ScriptedLoadableModule")
    slicer, _, base = modules = [types.ModuleType(name) for name in names]
    for name in ("", "Logic", "Test", "Widget"):
        setattr(base, f"ScriptedLoadableModule{name}", type(f"Base{name}", (), {}))
    slicer.util = types.SimpleNamespace(
        saveNode=lambda node, path: bool(Path(path).write_bytes(node.path.read_bytes())),
        loadVolume=lambda path, properties: Node(
            nib.Nifti1Image.from_bytes(nib.load(path).to_bytes()), properties["name"]
        ),
    )
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return loaded("VoxlateSynthesis")


@slow
def test_the_logic_of_slicers_module_loads_the_image_of_a_volume(
    server, slicer_module, cohort, client_file
):
    logic = slicer_module.VoxlateSynthesisLogic()
    scan = cohort / "case1" / "t1.nii.gz"
    with pytest.raises(client_file.VoxlateError, match="Press Connect first"):
        logic.synthesise(Node(scan), "t1")
    assert logic.connect(server) == ["run"]
    with pytest.raises(client_file.VoxlateError, match="Harden the transform first"):
        logic.synthesise(Node(scan, transform=object()), "t1")
    nodes, sentences = logic.synthesise(Node(scan), slicer_module.AS_FOUND)
    assert nodes["t2"].name.startswith("head: t2 (synthetic")
    assert nodes["t2"].path.shape == nib.load(scan).shape
    assert "not for diagnosis" in nodes["t2"].description
    assert sentences
    assert all(isinstance(sentence, str) for sentence in sentences)
    assert logic.client._ask("/")["jobs"] == []


def test_the_nodes_of_slicer_state_the_grade_and_the_end_of_the_interval(slicer_module, tmp_path):
    descriptions = _descriptions(["ct.nii.gz", "ct_low.nii.gz", "ct_high.nii.gz"], [GRADE])

    class Answers:
        def synthesise(self, files, *_, **options):
            assert [*files] == ["scan.nii.gz"]
            images = dict.fromkeys(descriptions, "/image")
            said = [{"grade": GRADE, "text": "Only half a head."}]
            more = {"summary": "", "expected": [], "warnings": said, "windows": {}}
            return {"images": images, "descriptions": descriptions, **more}

        def read(self, url):
            return gzip.compress(made.to_bytes())

        def delete(self, result):
            pass

    made = nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    nib.save(made, tmp_path / "scan.nii.gz")
    logic = slicer_module.VoxlateSynthesisLogic()
    logic.client = Answers()
    nodes, _ = logic.synthesise(Node(tmp_path / "scan.nii.gz"), slicer_module.AS_FOUND)
    for name, word in (("ct", "synthetic"), ("ct_low", "lower"), ("ct_high", "upper")):
        for text in (nodes[name].name, nodes[name].description):
            assert word in text
            assert "DO NOT TRUST" in text


def test_refusals_of_the_page_speak_the_words_of_slicers_panel(slicer_module):
    said = [in_settings("x: expected a, found b. Pass --anyway.")]
    said += ["x: expected a scan, found none. Choose other files.", NO_PAGE]
    for sentence in map(slicer_module.in_panel, said):
        assert not re.search(r"--|other files|list\.", sentence), sentence


def test_python_of_slicer_reads_the_module():
    for name in ("VoxlateSynthesis", "voxlate_client"):
        text = (MODULE / f"{name}.py").read_text()
        ast.parse(text, feature_version=(3, 9))


def test_each_documented_address_answers_as_openapi_states(page, cohort):
    made = page({"run": "nowhere"})
    stated = made.get("/openapi.json").json()
    assert stated["openapi"].startswith("3.1")
    assert {*stated["paths"]} == {
        "/", "/enter", "/uploads", "/uploads/{name}", "/uploads/{name}/synthesise", "/jobs/{name}",
        "/jobs/{name}/delete", "/jobs/{name}/{place}",
    }  # fmt: skip
    schemas = stated["components"]["schemas"]
    listed = made.get("/", headers=JSON).json()
    assert (listed["models"], listed["jobs"]) == (["run"], [])
    assert "t1" in listed["contrasts"]
    place = made.upload(cohort / "case1" / "t1.nii.gz").headers["location"]
    job = made.get(place, headers=JSON).json()
    assert {*job} == {*schemas["JobState"]["properties"]}
    assert (job["url"], job["state"], job["kind"]) == (place, "queued", "check")
    early = made.post(f"{place}/synthesise", data={"run": "run"}, headers=JSON)
    assert early.status_code == 400
    assert {*early.json()} == {"error"}
    gone = made.get("/jobs/20200101-000000-000000000000", headers=JSON)
    assert (gone.status_code, {*gone.json()}) == (404, {"error"})
    assert {*made.stranger().get("/", headers=JSON).json()} == {"error"}
    answer = made.post(f"/jobs/{job['job']}/delete", headers=JSON)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    entered = made.get("/enter", params={"token": TOKEN}, headers=JSON)
    assert entered.json() == {"entered": True}
    assert "HttpOnly" in entered.headers["set-cookie"]
