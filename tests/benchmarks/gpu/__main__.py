"""Measures on one GPU all that waits for one, in less than nine minutes, without a network or a download.

    python -m tests.benchmarks.gpu --output FOLDER [--parts NAME ...] [--quick] [--device cpu]

Each part runs in a process of its own, under a limit of time: one that fails, hangs or crashes costs the others
nothing, and what it had measured by then is kept. After every part, FOLDER/gpu.json holds all figures and
FOLDER/gpu.md the tables, the targets first. Real weights come from the folder that ``CNNVIS_SHARED_DATA`` names; what
needs them, or a package that is not there, is recorded as not measured. ``--quick --device cpu`` tries the script out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from ..machine import default_device, describe
from .parts import PARTS, highest_mib
from .results import TARGETS, Figures, Settings, markdown, write

ROOT = Path(__file__).parents[3]
MODULE = "tests.benchmarks.gpu"


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for gpu.json, gpu.md and gpu.log")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="a smoke run, with as little work as can be")
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--limit", type=float, default=520, help="seconds in all; parts that do not fit are left out")
    parser.add_argument("--only-part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    options.output.mkdir(parents=True, exist_ok=True)
    settings = Settings(options.device, options.quick, options.output.resolve())
    if options.only_part:
        measure(options.only_part, settings)
        return 0
    begin = time.perf_counter()
    command = " ".join(["python -m tests.benchmarks.gpu", *(sys.argv[1:] if args is None else args)])
    run: dict[str, Any] = {**describe(options.device), "command": command, "quick": options.quick, "parts": {}}
    for name in options.parts:
        left = options.limit - (time.perf_counter() - begin)
        # the limit of a part is set for a GPU: a smoke run on a busy CPU may take longer
        limit = left if options.quick else min(PARTS[name].limit, left)
        print(f"{name} ...", file=sys.stderr, flush=True)
        run["parts"][name] = in_process(name, settings, limit)
        run["seconds"] = time.perf_counter() - begin
        write(options.output / "gpu.json", run)
        (options.output / "gpu.md").write_text(markdown(run), encoding="utf-8")
        part = run["parts"][name]
        print(f"{name}: {part['outcome']}, {part['seconds']:.0f} s", file=sys.stderr, flush=True)
    for target in TARGETS:
        print(" | ".join(target.row(run["parts"])), flush=True)
    return int(any(part["outcome"] != "done" for part in run["parts"].values()))


def in_process(name: str, settings: Settings, limit: float) -> dict[str, Any]:
    """Runs a part by itself; its figures, and how it ended."""
    if limit < 5:
        return {"outcome": "left out: no time", "seconds": 0.0, "figures": {}, "output": ""}
    file, log = figures_of(name, settings), settings.folder / "gpu.log"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", MODULE, "--output", str(settings.folder), "--device", settings.device]
    command += ["--only-part", name, *(["--quick"] if settings.quick else [])]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    begin = time.perf_counter()
    with log.open("ab") as output:
        output.write(f"\n===== {name}\n".encode())
        output.flush()
        before = log.stat().st_size
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = child.wait(limit)
            outcome = "done" if status == 0 else f"failed, status {status}"
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {limit:.0f} s"
            os.killpg(child.pid, signal.SIGKILL)  # with the processes that it started
            child.wait()
    figures = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.unlink(missing_ok=True)
    if outcome == "done" and any("error" in value for value in figures.values() if isinstance(value, dict)):
        outcome = "done, with errors"
    return {
        "outcome": outcome,
        "seconds": time.perf_counter() - begin,
        "figures": figures,
        "output": log.read_bytes()[before:].decode("utf-8", "replace")[-4000:],
    }


def figures_of(name: str, settings: Settings) -> Path:
    return settings.folder / f"{name}.figures.json"


def measure(name: str, settings: Settings) -> None:
    """Runs a part in this process."""
    warnings.filterwarnings("ignore")
    figures = Figures(figures_of(name, settings))
    try:
        PARTS[name].measure(settings, figures)
    finally:
        if settings.device != "cpu" and name != "tests":
            figures["peak_mib"] = highest_mib()


if __name__ == "__main__":
    sys.exit(main())
