"""A listener for tests, run as a process that can be killed: QUEUE PORT TO SECONDS.

Its answer is a copy of each image with new UIDs; SECONDS are waited after each image that is sent.
"""

import sys
import time
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

from voxlate.clinic.address import node
from voxlate.clinic.archives import Ledger, NodeArchive, send
from voxlate.clinic.listen import Queue, listen
from voxlate.clinic.share_options import ListenOptions


def answer(scans: Path, images: Path) -> list[Path]:
    images.mkdir(exist_ok=True)
    series = generate_uid()
    written = []
    for file in sorted(scans.iterdir()):
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = series
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.SeriesDescription = "SYNTHETIC"
        dataset.save_as(images / file.name, enforce_file_format=True)
        written.append(images / file.name)
    return written


def main() -> None:
    queue, port, to, seconds = sys.argv[1:]
    archive = NodeArchive(node(to), "VOXLATE")

    class Slow:
        def store(self, dataset):
            archive.store(dataset)
            time.sleep(float(seconds))

        has = staticmethod(archive.has)

    def send_slowly(files: list[Path], ledger: Ledger) -> int:
        count = send(files, Slow(), ledger, archive.node)
        archive.close()
        return count

    listen(
        Queue(Path(queue), idle_seconds=1.0),
        answer,
        send_slowly,
        ListenOptions(allow=["ORTHANC"], to="", port=int(port)),
        say=lambda text: print(text, flush=True),
        retry_seconds=1.0,
    )


if __name__ == "__main__":
    main()
