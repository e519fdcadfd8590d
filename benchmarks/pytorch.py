"""The PyTorch side of the benchmarks: one JSON command a line on stdin, one JSON answer a line on stdout. See run.ts."""
import json
import os
import resource
import struct
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from pytorch_resnet import ResNet18

torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
DTYPES = {"F32": torch.float32, "I64": torch.int64}


def load(path):
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(size))
        body = bytearray(f.read())
    tensors = {}
    for name, it in header.items():
        if name == "__metadata__":
            continue
        start, end = it["data_offsets"]
        tensors[name] = torch.frombuffer(body[start:end], dtype=DTYPES[it["dtype"]]).clone().reshape(it["shape"])
    return tensors


def double_conv(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class UNet(nn.Module):
    def __init__(self, inputs=3, classes=2, base=32, depth=4):
        super().__init__()
        widths = [base * 2**i for i in range(depth + 1)]
        self.down = nn.ModuleList([double_conv(inputs if i == 0 else widths[i - 1], widths[i]) for i in range(depth)])
        self.bottom = double_conv(widths[depth - 1], widths[depth])
        self.up = nn.ModuleList([nn.ConvTranspose2d(widths[i + 1], widths[i], 2, 2) for i in reversed(range(depth))])
        self.merge = nn.ModuleList([double_conv(2 * widths[i], widths[i]) for i in reversed(range(depth))])
        self.head = nn.Conv2d(base, classes, 1)

    def forward(self, x):
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, merge in zip(self.up, self.merge):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


def mlp():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def training(make, optimizer, channels_last=False):
    def build(t):
        model = make()
        weights = [v for k, v in sorted(t.items()) if k.startswith("model.")]
        own = list(model.state_dict().values())
        assert len(weights) == len(own), (len(weights), len(own))
        with torch.no_grad():  # by position: the names of the containers may differ
            for mine, given in zip(own, weights):
                mine.copy_(given)
        x, y = t["x"], t["y"]
        if channels_last:
            model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        opt = optimizer(model.parameters())

        def step():
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            return loss

        return step, lambda r: [r.item()]

    return build


def sampled(*tensors):
    out = []
    for t in tensors:
        flat = t.detach().flatten()
        out += flat[:: max(1, flat.numel() // 16)][:16].tolist()
    return out


def both_ways(fn):
    def build(t):
        x = t["x"].requires_grad_()

        def step():
            x.grad = None
            y = fn(x, t)
            y.backward(t["g"]) if y.dim() else y.backward()
            return y

        return step, lambda y: sampled(y, x.grad)

    return build


def forward_only(fn):
    def build(t):
        def step():
            with torch.no_grad():
                return fn(t["x"], t)

        return step, lambda y: sampled(y)

    return build


def tiny(t):
    x, y = t["x"].requires_grad_(), t["g"]

    def step():
        for _ in range(1000):
            r = x + y
        return r

    return step, lambda r: sampled(r)


def sgd(p):
    return torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=5e-4)


def adamw(p):
    return torch.optim.AdamW(p, lr=1e-3)


ROWS = {
    "tiny_add_1000": tiny,
    "mlp_step": training(mlp, adamw),
    "resnet18_step": training(ResNet18, sgd),
    "resnet18_step_channels_last": training(ResNet18, sgd, True),
    "unet_step": training(UNet, sgd),
    "unet_step_channels_last": training(UNet, sgd, True),
    "add_16m": forward_only(lambda x, t: x + t["g"]),
    "mul_16m": forward_only(lambda x, t: x * t["g"]),
    "exp_16m": forward_only(lambda x, t: torch.exp(x)),
    "relu_16m": both_ways(lambda x, t: F.relu(x)),
    "gelu_16m": both_ways(lambda x, t: F.gelu(x)),
    "tanh_16m": both_ways(lambda x, t: torch.tanh(x)),
    "sigmoid_16m": both_ways(lambda x, t: torch.sigmoid(x)),
    "sum_16m": forward_only(lambda x, t: x.sum()),
    "mean_rows_16m": forward_only(lambda x, t: x.mean(1)),
    "softmax_16m": both_ways(lambda x, t: F.softmax(x, 1)),
    "cross_entropy_16m": both_ways(lambda x, t: F.cross_entropy(x, t["y"])),
    "batch_norm_16m": both_ways(lambda x, t: F.batch_norm(x, None, None, t["w"], t["b"], True)),
    "batch_norm_16m_channels_last": both_ways(lambda x, t: F.batch_norm(x, None, None, t["w"], t["b"], True)),
    "layer_norm_16m": both_ways(lambda x, t: F.layer_norm(x, [x.shape[1]], t["w"], t["b"])),
}

print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
current = None
for line in sys.stdin:
    command = json.loads(line)
    if command["do"] == "load":
        tensors = load(command["path"])
        if command["name"] == "batch_norm_16m_channels_last":
            for key in ("x", "g"):
                tensors[key] = tensors[key].to(memory_format=torch.channels_last)
        current, check = ROWS[command["name"]](tensors)
        values = []
        for _ in range(command["checks"]):
            values += check(current())
        print(json.dumps({"values": values}), flush=True)
    elif command["do"] == "time":
        start = time.perf_counter()
        for _ in range(command["steps"]):
            current()
        print(json.dumps({"ms": (time.perf_counter() - start) * 1000 / command["steps"]}), flush=True)
    elif command["do"] == "peak":
        print(json.dumps({"mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)
