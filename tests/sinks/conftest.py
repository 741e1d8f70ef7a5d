"""Fixtures of the tests of sinks."""

import fsspec
import pytest


@pytest.fixture
def memory():
    """The files of fsspec's ``memory://``, which stands for a bucket, by name; empty at first."""
    store = fsspec.filesystem("memory").store
    store.clear()
    yield store
    store.clear()
