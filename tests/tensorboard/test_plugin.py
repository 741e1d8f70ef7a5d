"""The tab's server: in TensorBoard with each of its loaders, and where neither torch nor Lightning can be imported."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from event_files import LAYERS, write_broken, write_run
from report_contents import HOSTILE
from tensorboard import default, program
from torch.utils.tensorboard import SummaryWriter

import lightning_cnnvis
from lightning_cnnvis.tensorboard.plugin import CnnvisPlugin

LOADERS = ("true", "false")


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    write_run(folder / "first", maps=3)
    write_run(folder / "second" / "version_0", range(1, 13), maps=2)
    write_broken(folder / "broken")
    write_run(folder / 'a "quoted" run', range(1, 2), maps=2)
    other = SummaryWriter(str(folder / "other"))
    other.add_scalar("loss", 1.0, 1)
    other.close()
    (folder / "secret.txt").write_text("secret")
    return folder


@pytest.fixture(scope="module", params=LOADERS)
def server(request, logs) -> str:
    """TensorBoard's address for our routes; its loaders are the Rust one and the Python one."""
    tensorboard = program.TensorBoard(plugins=[*default.get_static_plugins(), CnnvisPlugin])
    argv = ["", "--logdir", str(logs), "--port", "0", "--load_fast", request.param, "--path_prefix", "/a/b"]
    tensorboard.configure(argv=argv)
    address = tensorboard.launch().rstrip("/") + "/data"
    deadline = time.monotonic() + 20
    while len(json.loads(get(f"{address}/plugin/cnnvis/runs")[1])) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    return address


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict]:
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def ours(server: str, route: str, **parameters: object) -> tuple[int, bytes, dict]:
    return get(f"{server}/plugin/cnnvis/{route}?{urlencode(parameters)}")


def entries(server: str, run: str) -> list[dict]:
    return json.loads(ours(server, "entries", run=run)[1])


def test_the_tab_is_there_once_a_run_has_data(server):
    listing = json.loads(get(f"{server}/plugins_listing")[1])
    assert listing["cnnvis"]["enabled"]
    assert listing["cnnvis"]["tab_name"] == "Convnet"
    assert listing["cnnvis"]["loading_mechanism"]["type"] == "IFRAME"
    status, page, _ = get(f"{server}/plugin_entry.html?name=cnnvis")
    assert status == 200
    assert b"./index.js" in page


def test_runs_are_those_with_data_in_the_order_in_which_they_began(server):
    runs = json.loads(ours(server, "runs")[1])
    assert runs == ["first", "second/version_0", "broken", 'a "quoted" run']


def test_every_epoch_and_layer_is_there(server):
    # of one tag, TensorBoard keeps ten steps: each epoch has its own
    for run, last in (("first", 3), ("second/version_0", 12)):
        found = [entry["head"] for entry in entries(server, run)]
        shown = {(head["title"], head["epoch"]) for head in found if head["kind"] == "section" and head["layer"]}
        assert shown == {(name, epoch) for name in LAYERS for epoch in range(1, last + 1)}
        assert sum(head["kind"] == "network" for head in found) == 1


def test_bodies_and_sheets_are_given(server):
    for entry in entries(server, "first"):
        head = entry["head"]
        status, body, headers = ours(server, "body", run="first", id=entry["id"])
        assert (status, headers["Content-Type"]) == (200, "application/json")
        if head["kind"] == "network":
            continue
        assert json.loads(body)["blocks"]
        for n in range(head["sheets"]):
            status, sheet, headers = ours(server, "sheet", run="first", id=entry["id"], n=n)
            assert (status, sheet[:4], headers["Content-Type"]) == (200, b"RIFF", "image/webp")
            assert headers["X-Content-Type-Options"] == "nosniff"
        assert ours(server, "sheet", run="first", id=entry["id"], n=head["sheets"])[0] == 404


def test_a_run_that_the_fast_loader_cannot_read_is_named(server):
    run = 'a "quoted" run'
    entry = next(entry for entry in entries(server, run) if entry["head"]["kind"] == "section")
    status, content, _ = ours(server, "body", run=run, id=entry["id"])
    assert status == 200 or b"Start it with --load_fast=false" in content


