#!/bin/sh
# The launcher and the demo script against stand-ins for apt, dpkg, cmake, ninja and the program: every way in, every way to fail,
# without a network or a compiler. The checkout under test lives in a path with spaces.
set -eu
source=$(dirname -- "$(readlink -f -- "$0")")/../..
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
failures=0

# A machine: only the tools named here, then the stand-ins.
tools=$work/tools
root="$work/a check out"
mkdir -p "$tools" "$root/scripts" "$work/elsewhere"
for tool in sh awk cat cmp cut date dirname env find flock grep ls mkdir mktemp mv nproc printf readlink rm rmdir sed sleep sort tail tr wc; do
  ln -s "$(command -v "$tool")" "$tools/$tool"
done
stand_in() {
  rm -f "$tools/$1"
  { echo '#!/bin/sh'; cat; } >"$tools/$1"
  chmod +x "$tools/$1"
}
cp "$source/reckon" "$root/"
mkdir -p "$root/src"
touch "$root/src/a.cpp" "$root/CMakeLists.txt"
ln -s "$(command -v touch)" "$work/real-touch"
stand_in touch <<'E2'
[ -z "${FAKE_READ_ONLY:-}" ] || exit 1
exec "$WORK/real-touch" "$@"
E2
cp "$source/scripts/demo.sh" "$source/scripts/make_corpus.sh" "$root/scripts/"
export WORK="$work"
: >"$work/installed"
stand_in id <<'E2'
echo "${FAKE_UID:-0}"
E2
stand_in dpkg-query <<'E2'
shift 2
for p; do grep -qxF "$p" "$WORK/installed" && printf 'installed:%s ' "$p"; done
exit 1
E2
stand_in apt-get <<'E2'
echo "apt-get $DEBIAN_FRONTEND $*" >>"$WORK/calls"
case "$*" in
*install*) ;;
*) exit "${FAKE_UPDATE:-0}" ;;
esac
[ -z "${FAKE_BROKEN_APT:-}" ] || { echo "E: no such package"; exit 100; }
while [ "$1" != -o ]; do shift; done
while [ "$1" = -o ]; do shift 2; done
printf '%s\n' "$@" >>"$WORK/installed"
echo "chatter of apt"
E2
stand_in cmake <<'E2'
echo cmake >>"$WORK/calls"
[ -z "${FAKE_BROKEN_CMAKE:-}" ] || { echo "CMake Error: broken"; exit 1; }
home=$2 folder=$4
shift 6
printf 'CMAKE_HOME_DIRECTORY:INTERNAL=%s\n' "$home" >"$folder/CMakeCache.txt"
for option; do printf '%s\n' "${option#-D}" >>"$folder/CMakeCache.txt"; done
: >"$folder/build.ninja"
E2
stand_in ninja <<'E2'
echo ninja >>"$WORK/calls"
[ -z "${FAKE_BROKEN_BUILD:-}" ] || { echo "[1/3] Building a"; echo "FAILED: a.cpp"; echo "a.cpp:1: error: nonsense"; exit 1; }
while [ "$1" != -C ]; do shift; done
cp "$WORK/program" "$2/reckon"
echo "[1/3] Building a"
E2
ln -s "$(command -v cp)" "$tools/cp"
stand_in ctest <<'E2'
echo "ctest $*" >>"$WORK/calls"
case "$*" in
*--print-labels*) echo "  unit" ;;
*"-N -L ^unit"*) echo "Total Tests: 1" ;;
*-N*) echo "Total Tests: 0" ;;
*) echo "100% tests passed" ;;
esac
E2
cat >"$work/program" <<'E2'
#!/bin/sh
for a; do printf '<%s>' "$a"; done
printf '\n'
[ -z "${FAKE_TELL:-}" ] || printf 'called as %s\n' "$RECKON_PROGRAM"
exit "${FAKE_EXIT:-0}"
E2
chmod +x "$work/program"

