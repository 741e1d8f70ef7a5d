"""Chunks cover everything once, in order, and shrink when memory runs out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cnnvis.functional.network.chunks import in_chunks


@given(total=st.integers(0, 50), chunk_size=st.integers(1, 60), fits=st.integers(1, 60))
def test_covers_all_in_order_in_chunks_that_fit(total, chunk_size, fits):
    def work(part):
        if part.stop - part.start > fits:
            raise torch.OutOfMemoryError("full")
        return list(range(part.start, part.stop))

    results = list(in_chunks(work, total, chunk_size))
    assert [item for result in results for item in result] == list(range(total))
    assert all(1 <= len(result) <= min(chunk_size, fits) for result in results)


def test_a_chunk_of_one_that_does_not_fit_raises():
    tried = []

    def work(part):
        tried.append(part.stop - part.start)
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        list(in_chunks(work, 10, 8))
    assert tried == [8, 4, 2, 1]


def test_the_smaller_size_is_kept():
    sizes = []

    def work(part):
        sizes.append(part.stop - part.start)
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("full")

    list(in_chunks(work, 9, 8))
    assert sizes == [8, 4, 2, 2, 2, 2, 1]


def test_the_memory_of_a_cpu_counts_too():
    sizes = []

    def work(part):
        sizes.append(part.stop - part.start)
        if sizes[-1] > 1:
            torch.empty(2**55)  # more than any machine has

    assert list(in_chunks(work, 3, 4)) == [None] * 3
    assert sizes == [3, 1, 1, 1]


def test_other_errors_pass():
    def work(part):
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        list(in_chunks(work, 4, 2))


def test_no_chunk_at_all():
    assert list(in_chunks(lambda part: part, 0, 4)) == []


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chunk=0"):
        list(in_chunks(lambda part: part, 3, 0))
