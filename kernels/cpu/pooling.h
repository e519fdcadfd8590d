// What the pooling kernels share: loops over rows of positions with channels innermost.
#pragma once
#include <initializer_list>

#include "../common/pooling.h"
#include "elementwise.h"

namespace dg {

inline constexpr int64_t kPoolBlock = 64;

// Channels side by side where they are adjacent in all.
inline Pool with_inner(Pool pool, std::initializer_list<const Tensor*> all) {
  const bool adjacent = std::all_of(all.begin(), all.end(), [](const Tensor* t) { return t->strides[1] == 1; });
  if (adjacent) pool.inner = std::max<int64_t>(pool.channels, 1);
  return pool;
}

// Calls row(n, c, i0, i1, from, to): channels [from, to) of `inner` at row (i0, i1) of a plane whose sizes are rows0 x rows1.
// `work` estimates the elements that one row reads.
template <class Row>
void pool_rows(const Pool& pool, int64_t rows0, int64_t rows1, int64_t work, Row&& row) {
  const int64_t outer = pool.outer_channels(), rows = pool.n * outer * rows0 * rows1;
  const int64_t pieces = rows < 32 ? (pool.inner + kPoolBlock - 1) / kPoolBlock : 1;
  const int64_t width = pieces > 1 ? kPoolBlock : pool.inner;
  parallel_for(rows * pieces, kGrain / std::max<int64_t>(work * width, 1), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const int64_t from = job % pieces * width, at = job / pieces, plane = at / (rows0 * rows1);
      row(plane / outer, plane % outer, at / rows1 % rows0, at % rows1, from, std::min(pool.inner, from + width));
    }
  });
}

// Calls block(N, c, count) for channels [c, c + count) of [from, to): count is the constant N, or N is 0. The last of several blocks reaches back over
// channels that are done, which get the same results again.
template <class Block>
void pool_blocks(int64_t from, int64_t to, Block&& block) {
  constexpr int64_t least = 16;
  int64_t c = from;
  for (; c + kPoolBlock <= to; c += kPoolBlock) block(std::integral_constant<int64_t, kPoolBlock>{}, c, kPoolBlock);
  if (c == to) return;
  if (to - from < least) return block(std::integral_constant<int64_t, 0>{}, c, to - c);
  for (; c < to; c += least) block(std::integral_constant<int64_t, least>{}, std::min(c, to - least), least);
}

}  // namespace dg
