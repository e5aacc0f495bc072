#!/usr/bin/env bash
# Packs the example archives. Usage: pack.sh GUESTS STORE, with $LANTERN naming the program.
set -euo pipefail
guests=$1
store=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$store"

# pack NAME ARGUMENT...: packs NAME.mar, unless it is newer than everything that may go into it.
pack() {
    local name=$1 archive="$store/$1.mar"
    shift
    if [ -f "$archive" ] && [ -z "$(find "$guests" "$here" "$LANTERN" -maxdepth 2 -type f -newer "$archive" -print -quit)" ]; then
        return
    fi
    "$LANTERN" archive --model-name "$name" --version 1.0 --export-path "$store" --force "$@"
}

pack digits-onnx \
    --serialized-file "$here/digits/digits.onnx" \
    --handler "$guests/digits.wasm" \
    --config-file "$here/digits/model-config-onnx.yaml" \
    --extra-files "$here/digits/index_to_name.json"
pack digits-torch \
    --serialized-file "$here/digits/digits.pt" \
    --handler "$guests/digits.wasm" \
    --config-file "$here/digits/model-config-torch.yaml" \
    --extra-files "$here/digits/index_to_name.json"
pack echo --handler "$guests/echo.wasm"
