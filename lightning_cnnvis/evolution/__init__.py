"""Changes over the epochs: of feature maps, of pictures in a strip, of errors beside the accuracy."""
