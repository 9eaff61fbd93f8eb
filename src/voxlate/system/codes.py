"""The codes of all messages: what each means, what to do, and the grades that it may have."""

from typing import Literal, NamedTuple, get_args

Grade = Literal["note", "caution", "do not trust"]
GRADES: tuple[Grade, ...] = get_args(Grade)


class Code(NamedTuple):
    """What a code means, what to do, and its grades, the usual one first; detail: printed with --verbose only."""

    meaning: str
    action: str = ""
    grades: tuple[Grade, ...] = ("note",)
    detail: bool = False

    @property
    def described(self) -> str:
        """The meaning as a sentence; the name of the scan that another one is compared with is left open."""
        text = self.meaning.format(partner="reference scan")
        return f"{text[0].upper()}{text[1:]}."


LEAVE = "or leave the case out (--exclude)."
NAMES = f"Check the names of the files, {LEAVE}"
ORIGINAL = f"Take the original scan, {LEAVE}"
ONE_KIND = f"Take scans of one kind, {LEAVE}"
BOTH = f"Look at both and correct the files, {LEAVE}"
CAUTION: tuple[Grade, ...] = ("caution",)
REFUSED: tuple[Grade, ...] = ("do not trust",)
BY_DISTANCE: tuple[Grade, ...] = GRADES  # by the distance from the training scans

