"""Waiting for studies: they are received, answered one at a time, and the answers are sent."""

import time

from voxlate.base.errors import BadInput
from voxlate.base.files import lock
from voxlate.base.messages import Say, message
from voxlate.clinic.dimse import receive_images
from voxlate.clinic.queue import Answer, Queue, Send
from voxlate.clinic.share_options import ListenOptions

LOOK_SECONDS = 1.0  # between two looks for a complete study
RETRY_SECONDS = 60.0  # after an answer that could not be sent


def listen(
    queue: Queue,
    answer: Answer,
    send: Send,
    options: ListenOptions,
    *,
    say: Say,
    retry_seconds: float = RETRY_SECONDS,
) -> None:
    """Receive and answer studies until the process ends; see Queue for what is kept, and `receive_images` for the senders.

    Images are received while another study is answered. An answer that cannot be sent is tried again later.
    """
    at = options.title, options.port, options.allow, options.host
    with lock(queue.path), receive_images(queue.receive, *at):
        say(
            message(
                "listening",
                f"{options.title} listens on {options.host}:{options.port} for {', '.join(options.allow)}; images go to {options.to}.",
            )
        )
        while True:
            try:
                sentence = queue.run_next(answer, send)
            except BadInput as error:
                say(message("not-sent", f"{error} The next attempt is in {retry_seconds:.0f} s."))
                time.sleep(retry_seconds)
                continue
            if sentence is None:
                time.sleep(LOOK_SECONDS)
            else:
                say(message("answered", sentence))
