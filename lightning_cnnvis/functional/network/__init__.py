"""Networks: forward passes, receptive fields, the autograd graph, defaults."""
