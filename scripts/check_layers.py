#!/usr/bin/env python3
"""Enforces the order of the rooms in src/reckon, light headers and short files; prints one line for each breach.

check_layers.py [ROOT]        checks a checkout (default: the one this script is in); exits 1 if anything is wrong
check_layers.py --self-test   checks that every rule refuses a tree that breaks it
"""
import pathlib
import re
import sys
import tempfile

# What each room may include directly; what these may include, it may, too.
ROOMS = {
    "base": (),
    "memory": ("base",),
    "tensor": ("memory",),
    "engine": ("tensor",),
    "ops": ("engine",),
    "backend": ("ops",),
    "dist": ("ops",),
    "nn": ("ops", "dist"),
    "io": ("tensor", "base"),
    "data": ("tensor", "base", "io"),
    "train": ("nn", "io", "data"),
    "plan": ("train",),
    "report": ("plan",),
    "cli": ("report", "backend"),
}
# A backend is reached through its kernel table; only the program names one, to open it.
FOR_PROGRAMS = "reckon.h"
ONLY_CLI_MAY_INCLUDE = "backend"

# Everybody pays for a header, so a header takes only what is cheap to compile: beside <string> and <vector>, at most 0.05 s, except
# <memory>, 0.14 s, for unique_ptr. *-inl.h is a part of one .cpp file.
LIGHT_HEADERS = {
    "algorithm", "array", "atomic", "bit", "compare", "concepts", "cstddef", "cstdint", "cstring", "deque", "initializer_list", "limits",
    "memory", "optional", "source_location", "span", "stdexcept", "string", "string_view", "type_traits", "utility", "vector", "fmt/core.h",
}
MAX_LINES = 700
CHECKED_SUFFIXES = {".cpp", ".h", ".def", ".cu", ".cuh", ".py", ".sh"}
CHECKED_FOLDERS = ("src", "tests", "benchmarks", "examples", "scripts", "python")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


def closure(room, seen=()):
    """All rooms that this one may include; fails on a cycle in the table itself."""
    if room in seen:
        raise SystemExit(f"check_layers: the table of rooms has a cycle: {' -> '.join((*seen, room))}")
    allowed = set(ROOMS[room])
    for other in ROOMS[room]:
        allowed |= closure(other, (*seen, room))
    return allowed


def includes_of(path):
    """(line number, is quoted, name) for each include directive outside comments."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", lambda comment: "\n" * comment.group().count("\n"), text, flags=re.DOTALL)
    for match in INCLUDE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match.group(1) == '"', match.group(2)


def resolve(source, path, name):
    """The file of ours that an include names, or None."""
    for candidate in (path.parent / name, source / name):
        if candidate.is_file():
            return candidate.resolve()
    return None


def check_rooms(root):
    """Breaches of the room order, and the include graph of our own files."""
    source = root / "src"
    reckon = (source / "reckon").resolve()
    allowed = {room: closure(room) for room in ROOMS}
    breaches, graph = [], {}
    files = sorted(p for p in reckon.rglob("*") if p.suffix in (".h", ".cpp", ".def", ".cu", ".cuh"))
    for path in files:
        if path == reckon / FOR_PROGRAMS:
            continue  # includes every room, and no room may include it
        room, place = path.relative_to(reckon).parts[0], path.relative_to(root.resolve())
        if room not in ROOMS:
            breaches.append(f"{place}: '{room}' is not a room (see ROOMS in scripts/check_layers.py)")
            continue
        graph[path] = []
        for line, quoted, name in includes_of(path):
            target = resolve(source, path, name)
            if target is None:
                if quoted and name.startswith("reckon/"):
                    breaches.append(f"{place}:{line}: includes {name}, which does not exist")
                continue
            if reckon not in target.parents:
                breaches.append(f"{place}:{line}: includes {name} from outside src/reckon")
                continue
            graph[path].append(target)
            other = target.relative_to(reckon).parts[0]
            if other == room:
                continue
            if other == ONLY_CLI_MAY_INCLUDE and room != "cli":
                breaches.append(f"{place}:{line}: room {room} includes {name}: only cli may name a backend")
            elif other not in allowed[room]:
                breaches.append(f"{place}:{line}: room {room} must not include room {other} ({name})")
    return breaches, graph


def check_cycles(root, graph):
    """Header cycles: #pragma once hides them until somebody changes the order of two includes."""
    breaches, done = [], set()

    def visit(path, trail):
        if path in trail:
            names = [str(p.relative_to(root.resolve())) for p in (*trail[trail.index(path):], path)]
            breaches.append(f"{names[0]}: includes itself: {' -> '.join(names)}")
            return
        if path in done:
            return
        for target in graph.get(path, ()):
            visit(target, (*trail, path))
        done.add(path)

    for path in sorted(graph):
        visit(path, ())
    return breaches


