#!/bin/sh
# make_corpus.sh OUT: writes the King James Bible of the Debian package bible-kjv as plain text, one verse a line (about 4.1 MB, public domain).
# The verse numbers go, so that a model learns prose.
set -eu
[ $# = 1 ] || {
  echo "usage: make_corpus.sh OUT" >&2
  exit 2
}
command -v bible >/dev/null || {
  echo "make_corpus: the program 'bible' is missing: apt-get install bible-kjv" >&2
  exit 1
}
part=$1.part.$$
trap 'rm -f -- "$part"' EXIT
# The program greets with its first verse, then echoes the request at its prompt, then answers: one verse a line after its place, "Ge1:1 ".
echo 'gen1:1-rev22:21' | bible -f -l 3000 2>/dev/null | LC_ALL=C sed -n '/^bible(KJV)/,$s/^[1-3]\{0,1\}[A-Z][A-Za-z]*[0-9][0-9]*:[0-9][0-9]* //p' >"$part"
verses=$(wc -l <"$part")
[ "$verses" = 31102 ] || {
  echo "make_corpus: $verses verses instead of 31102: has the output of 'bible' changed?" >&2
  exit 1
}
mv -- "$part" "$1"
trap - EXIT
