// Version, errors and names, threads.
#include "../common/library.h"

#include <algorithm>
#include <cstring>

int32_t dg_abi_version(void) { return DG_ABI_VERSION; }

int32_t dg_name_call(const char* name, uint32_t length) {
  dg::call_name().assign(name ? name : "", name ? std::min(length, 63u) : 0);
  return DG_OK;
}

uint32_t dg_last_error(char* text, uint32_t capacity) {
  const std::string& message = dg::last_error();
  if (text && capacity) {
    const size_t count = std::min<size_t>(message.size(), capacity - 1);
    std::memcpy(text, message.data(), count);
    text[count] = 0;
  }
  return static_cast<uint32_t>(message.size());
}

int32_t dg_set_threads(int32_t count) {
  return dg::guard([&] { dg::set_thread_count(count); });
}

int32_t dg_get_threads(void) {
  dg::call_threads = 0;
  return dg::thread_count();
}
