"""Optimisation of images: one loop, and the parts that it is put together from."""
