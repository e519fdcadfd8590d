// The bytes of storages: copies with all threads, where there are many.
#include "../common/memory.h"

#include <cstring>

#include "parallel.h"

namespace dg {
namespace {

constexpr int64_t kPiece = 1 << 20;

void copy_bytes(char* to, const char* from, int64_t bytes) {
  parallel_for(bytes, kPiece, [&](int64_t begin, int64_t end) { std::memcpy(to + begin, from + begin, size_t(end - begin)); });
}

}  // namespace

Region new_storage(int64_t bytes, bool zeroed) {
  char* const memory = static_cast<char*>(allocate(bytes));
  if (zeroed) parallel_for(bytes, kPiece, [&](int64_t begin, int64_t end) { std::memset(memory + begin, 0, size_t(end - begin)); });
  return {memory, bytes};
}

void storage_used(const Region&) {}

void read_storage(void* to, const char* from, int64_t bytes) { copy_bytes(static_cast<char*>(to), from, bytes); }
void write_storage(char* to, const void* from, int64_t bytes) { copy_bytes(to, static_cast<const char*>(from), bytes); }
void transfer_storage(const char* from, uint32_t, char* to, uint32_t, int64_t bytes) { std::memmove(to, from, size_t(bytes)); }

}  // namespace dg
