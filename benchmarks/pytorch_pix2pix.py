"""The networks of pix2pix, as `Pix2PixGenerator` and `PatchGan` have them (after the authors' PyTorch implementation)."""
import torch
import torch.nn as nn


class SkipBlock(nn.Module):
    def __init__(self, outer, inner, inside=None, source=None, dropout=False):
        super().__init__()
        self.outermost = source is not None
        down = nn.Conv2d(outer if source is None else source, inner, 4, 2, 1, bias=False)
        up = nn.ConvTranspose2d(inner if inside is None else inner * 2, outer, 4, 2, 1, bias=self.outermost)
        layers = [down] if self.outermost else [nn.LeakyReLU(0.2, True), down]
        if not self.outermost and inside is not None:
            layers.append(nn.BatchNorm2d(inner))
        if inside is not None:
            layers.append(inside)
        layers += [nn.ReLU(True), up, nn.Tanh() if self.outermost else nn.BatchNorm2d(outer)]
        if dropout:
            layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class Generator(nn.Module):
    def __init__(self, inputs=3, outputs=3, depth=8, base=64, dropout=True):
        super().__init__()
        block = SkipBlock(base * 8, base * 8)
        for _ in range(5, depth):
            block = SkipBlock(base * 8, base * 8, block, dropout=dropout)
        for width in (4, 2, 1):
            block = SkipBlock(base * width, base * width * 2, block)
        self.model = SkipBlock(outputs, base, block, source=inputs)

    def forward(self, x):
        return self.model(x)


class PatchGan(nn.Module):
    def __init__(self, inputs=6, base=64, layers=3):
        super().__init__()
        width = [base * min(2**i, 8) for i in range(layers + 1)]
        parts = [nn.Conv2d(inputs, base, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for i in range(1, layers + 1):
            parts += [nn.Conv2d(width[i - 1], width[i], 4, 2 if i < layers else 1, 1, bias=False), nn.BatchNorm2d(width[i]), nn.LeakyReLU(0.2, True)]
        self.model = nn.Sequential(*parts, nn.Conv2d(width[layers], 1, 4, 1, 1))

    def forward(self, x):
        return self.model(x)
