"""Pictures and scalars arrive in files and loggers, whatever their names and whatever fails."""

import io
import math
import pickle
import posixpath
import re
import string
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_cnnvis.pictures import encode_gif, encode_png
from lightning_cnnvis.sinks import LoggerSink, Recording, Sink, SinkError, Sinks, loggers, register_logger_sink
from lightning_cnnvis.sinks.tags import logged_name, mlflow_name, tag_path

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
FRAMES = [np.full((4, 6, 3), value, np.uint8) for value in (0, 128, 255)]


def pixels(data):
    return np.asarray(Image.open(data).convert("RGB"))


# Encoding.


def test_png_holds_the_picture():
    assert np.array_equal(pixels(io.BytesIO(encode_png(PICTURE))), PICTURE)


def test_gif_holds_the_frames():
    animation = Image.open(io.BytesIO(encode_gif(FRAMES, 0.5)))
    assert animation.n_frames == 3
    assert animation.info["duration"] == 500
    assert animation.info["loop"] == 0
    for index, frame in enumerate(FRAMES):
        animation.seek(index)
        assert np.array_equal(np.asarray(animation.convert("RGB")), frame)


@pytest.mark.parametrize(
    "picture", [PICTURE.astype(float), PICTURE[..., 0], PICTURE[..., :2], PICTURE[:0]], ids=lambda p: str(p.shape)
)
def test_refuses_what_is_no_picture(picture):
    with pytest.raises(ValueError, match="uint8 array of shape \\(height, width, 3\\)"):
        Sinks().picture("tag", picture, 1)


@pytest.mark.parametrize(("frames", "message"), [([], "at least one frame"), ([PICTURE, *FRAMES], "different shapes")])
def test_refuses_what_is_no_animation(frames, message):
    with pytest.raises(ValueError, match=message):
        Sinks().animation("tag", frames, 1)


# Names.

NASTY = st.text(max_size=40) | st.text(alphabet="./\\:a <\n\0CON", max_size=12)


@given(tag=NASTY)
@example(tag="../../etc/passwd")
@example(tag="/etc/passwd")
@example(tag="C:\\windows")
@example(tag="a\nb\0c")
@example(tag="<img src=x onerror=alert(1)>")
@example(tag="x" * 5000)
@example(tag="猫" * 500)
@example(tag="con.txt")
@example(tag="\ud800")
@example(tag="a/" * 3000)
def test_no_tag_leaves_the_folder(tmp_path_factory, tag):
    path = tag_path(tag)
    folder = Path(tmp_path_factory.getbasetemp())
    assert (folder / path).resolve().is_relative_to(folder.resolve())
    assert 1 <= len(path.parts) <= 4
    for part in path.parts:
        assert len(part.encode()) <= 140
        assert part == part.strip(" .")
        assert not set(part) & set("<>:\"/\\|?*&'" + "".join(map(chr, range(32))))
        assert part.split(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}


@given(one=NASTY, other=NASTY)
@example(one="a/b", other="a//b")
@example(one="a", other="a/")
@example(one="a?", other="a*")
@example(one="x" * 300, other="x" * 301)
@example(one="", other="_")
@example(one="é", other="e\u0301")
def test_distinct_tags_have_distinct_folders(one, other):
    assert (tag_path(one) == tag_path(other)) == (one == other)


@pytest.mark.parametrize("tag", ["deconvnet/features.3", "classes/tench, Tinca tinca", "dream/猫", "a_b-c (d)"])
def test_ordinary_tags_stay_as_they_are(tag):
    assert str(tag_path(tag)) == tag


@given(part=st.text(alphabet=string.ascii_letters + string.digits + "_-", min_size=5, max_size=30))
def test_identifiers_stay_as_they_are(part):
    assert str(tag_path(part)) == part


