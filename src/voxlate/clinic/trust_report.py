"""The summary of trust in the images of a case: what the provenance states of their error, coverage and warnings."""

from collections.abc import Mapping
from typing import Any

from voxlate.base.messages import read_messages
from voxlate.evaluation.scoring.intervals import describe_bound, describe_widening, percent

Heading = tuple[str, str, str]  # value, scheme and meaning of a code
SCHEME = "99VOXLATE"
NOTICE: Heading = ("NOTICE", SCHEME, "Intended use")
MODEL: Heading = ("MODEL", SCHEME, "Recipe and weights of the model")
SOURCE: Heading = ("SOURCE", SCHEME, "Source scans")
ERROR: Heading = ("ERROR", SCHEME, "Expected error")
COVERAGE: Heading = ("COVERAGE", SCHEME, "Coverage of the prediction intervals")
WARNING: Heading = ("WARNING", SCHEME, "Warning")


def trust_summary(provenance: Mapping[str, Any]) -> list[tuple[Heading, str]]:
    """Sentences on the images of a case, each under its heading; provenance: that of the case."""
    model = provenance.get("model", {})
    sentences = [
        (NOTICE, str(provenance.get("notice") or "Research software, not a medical device.")),
        (
            MODEL,
            f"Recipe: {model.get('title', 'not stated')}. Hash of the weights: {model.get('weights', 'not stated')}. Seed {provenance.get('seed', 'not stated')}, voxlate {provenance.get('voxlate', 'not stated')}.",
        ),
    ]
    inputs = provenance.get("inputs", {})
    if inputs:
        names = [f"{name} (hash {scan.get('sha256', '')})" for name, scan in inputs.items()]
        sentences.append((SOURCE, f"{', '.join(names)}."))
    sentences += [(ERROR, text) for text in _errors(provenance)]
    sentences.append((COVERAGE, _coverage(provenance)))
    warnings = [str(message) for message in read_messages(provenance.get("warnings", ()))] or [
        "None."
    ]
    if provenance.get("in_training"):
        warnings.append(
            "The model was trained on this case, so its images look better than those of new cases."
        )
    return sentences + [(WARNING, text) for text in warnings]


def _errors(provenance: Mapping[str, Any]) -> list[str]:
    """A sentence for each bound on the error of this case."""
    units = provenance.get("units", {})
    level = percent(1 - provenance.get("calibration", {}).get("coverage", 0))
    sentences = []
    for name, bounds in provenance.get("bounds", {}).items():
        unit = units.get(name, "")
        for key, value in bounds.items():
            what = (
                f"The mean absolute error of {name} inside the body"
                if key == "mae"
                else f"The error of the mean of {name} in {key}"
            )
            sentences.append(
                f"{what} exceeds {value:g} {unit} with a probability of at most {level}."
            )
    return sentences or [
        "Not known: no bound of the error was computed for these images (voxlate calibrate)."
    ]


def _coverage(provenance: Mapping[str, Any]) -> str:
    stated = provenance.get("calibration")
    if not stated:
        return "No prediction intervals: the model is not calibrated."
    if widening := describe_widening(stated):
        return f"Prediction intervals should hold {percent(stated['coverage'])} of a new patient's voxels inside the body, without a guarantee for patients. They were {widening}."
    clause = ""
    if {"bound", "confidence"} <= stated.keys():
        clause = f", {describe_bound(stated['bound'], stated['confidence'])}"
    patients = f"{stated['patients']} " if "patients" in stated else ""
    return f"Prediction intervals hold {percent(stated['coverage'])} of a new patient's voxels inside the body{clause}. They were fitted on {patients}held-out patients, and hold for patients and scanners like those."