# run ARGUMENT...: runs the launcher; sets $status and leaves $work/out, $work/err and $work/calls.
run() {
  : >"$work/calls"
  status=0
  (cd "$work/elsewhere" && env -u HOME -u TMPDIR PATH="$tools" sh "$root/reckon" "$@" </dev/null >"$work/out" 2>"$work/err") || status=$?
}
expect() {
  story=$1
  shift
  if ! "$@"; then
    failures=$((failures + 1))
    printf 'FAILED: %s\n  status %s\n' "$story" "$status"
    for stream in out err calls; do printf '  %s: %s\n' "$stream" "$(cat "$work/$stream")"; done
  fi
}
says() { grep -qF -- "$2" "$work/$1"; }
no_line() { ! grep -qx -- "$2" "$work/$1"; }
says_not() { ! says "$@"; }
is() { [ "$status" = "$1" ]; }
lines() { [ "$(wc -l <"$work/$1")" = "$2" ]; }

for ask in help --help 'demo --help' 'test -h' 'build --help' 'install --help' 'help demo'; do
  # shellcheck disable=SC2086
  run $ask
  expect "'$ask' needs nothing" is 0
  expect "'$ask' goes to stdout" says out "usage: $root/reckon COMMAND"
  expect "'$ask' calls nothing" lines calls 0
done
run test --help
expect "help of one of its commands is the launcher's alone" says_not out "Commands:"
run demo --minutes none
expect "a mistake does not wait for the build" lines calls 0
expect "and is bad usage" is 2

FAKE_UID=1000 run plan
expect "neither root nor sudo fails" is 1
expect "it says what to do" says err "run as root: apt-get install g++ cmake"
expect "in one line" lines err 1

mv "$tools/dpkg-query" "$work/"
run plan
expect "a system without dpkg fails" is 1
expect "it names the packages" says err "not a Debian-like system"
mv "$work/dpkg-query" "$tools/"

FAKE_BROKEN_APT=1 run plan
expect "an installation that fails, fails" is 1
expect "apt's words are shown" says err "E: no such package"
expect "nothing is built after it" no_line calls ninja
expect "or configured" lines calls 2

FAKE_BROKEN_CMAKE=1 run plan
expect "a configuration that fails, fails" is 1
expect "cmake's words are shown" says err "CMake Error: broken"
expect "the packages came with one installation" [ "$(grep -c ' install ' "$work/calls")" = 1 ]
expect "without recommendations or questions" says calls "apt-get noninteractive install -y -qq --no-install-recommends"

FAKE_BROKEN_BUILD=1 run plan
expect "a build that fails, fails" is 1
expect "the compiler's words are shown" says err "a.cpp:1: error: nonsense"
expect "the steps are not" says_not err "Building a"
expect "nothing is installed twice" says_not calls apt-get
expect "nothing reaches stdout" lines out 0

run train 'a b' '' '*' --json
expect "the program runs" is 0
expect "with its arguments as they are" says out "<train><a b><><*><--json>"
expect "and stdout to itself" lines out 1
expect "one line of progress on stderr" lines err 1

FAKE_TELL=1 run train
expect "it knows how it was called" says out "called as $root/reckon"
for name in reckon ./reckon; do
  (cd "$root" && PATH="$tools" FAKE_TELL=1 sh "$name" train </dev/null >"$work/out" 2>"$work/err")
  expect "called as $name, it is told what a shell takes" says out "called as ./reckon"
done
run help train
expect "help with a command is the program's" says out "<help><train>"

FAKE_EXIT=3 run plan
expect "its exit code is ours" is 3
expect "a configured folder stays" says_not calls cmake

mv "$root" "$work/moved"
root="$work/moved"
run plan
expect "a moved checkout is configured again" says calls cmake
expect "and runs" is 0

# Two at once: the second waits for the first to build, and says so.
mv "$tools/ninja" "$work/"
stand_in ninja <<'E2'
mkdir "$WORK/busy" || { echo "two builds at once" >>"$WORK/clash"; exit 1; }
tries=0
until grep -q waiting "$WORK/err" || [ "$tries" = 300 ]; do
  sleep 0.1
  tries=$((tries + 1))
done
while [ "$1" != -C ]; do shift; done
cp "$WORK/program" "$2/reckon"
rmdir "$WORK/busy"
echo "ninja: no work to do."
E2
(cd "$work/elsewhere" && PATH="$tools" sh "$root/reckon" plan </dev/null >"$work/other" 2>&1) &
until [ -e "$work/busy" ]; do sleep 0.01; done
run plan
wait
expect "both of two at once succeed" is 0
expect "the other, too" says other "<plan>"
expect "they never build at the same time" [ ! -e "$work/clash" ]
expect "the second says that it waits" says err "waiting for another build"
expect "nothing to build, nothing said" lines err 1
mv "$work/ninja" "$tools/"

