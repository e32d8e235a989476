#!/bin/sh
# convert_onnx_to_rknn.sh ONNX [CALIBRATION_DIR] [OPTIONS of policyloop convert]: writes the .rknn beside the .onnx.
set -eu
onnx=${1:?ONNX is missing} && shift
calibration=calibration
case ${1:-} in ''|-*) ;; *) calibration=$1 && shift ;; esac
exec policyloop convert "$onnx" --calibration "$calibration" --output "${onnx%.onnx}.rknn" "$@"
