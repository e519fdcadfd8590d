"""What the rows of pytorch.py are made of."""
import torch


class How:
    """How PyTorch does a row: its memory format, and whether torch.compile has it."""

    def __init__(self, name="default"):
        self.channels_last, self.compiled = name == "channels_last", name == "compile"

    def layout(self, x):
        """A model or a tensor in the memory format, which tensors of four axes have."""
        flat = isinstance(x, torch.Tensor) and x.dim() != 4
        return x.to(memory_format=torch.channels_last) if self.channels_last and not flat else x

    def ready(self, fn):
        return torch.compile(fn) if self.compiled else fn


PLAIN = How()


def sampled(*tensors):
    out = []
    for t in tensors:
        flat = t.detach().flatten()
        out += flat[:: max(1, flat.numel() // 16)][:16].tolist()
    return out


def both_ways(fn, leaves="x"):
    """fn(first leaf, all tensors) and the gradients of the leaves."""

    def build(t, how=PLAIN):
        t = {name: how.layout(value) for name, value in t.items()}
        wanted, ready = [t[name].requires_grad_() for name in leaves], how.ready(fn)

        def step():
            for leaf in wanted:
                leaf.grad = None
            y = ready(wanted[0], t)
            y.backward(t["g"]) if y.dim() else y.backward()
            return y

        return step, lambda y: sampled(y, *(leaf.grad for leaf in wanted))

    return build


def forward_only(fn):
    def build(t, how=PLAIN):
        t, ready = {name: how.layout(value) for name, value in t.items()}, how.ready(fn)

        def step():
            with torch.no_grad():
                return ready(t["x"], t)

        return step, lambda y: sampled(y)

    return build
