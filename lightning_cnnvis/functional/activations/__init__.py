"""Strongest activations over many images."""
