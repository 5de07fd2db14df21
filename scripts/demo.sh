#!/bin/sh
# demo.sh BINARY [--minutes M]: trains a small transformer on the King James Bible for M minutes and lets it write. Called by ./reckon demo;
# with '' for BINARY it only reads its arguments.
set -eu
program=${RECKON_PROGRAM:-./reckon}
binary=$1
shift
minutes=3
usage() {
  echo "usage: $program demo [--minutes M]    M a number above 0, 3 by default; not: $*" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case $1 in
  --minutes) [ $# -ge 2 ] || usage "$1"; minutes=$2; shift 2 ;;
  --minutes=*) minutes=${1#*=}; shift ;;
  *) usage "$1" ;;
  esac
done
# Digits with at most one point, and not zero.
case $minutes in
'' | . | *[!0-9.]* | *.*.*) usage "--minutes $minutes" ;;
*[1-9]*) ;;
*) usage "--minutes $minutes" ;;
esac
[ -n "$binary" ] || exit 0

scripts=$(dirname -- "$(readlink -f -- "$0")")
folder=$(dirname -- "$scripts")/runs/demo
corpus=$folder/kjv.txt
mkdir -p -- "$folder"
# Every demo keeps its run: run-1, run-2, ...
number=1
while [ -e "$folder/run-$number" ]; do number=$((number + 1)); done
run=$folder/run-$number

[ -s "$corpus" ] || sh "$scripts/make_corpus.sh" "$corpus"
echo "The text: $(wc -c <"$corpus") bytes of the King James Bible, $corpus"

micro_batch=16
seq_len=128
vocab=2048
set -- model.preset=tiny "model.vocab=$vocab" "train.micro_batch=$micro_batch" "train.seq_len=$seq_len" optim.lr=3e-3

# number_of DOCUMENT KEY: the first number under KEY after "measured" in a JSON document, or nothing.
number_of() { printf %s "$1" | tr -d ' \n' | sed -n "s/.*\"measured\":{\(.*\)/\1/; s/\"$2\":\([-+0-9.eE]*\).*/\n\1/; s/.*\n//p"; }

echo "Measuring this machine ..."
"$binary" bench device
document=$("$binary" bench train "$@" train.steps=10 --json)
speed=$(number_of "$document" tokens_per_second)
[ -n "$speed" ] || { echo "demo: the timing has no tokens_per_second: $document" >&2; exit 1; }
steps=$(awk -v m="$minutes" -v s="$speed" -v n=$((micro_batch * seq_len)) 'BEGIN { k = int(m * 60 * s / n); printf "%d", k < 50 ? 50 : k }')

echo
echo "Training for $steps steps: about $minutes minutes at ${speed%.*} tokens a second"
"$binary" train "$@" "data.path=$corpus" "data.tokenizer=bpe:$vocab" "train.steps=$steps" "optim.warmup_steps=$((steps / 20))" \
  "eval.every=$((steps / 5 + 1))" "run.dir=$run"
losses=$(sed -n 's/.*"loss":\([-+0-9.eE]*\).*/\1/p' "$run/metrics.jsonl")
printf '%s\n' "$losses" | awk 'NR == 1 { first = $1 } { last = $1 } END { exit !(NR > 1 && last + 0 > 0 && last < first - 1) }' || {
  echo "demo: the loss did not fall as it must: $run/metrics.jsonl" >&2
  exit 1
}
echo
echo "What it writes after 'And the LORD said':"
echo
"$binary" generate "run.dir=$run" --prompt "And the LORD said" --tokens 200 --temperature 0.8 --top-k 50
echo
echo "The run: $run"
echo "More of it: $program generate run.dir=$run --prompt 'In the beginning'"
