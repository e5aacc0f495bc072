#!/usr/bin/env bash
# Serves the example models on the default ports, sends each a picture, and keeps serving until Ctrl-C.
# Usage: run.sh LANTERN STORE
set -euo pipefail
lantern=$1
store=$2
samples=$(cd "$(dirname "$0")" && pwd)/digits/samples
inference=http://127.0.0.1:8080

command -v curl >/dev/null || { echo "curl is missing. Install it: sudo apt-get install curl"; exit 1; }
for port in 8080 8081 8082; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        echo "Port $port is taken by another program. Stop it (a TorchServe, or another Lantern?) and try again."
        exit 1
    fi
done

"$lantern" serve --disable-token-auth --model-store "$store" --models digits-onnx=digits-onnx.mar digits-torch=digits-torch.mar &
server=$!
trap 'kill -TERM "$server" 2>/dev/null; wait "$server"; exit 0' INT TERM

ready() { curl -fs "http://127.0.0.1:8081/models/$1" 2>/dev/null | grep -q '"status": "READY"'; }
for model in digits-onnx digits-torch; do
    for _ in $(seq 300); do
        kill -0 "$server" 2>/dev/null || { echo "The server ended; its last lines say why."; exit 1; }
        ready "$model" && continue 2
        sleep 0.1
    done
    echo "$model was not ready within 30 s; the server's lines above say why."
    kill -TERM "$server"
    exit 1
done

ask() {
    echo
    echo "\$ curl $inference/predictions/$1 -T ${2#"$PWD/"}"
    curl -fsS "$inference/predictions/$1" -T "$2"
    echo
}
ask digits-onnx "$samples/three.png"
ask digits-torch "$samples/seven.jpg"
cat <<HINT

Both models answered. More to try in another terminal:
  curl http://127.0.0.1:8081/models                      the models
  curl http://127.0.0.1:8081/models/digits-onnx          one of them, with its workers
  curl -X PUT "http://127.0.0.1:8081/models/digits-onnx?min_worker=2&synchronous=true"
  curl http://127.0.0.1:8082/metrics                     what they did
Ctrl-C stops the server.
HINT
wait "$server"
