"""BERT as Hugging Face's transformers builds it (with PyTorch's fused attention), and a classifier of its pooled output; no dropout."""
import torch.nn as nn
import torch.nn.functional as F


class Layer(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)
        self.out, self.norm1 = nn.Linear(size, size), nn.LayerNorm(size, eps=1e-12)
        self.up, self.down, self.norm2 = nn.Linear(size, 4 * size), nn.Linear(4 * size, size), nn.LayerNorm(size, eps=1e-12)

    def forward(self, x):
        q, k, v = (f(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = self.norm1(self.out(y) + x)
        return self.norm2(self.down(F.gelu(self.up(x))) + x)


class BertClassifier(nn.Module):
    def __init__(self, words=30522, size=512, layers=4, heads=8, positions=512, classes=2):
        super().__init__()
        self.words, self.positions, self.segments = nn.Embedding(words, size, 0), nn.Embedding(positions, size), nn.Embedding(2, size)
        self.norm = nn.LayerNorm(size, eps=1e-12)
        self.layers = nn.ModuleList([Layer(size, heads) for _ in range(layers)])
        self.pooler, self.head = nn.Linear(size, size), nn.Linear(size, classes)

    def forward(self, ids):
        x = self.norm(self.words(ids) + self.segments.weight[0] + self.positions.weight[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x)
        return self.head(self.pooler(x[:, 0]).tanh())
