"""A model that answers the studies which a picture archive sends."""

from collections.abc import Sequence
from pathlib import Path

from voxlate.delivery.archive import answer_by
from voxlate.options.synthesise import SynthOptions
from voxlate.pacs.address import ae_title, node
from voxlate.pacs.dimse import NodeArchive
from voxlate.pacs.listen import listen
from voxlate.pacs.queue import Queue
from voxlate.pacs.sending import Ledger, send
from voxlate.synthesis.model import load
from voxlate.synthesis.progress import no_report
from voxlate.system.messages import Say


def serve(
    run: Path | str,
    queue: Path,
    allowed: Sequence[str],
    to: str,
    *,
    port: int,
    title: str,
    host: str,
    idle: float,
    device: str,
    say: Say = no_report,
) -> None:
    """Answer studies until the process ends. to: TITLE@HOST:PORT; idle: see Queue; say: is called with each message."""
    target = node(to)
    own = ae_title(title, "--title")
    senders = [ae_title(one, "--allow") for one in allowed]
    options = SynthOptions(device=device)
    model = load(run, device)

    def send_files(files: list[Path], ledger: Ledger) -> int:
        archive = NodeArchive(target, own)
        try:
            return send(files, archive, ledger, target, say=say)
        finally:
            archive.close()

    listen(
        Queue(queue, idle),
        answer_by(model, options, say),
        send_files,
        title=own,
        port=port,
        allowed=senders,
        say=say,
        host=host,
    )