@given(tag=NASTY)
@example(tag="../../etc/passwd")
@example(tag="/etc/passwd")
@example(tag="a//b/./c/..")
@example(tag="")
@example(tag="..\\..\\evil")
@example(tag="\ud800\n\u2028")
@example(tag="x" * 5000)
@example(tag="猫/犬")
@pytest.mark.parametrize("name", [logged_name, mlflow_name])
def test_a_name_in_a_logger_leads_nowhere_else(name, tag):
    logged = name(tag)
    assert logged.startswith("cnnvis/")
    assert logged.count("/") == tag.count("/") + 1
    for part in logged.split("/"):
        assert part.strip(" .")
        assert len(part.encode()) <= 140
        assert "\\" not in part
        assert part.isprintable() or name is logged_name
    logged.encode()
    assert not any(ord(character) < 32 for character in logged)
    assert posixpath.normpath(logged) == logged
    if name is mlflow_name:
        assert re.fullmatch(r"[A-Za-z0-9_/. -]+", logged)


@given(one=NASTY, other=NASTY)
@example(one="猫", other="犬")
@example(one="a\nb", other="a b")
@example(one="..", other="_")
@pytest.mark.parametrize("name", [logged_name, mlflow_name])
def test_distinct_tags_have_distinct_names_in_a_logger(name, one, other):
    assert (name(one) == name(other)) == (one == other)


def test_names_of_classes_stay_as_they_are_in_a_logger():
    for tag in ("class_probability/tench, Tinca tinca", "class_probability/猫", "a/Who's (d)? 50%"):
        assert logged_name(tag) == f"cnnvis/{tag}"
    assert logged_name("cnnvis/overhead") == "cnnvis/overhead"


# Files.


def test_files(tmp_path):
    sinks = Sinks(folder=tmp_path)
    sinks.picture("deconvnet/conv1", PICTURE, 5)
    sinks.animation("zoom", FRAMES, 12)
    sinks.scalar("score", 1.0, 1)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["deconvnet/conv1/epoch_0005.png", "zoom/epoch_0012.gif"]
    assert np.array_equal(pixels(tmp_path / files[0]), PICTURE)


def test_a_second_picture_takes_the_place_of_the_first(tmp_path):
    sinks = Sinks(folder=tmp_path)
    sinks.picture("a", PICTURE, 1)
    sinks.picture("a", PICTURE[::-1], 1)
    assert np.array_equal(pixels(tmp_path / "a" / "epoch_0001.png"), PICTURE[::-1])


def test_an_interrupted_write_leaves_the_old_picture(tmp_path, monkeypatch):
    sinks = Sinks(folder=tmp_path)
    sinks.picture("a", PICTURE, 1)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sinks.picture("a", PICTURE[::-1], 1)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["epoch_0001.png"]
    assert np.array_equal(pixels(tmp_path / "a" / "epoch_0001.png"), PICTURE)


def test_no_folder_no_files():
    sinks = Sinks()
    sinks.picture("a", PICTURE, 1)
    assert sinks.folder is None


# Loggers.


def test_tensorboard(tmp_path):
    logger = TensorBoardLogger(tmp_path, name=None, version="run")
    with Sinks([logger], tmp_path / "files") as sinks:
        for step in (1, 2, 5):
            sinks.picture("deconvnet/a\nb", PICTURE, step)
        sinks.animation("zoom", FRAMES, 5)
        sinks.scalar("score", 0.5, 5)
    # flushed: it can be read while the run goes on
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    (tag,) = (tag for tag in events.Tags()["images"] if tag != "cnnvis/zoom")
    assert re.fullmatch(r"cnnvis/deconvnet/a b-[0-9a-f]{8}", tag)
    images = events.Images(tag)
    assert [image.step for image in images] == [1, 2, 5]
    assert (images[0].height, images[0].width) == (5, 7)
    (folder,) = (tmp_path / "files" / "deconvnet").iterdir()
    assert images[2].encoded_image_string == (folder / "epoch_0005.png").read_bytes()
    assert Image.open(io.BytesIO(events.Images("cnnvis/zoom")[0].encoded_image_string)).n_frames == 3
    assert [(event.step, event.value) for event in events.Scalars("cnnvis/score")] == [(5, 0.5)]


