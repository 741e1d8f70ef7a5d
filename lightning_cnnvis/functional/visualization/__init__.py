"""Images that classes and units respond to most."""
