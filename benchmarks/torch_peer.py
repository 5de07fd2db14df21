#!/usr/bin/python3
"""The peer: the same training step in PyTorch (1.13 or newer, CPU), one decoder of the GPT-2 or the Llama family, AdamW on synthetic tokens.

torch_peer.py --preset gpt2-124m --micro-batch 4 --seq-len 256 --precision bf16 --steps 8 [--tuned]
torch_peer.py ... --compile        through torch.compile
torch_peer.py ... --interactive    one step for each line "step" on stdin, answered by one line of JSON; ends with stdin

Stock is PyTorch as installed. --tuned sets what people find by hand: no page faults from the allocator, the widest vectors, an optimizer
that goes tensor by tensor. Both print one JSON document at the end.
"""
import argparse
import json
import math
import os
import resource
import statistics
import sys
import time

TUNED = {
    "MALLOC_MMAP_MAX_": "0",                      # large tensors from the heap, which keeps its pages ...
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),       # ... and never gives them back
    "MALLOC_TOP_PAD_": str(1 << 28),
}
TUNED_AVX512 = {
    "ATEN_CPU_CAPABILITY": "avx512",              # PyTorch 1.13 stops at AVX2 by itself
    "OPENBLAS_CORETYPE": "SkylakeX",              # OpenBLAS 0.3.21 takes a processor newer than itself for a Haswell
}
PRESETS = {
    "gpt2-124m": dict(family="gpt2", layers=12, d_model=768, heads=12, kv_heads=12, d_ff=3072, vocab=50304, positions=1024),
    "small": dict(family="gpt2", layers=6, d_model=384, heads=6, kv_heads=6, d_ff=1536, vocab=256, positions=256),
    "llama-small": dict(family="llama", layers=6, d_model=384, heads=6, kv_heads=2, d_ff=1024, vocab=256, positions=256),
}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--preset", choices=PRESETS, default="gpt2-124m")
    p.add_argument("--micro-batch", type=int, default=4)
    p.add_argument("--seq-len", type=int, default=256)
    p.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--warmup", type=int, default=2, help="steps before the first that counts")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--tuned", action="store_true")
    p.add_argument("--compile", action="store_true", help="torch.compile (PyTorch 2 or newer)")
    p.add_argument("--memory-limit", type=int, default=0, metavar="BYTES", help="end instead of taking more memory than this")
    p.add_argument("--interactive", action="store_true")
    return p.parse_args()


def has_avx512():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        return " avx512f " in file.read()


def build(torch, c, T):
    """The model as a module from tokens and targets to the loss; named after the paper's parts, shaped like Reckon's."""
    nn, F = torch.nn, torch.nn.functional
    C, H, KV = c["d_model"], c["heads"], c["kv_heads"]
    D, gpt2 = C // H, c["family"] == "gpt2"
    fused_attention = getattr(F, "scaled_dot_product_attention", None)  # from PyTorch 2.0 on

    class RmsNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(C))

        def forward(self, x):
            return x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-5).to(x.dtype) * self.weight

    new_norm = (lambda: nn.LayerNorm(C)) if gpt2 else RmsNorm

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(C, (H + 2 * KV) * D, bias=gpt2)
            self.proj = nn.Linear(H * D, C, bias=gpt2)
            self.register_buffer("future", torch.ones(T, T, dtype=torch.bool).triu(1), persistent=False)
            angles = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(D // 2) * 2.0 / D)
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)

        def rotate(self, x):
            a, b = x.float().chunk(2, dim=-1)
            return torch.cat((a * self.cos - b * self.sin, b * self.cos + a * self.sin), dim=-1).to(x.dtype)

        def forward(self, x):
            B = x.shape[0]
            q, k, v = self.qkv(x).view(B, T, H + 2 * KV, D).transpose(1, 2).split((H, KV, KV), dim=1)
            if not gpt2:
                q, k = self.rotate(q), self.rotate(k)
            if KV != H:
                k, v = k.repeat_interleave(H // KV, dim=1), v.repeat_interleave(H // KV, dim=1)
            if fused_attention:
                y = fused_attention(q, k, v, is_causal=True)
            else:
                scores = (q @ k.transpose(-2, -1)) * (1 / math.sqrt(D))
                y = F.softmax(scores.masked_fill(self.future, -math.inf), dim=-1) @ v
            return self.proj(y.transpose(1, 2).reshape(B, T, H * D))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(C, c["d_ff"] if gpt2 else 2 * c["d_ff"], bias=gpt2)
            self.down = nn.Linear(c["d_ff"], C, bias=gpt2)

        def forward(self, x):
            h = self.up(x)
            if gpt2:
                return self.down(F.gelu(h, approximate="tanh"))
            gate, up = h.chunk(2, dim=-1)
            return self.down(F.silu(gate) * up)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.attention, self.norm2, self.mlp = new_norm(), Attention(), new_norm(), Mlp()

        def forward(self, x):
            x = x + self.attention(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(c["vocab"], C)
            self.positions = nn.Embedding(c["positions"], C) if gpt2 else None
            self.blocks = nn.ModuleList([Block() for _ in range(c["layers"])])
            self.norm = new_norm()
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, tokens, targets):
            x = self.embed(tokens)
            if gpt2:
                x = x + self.positions.weight[:T]
            for block in self.blocks:
                x = block(x)
            logits = F.linear(self.norm(x), self.embed.weight)  # the head is tied to the embedding
            return F.cross_entropy(logits.view(-1, c["vocab"]), targets.reshape(-1))

    return Decoder()


def main():
    a = arguments()
    if a.tuned:
        settings = TUNED | (TUNED_AVX512 if has_avx512() else {})
        if any(os.environ.get(key) != value for key, value in settings.items()):  # read at the start of a process only
            os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})
    import torch

    if a.memory_limit:
        resource.setrlimit(resource.RLIMIT_DATA, (a.memory_limit, a.memory_limit))
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    c, T = PRESETS[a.preset], a.seq_len
    c = {**c, "positions": max(c["positions"], T)}
    model = build(torch, c, T)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), **({"foreach": False} if a.tuned else {}))
    loss_of = torch.compile(model) if a.compile else model
    last_loss = None

    def step():
        nonlocal last_loss
        tokens, targets = (torch.randint(0, c["vocab"], (a.micro_batch, T)) for _ in range(2))
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.precision == "bf16"):
            loss = loss_of(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        last_loss = float(loss.detach())
        return time.perf_counter() - start

    for _ in range(a.warmup):
        step()
    seconds = []
    if a.interactive:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            if line.strip() != "step":
                sys.exit(f"torch_peer: expected a line 'step', got {line.strip()!r}")
            seconds.append(step())
            print(json.dumps({"seconds": seconds[-1]}), flush=True)
    else:
        seconds = [step() for _ in range(a.steps)]
    tokens = a.micro_batch * T
    print(json.dumps({
        "peer": f"torch {torch.__version__}", "preset": a.preset, "tuned": a.tuned, "precision": a.precision, "threads": a.threads,
        "parameters": sum(p.numel() for p in model.parameters()), "steps": len(seconds),
        "step_seconds": statistics.median(seconds) if seconds else None,
        "tokens_per_second": tokens / statistics.median(seconds) if seconds else None,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "loss": last_loss}))


if __name__ == "__main__":
    main()
