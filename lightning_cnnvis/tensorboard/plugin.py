"""The server's side of the tab: a few routes, which give what the event files hold, and the viewer's own files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any

from tensorboard import errors, plugin_util  # type: ignore[import-untyped]
from tensorboard.backend.http_util import Respond  # type: ignore[import-untyped]
from tensorboard.data.provider import RunTagFilter  # type: ignore[import-untyped]
from tensorboard.plugins.base_plugin import FrontendMetadata, TBContext, TBPlugin  # type: ignore[import-untyped]
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, NotFound
from werkzeug.wrappers import Request, Response

from lightning_cnnvis.tensorboard.names import PLUGIN_NAME

_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
_SHEET = "image/webp"
_A_DAY = 86400  # seconds

Answer = tuple[Any, str, int]
"""Content, media type, and for how many seconds a browser may keep it."""


class CnnvisPlugin(TBPlugin):  # type: ignore[misc]
    """Shows what a convnet has learnt: what the callbacks of this package wrote to the event files.

    TensorBoard makes it, by the entry point ``tensorboard_plugins``. It reads through its data provider alone,
    so that it works with each of its loaders, and serves no file but the viewer's own, each under a route of its own.

    Args:
        context: What TensorBoard gives to its plugins.
    """

    plugin_name = PLUGIN_NAME

    def __init__(self, context: TBContext) -> None:
        self._data = context.data_provider

    def is_active(self) -> bool:
        """Leaves it to TensorBoard to find out whether a run has data with the plugin's name."""
        return False

    def frontend_metadata(self) -> FrontendMetadata:
        """Names the tab, and the module that fills it."""
        return FrontendMetadata(es_module_path="/index.js", tab_name="Convnet")

    def get_plugin_apps(self) -> dict[str, Callable[..., Iterable[bytes]]]:
        """The routes: one a file of the viewer, and those of the data."""
        page = files("lightning_cnnvis") / "viewer" / "page"
        routes: dict[str, Callable[[Request], Answer]] = {
            "/runs": self._runs,
            "/entries": self._entries,
            "/body": self._body,
            "/sheet": self._sheet,
        }
        for file in page.iterdir():
            kind = _TYPES.get(f".{file.name.rpartition('.')[2]}")
            if kind is not None:
                routes[f"/{file.name}"] = partial(_static, file, kind)
        return {route: _application(answer) for route, answer in routes.items()}

    def _runs(self, request: Request) -> Answer:
        """The names of the runs that have data for the viewer, in the order in which they began."""
        known = self._list(request)
        runs = self._data.list_runs(**_of(request))
        began = {run.run_name: run.start_time or 0.0 for run in runs}
        return sorted(known, key=lambda run: (began.get(run, 0.0), run)), "application/json", 0

    def _entries(self, request: Request) -> Answer:
        """What a run has: the head and the tag of everything that was shown."""
        run = _argument(request, "run")
        known = self._list(request, RunTagFilter(runs=[run])).get(run)
        if known is None:
            raise NotFound(f"There is no run {run!r} with data for this tab.")
        entries = [{"id": tag, "at": series.max_wall_time, **_head(series)} for tag, series in sorted(known.items())]
        return entries, "application/json", 0

    def _body(self, request: Request) -> Answer:
        """The body of one thing that was shown, as JSON."""
        data = self._blob(request, 0)
        try:
            json.loads(data)
        except (ValueError, RecursionError) as error:
            raise NotFound("The data are broken: the body is not JSON.") from error
        return data, "application/json", _A_DAY

    def _sheet(self, request: Request) -> Answer:
        """A sprite sheet."""
        number = _argument(request, "n")
        if not (number.isascii() and number.isdigit() and len(number) < 6):
            raise BadRequest(f"n={number!r} is not the number of a sheet.")
        data = self._blob(request, int(number) + 1)
        if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
            raise NotFound("The data are broken: the sheet is not a WebP picture.")
        return data, _SHEET, _A_DAY

    def _list(self, request: Request, which: RunTagFilter | None = None) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self._data.list_blob_sequences(
            **_of(request), plugin_name=PLUGIN_NAME, run_tag_filter=which
        )
        return found

    def _blob(self, request: Request, index: int) -> bytes:
        run, tag = _argument(request, "run"), _argument(request, "id")
        which = RunTagFilter(runs=[run], tags=[tag])
        found = self._data.read_blob_sequences(
            **_of(request), plugin_name=PLUGIN_NAME, downsample=1000, run_tag_filter=which
        )
        series = found.get(run, {}).get(tag)
        if not series:
            raise NotFound(f"Run {run!r} has nothing under {tag!r}.")
        blobs = series[-1].values
        if index >= len(blobs):
            raise NotFound(f"There is no sheet {index - 1} under {tag!r}.")
        try:
            data = self._data.read_blob(ctx=plugin_util.context(request.environ), blob_key=blobs[index].blob_key)
        except errors.InvalidArgumentError as error:
            raise NotFound(
                f"TensorBoard's fast loader cannot read run {run!r}, whose name has quotes or backslashes in it. "
                "Start it with --load_fast=false, or rename the run."
            ) from error
        except (TypeError, ValueError, IndexError) as error:  # of a tensor that is not what it says
            raise NotFound("The data are broken: they cannot be read.") from error
        if not isinstance(data, bytes):
            raise NotFound("The data are broken: they are not bytes.")
        return data


def _of(request: Request) -> dict[str, Any]:
    environ = request.environ
    return {"ctx": plugin_util.context(environ), "experiment_id": plugin_util.experiment_id(environ)}


def _argument(request: Request, name: str) -> str:
    value = request.args.get(name)
    if value is None:
        raise BadRequest(f"The address lacks {name}=.")
    return str(value)


def _head(series: Any) -> dict[str, Any]:
    """The head of an entry, or a sentence where it cannot be read."""
    try:
        head = json.loads(series.plugin_content)
        if isinstance(head, dict):
            json.dumps(head, allow_nan=False).encode()
            return {"head": head}
    except (ValueError, RecursionError):
        pass
    return {"head": None}


def _static(file: Any, kind: str, request: Request) -> Answer:
    return file.read_bytes(), kind, 0


def _application(answer: Callable[[Request], Answer]) -> Callable[..., Iterable[bytes]]:
    """A WSGI application that answers in a sentence where it cannot give what was asked for."""

    def respond(request: Request) -> Any:
        try:
            if request.method not in {"GET", "HEAD"}:
                raise MethodNotAllowed(valid_methods=["GET", "HEAD"])
            content, kind, seconds = answer(request)
        except HTTPException as error:
            return Respond(request, error.description or "", "text/plain", code=error.code or 400)
        except errors.PublicError as error:
            return Respond(request, str(error), "text/plain", code=error.http_code)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        if not seconds and request.headers.get("If-None-Match", "").removeprefix("W/") == tag:
            return Response(status=304, headers=[("ETag", tag)])
        return Respond(request, data, kind, expires=seconds, headers=[("ETag", tag)])

    application: Callable[..., Iterable[bytes]] = Request.application(respond)
    return application
