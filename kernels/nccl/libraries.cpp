#include "libraries.h"

#include <dlfcn.h>

#include <mutex>

#include "../common/status.h"

namespace dg::comm {
namespace {

Nccl nccl_functions;
Cuda cuda_functions;
std::string& opened = *new std::string;
std::mutex mutex;

void* open(const std::string& path, const char* what) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) fail(DG_DEVICE, "nccl: %s cannot be opened: %s", what, dlerror());
  return library;
}

template <class F>
void find(void* library, const std::string& path, const char* name, F*& function) {
  function = reinterpret_cast<F*>(dlsym(library, name));
  if (!function) fail(DG_DEVICE, "nccl: %s has no function %s, it is of another version", path.c_str(), name);
}

}  // namespace

void open_libraries(const std::string& cuda_path, const std::string& nccl_path) {
  std::lock_guard<std::mutex> lock(mutex);
  const std::string names = cuda_path + "\n" + nccl_path;
  if (opened == names) return;
  if (!opened.empty()) fail(DG_RANGE, "nccl: other libraries have been opened already: %s", opened.c_str());
  Cuda cuda;
  Nccl nccl;
  void* const device = open(cuda_path, "the CUDA library of dinograd");
#define DG_FUNCTION(name) find(device, cuda_path, #name, cuda.name);
  DG_CUDA_FUNCTIONS(DG_FUNCTION)
#undef DG_FUNCTION
  if (cuda.dg_abi_version() != DG_ABI_VERSION)
    fail(DG_DEVICE, "nccl: %s speaks ABI %d, this library needs %d: build both again", cuda_path.c_str(), cuda.dg_abi_version(), DG_ABI_VERSION);
  void* const library = open(nccl_path, "NCCL");
#define DG_FUNCTION(name, parameters) find(library, nccl_path, #name, nccl.name);
  NCCL_FUNCTIONS(DG_FUNCTION)
  NCCL_TEXTS(DG_FUNCTION)
#undef DG_FUNCTION
  if (nccl.ncclGetVersion(&nccl.version) != ncclSuccess || nccl.version < NCCL_LEAST_VERSION)
    fail(DG_DEVICE, "nccl: %s is of version %d, at least %d (2.18) is needed", nccl_path.c_str(), nccl.version, NCCL_LEAST_VERSION);
  cuda_functions = cuda;
  nccl_functions = nccl;
  opened = names;
}

const Nccl& nccl() { return nccl_functions; }
const Cuda& cuda() { return cuda_functions; }

std::string device_error() {
  char text[512] = "";
  cuda().dg_last_error(text, sizeof text);
  return text;
}

void check_device(int32_t status) {
  if (status != DG_OK) fail(dg_status(status), "%s", device_error().c_str());
}

}  // namespace dg::comm
