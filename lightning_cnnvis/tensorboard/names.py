"""The name that the tab's data have in event files."""

PLUGIN_NAME = "cnnvis"
"""Name of the plugin: of its data in event files, and in the addresses that TensorBoard serves."""