CODES: dict[str, Code] = {
    # The scans of a case, compared with those of the training (synth)
    "ct-values": Code(
        "a scan of another modality has the values of a CT",
        "Name it as a CT, or take the MR scan.",
        REFUSED,
    ),
    "label-values": Code(
        "a scan has a few values only, as a mask or a label map has",
        "Take the scan itself.",
        REFUSED,
    ),
    "brightness": Code(
        "the brightness of a scan is outside that of the training's scans",
        "Check its unit, its scanner and the part of the body.",
        BY_DISTANCE,
    ),
    "varied-scale": Code(
        "the scale of a target varied much between the training cases, so the overall brightness of its images is a guess"
    ),
    "other-content": Code(
        "a scan does not show what the training showed", "Check the file.", REFUSED
    ),
    "axes-exchanged": Code(
        "two or three axes of a scan are likely exchanged",
        "Check its orientation.",
        ("do not trust", "caution"),
    ),
    "mirrored": Code("a scan is likely mirrored or turned", "Check its orientation.", REFUSED),
    "appearance": Code(
        "a scan resembles the training's scans less than these resemble each other",
        "Check its modality, its field of view and the part of the body.",
        BY_DISTANCE,
    ),
    "body-size": Code(
        "the body of a scan has another size than those of the training",
        "Check its field of view and its spacing.",
        BY_DISTANCE,
    ),
    "other-unit": Code(
        "the foreground of a scan is far brighter or darker than those of the training",
        "Check its unit.",
        CAUTION,
    ),
    "voxel-size": Code(
        "voxels have another size than those of the training, and nothing resamples them",
        "Resample the scan.",
        BY_DISTANCE,
    ),
    "whole-head": Code(
        "a scan shows a whole head where the training showed brains without skull",
        "Strip the skull first.",
        REFUSED,
    ),
    "brain-alone": Code(
        "a scan shows a brain without skull where the training showed whole heads",
        "Take the scan from before skull stripping.",
        REFUSED,
    ),
    "flattened": Code(
        "a scan is likely flattened",
        "Check the distance of its slices.",
        ("caution", "do not trust"),
    ),
    "upside-down": Code("a scan is likely upside down", "Check its orientation.", CAUTION),
    "front-to-back": Code(
        "a scan is likely turned front to back", "Check its orientation.", CAUTION
    ),
    "crown-missing": Code(
        "the upper part of the head is likely missing",
        "Compare with a scan of the whole head.",
        CAUTION,
    ),
    "border": Code(
        "the head reaches a border of the scan, near which bone may be missing or invented",
        "Add some 15 mm of background around the scan, or do not use the image there.",
        CAUTION,
    ),
    "quality": Code(
        "a scan is of poor quality: noise, ghosts, or a region without signal", "", CAUTION
    ),
    "slices": Code(
        "slices of a scan are in a wrong order, empty or alternately dark",
        "Check how the scan was put together.",
        CAUTION,
    ),
    "dark-fluid": Code(
        "fluid is as dark as the background, so ventricles may be black where they should be bright",
        "",
        CAUTION,
    ),
    "guess": Code("something about a scan is assumed, because its file does not state it"),
    "calibration-distance": Code("a scan differs from those of the calibration", "", BY_DISTANCE),
    # Images (synth)
    "stretched": Code("the bright values of an image were stretched", "", ("note", "caution")),
    "empty-slices": Code("slices without a body were set to background"),
    "brain-mask": Code("the brain mask comes from another scan than in training"),
    "reconstruction": Code("an image is reconstructed from itself, and not synthesised"),
    "face": Code(
        "an image shows a whole head, whose face may be recognised although its name is a pseudonym",
        "Remove the face before the image is shared.",
        CAUTION,
    ),
    "starter": Code("an image was synthesised by a starter", "Use it for research only."),
    "no-intervals": Code(
        "an image has no prediction intervals", "Run voxlate calibrate with the options of synth."
    ),
    "no-bounds": Code(
        "bounds of the error are not stated, because they hold for scans like those of the calibration"
    ),
    "unchecked": Code("the orientation and the field of view of scans cannot be checked"),
    "not-asked-for": Code(
        "further missing modalities could be synthesised", "Name each by --missing."
    ),
    "taken-as": Code("a scan of another name is taken as a modality of the model"),
    "unused-scan": Code("a scan was not used, because no modality of the model has its name"),
    "name-of-training-case": Code(
        "a case has the name of a training case and other voxels, and counts as another patient"
    ),
    "chosen-series": Code(
        "a series of a study was chosen for a modality", "Name another one by --series."
    ),
    "already-synthesised": Code("images of an earlier synthesis are kept"),
    "synthesised-again": Code("images of an earlier synthesis are synthesised again"),
    "removed": Code("images of an earlier synthesis with other options are removed"),
    "workers": Code("how busy the workers of a synthesis are", detail=True),
    "other-sources": Code(
        "an image was synthesised from other scans than those of its truth's case"
    ),
    "named-series": Code("a series of a study is used as --series names it", detail=True),
    "only-scan": Code(
        "the only scan is taken as the modality of the model, although its name does not say so",
        "If it is another scan, name its modality.",
        CAUTION,
    ),
    "no-dicom": Code("an image, map or mask has no DICOM object"),
    "mask-beyond-scan": Code(
        "a mask lies only partly within the source series",
        "Check that it is of the same scan.",
        CAUTION,
    ),
    "other-source": Code(
        "the series named by --like is not the scan from which the images were synthesised"
    ),
    "outside-bids": Code("BIDS has no suffix for a modality", detail=True),
    "threads": Code("each worker of a synthesis has more threads than cores", detail=True),
    # The scans of a cohort, compared with each other (prepare)
    "unread": Code("a file cannot be read", "Correct it, or leave it out."),
    "left-out": Code("a file or case of the folder is left out"),
    "assumed": Code(
        "something about the layout of a cohort is assumed",
        "State it by an option or in a manifest.",
    ),
    "few-patients": Code("there are too few patients for a test split"),
    "prepared-again": Code(
        "cases were prepared again, because their files or the options have changed"
    ),
    "wide-heads": Code(
        "most heads are wider than deep, so rows and columns are likely exchanged",
        "State their orientation in a preset of your own (arrays.part, axes=LP for instance).",
    ),
    "same-voxels": Code(
        "scans have the same voxels",
        "Remove one of them, or state whose they are (--patients FILE).",
    ),
    "changed-copy": Code(
        "scans of different patients show one scan that was changed",
        "State whose they are (--patients FILE), or leave one out (--exclude).",
    ),
    "same-mask": Code(
        "several patients have the same mask",
        "Replace the copies by masks of their own, or remove them.",
    ),
    "not-registered": Code(
        "a registration did not make a scan more similar to the fixed one", "Look at it."
    ),
    "loses-detail": Code(
        "a scan loses detail on its case's grid",
        "Name another scan by --fixed, or voxels by --spacing.",
    ),
    "is-cut": Code("most of a scan is outside its case's grid", "Name another scan by --fixed."),
    "misaligned": Code(
        "a scan is not aligned with the fixed one",
        "Look at it (voxlate report PREPARED), or leave the case out (--exclude).",
    ),
    "not-measured": Code("the misalignment of scans cannot be measured"),
    "not-examined": Code("the misalignment of scans was measured in some of the cases only"),
    "blank": Code("a scan is blank, and counts as missing", "Check the file."),
    "not-hu": Code("a scan is not in Hounsfield units: z-scored or scaled", ORIGINAL),
    "grey-ct": Code("a scan is windowed to grey values, not in Hounsfield units", ORIGINAL),
    "shifted-hu": Code("a scan is shifted by about 1024 HU", f"Correct the offset, {LEAVE}"),
    "padding": Code(
        "a scan is padded with a value that no tissue has",
        "Replace it by the value of air, which is -1000 in a CT.",
    ),
    "below-air": Code(
        "a scan has values below air: padding, or not in Hounsfield units", "Check the file."
    ),
    "cut-window": Code("a scan is cut to a window", ORIGINAL),
    "other-background": Code(
        "a scan has another value around the body than the other cases", f"Correct it, {LEAVE}"
    ),
    "other-kind": Code("a scan has the values of a CT or of a label map", NAMES),
    "z-scored": Code("a scan is z-scored, and those of the other cases are not", ORIGINAL),
    "not-z-scored": Code("a scan is not z-scored, and those of the other cases are", ONE_KIND),
    "other-scale-of-case": Code("a scan has another scale than those of the other cases", ONE_KIND),
    "no-spacing": Code(
        "a scan has voxels of 1×1×1 mm, as files without spacing have",
        f"Write its spacing into the file, {LEAVE}",
    ),
    "empty-body": Code(
        "a scan holds air or one value in much of the body that another scan of the case shows",
        ORIGINAL,
    ),
    "other-size-of-case": Code(
        "a scan has a body of another size than the other cases", f"Check its spacing, {LEAVE}"
    ),
    "other-contrast": Code(
        "a scan has another contrast to its {partner} than those of the other cases", NAMES
    ),
    "contrast-of-modality": Code(
        "a scan has the contrast to its {partner} that another modality of the other cases has",
        NAMES,
    ),
    "foreign-scan": Code(
        "a scan fits its {partner} no better than those of other patients do: it may be another patient's",
        BOTH,
    ),
    "exchanged-scan": Code(
        "a scan fits the {partner} of another patient better than its own", BOTH
    ),
    "turned-scan": Code(
        "a scan is turned or mirrored against its {partner}", f"Correct its orientation, {LEAVE}"
    ),
    "inverted-mask": Code("a mask is inverted: it holds the background", f"Invert it, {LEAVE}"),
    "whole-mask": Code("a mask is the whole image", f"Correct it, {LEAVE}"),
    # Scores and calibrations (evaluate, calibrate, adapt)
    "truth-spacing": Code("its voxels are of another size", "Write the spacing in mm."),
    "truth-unit": Code("it is in another unit", "Convert it, or name the modality that it shows."),
    "truth-blank": Code("it shows the same value everywhere", "Check the file."),
    "truth-padding": Code(
        "it lacks part of the body, where it is filled with a value that no tissue has",
        "Replace that value, or take the original scan.",
    ),
    "truth-offset": Code(
        "its values are not in Hounsfield units", "Check its slope and intercept."
    ),
    "truth-window": Code(
        "it has no air: its values are cut to a window or a mask, or it is no CT",
        "Take the original scan, or score inside --mask.",
    ),
    "truth-mirrored": Code("it lies mirrored against its image", "Check the axes of its file."),
    "truth-patient": Code(
        "it is of another patient, or in another place", "Check whose scan it is."
    ),
    "other-scale": Code("images are on another scale than their truths"),
    "large-error": Code("cases have an error far above that of the others", "Look at them."),
    "calibration-replaced": Code("the calibration of a run is replaced"),
    "same-patient": Code("a case has the scans of another one, and is left out of the calibration"),
    "case-left-out": Code("a case cannot be used, and is left out"),
    "other-site": Code(
        "the error of a run on the scans of a new site is far above its own",
        "Check these scans before the adaptation is used.",
        CAUTION,
    ),
    "other-preparation": Code("a cohort was prepared in another way than the scans of a run"),
    "adapted": Code("the outcome of an adaptation"),
    "not-calibrated": Code("the calibration of a run does not hold after an adaptation"),
    "no-replay": Code("no case of the old cohort is replayed, so a run may forget it"),
    "replay": Code("cases of the old cohort are replayed", detail=True),
    # Trainings (plan, train)
    "probe": Code("a training step was timed", detail=True),
    "outcome": Code("the predicted and the measured time and memory of a planned training"),
    "help": Code("what may help where a result is worse than a naive baseline"),
    "last-stage": Code("a change of the training holds for the last stage alone"),
    "plan": Code("a key of a planned recipe, with its reason", detail=True),
    "paced": Code(
        "the steps of a planned training are changed once, so that it ends in its minutes"
    ),
    "too-slow": Code(
        "a machine is too slow for a plan",
        "To keep the minutes, stop and plan anew on this machine, into another --out.",
    ),
    "fold": Code("the cases of a fold"),
    "without-pairs": Code("sources and targets of a training are of different cases"),
    "not-trained-on": Code("cases are left out of a training, because they lack modalities"),
    "no-validation": Code("there are no validation cases, so training items are used instead"),
    "window-clips": Code("a window clips much of the bodies"),
    "latents": Code("latents are encoded again at every step", detail=True),
    "patch-size": Code("patches are smaller than the bodies, or larger than the slices"),
    "other-patch": Code("a stage has patches of another size than the stage from which it starts"),
    "loss-weights": Code("voxels that count more in the loss"),
    "validation": Code("the validation of a stage", detail=True),
    "curves": Code("where the curves of a training are", detail=True),
    "precision": Code("the precision of a training", detail=True),
    "stage-reused": Code("a stage is taken from another run"),
    "stage-not-reused": Code("a stage is not taken from another run"),
    "resumed": Code("a stopped training is resumed"),
    "finished": Code("a training is finished already"),
    "steps": Code("the steps of an additional training"),
    "time": Code("the time of a training by its parts", detail=True),
    # Archives (listen, synth --store)
    "refused": Code("an archive refused an object"),
    "not-sent": Code("an answer could not be sent, and is tried again"),
    "answered": Code("a study was answered"),
    # The page (serve)
    "not-encrypted": Code(
        "the connection of the page is not encrypted",
        "Use it in a trusted network, or behind a proxy with TLS.",
    ),
    # All commands
    "more": Code("there are further messages in OUT/messages.jsonl"),
    "stored": Code("how many objects an archive has stored"),
    "trained-on": Code("scored cases were in the training"),
    "aligned": Code("how images are aligned before they are scored"),
}
