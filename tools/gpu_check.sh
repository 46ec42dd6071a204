#!/bin/sh
# On a machine with a CUDA device: the tests that need one, then the kernels' benchmark. Under ten minutes.
#   tools/gpu_check.sh [FILE]     FILE: where the measurements go; kernels.json if not given
set -e
cd "$(dirname "$0")/.."
python -c "import torch; assert torch.cuda.is_available(), 'no CUDA device'; print(torch.cuda.get_device_name())"
timeout 240 python -m pytest tests/ops/kernels -m gpu -n 0
timeout 330 python benchmarks/kernels.py --json "${1:-kernels.json}"
