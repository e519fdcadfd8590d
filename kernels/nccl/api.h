/* The part of NCCL's C API that dinograd uses, so that it compiles where NCCL is not installed. Names, values and layouts are those of NVIDIA's documentation
   and do not change within release 2; kernels/test/nccl_api.cpp compares them with the real header where there is one. */
#ifndef DINOGRAD_NCCL_API_H
#define DINOGRAD_NCCL_API_H
#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st* cudaStream_t;
typedef struct ncclComm* ncclComm_t;

#define NCCL_UNIQUE_ID_BYTES 128
typedef struct {
  char internal[NCCL_UNIQUE_ID_BYTES];
} ncclUniqueId;

typedef enum {
  ncclSuccess = 0,
  ncclUnhandledCudaError = 1,
  ncclSystemError = 2,
  ncclInternalError = 3,
  ncclInvalidArgument = 4,
  ncclInvalidUsage = 5,
  ncclRemoteError = 6,
  ncclInProgress = 7
} ncclResult_t;

typedef enum { ncclSum = 0, ncclProd = 1, ncclMax = 2, ncclMin = 3, ncclAvg = 4 } ncclRedOp_t;

typedef enum {
  ncclUint8 = 1,
  ncclInt32 = 2,
  ncclInt64 = 4,
  ncclFloat16 = 6,
  ncclFloat32 = 7,
  ncclFloat64 = 8,
  ncclBfloat16 = 9
} ncclDataType_t;

/* As of release 2.18; the library takes what a later one adds from its defaults. */
typedef struct {
  size_t size;
  unsigned int magic;
  unsigned int version;
  int blocking;
  int cgaClusterSize;
  int minCTAs;
  int maxCTAs;
  const char* netName;
  int splitShare;
} ncclConfig_t;

#define NCCL_LEAST_VERSION 21800
#define NCCL_CONFIG_INITIALIZER \
  {sizeof(ncclConfig_t), 0xcafebeef, NCCL_LEAST_VERSION, INT_MIN, INT_MIN, INT_MIN, INT_MIN, NULL, INT_MIN}

/* X(name, parameters): the functions, which all return an ncclResult_t. */
#define NCCL_FUNCTIONS(X)                                                                                                                        \
  X(ncclGetVersion, (int* version))                                                                                                              \
  X(ncclGetUniqueId, (ncclUniqueId * uniqueId))                                                                                                  \
  X(ncclCommInitRankConfig, (ncclComm_t * comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t* config))                                \
  X(ncclCommFinalize, (ncclComm_t comm))                                                                                                         \
  X(ncclCommDestroy, (ncclComm_t comm))                                                                                                          \
  X(ncclCommAbort, (ncclComm_t comm))                                                                                                            \
  X(ncclCommGetAsyncError, (ncclComm_t comm, ncclResult_t * asyncError))                                                                         \
  X(ncclGroupStart, (void))                                                                                                                      \
  X(ncclGroupEnd, (void))                                                                                                                        \
  X(ncclAllReduce, (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,               \
                    cudaStream_t stream))                                                                                                        \
  X(ncclReduce, (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op, int root, ncclComm_t comm,        \
                 cudaStream_t stream))                                                                                                           \
  X(ncclBroadcast, (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream)) \
  X(ncclAllGather, (const void* sendbuff, void* recvbuff, size_t sendcount, ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream))      \
  X(ncclReduceScatter, (const void* sendbuff, void* recvbuff, size_t recvcount, ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,       \
                        cudaStream_t stream))                                                                                                    \
  X(ncclSend, (const void* sendbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t stream))                     \
  X(ncclRecv, (void* recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t stream))

/* X(name, parameters): the functions that return a text. */
#define NCCL_TEXTS(X)                           \
  X(ncclGetErrorString, (ncclResult_t result))  \
  X(ncclGetLastError, (ncclComm_t comm))

#ifdef __cplusplus
}
#endif
#endif
