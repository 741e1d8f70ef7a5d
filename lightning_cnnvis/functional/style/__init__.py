"""The style of pictures: what layers see in them, whatever is where."""