def check_headers(root):
    breaches = []
    for path in sorted((root / "src").rglob("*.h")):
        if path.name.endswith("-inl.h"):
            continue
        for line, quoted, name in includes_of(path):
            if not (name in LIGHT_HEADERS or quoted and resolve(root / "src", path, name)):
                breaches.append(f"{path.relative_to(root)}:{line}: a header must not include <{name}>: take it to the .cpp file")
    return breaches


def check_lengths(root):
    breaches = []
    for folder in CHECKED_FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in CHECKED_SUFFIXES and path.is_file():
                lines = path.read_bytes().count(b"\n")
                if lines > MAX_LINES:
                    breaches.append(f"{path.relative_to(root)}: {lines} lines, the limit is {MAX_LINES}: split it by subject")
    return breaches


def check(root):
    breaches, graph = check_rooms(root)
    return breaches + check_cycles(root, graph) + check_headers(root) + check_lengths(root)


# One tree a rule: the files, and what the one breach must say. An empty expectation is a tree that must pass.
SELF_TESTS = [
    ({"base/a.h": "#include <cstdint>\n", "cli/main.cpp": '#include "reckon/base/a.h"\n#include <iostream>\n'}, ""),
    ({"base/a.h": "", "nn/n.h": '#include "reckon/base/a.h"\n', "train/t.cpp": '#include "reckon/nn/n.h"\n'}, ""),
    ({"backend/cpu/device.h": "", "cli/main.cpp": '#include "reckon/backend/cpu/device.h"\n'}, ""),
    ({"ops/a-inl.h": "#include <hwy/highway.h>\n"}, ""),
    ({"base/a.h": '// #include "reckon/ops/b.h"\n/*\n#include "reckon/ops/b.h"\n*/\n', "ops/b.h": ""}, ""),
    ({"base/a.h": '#include "reckon/ops/b.h"\n', "ops/b.h": ""}, "base/a.h:1: room base must not include room ops"),
    ({"base/a.cpp": '\n#include "../ops/b.h"\n', "ops/b.h": ""}, "base/a.cpp:2: room base must not include room ops"),
    ({"io/a.cpp": '#include "reckon/data/b.h"\n', "data/b.h": ""}, "room io must not include room data"),
    ({"nn/a.cpp": '#include "reckon/io/b.h"\n', "io/b.h": ""}, "room nn must not include room io"),
    ({"engine/a.cpp": '  #  include "reckon/ops/ops.def"\n', "ops/ops.def": ""}, "room engine must not include room ops"),
    ({"train/a.cpp": '#include "reckon/backend/cpu/device.h"\n', "backend/cpu/device.h": ""}, "only cli may name a backend"),
    ({"misc/a.cpp": ""}, "'misc' is not a room"),
    ({"base/a.cpp": '#include "reckon/base/gone.h"\n'}, "includes reckon/base/gone.h, which does not exist"),
    ({"base/a.h": '#include "reckon/base/b.h"\n', "base/b.h": '#include "reckon/base/a.h"\n'}, "base/a.h -> src/reckon/base/b.h -> "),
    ({"base/a.h": "#include <functional>\n"}, "base/a.h:1: a header must not include <functional>"),
    ({"base/a.h": '#include "dnnl.hpp"\n'}, "a header must not include <dnnl.hpp>"),
    ({"base/a.cpp": "\n" * (MAX_LINES + 1)}, f"{MAX_LINES + 1} lines, the limit is {MAX_LINES}"),
]


def self_test():
    failures = 0
    for files, expected in SELF_TESTS:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder).resolve()
            for name, text in files.items():
                path = root / "src" / "reckon" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            breaches = check(root)
            right = len(breaches) == 1 and expected in breaches[0] if expected else not breaches
            if not right:
                failures += 1
                print(f"self-test: {files}\n  expected {expected or 'no breach'!r}\n  got {breaches}")
    print(f"self-test: {len(SELF_TESTS) - failures} of {len(SELF_TESTS)} trees judged rightly")
    return 1 if failures else 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if len(arguments) > 1 or arguments and not (pathlib.Path(arguments[0]) / "src/reckon").is_dir():
        print(__doc__.strip(), file=sys.stderr)
        return 2
    root = pathlib.Path(arguments[0] if arguments else pathlib.Path(__file__).parent.parent).resolve()
    breaches = check(root)
    for breach in breaches:
        print(breach)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
