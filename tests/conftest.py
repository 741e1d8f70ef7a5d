"""What several test modules share."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# The suite runs in one process a core, on tensors so small that more threads would only get in each other's way.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Leaves out what matters only when the power fails; tests/sinks/test_atomic.py sees that files are synced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real ImageNet weights and photographs, which is not part of the project; skips without it."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CNNVIS_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real weights at {folder}: set CNNVIS_SHARED_DATA")
    return folder


@pytest.fixture
def reads(monkeypatch) -> Counter[Path]:
    """Counts how often each checkpoint, file of weights and configuration is read."""
    counts: Counter[Path] = Counter()

    def spy(owner, name):
        original = getattr(owner, name)

        def counted(path, *args, **options):
            if not isinstance(path, Path) or path.suffix in {".ckpt", ".pt", ".pth", ".safetensors", ".yaml"}:
                counts[Path(path)] += 1
            return original(path, *args, **options)

        monkeypatch.setattr(owner, name, counted)

    spy(torch, "load")
    spy(pytest.importorskip("safetensors.torch"), "load_file")
    spy(Path, "read_text")
    return counts


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """Playwright's own browser, or that of the system."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    # Chromium's sandbox does not start for root
    options = {"args": ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []}
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    with api.sync_playwright() as playwright:
        if not Path(playwright.chromium.executable_path).exists():
            system = next(filter(None, map(shutil.which, names)), None)
            if system is None:
                pytest.skip("there is no browser: playwright install chromium")
            options["executable_path"] = system
        browser = playwright.chromium.launch(**options)
        yield browser
        browser.close()
