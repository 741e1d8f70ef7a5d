"""Projections of activations to pixels by a deconvnet (Zeiler & Fergus 2013, arXiv 1311.2901)."""
