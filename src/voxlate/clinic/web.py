"""DICOMweb: searching a study (QIDO), fetching its images (WADO) and storing images (STOW)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.files import whole_file
from voxlate.base.groups import grouped
from voxlate.base.optional import optional_package
from voxlate.clinic.address import StudyAddress, check_uid
from voxlate.clinic.sending import ATTEMPTS, FIRST_WAIT_SECONDS, Lost, Refused
from voxlate.scans.formats.format import first_line

SERIES_UID, INSTANCE_UID, DESCRIPTION = "0020000E", "00080018", "0008103E"
FAILED = "FailedSOPSequence"
SYNTHETIC = "SYNTHETIC"  # with which the description of a synthesised series begins
TIMEOUT_SECONDS = 60
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # HTTP states that pass
NO_ACCESS = (401, 403)


@dataclass(frozen=True)
class WebArchive:
    """The DICOMweb services below a URL."""

    url: str
    client: Any = field(repr=False)

    @classmethod
    def connect(cls, url: str) -> "WebArchive":
        """The archive at a URL; nothing is sent yet. Names and passwords are taken from .netrc."""
        api = optional_package(
            "dicomweb_client.api", "pacs", url, "dicomweb-client to talk to a DICOMweb server"
        )
        client = api.DICOMwebClient(url, timeout=TIMEOUT_SECONDS, permissive_uid=True)
        client.set_http_retry_params(retry=False)
        return cls(url, client)

    def instances(self, address: StudyAddress) -> list[tuple[str, str]]:
        """Series and instance UID of each image of a study or series; raises Lost, and Refused for no access."""
        listed = []
        with self._errors():
            for series in [address.series] if address.series else self._series(address.study):
                images = self.client.search_for_instances(address.study, series, get_remaining=True)
                uids = [image[INSTANCE_UID]["Value"][0] for image in images]
                listed += [(series, check_uid(uid, self.url)) for uid in uids]
        return listed

    def _series(self, study: str) -> list[str]:
        """The series of a study, without those that voxlate synthesised: they are no input."""
        series = self.client.search_for_series(
            study, fields=["SeriesDescription"], get_remaining=True
        )
        scanned = []
        for entry in series:
            description = entry.get(DESCRIPTION, {}).get("Value") or [""]
            if not str(description[0]).startswith(SYNTHETIC):
                scanned.append(entry[SERIES_UID]["Value"][0])
        return sorted(scanned)

    def fetch(self, study: str, series: str) -> Iterator[Any]:
        """The images of a series, one after the other."""
        with self._errors():
            yield from self.client.iter_series(study, series)

    def store(self, dataset: Any) -> None:
        """Store one image; raises Lost and Refused."""
        with self._errors():
            answer = self.client.store_instances([dataset])
        if failed := answer.get(FAILED):
            raise Refused(f"FailureReason 0x{failed[0].get('FailureReason', 0):04X}")

    def has(self, dataset: Any) -> bool:
        """Whether the archive lists this image; raises Lost."""
        series = (str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
        uids = {"SOPInstanceUID": str(dataset.SOPInstanceUID)}
        try:
            with self._errors():
                return bool(self.client.search_for_instances(*series, search_filters=uids))
        except Refused:  # an archive without searches, or one that does not know the series
            return False

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Lost or Refused in place of the errors of HTTP."""
        import requests

        try:
            yield
        except requests.HTTPError as error:
            state = error.response.status_code if error.response is not None else 0
            if state in TRY_AGAIN:
                raise Lost(f"HTTP {state}") from error
            if state in NO_ACCESS:
                raise Refused(
                    f"HTTP {state}, no access: put name and password into .netrc"
                ) from error
            raise Refused(f"HTTP {state}") from error
        except requests.RequestException as error:
            raise Lost(type(error).__name__) from error
        except OSError as error:
            raise Lost(first_line(error)) from error


def fetch_study(archive: WebArchive, address: StudyAddress, folder: Path) -> list[Path]:
    """Write the images of a study or series to FOLDER/<instance>.dcm; images that are there already are not fetched.

    After a lost connection only the missing images are fetched. Raises BadInput where the study has no image, or the
    archive cannot be reached in several attempts.
    """
    for attempt in range(ATTEMPTS):
        try:
            listed = archive.instances(address)
            if not listed:
                raise BadInput(
                    f"{archive.url}: expected images of the study {address.study}, found none. Check the UIDs in the address."
                )
            _fetch_missing(archive, address.study, listed, folder)
            return [_place(folder, instance) for _, instance in listed]
        except Refused as error:
            raise BadInput(
                f"{archive.url}: expected a DICOMweb server that gives the study, found it refused ({first_line(error)}). Check the address and your rights."
            ) from error
        except Lost as error:
            if attempt + 1 == ATTEMPTS:
                raise BadInput(
                    f"{archive.url}: expected a DICOMweb server, found the connection lost {ATTEMPTS} times ({first_line(error)}). Check that it runs; the same command fetches the rest."
                ) from error
            time.sleep(FIRST_WAIT_SECONDS * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _place(folder: Path, instance: str) -> Path:
    return folder / f"{instance}.dcm"


def _fetch_missing(
    archive: WebArchive, study: str, listed: list[tuple[str, str]], folder: Path
) -> None:
    """Fetch each series that lacks images; raises Lost where it lacks some afterwards."""
    wanted = {instance for _, instance in listed}
    for series, instances in sorted(grouped(listed).items()):
        if all(_place(folder, instance).is_file() for instance in instances):
            continue
        for dataset in archive.fetch(study, series):
            instance = check_uid(str(dataset.SOPInstanceUID), archive.url)
            if instance not in wanted or _place(folder, instance).is_file():
                continue
            with whole_file(_place(folder, instance)) as temporary:
                dataset.save_as(temporary, enforce_file_format=True)
    missing = [instance for instance in wanted if not _place(folder, instance).is_file()]
    if missing:
        raise Lost(f"{len(missing)} of {len(wanted)} images did not come")
