"""What a DICOM series must say of itself to be a modality."""

import re
from typing import Annotated

from pydantic import Field

from voxlate.config import settings
from voxlate.errors import BadInput
from voxlate.images.series import Seen


@settings
class Tags:
    """What the headers of a DICOM series must say to be a modality; what is left empty is not asked."""

    modality: Annotated[str, Field(description="Modality, in either case: MR, CT, PT")] = ""
    description: Annotated[str, Field(description="regular expression to find in SeriesDescription")] = ""
    protocol: Annotated[str, Field(description="regular expression to find in ProtocolName")] = ""
    image_type: Annotated[
        str, Field(description=r"regular expression to find in ImageType, its values joined by '\'")
    ] = ""

    def __post_init__(self) -> None:
        if not (self.modality or self._expressions()):
            raise BadInput(
                "expected of a series at least one of modality, description, protocol, image_type, found none of them. "
                "Add one to its [series] table."
            )
        for key, expression in self._expressions().items():
            try:
                re.compile(expression)
            except re.error as error:
                raise BadInput(
                    f"expected of a series' {key} a regular expression, found '{expression}' ({error}). Mend it; in "
                    "TOML, single quotes leave backslashes alone."
                ) from error

    def fits(self, seen: Seen) -> bool:
        """Whether a series says all that is asked."""
        if self.modality and self.modality.upper() != seen.modality.upper():
            return False
        return all(re.search(expression, getattr(seen, key)) for key, expression in self._expressions().items())

    def __str__(self) -> str:
        asked = {"modality": self.modality, **self._expressions()}
        return " and ".join(f"{key} '{value}'" for key, value in asked.items() if value)

    def _expressions(self) -> dict[str, str]:
        given = {"description": self.description, "protocol": self.protocol, "image_type": self.image_type}
        return {key: value for key, value in given.items() if value}
