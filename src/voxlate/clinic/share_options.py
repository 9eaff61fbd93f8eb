"""Options of the commands that give images and models to others: `export`, `push`, `listen` and `serve`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from voxlate.base.errors import as_list
from voxlate.base.option import (
    AllowCode,
    Device,
    MainOption,
    Option,
    OutputOption,
    options,
)
from voxlate.synthesis.synth_options import ACCEPT_UNTRUSTED, ANYWAY

SHORTEST_TOKEN = 16  # characters; a token of the user's own stays valid, so it must not be guessed
NOT_STATED = "not stated"
Licence = Annotated[
    str, OutputOption("Licence of the model, as its users will read it; of a starter, Apache-2.0.")
]


@options
class ExportOptions:
    """Options of `voxlate export OUT` and voxlate.export of images."""

    like: Annotated[
        Path | str | None,
        MainOption(
            "DICOM series of the source, for one case (default: as the provenance states it).",
            metavar="SERIES",
        ),
    ] = None
    rtstruct: Annotated[
        bool,
        MainOption(
            "CT on transverse slices of square pixels, with the body as an RT Structure Set."
        ),
    ] = False
    accept_untrusted: Annotated[bool, ACCEPT_UNTRUSTED] = False


@options
class ModelOptions:
    """Options of `voxlate export RUN` with --out."""

    answer: Annotated[
        Literal["mean", "sample"] | None,
        OutputOption("Prediction: mean or sample (default: of the last stage)."),
    ] = None
    steps: Annotated[
        int | None, OutputOption("Steps of the sampler, which are fixed in the model.", least=1)
    ] = None
    samples: Annotated[int | None, OutputOption("Images sampled for each case.", least=1)] = None
    sharpness: Annotated[
        float | None, OutputOption("Place between the mean prediction (0) and the sample (1).")
    ] = None
    intervals: Annotated[bool, OutputOption("Intervals of a calibrated run.")] = True
    licence: Licence = NOT_STATED
    allow_code: AllowCode = False


@options
class PushOptions:
    """Options of `voxlate push` and voxlate.push."""

    dry_run: Annotated[
        Path | str | None,
        MainOption("New folder that is written in place of the upload.", metavar="FOLDER"),
    ] = None
    licence: Licence = NOT_STATED
    private: Annotated[bool, MainOption("A new repository is private.")] = False
    allow_code: AllowCode = False


@options
class ListenOptions:
    """Options of `voxlate listen` and voxlate.listen."""

    allow: Annotated[
        Sequence[str],
        MainOption("AE title of a sender that is allowed. Repeatable.", read=as_list),
    ]
    to: Annotated[str, MainOption("Node that takes the images.", metavar="TITLE@HOST:PORT")]
    port: Annotated[int, MainOption("Port to listen on.", least=1, most=65535)] = 11112
    title: Annotated[str, MainOption("Own AE title.", metavar="NAME")] = "VOXLATE"
    host: Annotated[
        str,
        Option("Own address to listen on, which the senders reach; 0.0.0.0: all.", metavar="NAME"),
    ] = "127.0.0.1"
    idle: Annotated[
        float,
        Option(
            "Seconds without a new image or an open association, after which a study is complete.",
            least=1,
        ),
    ] = 10.0
    anyway: Annotated[bool, ANYWAY] = False
    accept_untrusted: Annotated[bool, ACCEPT_UNTRUSTED] = False
    device: Device = "auto"


@options
class ServeOptions:
    """Options of `voxlate serve` and voxlate.serve."""

    data: Annotated[
        Path | str | None,
        MainOption("Folder of uploads, queue and results (default: in the user's cache)."),
    ] = None
    port: Annotated[int, MainOption("Port of the page.", least=1, most=65535)] = 8765
    host: Annotated[
        str,
        Option(
            "Own IPv4 address to listen on, which needs --token-file; 0.0.0.0: all.",
            metavar="ADDRESS",
        ),
    ] = "127.0.0.1"
    name: Annotated[
        Sequence[str],
        Option("Further host name by which browsers reach the page. Repeatable.", read=as_list),
    ] = ()
    token_file: Annotated[
        Path | str | None,
        Option(
            f"File with an own token of at least {SHORTEST_TOKEN} characters, for several browsers.",
        ),
    ] = None
    keep: Annotated[
        float, Option("Hours after which uploads and results are removed.", least=0.1)
    ] = 24.0
    device: Device = "auto"
