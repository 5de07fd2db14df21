#!/usr/bin/env python3
"""Patterns that are literals are read by the compiler: well-formed ones compile, and of each malformed one the error names the reason.

pattern_literals.py COMPILER INCLUDE_FOLDER
"""
import concurrent.futures
import subprocess
import sys
import tempfile

PROLOGUE = """
#include "reckon/ops/packing.h"
#include "reckon/ops/shaped.h"
using namespace reckon;
void use(const Tensor& x, Dims& dims, const char* text) {
  (void)x, (void)dims, (void)text;
"""

GOOD = """
  rearrange(x, "b (h w) c -> b c h w", {{"h", 4}});
  rearrange(x, "... (h 1) -> (... h) () 1");
  reduce(x, "b (h 2) (w 2) c -> b h w c", Reducer::max);
  repeat(x, "h w -> (2 h) (w r)", {{"r", 3}});
  parse_shape(x, "b _ ... 3");
  einsum("b i k, b k j -> b i j", {x, x});
  einsum("...ij,jk", {x, x});
  pack({x, x}, "a * b");
  shaped(x, "f32[batch *more #seq 2*batch+1]", dims);
  rearrange(x, runtime(text));
"""

# what does not compile, and the function that the error names
BAD = [
    ('rearrange(x, "a b");', "pattern_error_missing_arrow"),
    ('rearrange(x, "a -> b -> a");', "pattern_error_second_arrow"),
    ('rearrange(x, "(a b -> a b");', "pattern_error_unbalanced_parenthesis"),
    ('rearrange(x, "((a) b) -> a b");', "pattern_error_nested_parentheses"),
    ('rearrange(x, "a+b -> a");', "pattern_error_unknown_character"),
    ('rearrange(x, "2a -> 2a");', "pattern_error_name_begins_with_digit"),
    ('rearrange(x, "_a -> _a");', "pattern_error_name_ends_in_underscore"),
    ('rearrange(x, "a .. -> a ..");', "pattern_error_dots_outside_ellipsis"),
    ('rearrange(x, "... a ... -> a ...");', "pattern_error_second_ellipsis"),
    ('rearrange(x, "(... a) -> a ...");', "pattern_error_ellipsis_in_parentheses_on_the_left"),
    ('rearrange(x, "a -> a ...");', "pattern_error_ellipsis_only_on_the_right"),
    ('rearrange(x, "a a -> a");', "pattern_error_repeated_axis"),
    ('rearrange(x, "a b -> a");', "pattern_error_axis_only_on_the_left"),
    ('rearrange(x, "a -> a b");', "pattern_error_axis_only_on_the_right"),
    ('rearrange(x, "a 2 -> a 2");', "pattern_error_number_has_no_partner"),
    ('reduce(x, "a -> b", Reducer::sum);', "pattern_error_axis_only_on_the_right"),
    ('repeat(x, "a b -> a");', "pattern_error_axis_only_on_the_left"),
    ('parse_shape(x, "a (b c)");', "pattern_error_parentheses_not_allowed"),
    ('einsum("ij,jk->iz", {x, x});', "pattern_error_output_axis_not_in_input"),
    ('einsum("i j, j k -> i i", {x, x});', "pattern_error_repeated_output_axis"),
    ('pack({x}, "a b");', "pattern_error_missing_star"),
    ('pack({x}, "* a *");', "pattern_error_second_star"),
    ('shaped(x, "a 2**b", dims);', "pattern_error_bad_expression"),
    ('shaped(x, "... *a", dims);', "pattern_error_second_variadic"),
    ('rearrange(x, text);', "text"),  # what the compiler cannot read goes through runtime()
]


def compile_errors(compiler, include, body):
    with tempfile.NamedTemporaryFile("w", suffix=".cpp") as file:
        file.write(PROLOGUE + body + "}\n")
        file.flush()
        done = subprocess.run([compiler, "-std=c++20", "-fsyntax-only", "-I", include, file.name], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr or "no message"


def main():
    compiler, include = sys.argv[1:3]
    wrong = []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        good = pool.submit(compile_errors, compiler, include, GOOD)
        bad = [(line, reason, pool.submit(compile_errors, compiler, include, line)) for line, reason in BAD]
        if good.result():
            wrong.append("well-formed patterns do not compile:\n" + good.result())
        for line, reason, errors in bad:
            if not errors.result():
                wrong.append(f"compiles: {line}")
            elif reason not in errors.result():
                wrong.append(f"{line}: the error does not name {reason}:\n{errors.result()}")
    print("\n".join(wrong) if wrong else f"{len(BAD)} malformed patterns are refused")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
