// Gloo's own all-reduce, called directly: the other side of all_reduce.ts. A line "bytes times" in, a line with the milliseconds of one all-reduce out.
//
//   all_reduce RANK SIZE FOLDER
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int, char** args) {
  gloo::transport::tcp::attr address;
  address.hostname = "127.0.0.1";
  auto device = gloo::transport::tcp::CreateDevice(address);
  auto store = gloo::rendezvous::FileStore(args[3]);
  auto context = std::make_shared<gloo::rendezvous::Context>(atoi(args[1]), atoi(args[2]));
  context->connectFullMesh(store, device);
  std::puts("ready");
  std::fflush(stdout);
  long bytes = 0;
  int times = 0;
  uint32_t tag = 0;
  while (std::scanf("%ld %d", &bytes, &times) == 2) {
    std::vector<float> values(static_cast<size_t>(bytes) / sizeof(float));
    gloo::AllreduceOptions options(context);
    options.setOutput(values.data(), values.size());
    options.setReduceFunction([](void* c, const void* a, const void* b, size_t n) { gloo::sum<float>(c, a, b, n); });
    gloo::BarrierOptions barrier(context);
    barrier.setTag(++tag);
    gloo::barrier(barrier);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < times; i++) {
      options.setTag(++tag);
      gloo::allreduce(options);
    }
    std::printf("%.6f\n", std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / times);
    std::fflush(stdout);
  }
}
