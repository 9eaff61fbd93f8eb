"""No command, function or job of the page imports code that a stranger's run, recipe or weights name, unless allowed."""

import ast
import shutil
import sys
from typing import get_args

import pytest

import voxlate as package
from refusals import refuses
from rows import every_row
from sources import files, nodes, text_of
from voxlate.base.errors import BadInput
from voxlate.base.files import write_json
from voxlate.commands.cli.terminal import command_line
from voxlate.page.jobs import Kind
from voxlate.page.work import do_job
from voxlate.training import recipe as recipes
from voxlate.training.recipe.run_provenance import read_run
from voxlate.training.train import train

MODULE = "strangers_parts"
NETWORK = """
from torch import nn


class Layer(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.layer = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, image):
        return self.layer(image)
"""
RECIPE = f"""
title = "a stranger's"
data = {{ source = ["t1"], target = ["t2"], patch = [1, 24, 20] }}
intensity = {{ t1 = {{ kind = "percentile" }}, t2 = {{ kind = "percentile" }} }}
method = {{ kind = "regression" }}
net = {{ kind = "{MODULE}:Layer" }}
train = {{ steps = 1, batch = 2, precision = "float32", workers = 0 }}
"""
MARKER = "from voxlate.base.errors import BadInput\nraise BadInput('expected no import, found one')"


