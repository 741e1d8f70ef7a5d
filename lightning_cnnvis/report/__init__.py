"""A report: one HTML page of a run or a checkpoint, which opens from the disk."""

from lightning_cnnvis.report.collect import ReportOptions, collect
from lightning_cnnvis.report.content import ReportContent
from lightning_cnnvis.report.make import report
from lightning_cnnvis.report.page import render
from lightning_cnnvis.report.watch import changes

__all__ = ["ReportContent", "ReportOptions", "changes", "collect", "render", "report"]