FAKE_READ_ONLY=1 run train x
expect "what is built runs in a checkout that cannot be written to" says out "<train><x>"
expect "without a word" lines err 0
expect "and without looking at packages or sources" lines calls 0
sleep 0.01
touch "$root/src/a.cpp"
FAKE_READ_ONLY=1 run train x
expect "it runs even if the sources changed" says out "<train><x>"
expect "but says so" says err "before $root/src/a.cpp changed"
FAKE_READ_ONLY=1 run build
expect "nothing can be built there" is 1
expect "which is one line" lines err 1

FAKE_UPDATE=100 run test unit
expect "lists that cannot be updated may do" is 0
expect "test installs only what it lacks" [ "$(grep -c 'install .* libgtest-dev libgmock-dev python3 libonnx-testdata$' "$work/calls")" = 1 ]
expect "a new option configures again" says calls cmake
expect "unit is a label" says calls "-L ^unit\$"
expect "the closing line is seen" says out "100% tests passed"
run test nonsense
expect "an unknown label is bad usage" is 2
expect "and the labels are named" says err "there are: unit"
run test a b
expect "two words are bad usage" is 2
expect "the unit tests need no browser" says_not installed chromium
run test
expect "without a word, the grid of runs is left out" says calls "-LE ^grid\$"
run test sanitize
expect "all tests do" says installed chromium
expect "sanitize has a folder of its own" says calls "build/sanitize"
expect "which is configured for it" grep -qx "RECKON_SANITIZE:BOOL=ON" "$root/build/sanitize/CMakeCache.txt"
run install demo
expect "install installs" says installed bible-kjv
expect "and builds nothing" no_line calls ninja
run install everything
expect "install takes a known word" is 2
run build now
expect "build takes no arguments" is 2

# The demo: a program with the contract's output, whose loss falls as FAKE_LOSS says.
cat >"$work/program" <<'E2'
#!/bin/sh
printf '%s\n' "$*" >>"$WORK/calls"
for a; do case $a in run.dir=*) folder=${a#*=} ;; esac; done
case "$1 $2" in
"bench device") echo "200 GFLOP/s" ;;
"bench train") echo '{"predicted": {"tokens_per_second": null}, "measured": {"loss": {"train": 1}, "tokens_per_second": 4096.5}}' ;;
train\ *)
  mkdir -p "$folder"
  printf '{"step":1,"loss":7.5,"lr":1}\n{"step":2,"loss":%s}\n{"step":2,"loss_validation":9}\n' "${FAKE_LOSS:-3.5}" >"$folder/metrics.jsonl"
  echo "loss 7.5 -> 3.5"
  ;;
generate\ *) echo "And the LORD said unto Moses" ;;
esac
E2
stand_in bible <<'E2'
echo 'bible(KJV) [Gen1:1]> gen1:1-rev22:21'
awk 'BEGIN { for (i = 0; i < 31102; ++i) printf "1Sm%d:%d In the beginning God created %100s\n", 1 + i / 50, 1 + i % 50, "." }'
E2
run demo --minutes 2
expect "the demo succeeds" is 0
expect "what is installed needs no network" says_not calls apt-get
expect "its steps fill the time" says calls "train.steps=240 "
expect "it prints the loss" says out "loss 7.5 -> 3.5"
expect "and a sample" says out "And the LORD said unto Moses"
expect "the corpus is verses without numbers" [ "$(sort -u "$root/runs/demo/kjv.txt" | cut -c-29)" = "In the beginning God created " ]
run demo
expect "a second demo keeps the first" [ -s "$root/runs/demo/run-1/metrics.jsonl" -a -s "$root/runs/demo/run-2/metrics.jsonl" ]
FAKE_LOSS=7.4 run demo
expect "a loss that does not fall fails" is 1
for bad in 0 -1 x 1.2.3 '' 0.0; do
  run demo --minutes "$bad"
  expect "minutes '$bad' are bad usage" is 2
done
run demo --nonsense
expect "an unknown option is bad usage" is 2

[ "$failures" = 0 ] || exit 1
echo "all ways in and out are as told"
