"""Diagnosis: what is wrong with the feature maps of a network, by what they do and by their kernels."""
