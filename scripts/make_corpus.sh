#!/bin/sh
# Writes the King James Bible (public domain, 4.1 MB, 31,102 verses, one a line) as plain text: make_corpus.sh OUT.txt
# Needs Debian's bible-kjv. Replaces OUT.txt only when the text is whole.
set -eu

if [ $# -ne 1 ] || [ -z "$1" ]; then
  echo "usage: $0 OUT.txt" >&2
  exit 2
fi
out=$1
if [ -d "$out" ]; then
  echo "$0: $out is a folder: name a file" >&2
  exit 2
fi
if ! command -v bible >/dev/null 2>&1; then
  echo "$0: the command 'bible' is missing: apt-get install bible-kjv" >&2
  exit 1
fi

part=$out.part.$$
trap 'rm -f "$part"' EXIT
trap 'exit 130' INT TERM

# After the banner, its first verse and the prompt, verses look like "Ge1:1 In the beginning ...".
echo 'gen1:1-rev22:21' | LC_ALL=C bible -f -l 3000 |
  LC_ALL=C sed -n '/^bible(KJV)/,$s/^[1-3]\{0,1\}[A-Z][A-Za-z]*[0-9][0-9]*:[0-9][0-9]* //p' >"$part"

verses=$(wc -l <"$part" | tr -d ' ')
bytes=$(wc -c <"$part" | tr -d ' ')
case $(sed -n 1p "$part") in
  'In the beginning God created'*) ;;
  *) verses=0 ;;
esac
if [ "$verses" -ne 31102 ] || [ "$bytes" -lt 4000000 ]; then
  echo "$0: 'bible' printed $verses verses in $bytes bytes, not the 31102 of the King James Bible: reinstall bible-kjv" >&2
  exit 1
fi
mv "$part" "$out"
echo "$out: $verses verses, $bytes bytes" >&2
