"""DeepDream: photographs enhanced at a layer, octave by octave, and the zoom."""
