"""Whether a picture depends on the network: it is made again while the network's layers are re-initialised."""
