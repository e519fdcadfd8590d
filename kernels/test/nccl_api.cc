// Compares kernels/nccl/api.h with NCCL's own header: values, layouts and the type of every function. Compiled by tools/cuda_check.ts where there is a toolkit.
#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include <type_traits>

namespace ours {
#include "../nccl/api.h"
inline ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
}  // namespace ours

#undef NCCL_CONFIG_INITIALIZER
#include <nccl.h>

#define SAME(name) static_assert(long(ours::name) == long(::name), #name)
SAME(ncclSuccess);
SAME(ncclUnhandledCudaError);
SAME(ncclSystemError);
SAME(ncclInternalError);
SAME(ncclInvalidArgument);
SAME(ncclInvalidUsage);
SAME(ncclRemoteError);
SAME(ncclInProgress);
SAME(ncclSum);
SAME(ncclProd);
SAME(ncclMax);
SAME(ncclMin);
SAME(ncclAvg);
SAME(ncclUint8);
SAME(ncclInt32);
SAME(ncclInt64);
SAME(ncclFloat16);
SAME(ncclFloat32);
SAME(ncclFloat64);
SAME(ncclBfloat16);
static_assert(sizeof(ours::ncclUniqueId) == sizeof(::ncclUniqueId) && alignof(ours::ncclUniqueId) == alignof(::ncclUniqueId));
static_assert(sizeof(ours::ncclResult_t) == sizeof(::ncclResult_t) && sizeof(ours::ncclRedOp_t) == sizeof(::ncclRedOp_t) &&
              sizeof(ours::ncclDataType_t) == sizeof(::ncclDataType_t));
static_assert(NCCL_CONFIG_UNDEF_INT == INT_MIN && NCCL_CONFIG_UNDEF_PTR == nullptr && NCCL_API_MAGIC == 0xcafebeef);
static_assert(NCCL_LEAST_VERSION == NCCL_VERSION(2, 18, 0) && NCCL_LEAST_VERSION <= NCCL_VERSION_CODE);

#define PLACED(field)                                                                                                        \
  static_assert(offsetof(ours::ncclConfig_t, field) == offsetof(::ncclConfig_t, field) &&                                  \
                    std::is_same_v<decltype(ours::ncclConfig_t::field), decltype(::ncclConfig_t::field)>,                  \
                #field)
PLACED(size);
PLACED(magic);
PLACED(version);
PLACED(blocking);
PLACED(cgaClusterSize);
PLACED(minCTAs);
PLACED(maxCTAs);
PLACED(netName);
PLACED(splitShare);

// The lists of functions, with the types of the real header.
#define FUNCTION(name, parameters) static_assert(std::is_same_v<decltype(&::name), ncclResult_t(*) parameters>, #name);
#define TEXT(name, parameters) static_assert(std::is_same_v<decltype(&::name), const char*(*) parameters>, #name);
NCCL_FUNCTIONS(FUNCTION)
NCCL_TEXTS(TEXT)
