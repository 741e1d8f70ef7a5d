"""Sinks: where pictures, animations, tables and scalars go.

`Sink` is the protocol. `FileSink` writes files, `LoggerSink` and its subclasses show things in experiment loggers, and
`Recording` keeps everything in memory. `Sinks` is all of a run's as one. A logger that is not known here gets a sink of
its own with `register_logger_sink`.
"""

from lightning_cnnvis.sinks.files import FileSink
from lightning_cnnvis.sinks.loggers import LoggerSink, register_logger_sink
from lightning_cnnvis.sinks.protocol import EncodedAnimation, EncodedPicture, EncodedView, Sink, SinkError
from lightning_cnnvis.sinks.recording import Recording
from lightning_cnnvis.sinks.sinks import Sinks

__all__ = [
    "EncodedAnimation",
    "EncodedPicture",
    "EncodedView",
    "FileSink",
    "LoggerSink",
    "Recording",
    "Sink",
    "SinkError",
    "Sinks",
    "register_logger_sink",
]
