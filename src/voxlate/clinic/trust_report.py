"""The summary of trust in the images of a case: what the provenance states of their error, coverage and warnings."""

from collections.abc import Mapping
from typing import Any

from voxlate.base.messages import read_messages
from voxlate.evaluation.intervals.summary import error_lines
from voxlate.evaluation.scoring.interval_scores import describe_coverage, percent
from voxlate.scans.formats.dicom_series import PRIVATE_SCHEME, Code
from voxlate.synthesis.provenance import OF_TRAINING

NO_INTERVALS = "No prediction intervals: the model is not calibrated."
HEADINGS = {
    "NOTICE": "Intended use",
    "MODEL": "Recipe and weights of the model",
    "SOURCE": "Source scans",
    "ERROR": "Expected error",
    "COVERAGE": "Coverage of the prediction intervals",
    "WARNING": "Warning",
}


def trust_summary(provenance: Mapping[str, Any]) -> list[tuple[Code, str]]:
    """Sentences on the images of a case, each under the code of its heading; provenance: that of the case."""
    model = provenance.get("model", {})
    inputs = provenance.get("inputs", {})
    scans = [f"{name} (hash {scan.get('sha256', '')})" for name, scan in inputs.items()]
    warnings = dict.fromkeys(map(str, read_messages(provenance)))
    if provenance.get("in_training"):
        warnings[OF_TRAINING] = None
    sentences = {
        "NOTICE": [str(provenance.get("notice") or "Research software, not a medical device.")],
        "MODEL": [
            f"Recipe: {model.get('title', 'not stated')}. Hash of the weights: {model.get('weights', 'not stated')}. Seed {provenance.get('seed', 'not stated')}, voxlate {provenance.get('voxlate', 'not stated')}."
        ],
        "SOURCE": [f"{', '.join(scans)}."] if scans else [],
        "ERROR": [*error_lines(provenance), *_errors(provenance)],
        "COVERAGE": [
            describe_coverage(provenance["calibration"])
            if "calibration" in provenance
            else NO_INTERVALS
        ],
        "WARNING": [*warnings] or ["None."],
    }
    return [
        ((key, PRIVATE_SCHEME, HEADINGS[key]), text)
        for key, texts in sentences.items()
        for text in texts
    ]


def _errors(provenance: Mapping[str, Any]) -> list[str]:
    """A sentence for each bound on the error of this case."""
    units = provenance.get("units", {})
    level = percent(1 - provenance.get("calibration", {}).get("coverage", 0))
    sentences = []
    for name, bounds in provenance.get("bounds", {}).items():
        for key, value in bounds.items():
            error = f"The error of the mean of {name} in {key}"
            if key == "mae":
                error = f"The mean absolute error of {name} inside the body"
            sentences.append(
                f"{error} exceeds {value:g} {units.get(name, '')} with a probability of at most {level}."
            )
    return sentences
