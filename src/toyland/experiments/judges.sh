#!/bin/sh
# Draws the renders and trains both judges into a folder: `judges.sh FOLDER [PYTHON]`, from anywhere in the repository.
set -e
folder=$1 python=${2:-python3}
root=$(cd "$(dirname "$0")/../../.." && pwd)
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
toyland() { cargo run --quiet --release --manifest-path "$root/Cargo.toml" -p paraflow-toyland -- "$@"; }
toyland identity "$folder/ident" --count 8000 --seed 31
toyland identity "$folder/identfresh" --count 1200 --seed 4000031
toyland dataset "$folder/world" --count 8000 --seed 1 --captions 1
toyland dataset "$folder/worldfresh" --count 1200 --seed 2000001 --captions 1
cd "$root/src/toyland/train"
$python train.py identity-train "$folder/ident" "$folder/identfresh" "$folder/identity.pt" --steps 400
$python train.py judge-train "$folder/world" "$folder/worldfresh" "$folder/judge.pt" --steps 300
