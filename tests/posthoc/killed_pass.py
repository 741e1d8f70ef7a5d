"""Runs a command that is killed as soon as it has kept partial results so many times.

``python killed_pass.py WRITES COMMAND ...``: 0 writes let it run to its end, keeping partial results after every batch.
"""

from __future__ import annotations

import os
import signal
import sys

from lightning_cnnvis.cli import main
from lightning_cnnvis.posthoc import partial


def killed_after(writes: int) -> None:
    partial.SECONDS_BETWEEN, partial.SHARE = 0.0, float("inf")
    write = partial.PartialResults._write

    def counted(self, position):
        nonlocal writes
        write(self, position)
        writes -= 1
        if writes == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    partial.PartialResults._write = counted


if __name__ == "__main__":
    killed_after(int(sys.argv[1]))
    main(sys.argv[2:])
