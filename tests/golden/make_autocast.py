#!/usr/bin/python3
"""Loss and gradients of two layers under PyTorch's CPU autocast to bfloat16, and in float32: autocast.safetensors.

Usage: make_autocast.py [FOLDER]. The loss is of float32 logits, as under autocast on a GPU; on a CPU PyTorch 1.13 leaves softmax in bfloat16."""
import pathlib
import sys

import torch
from torch.nn import functional as F

from make_golden import write_safetensors

ROWS, IN, HIDDEN, CLASSES = 24, 40, 56, 11


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(16)

    def normal(*shape, std=1.0):
        return std * torch.randn(shape, generator=generator)

    start = {"w1": normal(HIDDEN, IN, std=IN ** -0.5), "b1": normal(HIDDEN, std=0.1), "w2": normal(CLASSES, HIDDEN, std=HIDDEN ** -0.5),
             "b2": normal(CLASSES, std=0.1)}
    x = normal(ROWS, IN)
    targets = torch.randint(CLASSES, (ROWS,), generator=generator)
    tensors = {"x": x, "targets": targets.to(torch.int32)} | {f"init/{name}": value for name, value in start.items()}
    for run, enabled in (("f32", False), ("bf16", True)):
        p = {name: value.clone().requires_grad_() for name, value in start.items()}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            hidden = F.gelu(F.linear(x, p["w1"], p["b1"]), approximate="tanh")
            # The first layer's weight a second time, so that its cast is shared.
            again = F.gelu(F.linear(F.linear(hidden, p["w1"].t()), p["w1"], p["b1"]), approximate="tanh")
            logits = F.linear(again, p["w2"], p["b2"])
        assert logits.dtype == (torch.bfloat16 if enabled else torch.float32)
        loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        tensors[f"{run}/loss"] = loss.detach()
        for name, value in p.items():
            assert value.grad.dtype == torch.float32
            tensors[f"{run}/grad/{name}"] = value.grad
    path = folder / "autocast.safetensors"
    write_safetensors(path, tensors, {"made by": f"make_autocast.py, torch {torch.__version__}"})
    print(f"{path}: {path.stat().st_size} bytes, {len(tensors)} tensors")


if __name__ == "__main__":
    main()
