#!/usr/bin/env python3
"""Writes einops.safetensors: the documented examples of einops (README, docstrings, tutorials 1, 2 and 4, einsum) and what einops makes of them.

make_einops.py [FOLDER]    run by hand, in an environment of its own with einops 0.8 and numpy; README.md says what the file holds
Inputs are not stored: element i of an input with k axes is (i * 7 + k * 3) % 23 - 9, so the reader makes them, exact in every float.
"""
import json
import pathlib
import struct
import sys

import einops
import numpy as np

IMS = (6, 4, 6, 3)  # the tutorials' six images of 96 x 96 in small
NHWC = (4, 6, 8, 3)

# operation, pattern, lengths, shapes of the inputs
REARRANGE = [
    ("h w c -> w h c", {}, IMS[1:]), ("height width color -> width height color", {}, IMS[1:]), ("b h w c -> (b h) w c", {}, IMS),
    ("b h w c -> h (b w) c", {}, IMS), ("b h w c -> (b h w c)", {}, IMS), ("(b1 b2) h w c -> b1 b2 h w c ", {"b1": 2}, IMS),
    ("(b1 b2) h w c -> (b1 h) (b2 w) c ", {"b1": 2}, IMS), ("(b1 b2) h w c -> (b2 h) (b1 w) c ", {"b1": 2}, IMS),
    ("b h (w w2) c -> (h w2) (b w) c", {"w2": 2}, IMS), ("b h w c -> h (w b) c", {}, IMS), ("b h w c -> (h b) w c", {}, IMS),
    ("(b1 b2) h w c -> h (b1 b2 w) c ", {"b1": 2}, IMS), ("(b1 b2) h w c -> h (b2 b1 w) c ", {"b1": 2}, IMS),
    ("b h w c -> b 1 h w 1 c", {}, IMS), ("b 1 h w 1 c -> b h w c", {}, (6, 1, 4, 6, 1, 3)), ("b h w c -> w (b h) c", {}, IMS),
    ("b h w c -> h w c b", {}, IMS), ("(b1 b2) h w c -> (h b1) (w b2) c ", {"b1": 2}, IMS), ("(b1 b2) h w c -> (b2 h) (w b1) c", {"b1": 3}, IMS),
    ("b (h1 h2) (w1 w2) c -> (h1 w2) (b w1 h2) c", {"h2": 2, "w2": 2}, IMS),
    ("b (h1 h2 h3) (w1 w2 w3) c -> (h1 w2 h3) (b w1 h2 w3) c", {"h2": 2, "w2": 2, "w3": 2, "h3": 2}, (3, 8, 8, 3)),
    ("b (h1 h2 h3 h4) (w1 w2 w3 w4) c -> (h1 w2 h3 w4) (b w1 h2 w3 h4) c",
     {"h2": 2, "w2": 2, "w3": 2, "h3": 2, "h4": 2, "w4": 2}, (2, 16, 16, 2)),
    # tutorial 2 and README
    ("b c h w -> b h w c", {}, NHWC), ("b c h w -> b (c h w)", {}, NHWC), ("b (h h1) (w w1) c -> b h w (h1 w1 c)", {"h1": 2, "w1": 2}, NHWC),
    ("b c (h h1) (w w1) -> (h1 w1) b c h w", {"h1": 2, "w1": 3}, (2, 3, 4, 6)), ("b (h h2) (w w2) c -> b (c h2 w2) h w", {"h2": 2, "w2": 2}, NHWC),
    ("b (c h2 w2) h w -> b c (h h2) (w w2)", {"h2": 2, "w2": 2}, (2, 12, 3, 2)), ("b c h w -> (b h w) c", {}, NHWC),
    ("(b h w) c -> b c h w", {"b": 4, "h": 3}, (24, 5)), ("(b1 b2) c h w -> b1 b2 c h w", {"b1": 2}, NHWC),
    ("b (g c) h w -> b (c g) h w", {"g": 3}, (2, 6, 2, 3)), ("b c h w -> h (b w) c", {}, NHWC), ("... h w c -> ... c h w", {}, NHWC),
    ("b (c1 c2) h w -> b (c2 c1) h w", {"c1": 2}, (2, 6, 2, 3)), ("b c h (w w2) -> b c (h w2) w", {"w2": 2}, NHWC[:3] + (4,)),
    ("t b c -> b c t", {}, (5, 2, 3)), ("b t (head k) -> (head b) t k", {"head": 2}, (3, 4, 6)), ("(head b) t k -> b t (head k)", {"head": 2}, (6, 4, 3)),
    ("b n (qkv h d) -> qkv b h n d", {"qkv": 3, "h": 2}, (2, 5, 24)), ("b (h1 h) (w1 w) c -> (b h1 w1) h w c", {"h1": 2, "w1": 2}, NHWC),
    # the tests of einops
    ("...->...", {}, (2, 3, 4, 5, 6)), ("a b c d e ...-> ... a b c d e", {}, (2, 3, 4, 5, 6)), ("a b c d e ...-> a ... b c d e", {}, (2, 3, 4, 5, 6)),
    ("a ... e-> a ... e", {}, (2, 3, 4)), ("a ... c d e -> a (...) c d e", {}, (2, 3, 2, 5, 2, 3)), ("... -> (...)", {}, (2, 3, 4)),
    ("a b ... -> b (...) a", {}, (2, 3, 4, 5)), ("a b ... e -> b (a ...) e", {}, (2, 3, 4, 5)), ("a ... -> (a ...)", {}, (2,)),
    ("b a c d e f -> a b d e f c", {}, (2, 3, 2, 2, 3, 2)), ("a b c d e f -> (f e) d (c b a)", {}, (2, 3, 2, 2, 3, 2)),
    ("(f d) c (e b) a -> a b c d e f", {"b": 2, "d": 5}, (15, 2, 6, 2)), ("a aa aa1 a1a1 -> a1a1 aa (aa1 a)", {}, (2, 3, 4, 5)),
    (" a   b   -> b ( a ) () ", {}, (2, 3)), ("(a 1) 1 (b) -> () (b 1 a)", {}, (2, 1, 3)),
]
REDUCE = [
    ("b h w c -> h w c", "mean", {}, IMS), ("b h w c -> h w", "min", {}, IMS), ("b (h h2) (w w2) c -> h (b w) c", "mean", {"h2": 2, "w2": 2}, IMS),
    ("b (h h2) (w w2) c -> h (b w) c", "max", {"h2": 2, "w2": 2}, IMS), ("(b1 b2) h w c -> (b2 h) (b1 w)", "mean", {"b1": 2}, IMS),
    ("b h w c -> b () () c", "max", {}, IMS), ("(b1 b2) h w c -> h (b2 w) c", "max", {"b1": 2}, IMS), ("b (h 4) (w 3) c -> (h) (b w)", "mean", {}, IMS),
    ("(b1 b2) (h1 h2 h3) (w1 w2 w3) c -> (h1 w1 h3) (b1 w2 h2 w3 b2) c", "mean", {"h2": 2, "w1": 2, "w3": 2, "h3": 2, "b2": 2}, (4, 8, 8, 3)),
    ("b (h1 h2 h3) (w1 w2 w3) (c1 c2) -> (h1 w2) (b w1 c2)", "sum", {"h2": 2, "w2": 2, "w3": 2, "h3": 2, "c1": 2}, (3, 8, 8, 4)),
    ("b h w c -> (b h) w", "mean", {}, IMS), ("b c h w -> ()", "mean", {}, IMS), ("b c h w -> b c () ()", "mean", {}, IMS),
    ("b c (h h2) (w w2) -> b c h w", "max", {"h2": 2, "w2": 3}, (2, 3, 4, 6)), ("b c (h 2) (w 3) -> b c h w", "max", {}, (2, 3, 4, 6)),
    ("b c h w -> b c", "mean", {}, (2, 3, 4, 6)), ("b c h w -> 1 c 1 1", "mean", {}, (2, 3, 4, 6)), ("t b c -> b c", "max", {}, (5, 2, 3)),
    ("b c (x dx) -> b c x", "max", {"dx": 2}, (2, 3, 8)), ("b c (x dx) (y dy) -> b c x y", "max", {"dx": 2, "dy": 3}, (2, 3, 4, 6)),
    ("a b c d e -> (e c) a", "sum", {}, (2, 3, 2, 3, 2)), ("a ... c d e -> (e c) a", "min", {}, (2, 3, 2, 3, 2)), (" ... -> ", "sum", {}, (2, 3, 4)),
    ("a ... e -> (e a)", "prod", {}, (2, 3, 4)), (" ... c d  -> (...) ", "prod", {}, (2, 3, 2, 3)), ("(a1 a2) ... (e1 e2) -> ", "max", {"a1": 1, "e2": 2}, (2, 3, 4)),
    ("(a a2) ... -> (a2 a) ...", "min", {"a2": 1}, (2, 3, 4)), ("a ... e -> (...)", "min", {}, (2, 3, 4, 5)), ("b (c 2) -> b c", "prod", {}, (3, 4)),
]
REPEAT = [
    ("h w c -> h new_axis w c", {"new_axis": 5}, IMS[1:]), ("h w c -> h 5 w c", {}, IMS[1:]), ("h w c -> h (repeat w) c", {"repeat": 3}, IMS[1:]),
    ("h w c -> (2 h) (2 w) c", {}, IMS[1:]), ("h w c -> h (w repeat) c", {"repeat": 3}, IMS[1:]), ("b h w c -> b h new_axis w c", {"new_axis": 2}, IMS),
    ("h w -> h w c", {"c": 3}, (4, 6)), ("h w -> (repeat h) w", {"repeat": 2}, (4, 6)), ("h w -> (h2 h) (w3 w)", {"h2": 2, "w3": 3}, (4, 6)),
    ("h w -> (h h2) (w w2)", {"h2": 2, "w2": 2}, (4, 6)), ("a b c -> (c copy a b)", {"copy": 2, "a": 2, "b": 3, "c": 5}, (2, 3, 5)),
    ("a b c -> (c a) (copy1 b copy2)", {"a": 2, "copy1": 1, "copy2": 2}, (2, 3, 5)), ("a ...  -> a ... copy", {"copy": 4}, (2, 3, 5)),
    ("... c -> ... (copy1 c copy2)", {"copy1": 1, "copy2": 2}, (2, 3, 5)), (" ...  -> copy1 ... copy2 ", {"copy1": 2, "copy2": 3}, (2, 3, 5)),
    ("a b c  -> copy1 a copy2 b c () ", {"copy1": 2, "copy2": 1}, (2, 3, 5)), ("a b c d -> (c 2 d a b)", {"a": 1, "c": 4, "d": 6}, (1, 2, 4, 6)),
    ("1 b c d -> (d copy 1) 3 b c ", {"copy": 3}, (1, 2, 4, 6)), ("1 ...  -> 3 ... ", {}, (1, 2, 4, 6)),
    ("() ... d -> 1 (copy1 d copy2) ... ", {"copy1": 2, "copy2": 3}, (1, 2, 4, 6)), ("1 b c d -> (1 1) (1 b) 2 c 3 d (1 1)", {}, (1, 2, 4, 6)),
    ("a b c d e f -> (a 2) (b 2) (c 2) (d r) e f", {"r": 2}, (2, 1, 2, 2, 2, 2)), ("...  -> b (...)", {"b": 3}, (2, 3)),
    ("a b c d e f -> (a 2) (b 2) (c 2) (d 2) e f", {}, (2, 2, 2, 2, 2, 2)),
]
EINSUM = [
    ("b c h w, b w -> b h", [(2, 3, 4, 5), (2, 5)]), ("b c h w, b w, b c -> b h", [(2, 3, 4, 5), (2, 5), (2, 3)]),
    ("... one two three, three four five -> ... two five", [(2, 3, 4, 5), (5, 2, 3)]),
    ("one two three ..., three four five -> two five ...", [(2, 3, 4, 5), (4, 2, 3)]),
    ("... one two three, ... three four five -> ... two five", [(6, 2, 3, 4), (6, 4, 3, 2)]),
    ("first_tensor second_tensor -> first_tensor", [(5, 4)]), ("i i -> ", [(10, 10)]), (" one  two  ,  three four->two  four  ", [(2, 3), (4, 5)]),
    ("i middle i -> middle", [(3, 5, 3)]), ("i ... i -> ...", [(3, 2, 4, 3)]), ("i ... i -> i ...", [(3, 2, 4, 3)]), ("one one one -> one", [(4, 4, 4)]),
    ("i j k -> j i k", [(2, 3, 4)]), ("... -> ...", [(2, 3)]), ("..., ..., ... -> ...", [(2, 3), (2, 3), (2, 3)]), ("index ->", [(7,)]),
    ("a b c, c b d, a g k -> a b k", [(4, 4, 4), (4, 4, 4), (4, 4, 4)]), ("batch h w, h w channel -> batch channel", [(8, 4, 4), (4, 4, 5)]),
    ("out_dim in_dim, ... in_dim -> ... out_dim", [(5, 4), (2, 3, 4)]), ("b t1 head c, b t2 head c -> b head t1 t2", [(2, 3, 2, 4), (2, 5, 2, 4)]),
    ("ij,jk->ik", [(3, 4), (4, 5)]), ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]), ("ii->i", [(4, 4)]), ("ii", [(4, 4)]), ("ij,jk", [(3, 4), (4, 5)]),
    ("ba,ca", [(2, 3), (4, 3)]), ("i,i", [(5,), (5,)]), ("i,j", [(3,), (4,)]), ("ij", [(3, 4)]), ("ji", [(3, 4)]), ("ij->", [(3, 4)]), ("ij->j", [(3, 4)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]), ("...ij,jk", [(2, 3, 4), (4, 5)]), ("i...->...", [(3, 4, 2)]), (",ij", [(), (3, 4)]),
    ("ij,kl,jm,lm->ik", [(3, 4), (2, 5), (4, 6), (5, 6)]), ("ea,fb,abcd,gc,hd->efgh", [(3, 2)] * 2 + [(2, 2, 2, 2)] + [(3, 2)] * 2),
    ("aab,bcc->ac", [(3, 3, 2), (2, 4, 4)]), ("ij,ij->ij", [(3, 4), (3, 4)]), ("bhqd,bhkd->bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
    ("bqhd,bkhd->bhqk", [(2, 3, 2, 4), (2, 5, 2, 4)]), ("ij,jk->ki", [(3, 4), (4, 5)]), ("Ab,bC->AC", [(2, 3), (3, 2)]),
]
PACK = [
    ("i j * k", [(2, 3, 5), (2, 3, 7, 5), (2, 3, 2, 2, 5)]), ("h w *", [(2, 3, 3), (2, 3)]), ("h w *", [(2, 3, 3), (2, 3), (2, 3, 1)]), ("* h w c", [(2, 3, 4, 3), (3, 4, 3)]),
    ("b *", [(2, 10), (2, 2, 3), (2,)]), ("*", [(2, 3), (), (4,)]), ("* c", [(2, 3, 4), (4,), (2, 4)]), ("batch * classes", [(2, 4, 3), (2, 3)]),
]


