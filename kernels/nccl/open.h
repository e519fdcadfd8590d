/* What the library of process groups over NCCL exports besides the functions of ../communicator.h. Mirrored in ffi/communicator_symbols.ts. */
#ifndef DINOGRAD_NCCL_OPEN_H
#define DINOGRAD_NCCL_OPEN_H
#include "../communicator.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens dinograd's CUDA library (for GPUs or emulated) and NCCL, or a stand-in for it; once, before anything else. version: NCCL's, as 23007 for 2.30.7. */
DG_EXPORT int32_t dg_nccl_open(const char* cuda_path, const char* nccl_path);
DG_EXPORT int32_t dg_nccl_version(void);

#ifdef __cplusplus
}
#endif
#endif
