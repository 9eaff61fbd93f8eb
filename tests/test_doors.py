"""A command is described once: Python, the command line and agents have the same commands and options."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stub
import voxlate as package
from refusals import refuses
from rows import every_row, slow
from voxlate.commands.agents import CLOSED, NEVER, Tools, bounded
from voxlate.commands.api.entry import COMMANDS, HOMES, commands
from voxlate.commands.api.progress import Reporter
from voxlate.commands.cli.terminal import command_line

SOURCE = Path(__file__).parents[1] / "src"
USER = """
import voxlate
voxlate.train("auto", "PREPARED", "RUN", minuts=3)
voxlate.prepare("COHORT", "PREPARED", resample="yes")
voxlate.synthesise("RUN", "COHORT", "OUT", sampels=3)
voxlate.synthesise("RUN", {"t1": "a.nii"}, Path("OUT"), samples=3, set={"overlap": 0.25}, dicom="TO")
"""
MYPY = """
[mypy]
follow_imports = skip
[mypy-voxlate,voxlate.*_options]
follow_imports = silent
"""
# Functions of commands that have another name, or several.
FUNCTIONS = {
    "import": ("import_weights",),
    "mcp": (),  # a server of the command line
    "starters": ("list_starters",),
    "synth": ("synthesise",),
}
# What shows a result, or has another name (out, run).
NOT_IN_PYTHON = {"mcp": {"folders", "write"}}
ONLY_IN_PYTHON = {"options", "progress"}
SHOWN = {"as_json", "debug", "verbose"}
# Arguments that other fields of a form give, places of the machine, code, networks, workers, and what the page chooses.


def in_python(name: str) -> set[str]:
    """The keywords of the functions of a command."""
    found = set[str]()
    for one in FUNCTIONS.get(name, (name.replace("-", "_"),)):
        found |= inspect.signature(getattr(package, one)).parameters.keys()
    return found


def test_a_command_is_imported_when_it_is_named_and_all_of_them_stand_in_help():
    assert {*commands()} == {*COMMANDS}
    assert [*command_line().commands] == [*HOMES]
    assert [*command_line(["--debug", "synth"]).commands] == ["synth"]


@every_row("name", sorted(HOMES))
def test_every_option_of_a_command_is_in_the_command_line_in_python_and_in_mcp(name):
    described = {*commands()[name].given}
    line = {parameter.name for parameter in command_line([name]).commands[name].params}
    assert line - SHOWN == described
    python = in_python(name)
    assert described <= python | NOT_IN_PYTHON.get(name, set())
    assert python <= described | ONLY_IN_PYTHON
    if name not in NEVER:
        schema = Tools([Path()], write=True).tool(commands()[name])["input_schema"]
        assert {*schema["properties"]} == described - CLOSED
        assert all(one["description"] for one in schema["properties"].values())


def test_the_options_of_the_page_are_those_of_a_synthesis():
    pytest.importorskip("fastapi", reason="the page needs the extra serve")
    from voxlate.page.api import SynthesisForm

    assert SynthesisForm.model_fields.keys() < commands()["synth"].given.keys()


def test_the_stub_of_the_package_is_up_to_date():
    assert stub.STUB.read_text() == stub.text(), "run python release/stub.py"
    helps = re.findall(r'""".*?"""', stub.text(), re.DOTALL)
    assert not re.search(r"--[a-z]", "".join(helps)), "no option of the command line in Python"


def test_mypy_refuses_wrong_names_and_types_of_options(tmp_path, monkeypatch):
    monkeypatch.setenv("MYPYPATH", str(SOURCE))
    (tmp_path / "user.py").write_text("from pathlib import Path" + USER)
    (tmp_path / "mypy.ini").write_text(MYPY)
    words = [sys.executable, "-m", "mypy", "--no-incremental", "user.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    errors = re.findall(r"^user\.py:(\d): error", done.stdout, re.MULTILINE)
    assert errors == ["3", "4", "5"], done.stdout


CALLS = [
    ("info", {"path": "prepared"}, "cases"),
    ("check", {"run": "run", "inputs": ["t1=cohort/case0/t1.nii.gz"]}, "verdicts"),
    ("recipes", {"name": "t1_to_t2_brain"}, "data"),
    ("starters", {}, None),
]
REFUSED = [
    ("info", {"path": "/etc/passwd"}),
    ("check", {"run": "run", "inputs": ["cohort"], "split": "all"}),
    ("synth", {"run": "run", "inputs": "cohort", "out": "out"}),
]


@slow
def test_an_agent_calls_commands_over_stdio_and_writes_nothing(cohort, prepared, run, tmp_path):
    mcp = pytest.importorskip("mcp")
    anyio = pytest.importorskip("anyio")
    words = ["-m", "voxlate", "mcp", str(tmp_path)]
    environment = {"PYTHONPATH": str(SOURCE), "VOXLATE_CACHE": str(tmp_path.parent / "cache")}
    before = sorted(tmp_path.rglob("*"))
    reports = []

    async def report(_, __, text):
        reports.append(text)

    async def talk():
        server = mcp.StdioServerParameters(command=sys.executable, args=words, env=environment)
        async with mcp.Client(server) as client:
            listed = (await client.list_tools()).tools
            answers = [
                await client.call_tool(*call, progress_callback=report) for *call, _ in CALLS
            ]
            return listed, answers, [await client.call_tool(*call) for call in REFUSED]

    listed, answers, refused = anyio.run(talk)
    assert {tool.name for tool in listed} == {
        name for name, command in commands().items() if command.reads
    }
    for (name, _, key), answer in zip(CALLS, answers):
        assert not answer.is_error, (name, answer.content[0].text)
        result = json.loads(answer.content[0].text)["result"]
        assert key in result if key else isinstance(result, list)
    assert "cases 0/1" in reports
    assert all(answer.is_error for answer in refused)
    assert all("expected" in answer.content[0].text for answer in refused)
    assert sorted(tmp_path.rglob("*")) == before


@every_row(
    "given",
    [
        {"run": "run", "inputs": ["t1=/etc/passwd"], "out": "out"},
        {"run": "run", "inputs": "cohort", "out": "../out"},
        {"run": "run", "inputs": "linked", "out": "out"},
        {"run": "run", "inputs": "linked/a.nii.gz#series", "out": "out"},
        {"run": "run", "inputs": "cohort", "out": "out", "set": {"a": ["/etc"]}},
        {"run": "run", "inputs": "cohort", "out": "out", "like": 'a=[{b="/etc/passwd"}]'},
        {"run": "hf://NAME/REPO", "inputs": "cohort", "out": "out"},
        {"run": "run", "inputs": "http://a/b/studies/1", "out": "out"},
        {"run": "run", "inputs": "cohort", "out": "out", "allow_code": True},
        {"run": "run", "inputs": "cohort", "out": "out", "samples": "many"},
        {"run": "run", "inputs": "cohort"},
    ],
)
def test_an_agent_gets_no_place_outside_its_folders_no_network_and_no_code(
    given, tmp_path, monkeypatch
):
    inner = tmp_path / "inner"
    (inner / "cohort").mkdir(parents=True, exist_ok=True)
    (inner / "linked").unlink(missing_ok=True)
    (inner / "linked").symlink_to(tmp_path)
    monkeypatch.chdir(inner)
    with refuses():
        Tools([inner], write=True).call("synth", given, Reporter(lambda *_: None))
    assert not (inner / "out").exists()


def test_an_agent_that_may_write_prepares_a_cohort(cohort, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"root": "cohort", "out": "made", "audit": False, "shares": [4, 1, 1]}
    answer = Tools([tmp_path], True).call("prepare", given, Reporter(lambda *_: None))
    assert answer["result"]["cases"] == {"train": 4, "val": 1, "test": 1}
    assert answer["left"] == []


def test_a_long_result_for_an_agent_is_its_number_and_its_first_entries():
    made = bounded({"files": [*range(500)], "few": [1, 2]})
    assert made == {"files": {"count": 500, "first": [*range(10)]}, "few": [1, 2]}
