"""What libraries warn of while a command runs is said in sentences."""

import logging
import warnings

from voxlate.commands.cli import warning_lines
from voxlate.commands.cli.warning_lines import in_sentences

# as matplotlib 3.11 and 3.8 have it
ISSUE = "because there was an issue with the default path (%s); it is highly recommended to set the MPLCONFIGDIR"
UNWRITABLE = (
    "because the default path (%s) is not a writable directory; it is highly recommended to set the"
)
CREATED = "Matplotlib created a temporary cache directory at %s "


def test_a_cache_folder_that_cannot_be_written_is_one_sentence(capfd):
    logger = logging.getLogger("matplotlib")
    with in_sentences():
        logger.warning(
            "mkdir -p failed for path %s: %s", "/no/home", "[Errno 13] Permission denied"
        )
        logger.warning(CREATED + ISSUE, "/tmp/x", "/no/home")
        logger.warning(CREATED + UNWRITABLE, "/tmp/y", "/no/home")
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("note: /no/home: expected a writable cache folder, found none")
    assert said[0].endswith("Set MPLCONFIGDIR to a writable folder.")


def test_other_warnings_are_shown_and_later_ones_as_before(capfd, monkeypatch):
    before, shown = warnings.showwarning, []
    monkeypatch.setattr(warning_lines, "_show_any", lambda message, *_: shown.append(message))
    with in_sentences():
        logging.getLogger("matplotlib").warning(
            "Matplotlib is building the font cache; this may take a moment."
        )
        logging.getLogger("matplotlib").info("nothing to know")
        warnings.showwarning("something else", UserWarning, "here.py", 1)
    assert warnings.showwarning is before
    assert logging.getLogger("matplotlib").handlers == []
    said = capfd.readouterr().err
    assert "note: Matplotlib is building the font cache; this may take a moment." in said
    assert shown == ["something else"]
    assert "nothing to know" not in said
