#!/bin/sh
# deploy_model.sh CHECKPOINT ROVER_IP [USER] [OPTIONS of policyloop deploy]
set -eu
checkpoint=${1:?CHECKPOINT is missing: such as checkpoints/000010} host=${2:?ROVER_IP is missing}
shift 2
case ${1:-} in ''|-*) ;; *) host=$1@$host && shift ;; esac
exec policyloop deploy "$checkpoint" "$host" "$@"
