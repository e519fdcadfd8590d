// Kernels with a planted bug each, beside the right form: `emulation_tests NAME` runs one and prints what the emulator reports, or "nothing".
// tests/emulation_test.ts knows what each must report.
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "../cuda/block.h"

// The little of the library's run time that launch() needs.
namespace dg {
static cudaStream_t stream;
cudaStream_t current_stream() { return stream; }
void launched(const char*) {}
void check_cuda(cudaError_t, const char*) {}
Region storage_region(uint32_t, const char*) { return {}; }
uint32_t library_device_type() { return 1; }
void require_device(uint32_t, const char*) {}
}  // namespace dg

using namespace dg;

namespace {

constexpr int kCount = 256;

template <bool barrier>
__global__ void reverse(float* out, const float* in) {
  DG_SHARED(float[kCount], tile);
  tile[threadIdx.x] = 0;
  __syncthreads();
  tile[threadIdx.x] = in[threadIdx.x];
  if (barrier) __syncthreads();
  out[threadIdx.x] = tile[kCount - 1 - threadIdx.x];
}

__global__ void copy_first(float* out, const float* in, int count) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) out[i] = in[i];
}

__global__ void copy_packed(float4* out, const char* in) { out[threadIdx.x] = reinterpret_cast<const float4*>(in)[threadIdx.x]; }

