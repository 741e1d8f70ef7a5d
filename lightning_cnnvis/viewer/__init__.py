"""The viewer: the data that a page about a network is made of."""
