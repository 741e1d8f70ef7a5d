"""Fixtures of the tests of sinks."""

import subprocess
import sys
from collections.abc import Callable

import fsspec
import pytest

from lightning_cnnvis.sinks.atomic import _machine


@pytest.fixture
def memory():
    """The files of fsspec's ``memory://``, which stands for a bucket, by name; empty at first."""
    store = fsspec.filesystem("memory").store
    store.clear()
    yield store
    store.clear()


@pytest.fixture
def half_written() -> Callable[..., str]:
    """Names a file that a process is writing; one that has died, unless its number is given."""

    def name(process: int | None = None, machine: str | None = None) -> str:
        if process is None:
            dead = subprocess.Popen([sys.executable, "-c", ""])
            dead.wait()
            process = dead.pid
        return f".epoch_0001.png.{machine or _machine()}.{process}.part"

    return name
