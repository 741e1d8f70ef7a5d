"""How the command line ends when something is wrong: with a sentence and status 2."""

from __future__ import annotations

import sys
from typing import NoReturn

USER_ERROR = 2


def fail(message: object) -> NoReturn:
    """Ends the program with a sentence on what is wrong."""
    text = " ".join(str(message).split())
    print(f"lightning-cnnvis: error: {text}", file=sys.stderr)
    raise SystemExit(USER_ERROR)
