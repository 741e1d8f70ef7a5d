"""The tab of TensorBoard: serves the viewer, and what runs have written for it.

TensorBoard imports every plugin that is installed, and dies with the one that cannot be imported. So nothing in here
imports torch or Lightning, nor any other room of the package.
"""
