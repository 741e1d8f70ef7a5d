"""Progress is shown on a terminal after a second, and as lines every ten seconds where there is no terminal."""

from __future__ import annotations

import io

import pytest
import torch

from lightning_cnnvis.posthoc.progress_bar import Progress, watched, watched_images


class Stderr(io.StringIO):
    """Takes what is written, as a terminal or as a file."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("lightning_cnnvis.posthoc.progress_bar.time.monotonic", clock)
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


def run(clock: Clock, *, seconds: float, total: int = 4, shown: bool = True) -> None:
    for _ in watched(range(total), total, "projecting", "layer", shown=shown):
        clock.now += seconds / total


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(("seconds", "shown"), [(0.9, True), (60, False)])
def test_what_is_short_or_not_to_be_shown_writes_nothing(clock, monkeypatch, terminal, seconds, shown):
    monkeypatch.setattr("sys.stderr", written := Stderr(terminal))
    run(clock, seconds=seconds, shown=shown)
    assert written.getvalue() == ""


def test_a_terminal_gets_a_bar(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", written := Stderr(terminal=True))
    run(clock, seconds=8)
    assert "projecting:  25%" in written.getvalue()
    assert "3/4" in written.getvalue()
    assert written.getvalue().endswith("\r")  # which takes the bar away


def test_later_stages_are_shown_at_once(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", written := Stderr(terminal=True))
    progress = Progress("optimising")
    for total in (10, 20):
        for done in range(3):
            progress.update(done, total)
            clock.now += 0.4
    progress.close()
    assert "/10" not in written.getvalue()
    assert "1/20" in written.getvalue()


def test_a_file_gets_a_line_every_ten_seconds(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", written := Stderr(terminal=False))
    run(clock, seconds=36)
    assert written.getvalue().splitlines() == ["projecting: layer 2 of 4"]
    run(clock, seconds=48)
    assert written.getvalue().splitlines()[1:] == [f"projecting: layer {n} of 4" for n in (1, 2, 3)]


@pytest.mark.parametrize(("seconds", "left"), [(40, "20 s"), (200, "1 min 40 s"), (7200, "1 h 0 min")])
def test_images_are_counted_with_their_pace_and_what_is_left(clock, monkeypatch, seconds, left):
    monkeypatch.setattr("sys.stderr", written := Stderr(terminal=False))
    batches = [torch.zeros(5000, 1)] * 4
    for _ in watched_images(enumerate(batches), 20000):
        clock.now += seconds / 4
    pace = f"{20000 / seconds:.0f} images a second"
    assert f"Images: image 10000 of 20000, {pace}, {left} left" in written.getvalue().splitlines()


def test_images_of_an_unknown_number(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", written := Stderr(terminal=False))
    for _ in watched_images(enumerate([torch.zeros(50, 1)] * 2), 0):
        clock.now += 12
    assert written.getvalue().splitlines()[0] == "Images: image 50, 4 images a second"


def test_a_terminal_gets_images_a_second(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", written := Stderr(terminal=True))
    for _ in watched_images(enumerate([torch.zeros(50, 1)] * 4), 200):
        clock.now += 5
    assert "50/200" in written.getvalue()
    assert "image/s" in written.getvalue()
