"""What libraries warn of while a command runs is said in sentences."""

import logging

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
