"""The PyTorch side of the benchmarks: one JSON command a line on stdin, one JSON answer a line on stdout. See run.ts."""
import inspect
import json
import os
import resource
import struct
import sys
import time

import torch
import torch.nn.functional as F
from pytorch_bert import BertClassifier
from pytorch_convolution import ROWS as CONVOLUTION_ROWS
from pytorch_models import UNet, mlp
from pytorch_pix2pix import Generator, PatchGan
from pytorch_resnet import ResNet18
from pytorch_row import PLAIN, How, both_ways, forward_only, sampled
from pytorch_shufflenet import ShuffleNetV2

THREADS = int(os.environ.get("BENCH_THREADS", "2"))
torch.set_num_threads(THREADS)
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


def weights(models, t):
    """Gives the parameters and buffers of the models the values of the file, by position: the names of the containers may differ."""
    given = [v for k, v in sorted(t.items()) if k.startswith("model.")]
    own = [v for model in models for v in model.state_dict().values()]
    assert len(given) == len(own), (len(given), len(own))
    with torch.no_grad():
        for mine, value in zip(own, given):
            mine.copy_(value)


def training(make, optimizer):
    def build(t, how=PLAIN):
        model = make()
        weights([model], t)
        model, x, y = how.layout(model), how.layout(t["x"]), t["y"]
        opt = optimizer(model.parameters())
        forward = how.ready(lambda x, y: F.cross_entropy(model(x), y))

        def step():
            opt.zero_grad()
            loss = forward(x, y)
            loss.backward()
            opt.step()
            return loss

        return step, lambda r: [r.item()]

    return build


def inference(make):
    def build(t, how=PLAIN):
        model = make().eval()
        weights([model], t)
        model, x = how.layout(model), how.layout(t["x"])
        forward = how.ready(model)

        def step():
            with torch.inference_mode():
                return forward(x)

        return step, lambda y: sampled(y)

    return build


def pix2pix(t, how=PLAIN):
    """A step of the discriminator, then one of the generator, as the authors' implementation has it."""
    generator, judge = Generator(dropout=False), PatchGan()
    weights([generator, judge], t)
    generator, judge, x, y = how.layout(generator), how.layout(judge), how.layout(t["x"]), how.layout(t["y"])
    for_g, for_d = (torch.optim.Adam(m.parameters(), lr=2e-4, betas=(0.5, 0.999)) for m in (generator, judge))
    make, score = how.ready(generator), how.ready(lambda a, b: judge(torch.cat([a, b], 1)))

    def bce(scores, real):
        return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, real))

    def step():
        made = make(x)
        for p in judge.parameters():
            p.requires_grad_(True)
        for_d.zero_grad()
        loss_d = (bce(score(x, y), 1.0) + bce(score(x, made.detach()), 0.0)) * 0.5
        loss_d.backward()
        for_d.step()
        for p in judge.parameters():
            p.requires_grad_(False)
        for_g.zero_grad()
        loss_g = bce(score(x, made), 1.0) + F.l1_loss(made, y) * 100
        loss_g.backward()
        for_g.step()
        return torch.stack([loss_d.detach(), loss_g.detach()])

    return step, lambda r: r.tolist()


def tiny(t):
    x, y = t["x"].requires_grad_(), t["g"]

    def step():
        for _ in range(1000):
            r = x + y
        return r

    return step, lambda r: sampled(r)


def attention(causal):
    return both_ways(lambda q, t: F.scaled_dot_product_attention(q, t["k"], t["v"], is_causal=causal), "qkv")


def sgd(p, lr=0.01):
    return torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=5e-4)


def adamw(p):
    return torch.optim.AdamW(p, lr=1e-3)


SPATIAL = {"pix2pix_step", "shufflenet_step", "conv3x3_forward", *CONVOLUTION_ROWS}
ROWS = {
    **CONVOLUTION_ROWS,
    "tiny_add_1000": tiny,
    "mlp_step": training(mlp, adamw),
    "mlp_step_compiled": training(mlp, adamw),
    "resnet18_step": training(ResNet18, sgd),
    "resnet18_step_compiled": training(ResNet18, sgd),
    "unet_step": training(UNet, sgd),
    "pix2pix_step": pix2pix,
    "shufflenet_step": training(lambda: ShuffleNetV2(classes=10), lambda p: sgd(p, 0.0002)),
    "resnet18_infer_32": inference(ResNet18),
    "resnet18_infer_224": inference(lambda: ResNet18(cifar=False, classes=1000)),
    "matmul_1024": forward_only(lambda x, t: x @ t["g"]),
    "conv3x3_forward": forward_only(lambda x, t: F.conv2d(x, t["w"], padding=1)),
    "bert_small_step": training(BertClassifier, adamw),
    "attention_512": attention(False),
    "attention_512_causal": attention(True),
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


def variants(name):
    """Ways of doing a row that its builder knows."""
    if "how" not in inspect.signature(ROWS[name]).parameters:
        return ["default"]
    spatial = name in SPATIAL or name.startswith(("resnet", "unet"))
    compiles = hasattr(torch, "compile") and name not in CONVOLUTION_ROWS  # single layers, which it calls as they are
    return ["default"] + ["channels_last"] * spatial + ["compile"] * compiles


def answer(command):
    if command["do"] == "load":
        tensors = load(command["path"])
        if command["name"] == "batch_norm_16m_channels_last":
            for key in ("x", "g"):
                tensors[key] = tensors[key].to(memory_format=torch.channels_last)
        how = command.get("as", "default")
        if command["name"] not in ROWS or how not in variants(command["name"]):
            return {"why": None}
        build = ROWS[command["name"]]
        try:
            step, check = build(tensors) if how == "default" else build(tensors, How(how))
            values = []
            for _ in range(command["checks"]):
                values += check(step())
        except Exception as error:  # torch.compile without a compiler, or of what it does not take
            if how != "compile":
                raise
            return {"why": f"torch.compile: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}
        loaded[how] = step
        return {"values": values}
    if command["do"] == "time":
        torch.set_num_threads(command.get("threads", THREADS))
        step = loaded[command.get("as", "default")]
        start = time.perf_counter()
        for _ in range(command["steps"]):
            step()
        return {"ms": (time.perf_counter() - start) * 1000 / command["steps"]}
    if command["do"] == "peak":
        return {"mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    raise ValueError(command["do"])


loaded = {}
if __name__ == "__main__":
    print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