def test_what_has_not_changed_is_not_sent_again(server):
    _, _, headers = ours(server, "entries", run="first")
    again = get(f"{server}/plugin/cnnvis/entries?run=first", **{"If-None-Match": headers["ETag"]})
    assert again[:2] == (304, b"")


def test_the_viewers_files_are_served_and_no_other(server):
    page = Path(lightning_cnnvis.__file__).parent / "viewer" / "page"
    for file in page.iterdir():
        status, content, headers = get(f"{server}/plugin/cnnvis/{file.name}")
        if file.suffix in {".js", ".css", ".html"}:
            assert (status, content) == (200, file.read_bytes())
            assert headers["Content-Type"].startswith("text/")
        else:
            assert status == 404


def test_fuzzed_routes_are_refused(server, logs):
    draw = random.Random(0)
    outside = [
        "../secret.txt",
        "..%2f..%2fsecret.txt",
        str(logs / "secret.txt"),
        "file:///etc/passwd",
        "\x00",
        "%",
        "%ff",
    ]
    words = [*outside, *HOSTILE, "first", "-1", "0", "99999999999999999999", "1e3", "", "²", ".", "\ud83d", "a" * 3000]
    routes = ["runs/x", "entries", "body", "sheet", "static/", "index.js/x", *map(quote, map(repr, words[:8]))]
    tried = 0
    for route in routes:
        for _ in range(12):
            parameters = {
                name: draw.choice(words) for name in draw.sample(["run", "id", "n", "blob_key"], draw.randint(0, 4))
            }
            query = urlencode(parameters, errors="surrogatepass")
            status, content, headers = get(f"{server}/plugin/cnnvis/{route}?{query}")
            if route == "entries" and parameters.get("run") == "first":
                continue
            assert 400 <= status < 500, (route, parameters)
            assert b"secret" not in content.replace(b"secret.txt", b"")
            assert "html" not in headers["Content-Type"]
            tried += 1
    assert tried > 100
    for path in ("../../../secret.txt", "%2e%2e/%2e%2e/secret.txt", "..%5c..%5csecret.txt", "//etc/passwd"):
        assert get(f"{server}/plugin/cnnvis/{path}")[0] == 404
    assert get(f"{server}/plugin/cnnvis/runs", method="POST")[0] == 405


def test_broken_data_give_a_sentence_and_the_rest_is_shown(server):
    found = entries(server, "broken")
    assert sum(entry["head"] is None for entry in found) == 6
    assert any(entry["head"] and entry["head"].get("format") == 99 for entry in found)
    bodies = [entry["id"] for entry in found if "body" in entry["id"]]
    assert len(bodies) == 4
    status, content, _ = ours(server, "body", run="broken", id=bodies[0])
    assert (status, content) == (404, b"The data are broken: the body is not JSON.")
    status, content, _ = ours(server, "sheet", run="broken", id=bodies[3], n=0)
    assert (status, content) == (404, b"The data are broken: the sheet is not a WebP picture.")
    assert ours(server, "runs")[0] == 200


def test_runs_of_other_tools_have_nothing_for_the_tab(server):
    status, content, _ = ours(server, "entries", run="other")
    assert status == 404
    assert b"There is no run 'other'" in content


BLOCKED = """
import sys
BLOCKED = "torch torchvision pytorch_lightning lightning lightning_fabric lightning_utilities PIL".split()
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Blocker())
from lightning_cnnvis.tensorboard.plugin import CnnvisPlugin
from tensorboard.plugins.base_plugin import TBContext
plugin = CnnvisPlugin(TBContext(data_provider=None))
metadata = plugin.frontend_metadata()
print(plugin.plugin_name, plugin.is_active(), metadata.es_module_path, *sorted(plugin.get_plugin_apps()))
"""


def test_loads_where_neither_torch_nor_lightning_can_be_imported():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, active, module, *routes = done.stdout.split()
    assert (name, active, module) == ("cnnvis", "False", "/index.js")
    assert {"/index.js", "/runs", "/entries", "/body", "/sheet", "/style.css", "/standalone.html"} <= set(routes)
    assert not any("*" in route for route in routes)


def test_the_entry_point_is_declared():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    _, _, declared = project.partition("[project.entry-points.tensorboard_plugins]\n")
    target = declared.partition("\n")[0].partition(" = ")[2]
    assert target == f'"{CnnvisPlugin.__module__}:{CnnvisPlugin.__name__}"'
