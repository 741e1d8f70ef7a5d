"""``python -m lightning_cnnvis``."""

import sys

from lightning_cnnvis.cli import TRAINING, main

if __name__ == "__main__":
    # python -m lets modules be imported from the current folder, which may be somebody else's run; fit needs one's own
    if len(sys.argv) > 1 and sys.argv[1] not in TRAINING and not sys.flags.safe_path:
        del sys.path[0]
    main()
