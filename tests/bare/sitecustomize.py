"""Python imports this when it starts, so that processes that a test starts are bare, too."""

import bare_machine  # noqa: F401
