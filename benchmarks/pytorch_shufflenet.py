"""ShuffleNet V2, as `shufflenetV2X1_0` has it (torchvision's, so that it need not be installed)."""
import torch
import torch.nn as nn


def pointwise(inputs, outputs):
    return [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def depthwise(channels, stride):
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]


class Unit(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        half = outputs // 2
        self.branch1 = nn.Sequential(*depthwise(inputs, stride), *pointwise(inputs, half)) if stride > 1 else None
        self.branch2 = nn.Sequential(*pointwise(inputs if stride > 1 else half, half), *depthwise(half, stride), *pointwise(half, half))

    def forward(self, x):
        if self.branch1 is None:
            kept, x = x.chunk(2, 1)
        y = torch.cat([kept if self.branch1 is None else self.branch1(x), self.branch2(x)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ShuffleNetV2(nn.Module):
    def __init__(self, channels=(24, 116, 232, 464, 1024), classes=1000):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, channels[0], 3, 2, 1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for i, repeats in enumerate((4, 8, 4)):
            inputs, outputs = channels[i], channels[i + 1]
            setattr(self, f"stage{i + 2}", nn.Sequential(Unit(inputs, outputs, 2), *[Unit(outputs, outputs, 1) for _ in range(repeats - 1)]))
        self.conv5 = nn.Sequential(*pointwise(channels[3], channels[4]))
        self.fc = nn.Linear(channels[4], classes)

    def forward(self, x):
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        return self.fc(self.conv5(x).mean([2, 3]))