class Fake:
    """Notes the calls of the methods it is given, by the name and signature of the real ones."""

    def __init__(self, *signatures, **attributes):
        self.calls = []
        for signature in signatures:
            scope = {"calls": self.calls}
            name, arguments = signature.split("(", 1)
            exec(f"def {name}({arguments}: calls.append(('{name}', {{**locals()}}))", scope)
            setattr(self, name, scope[name])
        vars(self).update(attributes)


METRICS = "log_metrics(metrics, step=None)"


def test_a_writer_of_another_make():
    writer = Fake("add_image(tag, img, step, dataformats)", "flush()")
    with Sinks([Fake(METRICS, experiment=writer)]) as sinks:
        sinks.picture("a", PICTURE, 3)
    (name, arguments), (last, _) = writer.calls
    assert (name, last) == ("add_image", "flush")
    assert arguments["tag"] == "cnnvis/a"
    assert arguments["step"] == 3
    assert arguments["dataformats"] == "HWC"
    assert arguments["img"] is PICTURE


def test_weights_and_biases(tmp_path):
    logger = Fake(
        METRICS,
        "log_image(key, images, step=None, caption=None)",
        "log_video(key, videos, step=None, caption=None, format=None)",
        experiment=Fake("log(data)"),
    )
    sinks = Sinks([logger], tmp_path)
    sinks.picture("a/b", PICTURE, 3)
    sinks.animation("zoom", FRAMES, 3)
    sinks.scalar("score", 0.5, 3)
    (_, image), (_, video), (_, scalar) = logger.calls
    assert image["key"] == "cnnvis/a/b"
    assert image["images"][0] is PICTURE
    assert image["caption"] == ["epoch 3"]
    assert image["step"] == video["step"] == 3  # of the slider that counts epochs
    assert video["videos"] == [str(tmp_path / "zoom" / "epoch_0003.gif")]
    assert scalar == {"metrics": {"cnnvis/score": 0.5}, "step": 3}


def test_mlflow(tmp_path):
    client = Fake(
        "log_image(run_id, image, artifact_file=None, *, key=None, step=None)",
        "log_artifact(run_id, local_path, artifact_path=None)",
    )
    sinks = Sinks([Fake(METRICS, experiment=client, run_id="7")], tmp_path)
    sinks.picture("a/Tinca, tinca?", PICTURE, 3)
    sinks.animation("zoom", FRAMES, 3)
    (_, image), (_, artifact) = client.calls
    assert image["run_id"] == "7"
    assert image["image"] is PICTURE
    assert image["step"] == 3
    assert image["key"].startswith("cnnvis/a/Tinca_ tinca_-")
    assert artifact["local_path"] == str(tmp_path / "zoom" / "epoch_0003.gif")


def test_comet(tmp_path):
    experiment = Fake("log_image(image_data, name=None, step=None)", "log_video(file, name=None, step=None)")
    sinks = Sinks([Fake(METRICS, experiment=experiment)], tmp_path)
    sinks.picture("a", PICTURE, 3)
    sinks.animation("zoom", FRAMES, 3)
    (_, image), (_, video) = experiment.calls
    assert np.array_equal(pixels(image["image_data"]), PICTURE)
    assert (image["name"], image["step"]) == ("cnnvis/a", 3)
    assert (video["name"], video["step"]) == ("cnnvis/zoom", 3)


