#!/bin/sh
# On a machine with a CUDA device, under ten minutes: every kernel once, the tests that need a device, every kernel under
# compute-sanitizer where that is installed, then the benchmark. Nothing is measured where a test fails.
# It takes what `pip install -e ".[test]"` brings; the package itself is read from this checkout.
#   tools/gpu_check.sh [DIR]              DIR: where kernel_benchmark_cuda*.json and .png go; docs if not given
#   DRY_RUN=1 tools/gpu_check.sh [DIR]    shows the commands
set -eu
case "${1:-}" in
    "" | /*) folder=${1:-} ;;
    *) folder=$PWD/$1 ;;
esac
cd "$(dirname "$0")/.."
folder=${folder:-$PWD/docs}
unset TRITON_INTERPRET VISIONATTN_KERNELS
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

run() {
    echo "+ $*"
    [ -n "${DRY_RUN:-}" ] || "$@"
}

run python3 -c "import torch; assert torch.cuda.is_available(), 'no CUDA device'; print(torch.cuda.get_device_name())"
# What is not installed shows here, and the sanitizer finds these kernels compiled.
run timeout 80 python3 tests/kernels_once.py
# About a thousand kernels are compiled, most of a second each: by several processes. They see the same device.
workers=$(python3 -c "import os; print(min(12, os.cpu_count() or 1))")
run timeout 200 python3 -m pytest tests/ops/kernels -m gpu -n "$workers" --maxprocesses "$workers" --dist worksteal
if command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck; do
        code=0
        # Without torch's own pool, or nothing outside a tensor but inside the pool is noticed.
        run env PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout 35 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            python3 tests/kernels_once.py || code=$?
        if [ "$code" = 9 ]; then
            exit 9
        elif [ "$code" != 0 ]; then
            echo "compute-sanitizer --tool $tool did not get through (code $code): nothing is known of what is left"
        fi
    done
else
    echo "compute-sanitizer is not installed: the kernels were not run under it"
fi
failed=0
run timeout 130 python3 benchmarks/kernels.py --device cuda --budget 0.3 --minutes 1.7 --docs "$folder" || failed=1
# Compiling takes a minute a case: the one case whose goal names it.
run timeout 110 python3 benchmarks/kernels.py --device cuda --budget 0.3 --minutes 1 --compile --cases window-attention \
    --json "$folder/kernel_benchmark_cuda_compiled.json" --plot "$folder/kernel_benchmark_cuda_compiled.png" || failed=1
exit $failed