@pytest.fixture(scope="module")
def handed_over(tmp_path_factory, prepared_once):
    """The folder of a stranger, whose module is a network when it is trained and says so when it is imported later."""
    folder = tmp_path_factory.mktemp("stranger")
    code = folder / f"{MODULE}.py"
    code.write_text(NETWORK)
    (folder / "recipe.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        own = recipes.read(str(folder / "recipe.toml"), allow_code=True)
        train(own, prepared_once, folder / "run", device="cpu")
        del sys.modules[MODULE]
    code.write_text(MARKER)
    return folder


@pytest.fixture
def here(handed_over, cohort, prepared, tmp_path, monkeypatch):
    """The folder in which lines are typed, with what the stranger handed over."""
    monkeypatch.syspath_prepend(str(handed_over))
    shutil.copytree(handed_over, tmp_path, dirs_exist_ok=True)
    shutil.copytree(cohort, tmp_path / "images")
    stated = tmp_path / "run" / "provenance.json"
    write_json(stated, {**read_run(stated), "prepared": str(prepared)})
    shutil.copy(tmp_path / "run" / "weights.safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


LAYER = f'{{ kind = "{MODULE}:Layer" }}'
# Each line is refused, because it would need the stranger's code, and with --allow-code imports it.
ALLOWED = {
    "recipes": ["recipe.toml"],
    "train": [
        "recipe.toml --data prepared --out out",
        "recipe.toml --data prepared --out run",
        "auto --data prepared --out run",
        f"t1_to_t2_brain --data prepared --out out --set 'net={LAYER}'",
        f"t1_to_t2_brain --data prepared --out out --set synth.sampler={MODULE}:sampler",
    ],
    "check": ["weights.safetensors cohort"],  # a run has its facts beside its weights
    "synth": [
        "run cohort --out out",
        "weights.safetensors cohort --out out",
        "run run cohort --out out",
        "run cohort --out out --answer sample",
    ],
    "evaluate": [f"images --truth cohort --metrics {MODULE}:score"],
    "calibrate": ["run cohort"],
    "export": ["run --out out"],
    "push": ["run NAME/REPO --dry-run out", "weights.safetensors NAME/REPO --dry-run out"],
    "adapt": [
        "run --data prepared --out out --steps 1",
        "weights.safetensors --data prepared --out out",
    ],
}
# These would need the code too, and have no way to allow it.
REFUSED = {
    "listen": ["run --out out --allow SENDER --to PACS@127.0.0.1:104 --port 11999"],
}
# These read a run or a recipe only as text, or none at all; the page opens a run when a job asks for it.
READING = {
    "import": ["tof_to_cta_adm weights.safetensors --out out"],
    "serve": ["run --data out", "weights.safetensors --data out"],
    "demo": ["--real cohort/case0/t1.nii.gz --out out --starter starter:run"],
    "info": ["run", "weights.safetensors", "recipe.toml"],
    "manifest": ["run"],
    "prepare": ["run --out out"],
    "plan": ["prepared --out out.toml --minutes 0.001", "run --out run/new.toml"],
    "report": ["run --out out"],
    "compare": ["run run --out out"],
    "phantom": ["run --cases 1"],
    "starters": [""],
}
LINES = {**ALLOWED, **REFUSED, **READING}


def lines_of(table):
    return [(name, line) for name, lines in table.items() for line in lines]


def test_every_command_is_tried_with_a_strangers_files():
    commands = command_line().commands
    assert commands.keys() - {"mcp"} == LINES.keys()
    options = {
        name: {flag for option in one.params for flag in option.opts}
        for name, one in commands.items()
    }
    assert {name for name, flags in options.items() if "--allow-code" in flags} == ALLOWED.keys()


@every_row("name, line", lines_of(LINES))
def test_a_command_imports_no_code_of_a_stranger(typed, here, monkeypatch, name, line):
    monkeypatch.setattr("voxlate.page.app.run_server", lambda *_: None)  # its work: tested below
    said = typed(f"{name} {line}")
    assert MODULE not in sys.modules
    assert "expected no import" not in said.err + said.out
    if name not in READING:
        assert f"needs the code of {MODULE}:" in said.refusal
    if name in ALLOWED:
        assert "--allow-code" in said.err


@every_row("name, line", lines_of(ALLOWED))
def test_a_command_that_is_allowed_imports_it(typed, here, name, line):
    assert "expected no import" in typed(f"{name} {line} --allow-code").refusal


@every_row(
    "name, arguments",
    [  # of Python alone; the other functions are those of the commands
        ("load", {"run": "weights.safetensors"}),
        ("export", {"path": "run", "out": "out"}),
        ("synthesise", {"run": "run", "inputs": "cohort", "out": "out"}),
    ],
)
def test_a_function_imports_no_code_of_a_stranger(here, name, arguments):
    function = getattr(package, name)
    with refuses(f"needs the code of {MODULE}:"):
        function(**arguments)
    assert MODULE not in sys.modules
    with refuses("expected no import"):
        function(**arguments, allow_code=True)


# Jobs of the page: the requests by which they open a run.
JOBS = {
    "check": {"runs": {"theirs": "run"}, "device": "cpu"},
    "synthesise": {
        "run": "run",
        "label": "run",
        "inputs": ["."],
        "options": {},
    },
}


def test_every_job_of_the_page_is_tried_with_a_strangers_files():
    assert {*JOBS} == {*get_args(Kind)}


@every_row("kind, request", JOBS.items())
def test_no_job_of_the_page_imports_code_of_a_stranger(here, cohort, tmp_path, kind, request):
    said = []
    shutil.copytree(cohort, tmp_path / "scans")
    try:
        do_job(kind, tmp_path, request, lambda *_: None)
    except BadInput as error:
        said.append(str(error))
    said += [path.read_text() for path in tmp_path.glob("*.json")]
    assert f"needs the code of {MODULE}:" in "".join(said)
    assert MODULE not in sys.modules


def test_nothing_in_the_package_allows_code_by_itself():
    """These do: a worker gets the model that its own command was allowed to open, and a training reads its own weights."""

    def allows(node):
        if not (isinstance(node, ast.keyword) and node.arg == "allow_code"):
            return False
        parts = ast.walk(node.value)
        return any(isinstance(p, ast.Compare) or getattr(p, "value", 0) is True for p in parts)

    named = [path for path in files() if "allow_code" in text_of(path)]
    places = {path.as_posix() for path in named if any(map(allows, nodes(path)))}
    assert places == {"commands/api/trainings.py", "training/torch_network.py"}
