"""`voxlate mcp`: the commands as tools for agents, within folders that the user names."""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

from voxlate import __version__
from voxlate.base.errors import BadInput, known_name
from voxlate.base.files import inside
from voxlate.base.messages import Message
from voxlate.base.option import MainOption, Parameters, in_python, table_of
from voxlate.base.optional import optional_package
from voxlate.commands.api import entry
from voxlate.commands.api.progress import Reporter

NEVER = ("listen", "mcp", "push", "serve")  # servers and uploads
# code, folders beyond those that are named, and networks
CLOSED = {"allow_code", "allow_outside", "executor", "store", "workers"}
# of a hub or an archive; no drive, which has one letter
ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")
SEPARATORS = re.compile(r"""[=,#"'{}\[\]]""")  # of names, lists, parts and TOML around paths
MOST_ENTRIES = 10  # of a list in a result
SECONDS = 0.5  # between two reports of progress


@entry.Command("mcp SCANS RUNS\nmcp SCANS RUNS --write", name="mcp")
def serve_agents(
    folders: Annotated[
        Sequence[entry.Place],
        entry.Argument(
            "Folders that agents may use; relative paths begin at the first.",
            metavar="FOLDER...",
        ),
    ],
    write: Annotated[bool, MainOption("Also the commands that write, into these folders.")] = False,
) -> None:
    """Serve the commands as tools for agents over stdio (Model Context Protocol).

    Each tool has the options of its command, and returns its result as JSON.
    Paths and links out of the folders, addresses of networks and code outside voxlate are refused.
    """
    optional_package("mcp", "mcp", "voxlate mcp", "the package mcp")
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise BadInput(f"{folder}: expected a folder, found none. Check the path.")
    tools = Tools([Path(folder).resolve() for folder in folders], write)
    os.chdir(tools.folders[0])
    os.environ["HF_HUB_OFFLINE"] = "1"
    _serve(tools)


@dataclass(frozen=True)
class Tools:
    """The commands that agents may call. folders: outside of which they read and write nothing."""

    folders: Sequence[Path]
    write: bool = False

    @property
    def commands(self) -> dict[str, entry.Command]:
        """The commands by name."""
        return {
            name: one
            for name, one in entry.commands().items()
            if name not in NEVER and (self.write or one.reads)
        }

    def parameters(self, command: entry.Command) -> Parameters:
        """The arguments and options of a command that agents may give."""
        stated = command.given.items()
        return {name: one for name, one in stated if name not in CLOSED}

    def tool(self, command: entry.Command) -> dict[str, Any]:
        """What a command does, and the JSON schema of its arguments and options."""
        from voxlate.base.config import adapter  # loads pydantic

        does = in_python(
            cleandoc(f"{command.described.__doc__}").partition("\n\n")[0].partition("\f")[0]
        )
        table = adapter(table_of(self.parameters(command)))
        schema = table.json_schema()
        return {
            "name": command.name,
            "description": does,
            "input_schema": {**schema, "additionalProperties": False},
        }

    def call(self, name: str, given: Mapping[str, Any], progress: Reporter) -> dict[str, Any]:
        """The result of a command as plain values, with its messages and what it left undone."""
        called = self.commands[known_name(name, "a tool", name, self.commands)]
        known = self.parameters(called)
        for key, value in given.items():
            self.check_places(key, value)
            known_name(key, "an option", key, known)
        messages = list[Message]()
        report = Reporter(progress.step, messages.append)
        result, asked = called.call(given, report)
        lines = [*called.lines(result, asked)]
        messages += [line for line in lines if isinstance(line, Message)]
        made = entry.plain(called.document(result))
        return {
            "result": [*map(bounded, made)] if isinstance(made, list) else bounded(made),
            "messages": [said.table for said in messages],
            "left": [line.sentence for line in lines if isinstance(line, entry.Undone)],
        }

    def check_places(self, name: str, value: Any) -> None:
        """Raise BadInput for a text that may name a place outside the folders."""
        for part in filter(None, SEPARATORS.split(json.dumps(value, ensure_ascii=False))):
            is_held = any(inside(folder, Path(part)) for folder in self.folders)
            if ADDRESS.match(part) or not is_held:
                raise BadInput(
                    f"{name}: expected a place in {', '.join(map(str, self.folders))}, found {part!r}. Name another."
                )


def bounded(value: Any) -> Any:
    """Plain values in which a longer list is its number and its first entries."""
    if isinstance(value, Mapping):
        return {key: bounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        few = [bounded(inner) for inner in value[:MOST_ENTRIES]]
        return few if len(few) == len(value) else {"count": len(value), "first": few}
    return value


def _serve(tools: Tools) -> None:
    """Answer over stdin and stdout until they are closed; one command runs at a time."""
    import anyio
    from mcp import types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server

    one_at_a_time = anyio.CapacityLimiter(1)

    async def list_tools(*_: Any) -> types.ListToolsResult:
        """The commands with their schemas."""
        hints = types.ToolAnnotations(read_only_hint=not tools.write)
        described = map(tools.tool, tools.commands.values())
        return types.ListToolsResult(tools=[types.Tool(**t, annotations=hints) for t in described])

    async def call_tool(context: Any, asked: Any) -> types.CallToolResult:
        """Run a command in a thread."""
        reports = 0
        last = 0.0

        def step(name: str, done: int, total: int, *_: Any) -> None:
            """Report the progress, at most twice a second."""
            nonlocal reports, last
            if time.monotonic() - last >= SECONDS:
                reports, last = reports + 1, time.monotonic()
                text = f"{name} {done}/{total}"
                anyio.from_thread.run(context.session.report_progress, reports, None, text)

        call = partial(tools.call, asked.name, asked.arguments or {}, Reporter(step))
        try:
            answer = await anyio.to_thread.run_sync(call, limiter=one_at_a_time)
        except BadInput as error:
            return types.CallToolResult(content=[types.TextContent(text=f"{error}")], is_error=True)
        text = json.dumps(answer)
        content = [types.TextContent(text=text)]
        return types.CallToolResult(content=content, structured_content=answer)

    async def serve() -> None:
        """Serve until stdin ends."""
        where = ", ".join(map(str, tools.folders))
        server = Server(
            "voxlate",
            version=__version__,
            instructions=f"Paths lie in {where}; relative ones begin at the first. Options are named as in Python.",
            on_list_tools=list_tools,
            on_call_tool=call_tool,
        )
        async with stdio_server() as (reads, writes):
            await server.run(reads, writes, server.create_initialization_options())

    anyio.run(serve)
