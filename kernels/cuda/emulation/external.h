/* What the emulated CUDA library offers to stand-ins of other libraries (kernels/nccl/emulation/), besides the functions of abi.h. Plain C. */
#ifndef DINOGRAD_EMULATION_EXTERNAL_H
#define DINOGRAD_EMULATION_EXTERNAL_H
#include <stddef.h>
#include <stdint.h>

#include "../../abi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Work of a stream that takes time: `progress(context)` is called, one call at a time and in stream order, until it returns 1. Returns a cudaError_t. */
DG_EXPORT int32_t dg_emulated_progress(void* stream, int32_t (*progress)(void*), void* context);
/* For progress functions: reports an access to memory that is not live device memory or, for a read, was never written; a write marks it as written. */
DG_EXPORT void dg_emulated_access(const void* memory, size_t bytes, int32_t write, const char* what);
DG_EXPORT int32_t dg_emulated_device(void); /* the current device */
DG_EXPORT int32_t dg_emulated_device_of(const void* memory); /* the device that an address belongs to, -1 for none */

#ifdef __cplusplus
}
#endif
#endif
