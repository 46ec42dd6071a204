#!/bin/sh
# On a machine with a CUDA device, under ten minutes: the tests that need one, every kernel once under compute-sanitizer
# where that is installed, then the benchmark. Nothing is measured where a test fails.
#   tools/gpu_check.sh [DIR]              DIR: where kernel_benchmark_cuda*.json and .png go; docs if not given
#   DRY_RUN=1 tools/gpu_check.sh [DIR]    shows the commands
set -eu
cd "$(dirname "$0")/.."
unset TRITON_INTERPRET VISIONATTN_KERNELS
folder=${1:-docs}

run() {
    echo "+ $*"
    [ -n "${DRY_RUN:-}" ] || "$@"
}

run python -c "import torch; assert torch.cuda.is_available(), 'no CUDA device'; print(torch.cuda.get_device_name())"
run timeout 220 python -m pytest tests/ops/kernels -m gpu -n 0
if command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck; do
        # Without torch's own pool, or nothing outside a tensor but inside the pool is noticed.
        run env PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout 35 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            python tests/kernels_once.py
    done
else
    echo "compute-sanitizer is not installed: the kernels were not run under it"
fi
run timeout 170 visionattn benchmark kernels --device cuda --budget 0.3 --minutes 2.3 --docs "$folder"
# Compiling takes a minute a case: the one case whose goal names it.
run timeout 120 visionattn benchmark kernels --device cuda --budget 0.3 --minutes 1 --compile --cases window-attention \
    --json "$folder/kernel_benchmark_cuda_compiled.json" --plot "$folder/kernel_benchmark_cuda_compiled.png"
