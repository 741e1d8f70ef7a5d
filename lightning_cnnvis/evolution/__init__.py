"""Changes over the epochs: feature maps, strips of pictures, inversion errors and accuracy."""