def test_aim(monkeypatch):
    monkeypatch.setitem(sys.modules, "aim", types.SimpleNamespace(Image=lambda image: image))
    kind = type("Run", (Fake,), {"__module__": "aim.sdk.run"})
    run = kind("track(value, name=None, step=None)")
    Sinks([Fake(METRICS, experiment=run)]).picture("a", PICTURE, 3)
    ((_, arguments),) = run.calls
    assert (arguments["name"], arguments["step"]) == ("cnnvis/a", 3)
    assert np.array_equal(np.asarray(arguments["value"]), PICTURE)


@pytest.mark.parametrize("make", [lambda _: DummyLogger(), CSVLogger], ids=["dummy", "csv"])
def test_loggers_without_pictures_leave_the_files(tmp_path, make):
    with Sinks([make(tmp_path / "log")], tmp_path / "files") as sinks:
        sinks.picture("a", PICTURE, 1)
        sinks.animation("b", FRAMES, 1)
        sinks.scalar("score", 0.5, 1)
    assert len(list((tmp_path / "files").rglob("epoch_*"))) == 2


def test_loggers_get_the_mean_of_each_kind_of_number():
    numbers = {"dead/a": 0.5, "dead/b/c": 0.1, "dead/d": math.nan, "steps": 8.0, "unknown/a": math.nan}
    few, every, kept = Fake(METRICS), Fake(METRICS), Recording()
    Sinks([few], sinks=[kept], training_step=lambda: 70).scalars(numbers, 3)
    Sinks([every]).scalars(numbers, 3, single=True)
    assert [arguments for _, arguments in few.calls] == [
        {"metrics": {"cnnvis/dead": pytest.approx(0.3)}, "step": 70},
        {"metrics": {"cnnvis/steps": 8.0}, "step": 70},
    ]
    assert [next(iter(arguments["metrics"])) for _, arguments in every.calls] == [f"cnnvis/{tag}" for tag in numbers]
    assert {arguments["step"] for _, arguments in every.calls} == {3}
    assert kept.scalars["dead/b/c"] == {3: 0.1}


# Failures.


class Broken:
    @property
    def experiment(self):
        raise ConnectionError("no network")

    def log_metrics(self, metrics, step):
        raise ConnectionError("no network")


def test_one_sink_that_fails_does_not_stop_the_others(tmp_path):
    good = Fake(METRICS, "log_image(key, images, step, caption)", experiment=None)
    sinks = Sinks([Broken(), good], tmp_path)
    with pytest.raises(SinkError, match="logger Broken \\(ConnectionError: no network\\)"):
        sinks.picture("a", PICTURE, 1)
    with pytest.raises(SinkError):
        sinks.scalar("score", 1.0, 1)
    assert [name for name, _ in good.calls] == ["log_image", "log_metrics"]
    assert (tmp_path / "a" / "epoch_0001.png").exists()


