"""PyTorch's side of ddp.ts: a rank of a DistributedDataParallel training over Gloo, a step a line on stdin."""
import json
import os
import sys
import time

import torch
import torch.distributed as dist
from pytorch_resnet import ResNet18
from torch.nn.parallel import DistributedDataParallel

rank, port, batch, size = (int(it) for it in sys.argv[1:5])
torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
model = DistributedDataParallel(ResNet18())
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
x = torch.randn(batch, 3, size, size)
print(json.dumps({"version": torch.__version__}), flush=True)
for _ in sys.stdin:
    dist.barrier()
    start = time.perf_counter()
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
    print(json.dumps({"ms": (time.perf_counter() - start) * 1000}), flush=True)
dist.destroy_process_group()
