#!/usr/bin/python3
"""A hundred steps of PyTorch's optimizers in float64 on given gradients, with weight decay and schedules: optimizer_runs.safetensors.

Usage: make_optimizer_runs.py [FOLDER]. Settings are Reckon's own keys, in the metadata of the file, one line a run."""
import math
import pathlib
import sys

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR

from make_golden import write_safetensors

SIZE, STEPS, EVERY = 7, 100, 10

# Reckon's keys -> (PyTorch's optimizer, its scheduler or None). Weight decay of PyTorch is coupled, but for AdamW.
COUPLED = "optim.weight_decay_kind=coupled"
RUNS = {
    "sgd": (f"optim.name=sgd optim.lr=0.05 optim.weight_decay=0.02 {COUPLED} optim.schedule=cosine optim.min_lr_ratio=0.1",
            lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.02), lambda o: CosineAnnealingLR(o, STEPS, 0.005)),
    "momentum": (f"optim.name=momentum optim.lr=0.01 optim.momentum=0.9 optim.weight_decay=0.1 {COUPLED} optim.schedule=linear optim.min_lr_ratio=0.25",
                 lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1), lambda o: LinearLR(o, 1.0, 0.25, STEPS)),
    "nesterov": (f"optim.name=nesterov optim.lr=0.01 optim.momentum=0.8 optim.weight_decay=0.1 {COUPLED}",
                 lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.8, nesterov=True, weight_decay=0.1), None),
    "adagrad": (f"optim.name=adagrad optim.lr=0.1 optim.eps=1e-8 optim.weight_decay=0.1 {COUPLED}",
                lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-8, weight_decay=0.1), None),
    "rmsprop": ("optim.name=rmsprop optim.lr=0.01 optim.alpha=0.97 optim.eps=1e-7 optim.weight_decay=0",
                lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.97, eps=1e-7), None),
    "rmsprop_momentum": (f"optim.name=rmsprop optim.lr=0.01 optim.rmsprop_momentum=0.7 optim.weight_decay=0.1 {COUPLED}",
                         lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.7, weight_decay=0.1), None),
    "rmsprop_centered": (f"optim.name=rmsprop optim.lr=0.01 optim.centered=true optim.eps=1e-6 optim.weight_decay=0.1 {COUPLED}",
                         lambda p: torch.optim.RMSprop(p, lr=0.01, eps=1e-6, centered=True, weight_decay=0.1), None),
    "rmsprop_centered_momentum": ("optim.name=rmsprop optim.lr=0.01 optim.centered=true optim.rmsprop_momentum=0.9 optim.weight_decay=0",
                                  lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9), None),
    "adam": ("optim.name=adam optim.lr=0.02 optim.beta1=0.9 optim.beta2=0.999 optim.weight_decay=0.1",
             lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1), None),
    "adamw": ("optim.name=adamw optim.lr=0.02 optim.beta1=0.8 optim.beta2=0.95 optim.weight_decay=0.3",
              lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.8, 0.95), eps=1e-8, weight_decay=0.3), None),
    "adamw_wsd": ("optim.name=adamw optim.lr=0.02 optim.beta1=0.9 optim.beta2=0.95 optim.weight_decay=0.1 optim.schedule=wsd optim.warmup_steps=10 "
                  "optim.decay_fraction=0.3 optim.min_lr_ratio=0",
                  lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1),
                  lambda o: LambdaLR(o, lambda s: min((s + 1) / 10, 1.0, (STEPS - s) / 30))),
    "adam_inverse_sqrt": ("optim.name=adam optim.lr=0.02 optim.beta1=0.9 optim.beta2=0.95 optim.weight_decay=0.1 optim.schedule=inverse_sqrt "
                          "optim.warmup_steps=16 optim.min_lr_ratio=0.5",
                          lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1),
                          lambda o: LambdaLR(o, lambda s: (s + 1) / 16 if s < 16 else max(0.5, math.sqrt(16 / (s + 1))))),
    "adam_warm_cosine": ("optim.name=adam optim.lr=0.02 optim.beta1=0.9 optim.beta2=0.95 optim.weight_decay=0 optim.schedule=cosine "
                         "optim.warmup_steps=20 optim.min_lr_ratio=0",
                         lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.9, 0.95), eps=1e-8),
                         lambda o: LambdaLR(o, lambda s: (s + 1) / 20 if s < 20 else 0.5 * (1 + math.cos(math.pi * (s - 20) / 80)))),
}


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(100)
    start = torch.randn(SIZE, generator=generator, dtype=torch.float64)
    # Of very different sizes, with a drift, and none at all for a while.
    gradients = torch.randn((STEPS, SIZE), generator=generator, dtype=torch.float64) + 0.2
    gradients *= 10.0 ** torch.linspace(-4, 1, SIZE, dtype=torch.float64)
    gradients[30:36, 2] = 0
    tensors, settings = {"init": start, "gradients": gradients}, {}
    for name, (keys, make, schedule) in RUNS.items():
        p = start.clone().requires_grad_()
        optimizer, trail = make([p]), []
        scheduler = schedule(optimizer) if schedule else None
        for step, gradient in enumerate(gradients, 1):
            p.grad = gradient.clone()
            optimizer.step()
            if scheduler:
                scheduler.step()
            if step % EVERY == 0:
                trail.append(p.detach().clone())
        tensors[name] = torch.stack(trail)
        settings[name] = keys if "schedule" in keys else keys + " optim.schedule=constant"
    path = folder / "optimizer_runs.safetensors"
    write_safetensors(path, tensors, settings | {"made by": f"make_optimizer_runs.py, torch {torch.__version__}"})
    print(f"{path}: {path.stat().st_size} bytes, {len(tensors)} tensors")


if __name__ == "__main__":
    main()
