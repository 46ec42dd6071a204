"""visionattn train CONFIG ..., from a checkout."""

import sys

from visionattn.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
