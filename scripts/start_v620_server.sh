#!/bin/sh
# start_v620_server.sh [PORT] [UPDATE_INTERVAL] [CHECKPOINT_INTERVAL] [TENSORBOARD_PORT] [OPTIONS of policyloop train]
# Rovers that send the old packets connect to another port: add --v1-port 5556.
set -eu
next() { case ${2:-} in ''|-*) echo "$1" ;; *) echo "$2" ;; esac; }
port=$(next 5555 "${1:-}") && [ "$port" != "${1:-}" ] || shift
update=$(next 8192 "${1:-}") && [ "$update" != "${1:-}" ] || shift
every=$(next 10 "${1:-}") && [ "$every" != "${1:-}" ] || shift
board=$(next 6006 "${1:-}") && [ "$board" != "${1:-}" ] || shift
echo "curves: tensorboard --logdir ./runs --port $board" >&2
exec policyloop train --port "$port" --update-interval "$update" --checkpoint-interval "$every" "$@"
