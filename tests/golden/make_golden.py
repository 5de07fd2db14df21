#!/usr/bin/python3
"""Writes the golden files of this folder with PyTorch: losses, gradients and optimizer steps of tiny GPT-2, Llama and Qwen models.

make_golden.py [FOLDER]    run by hand (Debian: apt-get install python3-torch); README.md says what the files hold
The models are built here from plain functions, so that parameter names and layouts are Reckon's, not a library's.
"""
import json
import math
import pathlib
import struct
import sys

import torch
from torch.nn import functional as F

B, T, V, LAYERS = 3, 12, 37, 2
STEPS, LR, BETAS, EPS, WEIGHT_DECAY, CLIP_NORM = 10, 1e-2, (0.9, 0.95), 1e-8, 0.1, 1.0

CASES = {
    "gpt2": dict(d_model=20, heads=5, kv_heads=5, head_dim=4, d_ff=36, max_seq_len=16, norm="layer_norm", norm_eps=1e-5, position="learned",
                 mlp="gelu", qkv_bias=True, proj_bias=True, mlp_bias=True, qk_norm=False, tied_head=True, rope_theta=10000.0),
    "llama": dict(d_model=20, heads=4, kv_heads=2, head_dim=6, d_ff=28, max_seq_len=16, norm="rms_norm", norm_eps=1e-5, position="rope",
                  mlp="swiglu", qkv_bias=False, proj_bias=False, mlp_bias=False, qk_norm=False, tied_head=False, rope_theta=10000.0),
    "qwen": dict(d_model=20, heads=4, kv_heads=2, head_dim=6, d_ff=28, max_seq_len=16, norm="rms_norm", norm_eps=1e-6, position="rope",
                 mlp="swiglu", qkv_bias=True, proj_bias=False, mlp_bias=False, qk_norm=True, tied_head=True, rope_theta=1000000.0),
}


def parameter_shapes(c):
    """Name -> shape, in module order."""
    C, D, H, KV, ff = c["d_model"], c["head_dim"], c["heads"], c["kv_heads"], c["d_ff"]
    layer_norm = c["norm"] == "layer_norm"
    shapes = {"embed.weight": (V, C)}
    if c["position"] == "learned":
        shapes["positions.weight"] = (c["max_seq_len"], C)

    def norm(name):
        shapes[f"{name}.weight"] = (C,)
        if layer_norm:
            shapes[f"{name}.bias"] = (C,)

    def linear(name, out_features, in_features, bias):
        shapes[f"{name}.weight"] = (out_features, in_features)
        if bias:
            shapes[f"{name}.bias"] = (out_features,)

    for i in range(LAYERS):
        at = f"blocks.{i}"
        norm(f"{at}.norm1")
        linear(f"{at}.attn.qkv", (H + 2 * KV) * D, C, c["qkv_bias"])
        if c["qk_norm"]:
            shapes[f"{at}.attn.q_norm.weight"] = shapes[f"{at}.attn.k_norm.weight"] = (D,)
        linear(f"{at}.attn.proj", C, H * D, c["proj_bias"])
        norm(f"{at}.norm2")
        if c["mlp"] == "gelu":
            linear(f"{at}.mlp.up", ff, C, c["mlp_bias"])
        else:
            linear(f"{at}.mlp.gate_up", 2 * ff, C, c["mlp_bias"])
        linear(f"{at}.mlp.down", C, ff, c["mlp_bias"])
    norm("norm")
    if not c["tied_head"]:
        shapes["head.weight"] = (V, C)
    return shapes


def initial_parameters(c, generator):
    """Far from zero, norms and biases too, so that no term of a gradient vanishes; exact in float32, so that both types start alike."""
    parameters = {}
    for name, shape in parameter_shapes(c).items():
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        if "norm" in name and name.endswith("weight"):
            value = 1 + 0.2 * value
        elif len(shape) == 1:
            value = 0.1 * value
        else:
            value = value * (0.5 if name.startswith(("embed", "positions")) else 1.0 / math.sqrt(shape[1]))
        parameters[name] = value.float().double()
    return parameters


