"""Optimisation of images: one loop, and the parts that it is assembled from."""