def values(shape, salt):
    count = int(np.prod(shape))
    return ((np.arange(count) * 7 + salt * 3) % 23 - 9).astype(np.float64).reshape(shape)


def einsum(pattern, operands):
    if any(len(term.split()) > 1 for term in pattern.replace("->", ",").split(",")) or "index" in pattern:
        return einops.einsum(*operands, pattern)
    return np.einsum(pattern, *operands)


def cases():
    for pattern, lengths, shape in REARRANGE:
        yield "rearrange", pattern, lengths, [shape], einops.rearrange(values(shape, len(shape)), pattern, **lengths)
    for pattern, reducer, lengths, shape in REDUCE:
        yield "reduce " + reducer, pattern, lengths, [shape], einops.reduce(values(shape, len(shape)), pattern, reducer, **lengths)
    for pattern, lengths, shape in REPEAT:
        yield "repeat", pattern, lengths, [shape], einops.repeat(values(shape, len(shape)), pattern, **lengths)
    for pattern, shapes in EINSUM:
        yield "einsum", pattern, {}, shapes, einsum(pattern, [values(s, len(s)) for s in shapes])
    for pattern, shapes in PACK:
        yield "pack", pattern, {}, shapes, einops.pack([values(s, len(s)) for s in shapes], pattern)[0]


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    header = {"__metadata__": {"einops": einops.__version__}}
    tensors = []
    for i, (operation, pattern, lengths, shapes, result) in enumerate(cases()):
        name = f"{i:03}"
        given = " ".join(f"{axis}={length}" for axis, length in lengths.items())
        header["__metadata__"][name] = "|".join([operation, pattern, given, ";".join(" ".join(map(str, s)) for s in shapes)])
        result = np.asarray(result, dtype=np.float64)
        # Whole numbers of 32 bits take half the room.
        exact = np.all(result == result.astype(np.float32))
        raw = np.ascontiguousarray(result, dtype=np.float32 if exact else np.float64).tobytes()
        tensors.append((exact, name, list(result.shape), raw))
    data = b""
    for exact, name, shape, raw in sorted(tensors, key=lambda t: t[:2]):  # doubles first, so that all are aligned
        header[name] = {"dtype": "F32" if exact else "F64", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    (folder / "einops.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(f"{len(header) - 1} examples")


if __name__ == "__main__":
    main()
