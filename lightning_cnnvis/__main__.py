"""``python -m lightning_cnnvis``."""

from lightning_cnnvis.cli import main

if __name__ == "__main__":
    main()
