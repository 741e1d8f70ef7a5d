"""Sinks: where pictures, animations, tables and scalars go."""

from lightning_cnnvis.sinks.sinks import SinkError, Sinks

__all__ = ["SinkError", "Sinks"]
