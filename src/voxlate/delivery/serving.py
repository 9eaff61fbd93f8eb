"""A model that answers the studies which a picture archive sends."""

from dataclasses import replace
from pathlib import Path

from voxlate.delivery.archive import answer_by
from voxlate.options.share import ListenOptions
from voxlate.options.synthesise import SynthOptions
from voxlate.pacs.address import ae_title, node
from voxlate.pacs.dimse import NodeArchive
from voxlate.pacs.listen import listen
from voxlate.pacs.queue import Queue
from voxlate.pacs.sending import Ledger, send
from voxlate.synthesis.model import load
from voxlate.synthesis.progress import no_report
from voxlate.system.messages import Say


def serve(run: Path | str, queue: Path, options: ListenOptions, say: Say = no_report) -> None:
    """Answer studies until the process ends. queue: the folder of the queue; say: is called with each message."""
    target = node(options.to)
    own = ae_title(options.title, "--title")
    options = replace(
        options, title=own, allow=[ae_title(sender, "--allow") for sender in options.allow]
    )
    model = load(run, options.device)

    def send_files(files: list[Path], ledger: Ledger) -> int:
        """Send the files of an answer; returns the number of those that were sent now."""
        archive = NodeArchive(target, own)
        try:
            return send(files, archive, ledger, target, say=say)
        finally:
            archive.close()

    listen(
        Queue(queue, options.idle),
        answer_by(model, SynthOptions(device=options.device), say),
        send_files,
        options,
        say=say,
    )
