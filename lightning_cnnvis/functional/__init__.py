"""The methods as pure functions of a model and tensors; no Lightning, no files."""
