"""See what a convnet learns, while it learns."""
