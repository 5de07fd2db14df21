#!/usr/bin/env python3
"""A program of the tour against its page: tour.py PROGRAM ROOT

PROGRAM is build/.../example_tour_01_tensors. Its exit code must be 0, and all that it prints must stand in docs/tour/01-tensors.md, in the
blocks that open with ```text examples/tour/01_tensors, one for each section. Sections come apart by an empty line.
RECKON_REGENERATE=1 writes the blocks instead."""
import difflib
import os
import re
import subprocess
import sys


def main():
    program, root = sys.argv[1:]
    name = os.path.basename(program).removeprefix("example_tour_")
    page = os.path.join(root, "docs", "tour", name.replace("_", "-") + ".md")
    done = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{name} ended with {done.returncode}")
    with open(page, encoding="utf-8") as file:
        text = file.read()

    opening = f"```text examples/tour/{name}\n"
    blocks = re.compile(re.escape(opening) + r"(.*?)^```$", re.DOTALL | re.MULTILINE)
    sections = [section.rstrip("\n") + "\n" for section in done.stdout.split("\n\n")]
    found = blocks.findall(text)
    if len(found) != len(sections):
        sys.exit(f"{page} has {len(found)} blocks for the {len(sections)} sections of {name}")
    if os.environ.get("RECKON_REGENERATE"):
        rest = iter(sections)
        with open(page, "w", encoding="utf-8") as file:
            file.write(blocks.sub(lambda _: opening + next(rest) + "```", text))
        return
    if found != sections:
        difference = difflib.unified_diff("\n".join(found).splitlines(), "\n".join(sections).splitlines(), page, name, lineterm="")
        sys.exit("\n".join(difference) + "\nRECKON_REGENERATE=1 writes what the program prints into the page")


main()
