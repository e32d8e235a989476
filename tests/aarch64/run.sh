#!/usr/bin/env bash
# The robot's side on aarch64, under qemu-user: every wheel that it needs, the CPU backend against golden vectors,
# and the genuine RKNNLite up to the point where it finds no NPU. Fetches 100 MB from Debian and PyPI into
# .aarch64/, touches nothing else, needs no rights. Debian or Ubuntu on x86_64, and dpkg and apt-get.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$PWD/.aarch64
root=$work/root
python=${PYTHON:-.venv/bin/python}
mkdir -p "$work"/debs "$work"/apt/lists/partial "$work"/apt/cache/archives/partial "$root"
touch "$work/apt/status"

fetch() { (cd "$work/debs" && apt-get -qq "$@" 2> >(grep -v unsandboxed >&2)); }

if [ ! -e "$work/ready" ]; then
    echo "fetching qemu and an aarch64 Python from Debian"
    arm=(-o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o "Dir::State=$work/apt"
         -o "Dir::State::lists=$work/apt/lists" -o "Dir::State::status=$work/apt/status" -o "Dir::Cache=$work/apt/cache")
    fetch download qemu-user-static
    fetch "${arm[@]}" update
    fetch "${arm[@]}" download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 \
        libstdc++6 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libuuid1 libsqlite3-0
    for deb in "$work"/debs/*.deb; do
        case $deb in *qemu*) dpkg -x "$deb" "$work/qemu" ;; *) dpkg -x "$deb" "$root" ;; esac
    done
    echo "fetching aarch64 wheels from PyPI"
    "$python" -m pip install --quiet --disable-pip-version-check --target "$work/packages" \
        --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux_2_26_aarch64 \
        --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 --python-version 3.11 --only-binary :all: \
        --constraint constraints.txt msgspec numpy pyzmq rich simplejpeg google-crc32c typer zstandard
    # Newer ones die at import in Debian 12's qemu (7.2), whatever its -cpu; on a board they need not.
    "$python" -m pip install --quiet --disable-pip-version-check --target "$work/packages" --no-deps \
        --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 --python-version 3.11 \
        --only-binary :all: onnxruntime==1.23.2 flatbuffers
    "$python" -m pip install --quiet --disable-pip-version-check --target "$work/packages" --no-deps \
        --platform manylinux2014_aarch64 --python-version 3.11 --only-binary :all: \
        rknn-toolkit-lite2==2.5.0 psutil==7.2.2 ruamel.yaml==0.19.1
    touch "$work/ready"
fi

# What a robot installs is the wheel, not this folder.
rm -rf "$work/wheel" "$work/policyloop"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work/wheel" .
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/policyloop" "$work"/wheel/*.whl

"$python" tests/aarch64/prepare.py "$work/files"
# The loader of the aarch64 root is found by -L; numpy and onnxruntime are slow here, not wrong.
PYTHONPATH="$work/policyloop:$work/packages" PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1 \
    "$work/qemu/usr/bin/qemu-aarch64-static" -L "$root" "$root/usr/bin/python3.11" tests/aarch64/on_the_board.py "$work/files"
