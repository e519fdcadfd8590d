// Work sharing. Chunk boundaries depend on the problem alone, never on the number of threads, so neither do results.
#pragma once
#include <algorithm>
#include <cstdint>

#include "../common/library.h"

namespace dg {

// parallel.cpp: calls f(body, chunk) for all chunks, on the calling thread and up to `threads` - 1 others.
using ChunkFunction = void (*)(const void* body, int64_t chunk);
void share_chunks(int threads, int64_t chunks, ChunkFunction f, const void* body);
// Whether this thread works on a chunk, and its number among those that share the work: 0 for the thread that called, below thread_count().
bool in_parallel();
int thread_number();

// Calls f(begin, end) over [0, n) in chunks of `grain`; f must not throw.
template <class F>
void parallel_for(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t chunks = (n + grain - 1) / grain;
  const auto chunk = [&](int64_t c) { f(c * grain, std::min(n, (c + 1) * grain)); };
  const int threads = int(std::min<int64_t>(thread_count(), chunks));
  if (threads <= 1 || in_parallel()) {
    for (int64_t c = 0; c < chunks; c++) chunk(c);
    return;
  }
  share_chunks(threads, chunks, [](const void* body, int64_t c) { (*static_cast<decltype(&chunk)>(body))(c); }, &chunk);
}

// Elements that make a chunk worth a thread.
inline constexpr int64_t kGrain = 16384;

}  // namespace dg