def test_a_block_gathers_its_failures(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    good = Fake(METRICS, "log_image(key, images, step, caption)", experiment=None)
    sinks = Sinks([good], blocked)

    def write():
        with sinks:
            for name in "abcde":
                sinks.picture(name, PICTURE, 1)

    with pytest.raises(SinkError, match=r"epoch_0001\.png .* and 2 more"):
        write()
    assert len(good.calls) == 5
    with sinks:
        pass  # what was raised is forgotten


def test_an_error_of_the_block_comes_first():
    sinks = Sinks([Fake()])  # which logs nothing

    def write():
        with sinks:
            sinks.scalar("a", 1.0, 1)
            raise KeyError

    with pytest.raises(KeyError):
        write()
    with sinks:
        pass  # the failure of the block before is not raised by the next


# The sinks of a run.


class Trainer:
    """What `Sinks.of` asks of a trainer."""

    def __init__(self, loggers, log_dir, rank_zero=True, fast_dev_run=False, root="root"):
        self.loggers, self.log_dir, self.is_global_zero = loggers, log_dir, rank_zero
        self.fast_dev_run, self.default_root_dir = fast_dev_run, root


TENSORBOARD = Fake(METRICS, log_dir="logs/version_0")
REMOTE = Fake(METRICS, name="project", version="x7", save_dir=None)


@pytest.mark.parametrize(
    ("trainer", "folder", "loggers"),
    [
        (Trainer([TENSORBOARD], "logs/version_0"), "logs/version_0/cnnvis", 1),
        (Trainer([TENSORBOARD, REMOTE], "logs"), "logs/version_0/cnnvis", 2),
        (Trainer([REMOTE], "wandb"), "wandb/project/x7/cnnvis", 1),
        (Trainer([REMOTE], None), "root/project/x7/cnnvis", 1),
        (Trainer([], "root"), "root/cnnvis", 0),
        (Trainer([TENSORBOARD], "logs", rank_zero=False), None, 0),
        (Trainer([DummyLogger()], None, fast_dev_run=True), None, 1),
        (Trainer([], "root", fast_dev_run=1), None, 0),
    ],
)
def test_where_a_run_keeps_its_pictures(trainer, folder, loggers):
    sinks = Sinks.of(trainer)
    assert sinks.folder == (None if folder is None else Path(folder))
    assert len(sinks.loggers) == loggers


def test_what_a_killed_run_left_half_written_is_removed(tmp_path, half_written):
    folder = tmp_path / "cnnvis" / "deconvnet" / "relu"
    folder.mkdir(parents=True)
    for name in (half_written(), "epoch_0001.png", "mine.part"):
        (folder / name).touch()
    Sinks.of(Trainer([], str(tmp_path)))
    assert sorted(path.name for path in folder.iterdir()) == ["epoch_0001.png", "mine.part"]


# Remote folders.


def test_a_remote_folder_gets_the_files(memory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sinks = Sinks.of(Trainer([], "memory://bucket/run"))
    assert sinks.folder == "memory://bucket/run/cnnvis"
    for store in (sinks, Sinks(folder=tmp_path / "local")):
        store.picture("a/../b", PICTURE, 1)
        store.animation("zoom", FRAMES, 2)
        store.table("inversion/accuracy", "layer,error")
    files = {path.relative_to(tmp_path / "local").as_posix(): path for path in (tmp_path / "local").rglob("*.*")}
    remote = {name.removeprefix("/bucket/run/cnnvis/"): file.getvalue() for name, file in memory.items()}
    assert remote == {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    assert len(remote) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["local"]


@pytest.mark.parametrize(
    ("trainer", "folder"),
    [
        (Trainer([Fake(METRICS, log_dir="s3://b/version_0")], None), "s3://b/version_0/cnnvis"),
        (Trainer([REMOTE], "gs://b/wandb"), "gs://b/wandb/project/x7/cnnvis"),
        (Trainer([REMOTE], None, root="gs://b/root/"), "gs://b/root/project/x7/cnnvis"),
        (Trainer([], "file:///root"), Path("/root/cnnvis")),
    ],
)
def test_where_a_remote_run_keeps_its_pictures(trainer, folder):
    assert Sinks.of(trainer).folder == folder


def test_a_store_that_fails_is_named():
    sinks = Sinks.of(Trainer([], "nosuchprotocol://bucket/run"))
    with pytest.raises(SinkError, match=r"nosuchprotocol://bucket/run/cnnvis/a/epoch_0001\.png \(ValueError"):
        sinks.picture("a", PICTURE, 1)


class TakesFiles:
    """A logger that reads a file when it is told to, as Weights & Biases and MLflow do."""

    run_id = "7"

    def __init__(self):
        self.taken = {}

    def log_video(self, key, videos, step, caption, format):
        self._take(videos[0])

    def log_artifact(self, run_id, local_path, artifact_path):
        self._take(local_path)

    def _take(self, path):
        self.taken[Path(path)] = Path(path).read_bytes()


class TakesImages(TakesFiles):
    def log_image(self, key, images, step, caption):
        pass


class TakesArtifacts(TakesFiles):
    @property
    def experiment(self):
        return self

    def log_image(self, run_id, image, key, step):
        pass


@pytest.mark.parametrize("make", [TakesImages, TakesArtifacts])
@pytest.mark.parametrize("folder", ["memory://bucket/run", None])
def test_an_animation_reaches_loggers_that_take_files_without_a_local_folder(memory, folder, make):
    logger = make()
    Sinks([logger], folder).animation("zoom", FRAMES, 3)
    ((path, data),) = logger.taken.items()
    assert path.name == "epoch_0003.gif"
    assert data == encode_gif(FRAMES, 0.25)
    assert not path.exists()


def test_an_animation_reaches_comet_without_a_local_folder(memory):
    experiment = Fake(
        "log_image(image_data, name=None, step=None)", "log_video(file, name=None, step=None, format=None)"
    )
    Sinks([Fake(METRICS, experiment=experiment)], "memory://bucket/run").animation("zoom", FRAMES, 3)
    ((_, video),) = experiment.calls
    assert video["file"].getvalue() == encode_gif(FRAMES, 0.25)
    assert (video["name"], video["step"], video["format"]) == ("cnnvis/zoom", 3, "gif")


# Sinks of one's own.


class Album(LoggerSink):
    @classmethod
    def fits(cls, logger):
        return hasattr(logger, "album")

    def picture(self, tag, picture, step):
        self.logger.album[tag, step] = picture.png


def test_a_logger_that_is_not_known_gets_a_sink_of_its_own(monkeypatch):
    monkeypatch.setattr(loggers, "_KINDS", list(loggers._KINDS))
    plain, kept = Fake(METRICS), Fake(METRICS, album={}, experiment=Fake("add_image(tag)"))
    assert register_logger_sink(Album) is register_logger_sink(Album) is Album
    with Sinks([plain, kept]) as sinks:
        sinks.picture("a", PICTURE, 3)
        sinks.animation("zoom", FRAMES, 3)
        sinks.scalar("score", 0.5, 3)
    assert kept.album == {("a", 3): encode_png(PICTURE)}
    assert plain.calls == kept.calls != []
    with pytest.raises(TypeError, match="not a subclass of LoggerSink"):
        register_logger_sink(Fake)


def test_sinks_of_all_kinds_work_together(tmp_path):
    class Full(Sink):
        def table(self, tag, csv):
            raise OSError("no room")

    recording = Recording()
    sinks = Sinks(folder=tmp_path, sinks=[Full(), recording])
    sinks.picture("a", PICTURE, 1)
    sinks.animation("zoom", FRAMES, 2)
    with pytest.raises(SinkError, match=r"^Could not write to Full \(OSError: no room\)\.$"):
        sinks.table("t", "x")
    sinks.scalar("score", 0.5, 1)
    sinks.scalar("cnnvis/overhead", 0.1, 1)
    assert recording.pictures == {"a": {1: (tmp_path / "a" / "epoch_0001.png").read_bytes()}}
    assert recording.animations == {"zoom": {2: (tmp_path / "zoom" / "epoch_0002.gif").read_bytes()}}
    assert recording.tables == {"t": (tmp_path / "t.csv").read_text()}
    assert recording.scalars == {"score": {1: 0.5}}


def test_a_trainer_can_name_the_sinks_itself():
    recording, trainer = Recording(), Trainer([TENSORBOARD], "logs")
    trainer.cnnvis_sinks = [recording]
    sinks = Sinks.of(trainer)
    sinks.table("t", "x")
    assert recording.tables == {"t": "x"}
    assert (sinks.folder, sinks.loggers) == (None, ())


def test_failures_survive_a_process_boundary():
    error = pickle.loads(pickle.dumps(SinkError(["a (full)", "b (full)", "a (full)"])))
    assert error.failures == ("a (full)", "b (full)")
    assert str(error) == "Could not write to a (full); b (full)."
