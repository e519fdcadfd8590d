// The first largest or smallest element along one axis and its position. NaN counts as the extremum, as in PyTorch.
#include "../common/extremum.h"

#include "reduction.h"

namespace dg {
namespace {

constexpr int64_t kExtremumSegment = 65536;  // elements of a unit of work along the axis
constexpr int64_t kExtremumColumns = 256;

// The extremum of elements [begin, end) of a row: first by value, block by block, then by position within the winning block.
template <bool smallest, class A>
Found<A> search_row(const Reader<A>& x, int64_t base, int64_t stride, int64_t begin, int64_t end) {
  using Op = std::conditional_t<smallest, Minimum, Maximum>;
  constexpr int64_t size = 512;
  A buffer[size], best = A();
  int64_t block = begin;
  for (int64_t at = begin; at < end; at += size) {
    const int64_t n = std::min(size, end - at);
    Block<Op, A> part;
    const A* p = x.read(buffer, base + at * stride, stride, n);
    part.add(p, n, A(0));
    const A value = part.result();
    if (at == begin || better(smallest, value, best)) {
      best = value;
      block = at;
    }
  }
  const int64_t n = std::min(size, end - block);
  const A* p = x.read(buffer, base + block * stride, stride, n);
  int64_t i = 0;
  while (i < n - 1 && !(p[i] == best || (best != best && p[i] != p[i]))) i++;
  return {p[i], block + i};
}

template <bool smallest, class A>
void search_inner(A* values, int64_t* indices, const Reader<A>& x, const Loop<2>& kept, int64_t count, int64_t stride) {
  const int64_t segments = (count + kExtremumSegment - 1) / kExtremumSegment;
  const Scratch scratch(kept.numel * segments * int64_t(sizeof(Found<A>)));
  Found<A>* const found = scratch.as<Found<A>>();
  parallel_for(kept.numel * segments, std::max<int64_t>(1, kGrain / count), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const int64_t k = job / segments, at = job % segments * kExtremumSegment;
      kept.rows(k, k + 1, [&](const int64_t* offset, int64_t) {
        found[job] = search_row<smallest>(x, offset[0], stride, at, std::min(count, at + kExtremumSegment));
      });
    }
  });
  for (int64_t k = 0; k < kept.numel; k++) {
    Found<A> best = found[k * segments];
    for (int64_t s = 1; s < segments; s++)
      if (better(smallest, found[k * segments + s].value, best.value)) best = found[k * segments + s];
    values[k] = best.value;
    indices[k] = best.index;
  }
}

// Columns side by side: each keeps its best so far.
template <bool smallest, class A>
void search_outer(A* values, int64_t* indices, const Reader<A>& x, const Loop<2>& kept, int64_t count, int64_t stride) {
  using Index = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
  const int64_t columns = kept.inner(), tiles = (columns + kExtremumColumns - 1) / kExtremumColumns, outer = kept.numel / columns;
  const int64_t step = kept.strides[0][kept.rank - 1];
  constexpr int64_t stretch = int64_t(1) << 30;  // positions within it fit Index
  parallel_for(outer * tiles, std::max<int64_t>(1, kGrain / (count * std::min(columns, kExtremumColumns))), [&](int64_t begin, int64_t end) {
    A buffer[kExtremumColumns], best[kExtremumColumns];
    Index where[kExtremumColumns];
    for (int64_t job = begin; job < end; job++) {
      const int64_t first = job / tiles * columns + job % tiles * kExtremumColumns, width = std::min(kExtremumColumns, columns - job % tiles * kExtremumColumns);
      int64_t base = 0;
      kept.rows(first, first + 1, [&](const int64_t* offset, int64_t) { base = offset[0]; });
      for (int64_t from = 0; from < count; from += stretch) {
        const Index rows = Index(std::min(stretch, count - from));
        for (Index r = 0; r < rows; r++) {
          const A* p = x.read(buffer, base + (from + r) * stride, step, width);
          if (r == 0) {
            std::copy_n(p, width, best);
            std::fill_n(where, width, Index(0));
            continue;
          }
#pragma omp simd
          for (int64_t c = 0; c < width; c++) {
            const bool wins = bool(int(smallest ? p[c] < best[c] : p[c] > best[c]) | (int(p[c] != p[c]) & int(best[c] == best[c])));
            best[c] = wins ? p[c] : best[c];
            where[c] = wins ? r : where[c];
          }
        }
        for (int64_t c = 0; c < width; c++) {
          if (from > 0 && !better(smallest, best[c], values[first + c])) continue;
          values[first + c] = best[c];
          indices[first + c] = from + where[c];
        }
      }
    }
  });
}

template <bool smallest, class A>
void search(A* values, int64_t* indices, const Reader<A>& x, const Loop<2>& kept, int64_t count, int64_t stride) {
  if (kept.inner() >= 8 && kept.strides[0][kept.rank - 1] < stride) search_outer<smallest>(values, indices, x, kept, count, stride);
  else search_inner<smallest>(values, indices, x, kept, count, stride);
}

}  // namespace

void extremum(const Tensor* values, const Tensor& indices, const Tensor& x, const Plan& plan, int axis, bool smallest) {
  const Loop<2> kept({&plan.kept_x, &plan.kept_out});
  const int64_t count = x.sizes[axis], stride = x.strides[axis], step = kept.strides[1][kept.rank - 1];
  dispatch_accumulator(x.dtype, [&](auto kind) {
    using A = typename decltype(kind)::type;
    const Reader<A> reader = reader_of<A>(x, "extremum");
    const Scratch value_space(plan.outputs * int64_t(sizeof(A))), index_space(plan.outputs * 8);
    A* const v = value_space.as<A>();
    int64_t* const i = index_space.as<int64_t>();
    if (smallest) search<true>(v, i, reader, kept, count, stride);
    else search<false>(v, i, reader, kept, count, stride);
    int64_t k = 0;
    kept.rows(0, kept.numel, [&](const int64_t* offset, int64_t n) {
      if (values) write_elements(*values, offset[1], step, v + k, n);
      write_elements(indices, offset[1], step, i + k, n);
      k += n;
    });
  });
}

}  // namespace dg
