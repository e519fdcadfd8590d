"""The PyTorch side of benchmarks/rows/convolution.ts."""
import torch
import torch.nn.functional as F


def sampled(*tensors):
    out = []
    for t in tensors:
        flat = t.detach().flatten()
        out += flat[:: max(1, flat.numel() // 16)][:16].tolist()
    return out


def layer(fn, layout):
    def build(t):
        x, g = (t[k].contiguous(memory_format=layout) for k in ("x", "g"))
        leaves = [x.requires_grad_()]
        if "w" in t:
            leaves.append(t["w"].contiguous(memory_format=layout).requires_grad_())

        def step():
            for leaf in leaves:
                leaf.grad = None
            y = fn(*leaves)
            y.backward(g)
            return y

        return step, lambda y: sampled(y, *(leaf.grad for leaf in leaves))

    return build


def conv(stride=1, padding=0, groups=1):
    return lambda x, w: F.conv2d(x, w, None, stride, padding, 1, groups)


def transposed(stride, padding=0):
    return lambda x, w: F.conv_transpose2d(x, w, None, stride, padding)


FUNCTIONS = {
    "conv_3x3": conv(1, 1),
    "conv_3x3_small": conv(1, 1),
    "conv_3x3_large": conv(1, 1),
    "conv_3x3_s2": conv(2, 1),
    "conv_4x4_s2": conv(2, 1),
    "conv_4x4": conv(1, 1),
    "conv_transposed_4x4_s2": transposed(2, 1),
    "conv_transposed_2x2_s2": transposed(2),
    "conv_1x1": conv(),
    "conv_1x1_s2": conv(2),
    "conv_1x1_two": conv(),
    "conv_stem": conv(1, 1),
    "conv_7x7_s2": conv(2, 3),
    "conv_depthwise": conv(1, 1, 116),
    "conv_depthwise_s2": conv(2, 1, 58),
    "conv_grouped_32": conv(1, 1, 32),
    "conv_grouped_4": conv(1, 1, 4),
    "conv_grouped_1x1": conv(1, 0, 3),
    "max_pool_2": lambda x: F.max_pool2d(x, 2),
    "max_pool_3_s2": lambda x: F.max_pool2d(x, 3, 2, 1),
    "avg_pool_2": lambda x: F.avg_pool2d(x, 2),
    "avg_pool_3_s1": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "avg_pool_all": lambda x: F.adaptive_avg_pool2d(x, 1),
}
ROWS = {name: layer(fn, torch.contiguous_format) for name, fn in FUNCTIONS.items()}
ROWS |= {f"{name}_channels_last": layer(fn, torch.channels_last) for name, fn in FUNCTIONS.items()}
