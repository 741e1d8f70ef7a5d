"""Every figure that needs a GPU, in one run."""
