"""The PyTorch side of benchmarks/rows/convolution.ts."""
import torch.nn.functional as F
from pytorch_row import both_ways


def conv(stride=1, padding=0, groups=1):
    return both_ways(lambda x, t: F.conv2d(x, t["w"], None, stride, padding, 1, groups), "xw")


def transposed(stride, padding=0):
    return both_ways(lambda x, t: F.conv_transpose2d(x, t["w"], None, stride, padding), "xw")


ROWS = {
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
    "max_pool_2": both_ways(lambda x, t: F.max_pool2d(x, 2)),
    "max_pool_3_s2": both_ways(lambda x, t: F.max_pool2d(x, 3, 2, 1)),
    "avg_pool_2": both_ways(lambda x, t: F.avg_pool2d(x, 2)),
    "avg_pool_3_s1": both_ways(lambda x, t: F.avg_pool2d(x, 3, 1, 1)),
    "avg_pool_all": both_ways(lambda x, t: F.adaptive_avg_pool2d(x, 1)),
}
