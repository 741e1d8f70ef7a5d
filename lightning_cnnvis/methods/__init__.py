"""Methods: one row each, from which a callback, a command, a method of `Analysis` and a report's section follow."""

from lightning_cnnvis.methods.registry import all_methods, get_method, method_names, register_method

__all__ = ["all_methods", "get_method", "method_names", "register_method"]