def rope(x, theta):
    """Rotates the pairs (i, i + D/2) of x [B, H, T, D] by t * theta^(-2i/D): the halves convention of Llama's published weights."""
    half = x.shape[-1] // 2
    inverse = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * inverse
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def loss_of(c, p, tokens, targets):
    """Mean cross-entropy in nats per token."""
    C, D, H, KV = c["d_model"], c["head_dim"], c["heads"], c["kv_heads"]

    def linear(x, name):
        return F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))

    def rms_norm(x, weight):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + c["norm_eps"]) * weight

    def norm(x, name):
        if c["norm"] == "layer_norm":
            return F.layer_norm(x, (C,), p[f"{name}.weight"], p[f"{name}.bias"], c["norm_eps"])
        return rms_norm(x, p[f"{name}.weight"])

    def attention(x, at):
        qkv = linear(x, f"{at}.qkv").view(B, T, H + 2 * KV, D).transpose(1, 2)
        q, k, v = qkv.split((H, KV, KV), dim=1)
        if c["qk_norm"]:
            q, k = rms_norm(q, p[f"{at}.q_norm.weight"]), rms_norm(k, p[f"{at}.k_norm.weight"])
        if c["position"] == "rope":
            q, k = rope(q, c["rope_theta"]), rope(k, c["rope_theta"])
        k, v = (t.repeat_interleave(H // KV, dim=1) for t in (k, v))  # query head h reads key head h / (H / KV)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(-2, -1) / math.sqrt(D)).masked_fill(future, -math.inf)
        return linear((scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, H * D), f"{at}.proj")

    def mlp(x, at):
        if c["mlp"] == "gelu":
            return linear(F.gelu(linear(x, f"{at}.up"), approximate="tanh"), f"{at}.down")
        gate, up = linear(x, f"{at}.gate_up").chunk(2, dim=-1)
        return linear(F.silu(gate) * up, f"{at}.down")

    x = F.embedding(tokens, p["embed.weight"])
    if c["position"] == "learned":
        x = x + p["positions.weight"][:T]
    for i in range(LAYERS):
        x = x + attention(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn")
        x = x + mlp(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp")
    head = p["embed.weight"] if c["tied_head"] else p["head.weight"]
    return F.cross_entropy(F.linear(norm(x, "norm"), head).view(-1, V), targets.view(-1))


def trained(c, start, tokens, targets, dtype, clip_norm=None):
    """Runs AdamW on one repeated batch. Yields (loss before the step, gradient norm, gradients before clipping, parameters after)."""
    p = {name: value.to(dtype, copy=True).requires_grad_() for name, value in start.items()}
    matrices, vectors = ([v for v in p.values() if (v.dim() >= 2) == wide] for wide in (True, False))
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, foreach=False)
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(c, p, tokens, targets)
        loss.backward()
        gradients = {name: value.grad.clone() for name, value in p.items()}
        norm = torch.sqrt(sum((g.double() ** 2).sum() for g in gradients.values()))
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(p.values(), clip_norm)
        optimizer.step()
        yield loss.detach().clone(), norm, gradients, {name: value.detach().clone() for name, value in p.items()}


def check_gradient(c, start, tokens, targets, gradients, generator):
    """Guards this script itself: the gradient along a random unit direction against a central difference."""
    direction = {name: torch.randn(v.shape, generator=generator, dtype=v.dtype) for name, v in start.items()}
    length = math.sqrt(sum(float((d * d).sum()) for d in direction.values()))
    direction = {name: d / length for name, d in direction.items()}
    h = 1e-5  # truncation h^2 = 1e-10, rounding 2^-53 / h = 1e-11
    above, below = (loss_of(c, {n: v + s * h * direction[n] for n, v in start.items()}, tokens, targets) for s in (1, -1))
    numeric, exact = float(above - below) / (2 * h), float(sum((gradients[n] * direction[n]).sum() for n in start))
    assert abs(numeric - exact) <= 1e-9, (numeric, exact)


def model_case(name, seed):
    c = CASES[name]
    generator = torch.Generator().manual_seed(seed)
    start = initial_parameters(c, generator)
    tokens = torch.randint(0, V, (B, T), generator=generator)
    targets = torch.randint(0, V, (B, T), generator=generator)
    tokens[0, 0] = tokens[0, 1] = tokens[2, T - 1] = V - 1  # a repeated token and the last one: their gradients add up
    wide = list(trained(c, start, tokens, targets, torch.float64))
    clipped = list(trained(c, start, tokens, targets, torch.float64, CLIP_NORM))
    narrow = list(trained(c, start, tokens, targets, torch.float32))
    check_gradient(c, start, tokens, targets, wide[0][2], generator)
    assert sum(float(norm) > CLIP_NORM for _, norm, _, _ in clipped) >= 3, "clipping must act"

    tensors = {"tokens": tokens.int(), "targets": targets.int()}
    tensors |= {f"init/{n}": v for n, v in start.items()}
    tensors |= {f"f64/grad/{n}": v for n, v in wide[0][2].items()}
    tensors["f64/losses"] = torch.stack([loss for loss, _, _, _ in wide])
    for step, (_, _, _, parameters) in enumerate(wide, 1):
        tensors |= {f"f64/step{step}/{n}": v for n, v in parameters.items()}
    tensors["f64/clip/losses"] = torch.stack([loss for loss, _, _, _ in clipped])
    tensors["f64/clip/grad_norms"] = torch.stack([norm for _, norm, _, _ in clipped])
    tensors |= {f"f64/clip/step{STEPS}/{n}": v for n, v in clipped[-1][3].items()}
    tensors |= {f"f32/grad/{n}": v for n, v in narrow[0][2].items()}
    tensors["f32/losses"] = torch.stack([loss for loss, _, _, _ in narrow])
    config = {f"model.{key}": value for key, value in c.items()} | {"model.layers": LAYERS, "model.vocab": V}
    config |= {"optim.name": "adamw", "optim.lr": LR, "optim.beta1": BETAS[0], "optim.beta2": BETAS[1], "optim.eps": EPS,
               "optim.weight_decay": WEIGHT_DECAY, "optim.clip_norm": 0.0, "optim.schedule": "constant", "optim.warmup_steps": 0,
               "train.micro_batch": B, "train.seq_len": T}
    return tensors, config


def optimizers_case(seed):
    """Twenty steps of each optimizer on given gradients, which span six powers of ten and hold zeros; no weight decay."""
    generator = torch.Generator().manual_seed(seed)
    size, steps = 7, 20
    start = torch.randn(size, generator=generator, dtype=torch.float64)
    gradients = torch.randn((steps, size), generator=generator, dtype=torch.float64)
    gradients *= 10.0 ** torch.linspace(-4, 2, size, dtype=torch.float64)
    gradients[3:6, 2] = 0
    gradients[0] = gradients[0].roll(1)
    makers = {
        "sgd": (lambda p: torch.optim.SGD(p, lr=0.05), {"lr": 0.05}),
        "momentum": (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), {"lr": 0.05, "momentum": 0.9}),
        "adagrad": (lambda p: torch.optim.Adagrad(p, lr=0.05, eps=1e-8), {"lr": 0.05, "eps": 1e-8}),
        "adamw": (lambda p: torch.optim.AdamW(p, lr=0.05, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0),
                  {"lr": 0.05, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}),
    }
    tensors, config = {"init": start, "gradients": gradients}, {}
    for name, (make, settings) in makers.items():
        p = start.clone().requires_grad_()
        optimizer, trail = make([p]), []
        for gradient in gradients:
            p.grad = gradient.clone()
            optimizer.step()
            trail.append(p.detach().clone())
        tensors[name] = torch.stack(trail)
        config |= {f"{name}.{key}": value for key, value in settings.items()}
    return tensors, config


def write_safetensors(path, tensors, metadata):
    """Eight bytes of header length, a JSON header padded with spaces to a multiple of eight, then the bytes in the header's order."""
    names = {torch.float64: "F64", torch.float32: "F32", torch.int32: "I32"}
    header = {"__metadata__": {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}}
    chunks, offset = [], 0
    for name, tensor in tensors.items():
        data = tensor.contiguous().numpy().tobytes()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + len(data)]}
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    torch.set_num_threads(1)
    cases = {name: model_case(name, seed) for seed, name in enumerate(CASES, 1)}
    cases["optimizers"] = optimizers_case(len(CASES) + 1)
    for name, (tensors, config) in cases.items():
        path = folder / f"{name}.safetensors"
        write_safetensors(path, tensors, config | {"made by": f"make_golden.py, torch {torch.__version__}"})
        losses = tensors.get("f64/losses")
        print(f"{path}: {path.stat().st_size} bytes, {len(tensors)} tensors")
        if losses is not None:
            print(f"  loss {losses[0]:.6f} -> {losses[-1]:.6f}, in float32 off by at most {float((tensors['f32/losses'] - losses).abs().max()):.1e}")
            print("  gradient norms before clipping:", *(f"{norm:.2f}" for norm in tensors["f64/clip/grad_norms"]))


if __name__ == "__main__":
    main()
