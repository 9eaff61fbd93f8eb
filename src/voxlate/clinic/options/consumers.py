"""Options of `voxlate export --for`."""

from pathlib import Path
from typing import Annotated, Literal

from voxlate.base.options.option import MainOption, OutputOption, options


@options
class ConsumerOptions:
    """Options of `voxlate export --for` and voxlate.export_for.

    like: a DICOM series of the source (planning), or the PET (pet); accept_untrusted: also of images that are graded "do not trust".
    \f
    Example:
        >>> import voxlate
        >>> options = voxlate.ConsumerOptions(consumer="proton", beam="90")
        >>> options.consumer
        'proton'
    """

    consumer: Annotated[
        Literal["planning", "proton", "ultrasound", "pet"] | None,
        MainOption(
            "User of a CT, in whose units it is written to --out: planning, proton, ultrasound, pet.",
            flag="--for",
        ),
    ] = None
    beam: Annotated[
        str | None,
        OutputOption(
            "Direction of protons or of a transducer: gantry angle, or x,y,z (RAS). Default: 0, from the front; ultrasound: 0,0,-1, from the vertex.",
            metavar="ANGLE",
        ),
    ] = None
    table: Annotated[
        Path | None,
        OutputOption(
            "CSV of your scanner, hu,rsp (proton) or hu,electron_density (planning). Default: Schneider 1996.",
        ),
    ] = None
    kvp: Annotated[
        float, OutputOption("Tube voltage of the CT whose HU are synthesised (pet).")
    ] = 120
    couch: Annotated[
        Path | None, OutputOption("Attenuation of the table in 1/cm, which is added (pet).")
    ] = None
    conversion: Annotated[
        Literal["kplan", "marsac2017", "aubry2003", "mcdannold2020"],
        OutputOption("Published conversion of HU in the skull (ultrasound)."),
    ] = "kplan"
    aperture: Annotated[
        float,
        OutputOption(
            "Diameter in mm of the rays through the skull (ultrasound).",
            least=2,
            most=400,
        ),
    ] = 60.0
    plane: Annotated[
        Literal["axial", "source"], OutputOption("Plane of the slices (planning).")
    ] = "axial"
    clear_outside: Annotated[
        bool,
        OutputOption("Set HU outside the body to -1000 (planning)."),
    ] = False
    like: Path | str | None = None
    accept_untrusted: bool = False
