// The rest of the run-time API: devices, memory, copies, errors.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>

#include "streams.h"

using namespace emulation;

namespace {

std::map<uintptr_t, size_t> pinned;

bool inside(const void* memory, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  return in_arena(at) && bytes <= arena_end - at && all_allocated(state_at(at), bytes);
}

bool is_pinned(const void* memory, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  auto next = pinned.upper_bound(at);
  return next != pinned.begin() && at + bytes <= std::prev(next)->first + std::prev(next)->second;
}

void copy_states(void* to, const void* from, size_t bytes) {
  std::memmove(state_at(reinterpret_cast<uintptr_t>(to)), state_at(reinterpret_cast<uintptr_t>(from)), bytes);
}

void bad_copy(const char* what, const void* memory, size_t bytes) {
  report(text("%s: %zu bytes of device memory are not live, %s", what, bytes, where(reinterpret_cast<uintptr_t>(memory)).c_str()));
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  *count = settings().devices;
  return settings().devices > 0 && start() ? cudaSuccess : error(cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= settings().devices) return error(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated CUDA device");
  properties->totalGlobalMem = size_t(settings().memory);
  properties->sharedMemPerBlock = 48 << 10;
  properties->multiProcessorCount = 4;
  properties->major = 9;
  properties->maxThreadsPerMultiProcessor = 2048;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  if (device < 0 || device >= settings().devices) return error(cudaErrorInvalidDevice);
  *value = 1000000;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= settings().devices || !start()) return error(cudaErrorInvalidDevice);
  current = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  Lock lock(mutex);
  for (cudaStream_t stream : std::vector(streams))
    if (stream->device == current && !stream->capture)
      if (const cudaError_t status = drain(stream)) return status;
  return pending;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Lock lock(mutex);
  *total = size_t(settings().memory);
  *free = size_t(settings().memory - devices[current].used);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  Lock lock(mutex);
  if (!start()) return error(cudaErrorMemoryAllocation);
  for (cudaStream_t stream : streams)  // only a relaxed capture allows it
    if (stream->capture && !stream->relaxed) return error(cudaErrorStreamCaptureUnsupported);
  Device& device = devices[current];
  const int64_t wanted = int64_t((bytes + kGuard + 511) / 512 * 512);
  if (device.used + int64_t(bytes) > settings().memory) return error(cudaErrorMemoryAllocation);
  uintptr_t at = arena + uintptr_t(current) * device_span + 4096;
  for (const auto& [start, size] : device.segments) {
    if (start - at >= uintptr_t(wanted)) break;
    at = start + uintptr_t(size) + kGuard;
    at = (at + 511) / 512 * 512;
  }
  if (at + uintptr_t(wanted) > arena + uintptr_t(current + 1) * device_span) return error(cudaErrorMemoryAllocation);
  device.segments[at] = int64_t(bytes);
  device.used += int64_t(bytes);
  mark(at, int64_t(bytes), kFresh);
  live[at] = int64_t(bytes);
  *memory = reinterpret_cast<void*>(at);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  Lock lock(mutex);
  if (!memory) return cudaSuccess;
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  if (!in_arena(at)) return error(cudaErrorInvalidValue);
  Device& device = devices[device_of(at)];
  const auto it = device.segments.find(at);
  if (it == device.segments.end()) return error(cudaErrorInvalidValue);
  for (cudaStream_t stream : std::vector(streams))
    if (!stream->capture) drain(stream);  // cudaFree waits for the device
  mark(at, it->second, kFreed);
  live.erase(at);
  device.used -= it->second;
  const uintptr_t page = (at + 4095) & ~uintptr_t(4095), end = (at + uintptr_t(it->second)) & ~uintptr_t(4095);
  if (end > page) madvise(reinterpret_cast<void*>(page), end - page, MADV_DONTNEED);
  device.segments.erase(it);
  return cudaSuccess;
}

cudaError_t cudaHostRegister(void* memory, size_t bytes, unsigned) {
  Lock lock(mutex);
  if (!memory || !bytes) return error(cudaErrorInvalidValue);
  if (is_pinned(memory, 1)) return error(cudaErrorHostMemoryAlreadyRegistered);
  pinned[reinterpret_cast<uintptr_t>(memory)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaHostUnregister(void* memory) {
  Lock lock(mutex);
  return pinned.erase(reinterpret_cast<uintptr_t>(memory)) ? cudaSuccess : error(cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  Lock lock(mutex);
  if (!stream) return error(cudaErrorInvalidResourceHandle);
  if (bytes == 0) return cudaSuccess;
  if (kind == cudaMemcpyHostToDevice) {
    if (is_pinned(from, bytes))
      return push(stream, {[=] {
        if (!inside(to, bytes)) return bad_copy("copy to the device", to, bytes);
        std::memcpy(to, from, bytes);
        mark(reinterpret_cast<uintptr_t>(to), int64_t(bytes), kWritten);
      }});
    if (stream->capture) return error(cudaErrorStreamCaptureUnsupported);
    // Pageable memory is staged before the call returns.
    const auto staged = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    return push(stream, {[=] {
      if (!inside(to, bytes)) return bad_copy("copy to the device", to, bytes);
      std::memcpy(to, staged->data(), bytes);
      mark(reinterpret_cast<uintptr_t>(to), int64_t(bytes), kWritten);
    }});
  }
  if (kind == cudaMemcpyDeviceToHost) {
    const bool waits = !is_pinned(to, bytes);
    if (waits && stream->capture) return error(cudaErrorStreamCaptureUnsupported);
    push(stream, {[=] {
      if (!inside(from, bytes)) return bad_copy("copy from the device", from, bytes);
      std::memcpy(to, from, bytes);
    }});
    return waits ? drain(stream) : cudaSuccess;
  }
  if (kind != cudaMemcpyDeviceToDevice) return error(cudaErrorInvalidValue);
  return push(stream, {[=] {
    if (!inside(from, bytes)) return bad_copy("copy", from, bytes);
    if (!inside(to, bytes)) return bad_copy("copy", to, bytes);
    std::memmove(to, from, bytes);
    copy_states(to, from, bytes);
  }});
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  Lock lock(mutex);
  if (bytes == 0) return cudaSuccess;
  return push(stream, {[=] {
    if (!inside(memory, bytes)) return bad_copy("memset", memory, bytes);
    std::memset(memory, value, bytes);
    mark(reinterpret_cast<uintptr_t>(memory), int64_t(bytes), kWritten);
  }});
}

cudaError_t cudaGetLastError() {
  Lock lock(mutex);
  return std::exchange(pending, cudaSuccess);
}

const char* cudaGetErrorString(cudaError_t code) {
  switch (code) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorIllegalAddress: return report_text.c_str();
    case cudaErrorHostMemoryAlreadyRegistered: return "part or all of the requested memory range is already mapped";
    case cudaErrorHostMemoryNotRegistered: return "pointer does not correspond to a registered memory region";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    default: return "unspecified launch failure";
  }
}
