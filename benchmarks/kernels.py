"""`visionattn benchmark kernels`, as a script; all its options.

python benchmarks/kernels.py [--device cuda] [--quick] [--json FILE] [--plot FILE]
"""

from __future__ import annotations

import sys

from visionattn.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["benchmark", "kernels", *sys.argv[1:]]))
