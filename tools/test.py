"""visionattn test CONFIG CHECKPOINT ..., from a checkout."""

import sys

from visionattn.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["test", *sys.argv[1:]]))