// One warp keeps its data to itself: __syncwarp is enough, and needed.
template <bool barrier>
__global__ void neighbours(float* out, const float* in) {
  DG_SHARED(float[kCount], tile);
  tile[threadIdx.x] = 0;
  __syncthreads();
  tile[threadIdx.x] = in[threadIdx.x];
  if (barrier) __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

__global__ void shared_unwritten(float* out) {
  DG_SHARED(float[kCount], tile);
  if (threadIdx.x < 100) tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void shared_outside(float* out) {
  DG_SHARED(float[kCount], tile);
  tile[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void half_barrier(float* out) {
  if (threadIdx.x < 128) __syncthreads();
  else __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void lost_lane(float* out) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 16);
}

// Every block adds to one place: a race between blocks unless it is atomic.
template <bool atomic>
__global__ void add_up(float* out) {
  if (threadIdx.x != 0) return;
  if (atomic) atomicAdd(out, 1.0f);
  else out[0] = out[0] + 1;
}

// Every thread stores `step` times its number, all to one place.
__global__ void store_one(int* out, int step) { out[0] = int(blockIdx.x * blockDim.x + threadIdx.x) * step + 7; }

// The same within a block, where a barrier comes before the read, or is forgotten.
template <bool barrier>
__global__ void flag(int* out) {
  DG_SHARED(int, found);
  if (threadIdx.x % 3 == 0) found = 1;
  if (barrier) __syncthreads();
  out[threadIdx.x] = found;
}

__global__ void report_all(Report bad) { bad(threadIdx.x); }

// Blocks of which the last one writes the result; those from `bad` on write outside first.
__global__ void last_writes(unsigned* counter, float* out, int bad) {
  if (int(blockIdx.x) >= bad) out[1000 + blockIdx.x] = 1;
  if (last_block(counter, gridDim.x) && threadIdx.x == 0) out[0] = float(gridDim.x);
}

float* device_memory(int count) {
  void* memory = nullptr;
  cudaMalloc(&memory, size_t(count) * 4);
  return static_cast<float*>(memory);
}

float* written(int count) {
  float* memory = device_memory(count);
  cudaMemsetAsync(memory, 0, size_t(count) * 4, stream);
  return memory;
}

void streams(bool wait) {
  cudaStream_t first = stream, second;
  cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
  float *a = written(kCount), *b = device_memory(kCount), *c = device_memory(kCount);
  launch("copy_first", copy_first, 1, kCount, 0, b, static_cast<const float*>(a), kCount);
  cudaEvent_t done;
  cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
  cudaEventRecord(done, first);
  if (wait) cudaStreamWaitEvent(second, done, 0);
  stream = second;
  launch("copy_first", copy_first, 1, kCount, 0, c, static_cast<const float*>(b), kCount);
  cudaStreamSynchronize(second);
  stream = first;
}

const char* taken_error() {
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? "nothing" : cudaGetErrorString(status);
}

// A kernel fails after some of its blocks were counted; the next one counts from 0.
void after_failure() {
  unsigned* const counter = reinterpret_cast<unsigned*>(written(1));
  float* const out = written(4);
  launch("last_writes", last_writes, 8, 32, 0, counter, out, 5);
  cudaDeviceSynchronize();
  std::printf("%s\n", taken_error());
  launch("last_writes", last_writes, 8, 32, 0, counter, out, 8);
  float result = 0;
  cudaMemcpyAsync(&result, out, sizeof result, cudaMemcpyDeviceToHost, stream);
  std::printf("%g\n", double(result));
}

void report_twice() {
  ReportSlot* const slot = reinterpret_cast<ReportSlot*>(written(sizeof(ReportSlot) / 4));
  launch("report_all", report_all, 3, 64, 0, Report{slot, 1});
}

int* integers(int count) { return reinterpret_cast<int*>(device_memory(count)); }

const std::map<std::string, std::function<void()>> cases = {
    {"barrier", [] { launch("reverse", reverse<true>, 1, kCount, 0, device_memory(kCount), static_cast<const float*>(written(kCount))); }},
    {"missing-barrier", [] { launch("reverse", reverse<false>, 1, kCount, 0, device_memory(kCount), static_cast<const float*>(written(kCount))); }},
    {"warp-barrier", [] { launch("neighbours", neighbours<true>, 1, kCount, 0, device_memory(kCount), static_cast<const float*>(written(kCount))); }},
    {"missing-warp-barrier",
     [] { launch("neighbours", neighbours<false>, 1, kCount, 0, device_memory(kCount), static_cast<const float*>(written(kCount))); }},
    {"inside", [] { launch("copy_first", copy_first, 2, kCount, 0, device_memory(300), static_cast<const float*>(written(300)), 300); }},
    {"write-outside", [] { launch("copy_first", copy_first, 2, kCount, 0, device_memory(299), static_cast<const float*>(written(300)), 300); }},
    {"read-outside", [] { launch("copy_first", copy_first, 2, kCount, 0, device_memory(300), static_cast<const float*>(written(299)), 300); }},
    {"read-before", [] { launch("copy_first", copy_first, 1, 1, 0, device_memory(1), static_cast<const float*>(written(1) - 1), 1); }},
    {"unwritten", [] { launch("copy_first", copy_first, 1, kCount, 0, device_memory(kCount), static_cast<const float*>(device_memory(kCount)), kCount); }},
    {"shared-unwritten", [] { launch("shared_unwritten", shared_unwritten, 1, kCount, 0, device_memory(kCount)); }},
    {"shared-outside", [] { launch("shared_outside", shared_outside, 1, kCount, 0, device_memory(kCount)); }},
    {"misaligned",
     [] { launch("copy_packed", copy_packed, 1, 8, 0, reinterpret_cast<float4*>(device_memory(32)), reinterpret_cast<const char*>(written(64)) + 4); }},
    {"host-pointer",
     [] {
       static std::vector<float> host(kCount);
       launch("copy_first", copy_first, 1, kCount, 0, device_memory(kCount), static_cast<const float*>(host.data()), kCount);
     }},
    {"host-access",
     [] {
       volatile float* memory = written(4);
       memory[1] = 2;
     }},
    {"other-device",
     [] {
       cudaSetDevice(1);
       float* far = device_memory(kCount);
       cudaSetDevice(0);
       launch("copy_first", copy_first, 1, kCount, 0, far, static_cast<const float*>(written(kCount)), kCount);
     }},
    {"freed",
     [] {
       float *memory = written(kCount), *out = device_memory(kCount);
       cudaFree(memory);
       launch("copy_first", copy_first, 1, kCount, 0, out, static_cast<const float*>(memory), kCount);
     }},
    {"divided-barrier", [] { launch("half_barrier", half_barrier, 1, kCount, 0, device_memory(kCount)); }},
    {"lost-lane", [] { launch("lost_lane", lost_lane, 1, 32, 0, device_memory(32)); }},
    {"atomic", [] { launch("add_up", add_up<true>, 64, 32, 0, written(1)); }},
    {"block-race", [] { launch("add_up", add_up<false>, 64, 32, 0, written(1)); }},
    {"same-value", [] { launch("store_one", store_one, 3, 64, 0, integers(1), 0); }},
    {"two-values", [] { launch("store_one", store_one, 1, 64, 0, integers(1), 1); }},
    {"two-values-of-blocks", [] { launch("store_one", store_one, 64, 1, 0, integers(1), 1); }},
    {"flag", [] { launch("flag", flag<true>, 1, 64, 0, integers(64)); }},
    {"flag-read-early", [] { launch("flag", flag<false>, 1, 64, 0, integers(64)); }},
    {"two-reports", report_twice},
    {"after-failure", after_failure},
    {"stream-wait", [] { streams(true); }},
    {"missing-stream-wait", [] { streams(false); }},
    {"too-many-threads", [] { launch("copy_first", copy_first, 1, 2048, 0, device_memory(1), static_cast<const float*>(written(1)), 1); }},
    {"grid-limit",
     [] {
       float* const memory = written(1);
       for (const dim3 grid : {dim3(1, 65536), dim3(1, 1, 65536), dim3(1u << 31), dim3(1)}) {
         launch("copy_first", copy_first, grid, 1, 0, device_memory(1), static_cast<const float*>(memory), 1);
         std::printf("%s\n", taken_error());
       }
     }},
    {"leak",
     [] {
       cudaFree(written(10));
       device_memory(25);
       std::printf("%s\n", emulation::leaks().c_str());
     }},
};

}  // namespace

int main(int count, char** names) {
  if (count != 2 || !cases.contains(names[1])) return 2;
  if (cudaSetDevice(0) != cudaSuccess) return 3;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cases.at(names[1])();
  cudaDeviceSynchronize();
  std::printf("%s\n", taken_error());
}
