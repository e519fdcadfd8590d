// Starting kernels, the same way for nvcc and for the emulated build (emulation/), and shared memory.
#pragma once
#include <utility>

#include "runtime.h"

namespace dg {

inline constexpr int kThreads = 256;

// Starts `kernel` on the current stream. `name` is the kernel's name in errors and reports.
template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A));
#ifdef __CUDACC__
  if (shared > 48 << 10) check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)), name);
  kernel<<<grid, block, shared, current_stream()>>>(static_cast<P>(std::forward<A>(args))...);
#else
  emulation::launch(name, kernel, grid, block, shared, current_stream(), std::forward<A>(args)...);
#endif
  launched(name);
}

}  // namespace dg

// Shared memory of fixed size: DG_SHARED(float[32][33], tile); and that of the launch: DG_DYNAMIC_SHARED(float, tile) declares a pointer.
#ifdef __CUDACC__
#define DG_SHARED(type, name) __shared__ std::type_identity_t<type> name
#define DG_DYNAMIC_SHARED(type, name)                              \
  extern __shared__ __align__(16) unsigned char dg_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(dg_dynamic_shared)
#else
#define DG_SHARED(type, name) auto& name = emulation::shared<std::type_identity_t<type>>([] {})
#define DG_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(emulation::dynamic_shared())
#endif
