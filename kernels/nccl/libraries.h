// The two libraries that the back end uses, opened at run time: NCCL, and the CUDA library of dinograd (for GPUs or emulated), from its path.
#pragma once
#include <string>

#include "../streams.h"
#include "api.h"

namespace dg::comm {

struct Nccl {
#define DG_FUNCTION(name, parameters) ncclResult_t(*name) parameters = nullptr;
#define DG_TEXT(name, parameters) const char*(*name) parameters = nullptr;
  NCCL_FUNCTIONS(DG_FUNCTION)
  NCCL_TEXTS(DG_TEXT)
#undef DG_FUNCTION
#undef DG_TEXT
  int version = 0;
};

// X(name): the functions of the CUDA library that are used.
#define DG_CUDA_FUNCTIONS(X)                                                                                                    \
  X(dg_abi_version) X(dg_last_error) X(dg_alloc) X(dg_free) X(dg_storage_pin) X(dg_storage_unpin) X(dg_transfer)              \
  X(dg_stream_handle) X(dg_mark_create) X(dg_mark_free) X(dg_mark_record) X(dg_mark_wait) X(dg_mark_done) X(dg_report)
struct Cuda {
#define DG_FUNCTION(name) decltype(&::name) name = nullptr;
  DG_CUDA_FUNCTIONS(DG_FUNCTION)
#undef DG_FUNCTION
};

// Opens both; fails with DG_DEVICE and what is missing. A second call must name the same files.
void open_libraries(const std::string& cuda_path, const std::string& nccl_path);
const Nccl& nccl();
const Cuda& cuda();

// What its last call in this thread failed with.
std::string device_error();
// Fails with that text when a call did.
void check_device(int32_t status);

}  // namespace dg::comm
