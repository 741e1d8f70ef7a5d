"""What a network's answer depends on: parts of the image that are covered or compared."""
