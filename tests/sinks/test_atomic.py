"""Files appear when they are complete, on the disk and in remote stores."""

import os
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lightning_cnnvis.sinks.atomic import join, located, sweep, write


class ObjectStore(MemoryFileSystem):
    """A store that cannot rename. It notes the names that it is given."""

    protocol = "objects"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    written: ClassVar[list] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix(f"{cls.protocol}://"))

    def pipe_file(self, path, value, **options):
        self.written.append(path)
        super().pipe_file(path, value, **options)


class Server(ObjectStore):
    """One that can."""

    protocol = "server"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    written: ClassVar[list] = []

    def mv(self, path1, path2, **options):
        self.store[path2] = self.store.pop(path1)


@pytest.fixture(params=[ObjectStore, Server], ids=lambda kind: kind.protocol)
def remote(request):
    kind = request.param
    fsspec.register_implementation(kind.protocol, kind, clobber=True)
    yield kind
    kind.store.clear()
    kind.written.clear()


def content(kind) -> dict[str, bytes]:
    return {name: file.getvalue() for name, file in kind.store.items()}


@pytest.mark.parametrize(
    ("location", "expected"),
    [("s3://b/run", "s3://b/run"), ("simplecache::s3://b", "simplecache::s3://b"), ("memory://", "memory://")],
)
def test_a_remote_location_stays_a_url(location, expected):
    assert located(location) == expected
    assert join(located(location), "a", "b.png").removeprefix(expected) in {"/a/b.png", "a/b.png"}


def test_a_local_location_is_a_path(tmp_path):
    for location in (tmp_path, str(tmp_path), f"file://{tmp_path.as_posix()}"):
        assert located(location) == tmp_path
    assert located("a:b/c::d").name == "c::d"
    assert join(tmp_path, "a", "b.png") == tmp_path / "a" / "b.png"


@pytest.mark.parametrize("make", [lambda path: path, str, lambda path: f"file://{path.as_posix()}"])
def test_on_the_disk(tmp_path, make):
    for data in (b"first", b"second"):
        write(make(tmp_path / "new" / "folder" / "a.png"), data)
    assert [(path.name, path.read_bytes()) for path in tmp_path.rglob("*.*")] == [("a.png", b"second")]


def test_in_a_store(remote):
    for data in (b"first", b"second"):
        write(f"{remote.protocol}://bucket/run[1]/a.png", data)
    assert content(remote) == {"/bucket/run[1]/a.png": b"second"}
    assert all(name.endswith(".part") for name in remote.written) == (remote is Server)


def test_a_bucket_of_google_is_an_object_store(monkeypatch):
    class Google(Server):
        protocol: ClassVar[tuple] = ("gs", "gcs")
        store: ClassVar[dict] = {}
        written: ClassVar[list] = []

    monkeypatch.setattr("lightning_cnnvis.sinks.atomic.url_to_fs", lambda url: (Google(), url.removeprefix("gs:/")))
    write("gs://bucket/a.png", b"first")
    assert Google.written == ["/bucket/a.png"]


def test_an_interrupted_write_leaves_the_old_file(remote, monkeypatch):
    def interrupted(self, path, value, **options):
        if self.protocol == "server":
            MemoryFileSystem.pipe_file(self, path, value[:2], **options)
        raise KeyboardInterrupt

    url = f"{remote.protocol}://bucket/a.png"
    write(url, b"old")
    monkeypatch.setattr(remote, "pipe_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(url, b"new")
    assert content(remote) == {"/bucket/a.png": b"old"}


def test_a_sweep_leaves_what_others_are_writing(tmp_path, half_written):
    (tmp_path / "relu").mkdir()
    abandoned = half_written()
    files = {
        abandoned: False,
        half_written(os.getpid()): False,  # an earlier process of the same number: we write nothing before we sweep
        half_written(os.getppid()): True,
        half_written(1): True,
        half_written(7, "elsewhere"): True,
        half_written(8, "elsewhere"): False,
        ".hidden.part": True,
        "mine.part": True,
    }
    for name in files:
        (tmp_path / "relu" / name).touch()
    os.utime(tmp_path / "relu" / half_written(8, "elsewhere"), (0, 0))
    sweep(tmp_path)
    assert {path.name for path in tmp_path.rglob("*.part")} == {name for name, stays in files.items() if stays}


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("sync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("rename"), replace(*names)))
    write(tmp_path / "a.png", b"a")
    assert done == ["sync", "rename", "sync"]


def test_a_disk_that_fails_at_the_last_moment_leaves_the_old_file(tmp_path, monkeypatch):
    def fsync(_):
        raise OSError("no space")

    write(tmp_path / "a.png", b"old")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path / "a.png", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"old")]


def test_sweeps_a_server_that_can_rename(remote, half_written):
    if remote is ObjectStore:
        pytest.skip("has no half-written files")
    for name in (half_written(), "epoch_0001.png", "mine.part"):
        remote().pipe_file(f"/bucket/run/relu/{name}", b"")
    sweep("server://bucket/run")
    assert sorted(content(remote)) == ["/bucket/run/relu/epoch_0001.png", "/bucket/run/relu/mine.part"]


def test_a_sweep_never_fails():
    sweep("nosuchprotocol://bucket/run")
