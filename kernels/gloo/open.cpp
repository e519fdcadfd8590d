// What interface.cpp asks of a back end: groups, and the memory of the CPU library.
#include "communicator.h"

namespace dg {

uint32_t library_device_type() { return 0; }

void require_device(uint32_t index, const char* op) {
  if (index != 0) fail(DG_DEVICE, "%s: cpu:%u does not exist", op, index);
}

namespace comm {

void unpin_storage(uint32_t storage) { dg_storage_unpin(storage); }

dg_region pin_storage(uint32_t storage, const char* op) {
  dg_region region;
  if (dg_storage_pin(storage, &region) != DG_OK) fail(DG_DISPOSED, "%s: a tensor's memory has been freed", op);
  return region;
}

std::shared_ptr<Group> open_group(int rank, int size, const std::string& address, uint32_t) { return std::make_shared<Communicator>(rank, size, address); }

}  // namespace comm
}  // namespace dg
