// Reducing a tensor over a set of axes, in an order that depends on its sizes and strides alone.
//
// Inner reductions (the closest elements are reduced together): blocks of 4096 elements, each over four vectors of partial results;
// outer reductions (column sums): blocks of 32 rows, a tile of columns at a time. Blocks are combined in a binary tree, so that the
// error of a sum grows with the logarithm of its length.
#pragma once
#include <array>
#include <limits>
#include <utility>

#include "allocator.h"
#include "staging.h"

namespace dg {

// An operation: element() prepares one, combine() joins two partial results. On numbers and on vectors of them.
struct Sum {
  template <class A> static constexpr A identity() { return A(0); }
  template <class V, class S> [[gnu::always_inline]] static void element(V&, const S&) {}
  template <class V> [[gnu::always_inline]] static void combine(V& a, const V& b) {
    if constexpr (std::is_same_v<V, int64_t>) a = int64_t(uint64_t(a) + uint64_t(b));  // wraps
    else a += b;
  }
};
struct Product {
  template <class A> static constexpr A identity() { return A(1); }
  template <class V, class S> [[gnu::always_inline]] static void element(V&, const S&) {}
  template <class V> [[gnu::always_inline]] static void combine(V& a, const V& b) {
    if constexpr (std::is_same_v<V, int64_t>) a = int64_t(uint64_t(a) * uint64_t(b));
    else a *= b;
  }
};
struct Maximum {
  template <class A> static constexpr A identity() {
    return std::is_integral_v<A> ? std::numeric_limits<A>::min() : -std::numeric_limits<A>::infinity();
  }
  template <class V, class S> [[gnu::always_inline]] static void element(V&, const S&) {}
  template <class V> [[gnu::always_inline]] static void combine(V& a, const V& b) { a = ((a > b) | (a != a)) ? a : b; }
};
struct Minimum {
  template <class A> static constexpr A identity() {
    return std::is_integral_v<A> ? std::numeric_limits<A>::max() : std::numeric_limits<A>::infinity();
  }
  template <class V, class S> [[gnu::always_inline]] static void element(V&, const S&) {}
  template <class V> [[gnu::always_inline]] static void combine(V& a, const V& b) { a = ((a < b) | (a != a)) ? a : b; }
};
struct SumOfSquares : Sum {
  template <class V, class S> [[gnu::always_inline]] static void element(V& x, const S&) { x *= x; }
};
struct SumOfMagnitudes : Sum {
  template <class V, class S> [[gnu::always_inline]] static void element(V& x, const S&) { x = x < V{} ? -x : x; }
};
struct SumOfNumbers : Sum {
  template <class V, class S> [[gnu::always_inline]] static void element(V& x, const S&) { x = x == x ? x : V{}; }
};
struct SumOfSquaredDeviations : Sum {
  template <class V, class S> [[gnu::always_inline]] static void element(V& x, const S& mean) {
    x -= mean;
    x *= x;
  }
};

inline constexpr int64_t kBlock = 4096;       // elements of an inner block
inline constexpr int64_t kSegment = 16;       // inner blocks of a unit of work
inline constexpr int64_t kRows = 32;          // rows of an outer block
inline constexpr int64_t kSegmentRows = 1024; // rows of a unit of work
inline constexpr int64_t kColumns = 1024;     // columns of a tile
inline constexpr int64_t kStream = 16 << 20;  // bytes that come from memory

// Partial results of a binary tree whose leaves arrive one by one: at most one per level.
template <class Op, class A>
struct Tree {
  A levels[48];
  uint64_t leaves = 0;
  void add(A leaf) {
    int level = 0;
    for (uint64_t n = leaves++; n & 1; n >>= 1, level++) {
      A earlier = levels[level];
      Op::combine(earlier, leaf);
      leaf = earlier;
    }
    levels[level] = leaf;
  }
  A result() const {
    A total = Op::template identity<A>();
    bool first = true;
    for (int level = 0; level < 48; level++) {
      if (!(leaves >> level & 1)) continue;
      A part = levels[level];
      if (!first) Op::combine(part, total);
      total = part;
      first = false;
    }
    return total;
  }
};

// The running result of one inner block.
template <class Op, class A>
struct Block {
  typedef A Vector __attribute__((vector_size(64), aligned(alignof(A)), may_alias));
  static constexpr int64_t width = 64 / sizeof(A);
  static constexpr int64_t kAhead = 3072 / sizeof(A);  // into the next block: a stream that stops and starts again runs at 0.95 of its speed
  Vector parts[4];
  A tail = Op::template identity<A>();
  Block() {
    for (Vector& part : parts) part = Vector{} + Op::template identity<A>();
  }
  void add(const A* x, int64_t count, A mean) {
    int64_t i = 0;
    Vector p0 = parts[0], p1 = parts[1], p2 = parts[2], p3 = parts[3];
    for (; i + 4 * width <= count; i += 4 * width) {
      const Vector* v = reinterpret_cast<const Vector*>(x + i);
      for (int64_t k = 0; k < 4; k++) __builtin_prefetch(x + i + k * width + kAhead, 0, 2);
      Vector v0 = v[0], v1 = v[1], v2 = v[2], v3 = v[3];
      Op::element(v0, mean);
      Op::element(v1, mean);
      Op::element(v2, mean);
      Op::element(v3, mean);
      Op::combine(p0, v0);
      Op::combine(p1, v1);
      Op::combine(p2, v2);
      Op::combine(p3, v3);
    }
    parts[0] = p0, parts[1] = p1, parts[2] = p2, parts[3] = p3;
    for (; i + width <= count; i += width) {
      Vector v = *reinterpret_cast<const Vector*>(x + i);
      Op::element(v, mean);
      Op::combine(parts[(i / width) & 3], v);
    }
    for (; i < count; i++) {
      A v = x[i];
      Op::element(v, mean);
      Op::combine(tail, v);
    }
  }
  A result() {
    Op::combine(parts[0], parts[1]);
    Op::combine(parts[2], parts[3]);
    Op::combine(parts[0], parts[2]);
    A lanes[width];
    std::memcpy(lanes, &parts[0], sizeof lanes);
    for (int64_t half = width / 2; half > 0; half /= 2)
      for (int64_t i = 0; i < half; i++) Op::combine(lanes[i], lanes[i + half]);
    Op::combine(lanes[0], tail);
    return lanes[0];
  }
};

// Integers: any order gives the same result, so a plain loop does.
template <class Op>
struct Block<Op, int64_t> {
  int64_t total = Op::template identity<int64_t>();
  void add(const int64_t* x, int64_t count, int64_t) {
    int64_t part = total;
    for (int64_t i = 0; i < count; i++) Op::combine(part, x[i]);
    total = part;
  }
  int64_t result() const { return total; }
};

template <class Op, class A>
[[gnu::noinline]] A reduce_block(const Reader<A>& x, const Loop<1>& nest, int64_t base, int64_t begin, int64_t end, A mean) {
  Block<Op, A> block;
  A buffer[512];
  const int64_t stride = nest.strides[0][nest.rank - 1];
  if (nest.inner() >= 64 || nest.rank == 1) {
    nest.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      if (x.direct && stride == 1) return block.add(x.elements(base + offset[0]), count, mean);
      for (int64_t i = 0; i < count; i += 512) {
        const int64_t n = std::min<int64_t>(512, count - i);
        block.add(x.read(buffer, base + offset[0] + i * stride, stride, n), n, mean);
      }
    });
    return block.result();
  }
  int64_t filled = 0;  // short rows are gathered first
  nest.rows(begin, end, [&](const int64_t* offset, int64_t count) {
    if (filled + count > 512) {
      block.add(buffer, filled, mean);
      filled = 0;
    }
    x.load(buffer + filled, x.base, base + offset[0], stride, count);
    filled += count;
  });
  block.add(buffer, filled, mean);
  return block.result();
}

template <class Op, class A>
[[gnu::noinline]] void reduce_inner(A* result, const Reader<A>& x, const Loop<2>& kept, const Loop<1>& nest, const A* means) {
  const int64_t count = nest.numel, segment = kBlock * kSegment, segments = (count + segment - 1) / segment;
  auto reduce_range = [&](int64_t base, int64_t begin, int64_t end, A mean) {
    if (end - begin <= kBlock) return reduce_block<Op, A>(x, nest, base, begin, end, mean);
    Tree<Op, A> tree;
    for (int64_t at = begin; at < end; at += kBlock) tree.add(reduce_block<Op, A>(x, nest, base, at, std::min(end, at + kBlock), mean));
    return tree.result();
  };
  auto each_output = [&](int64_t begin, int64_t end, auto&& f) {
    int64_t k = begin;
    kept.rows(begin, end, [&](const int64_t* offset, int64_t n) {
      for (int64_t i = 0; i < n; i++, k++) f(k, offset[0] + i * kept.strides[0][kept.rank - 1]);
    });
  };
  if (segments == 1) {
    const bool tiny = count <= 32 && nest.rank == 1;
    parallel_for(kept.numel, std::max<int64_t>(1, kGrain / count), [&](int64_t begin, int64_t end) {
      A buffer[32];
      each_output(begin, end, [&](int64_t k, int64_t base) {
        const A mean = means ? means[k] : A(0);
        if (!tiny) {
          result[k] = reduce_range(base, 0, count, mean);
          return;
        }
        const A* p = x.read(buffer, base, nest.strides[0][0], count);
        A total = p[0];
        Op::element(total, mean);
        for (int64_t i = 1; i < count; i++) {
          A v = p[i];
          Op::element(v, mean);
          Op::combine(total, v);
        }
        result[k] = total;
      });
    });
    return;
  }
  const Scratch scratch(kept.numel * segments * int64_t(sizeof(A)));
  A* const parts = scratch.as<A>();
  parallel_for(kept.numel * segments, 1, [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const int64_t k = job / segments, at = job % segments * segment;
      each_output(k, k + 1, [&](int64_t, int64_t base) {
        parts[job] = reduce_range(base, at, std::min(count, at + segment), means ? means[k] : A(0));
      });
    }
  });
  for (int64_t k = 0; k < kept.numel; k++) {
    Tree<Op, A> tree;
    for (int64_t s = 0; s < segments; s++) tree.add(parts[k * segments + s]);
    result[k] = tree.result();
  }
}

// acc = rows of N vectors, the running results in registers.
template <class Op, class A, int N>
void reduce_strip(A* acc, const A* x, const int64_t* offsets, int64_t rows, const A* means) {
  using Vector = typename Block<Op, A>::Vector;
  using Vectors = const Vector*;  // no function returns one: without registers of that width the ABI would be another
  Vector total[N], mean[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; i++) {
    mean[i] = means ? Vectors(means)[i] : Vector{};
    total[i] = Vectors(x + offsets[0])[i];
    Op::element(total[i], mean[i]);
  }
  for (int64_t r = 1; r < rows; r++) {
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
      Vector v = Vectors(x + offsets[r])[i];
      Op::element(v, mean[i]);
      Op::combine(total[i], v);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; i++) reinterpret_cast<Vector*>(acc)[i] = total[i];
}
inline constexpr int kStrip = 8;  // vectors of a row that fit into registers
template <class Op, class A, int... N>
constexpr auto reduce_strips(std::integer_sequence<int, N...>) {
  return std::array<void (*)(A*, const A*, const int64_t*, int64_t, const A*), sizeof...(N)>{reduce_strip<Op, A, N + 1>...};
}

// acc = rows at `offsets`, each `columns` long. Four rows at a time, or one where they come from memory (`streams`), which read in order is twice
// as fast, and where registers hold the results of all columns.
template <class Op, class A>
[[gnu::noinline]] void reduce_rows(A* acc, const Reader<A>& x, const int64_t* offsets, int64_t rows, int64_t stride, int64_t columns,
                                   const A* means, A* buffer, bool streams) {
  if constexpr (std::is_floating_point_v<A>) {
    if (x.direct && stride == 1 && streams) {
      for (int64_t r = 0; r < rows; r++) {
        const A* const p = x.elements(offsets[r]);
#pragma omp simd
        for (int64_t c = 0; c < columns; c++) {
          A v = p[c], total = r == 0 ? Op::template identity<A>() : acc[c];
          if constexpr (std::is_same_v<Op, SumOfSquaredDeviations>) Op::element(v, means[c]);
          else Op::element(v, A(0));
          Op::combine(total, v);
          acc[c] = total;
        }
      }
      return;
    }
    constexpr int64_t width = Block<Op, A>::width;
    if (x.direct && stride == 1 && columns % width == 0 && columns <= kStrip * width) {
      static constexpr auto strips = reduce_strips<Op, A>(std::make_integer_sequence<int, kStrip>{});
      return strips[size_t(columns / width - 1)](acc, x.elements(0), offsets, rows, means);
    }
  }
  const bool given = means != nullptr;
  auto mean_of = [&](int64_t c) { return given ? means[c] : A(0); };
  bool first = true;
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const A* p0 = x.read(buffer, offsets[r], stride, columns);
    const A* p1 = x.read(buffer + kColumns, offsets[r + 1], stride, columns);
    const A* p2 = x.read(buffer + 2 * kColumns, offsets[r + 2], stride, columns);
    const A* p3 = x.read(buffer + 3 * kColumns, offsets[r + 3], stride, columns);
    auto pass = [&](auto start) {
#pragma omp simd
      for (int64_t c = 0; c < columns; c++) {
        A v0 = p0[c], v1 = p1[c], v2 = p2[c], v3 = p3[c];
        if constexpr (std::is_same_v<Op, SumOfSquaredDeviations>) {
          const A mean = means[c];
          Op::element(v0, mean);
          Op::element(v1, mean);
          Op::element(v2, mean);
          Op::element(v3, mean);
        } else {
          Op::element(v0, A(0));
          Op::element(v1, A(0));
          Op::element(v2, A(0));
          Op::element(v3, A(0));
        }
        Op::combine(v0, v1);
        Op::combine(v2, v3);
        Op::combine(v0, v2);
        if constexpr (decltype(start)::value) {
          acc[c] = v0;
        } else {
          A total = acc[c];
          Op::combine(total, v0);
          acc[c] = total;
        }
      }
    };
    if (first) pass(std::true_type{});
    else pass(std::false_type{});
    first = false;
  }
  for (; r < rows; r++) {
    const A* p = x.read(buffer, offsets[r], stride, columns);
    for (int64_t c = 0; c < columns; c++) {
      A v = p[c];
      Op::element(v, mean_of(c));
      if (first) {
        acc[c] = v;
      } else {
        A total = acc[c];
        Op::combine(total, v);
        acc[c] = total;
      }
    }
    first = false;
  }
}

template <class Op, class A>
void combine_rows(A* a, const A* b, int64_t count) {
  for (int64_t c = 0; c < count; c++) {
    A total = a[c];
    Op::combine(total, b[c]);
    a[c] = total;
  }
}

template <class Op, class A>
[[gnu::noinline]] void reduce_outer(A* result, const Reader<A>& x, const Loop<2>& kept, const Loop<1>& nest, const A* means) {
  const int64_t columns = kept.inner(), outer = kept.numel / columns, rows = nest.numel;
  const int64_t tiles = (columns + kColumns - 1) / kColumns, segments = (rows + kSegmentRows - 1) / kSegmentRows;
  const int64_t stride = kept.strides[0][kept.rank - 1];
  const int64_t part_bytes = segments == 1 ? 0 : segments * kept.numel * int64_t(sizeof(A));
  const Scratch scratch(part_bytes);
  A* const parts = segments == 1 ? result : scratch.as<A>();
  const bool streams = kept.numel * rows * int64_t(sizeof(A)) >= kStream;
  const int64_t work = std::max<int64_t>(1, std::min(rows, kSegmentRows) * std::min(columns, kColumns));
  parallel_for(segments * outer * tiles, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end) {
    alignas(64) A levels[6][kColumns];
    alignas(64) A buffer[4 * kColumns];
    for (int64_t job = begin; job < end; job++) {
      const int64_t tile = job % tiles, ko = job / tiles % outer, segment = job / tiles / outer;
      const int64_t c0 = tile * kColumns, width = std::min(kColumns, columns - c0);
      const int64_t r0 = segment * kSegmentRows, r1 = std::min(rows, r0 + kSegmentRows);
      int64_t base = 0;
      kept.rows(ko * columns + c0, ko * columns + c0 + 1, [&](const int64_t* offset, int64_t) { base = offset[0]; });
      const A* const shift = means ? means + ko * columns + c0 : nullptr;
      A* const target = parts + (segment * outer + ko) * columns + c0;
      uint64_t leaves = 0;
      for (int64_t r = r0; r < r1; r += kRows) {
        const int64_t n = std::min(kRows, r1 - r);
        int64_t offsets[kRows], filled = 0;
        nest.rows(r, r + n, [&](const int64_t* offset, int64_t count) {
          for (int64_t i = 0; i < count; i++) offsets[filled++] = base + offset[0] + i * nest.strides[0][nest.rank - 1];
        });
        // A leaf joins complete subtrees at once; the earlier half is always the first operand.
        int level = 0;
        for (uint64_t m = leaves++; m & 1; m >>= 1) level++;
        A* const leaf = r1 - r0 <= kRows ? target : levels[level];
        if (level == 0) {
          reduce_rows<Op, A>(leaf, x, offsets, n, stride, width, shift, buffer, streams);
        } else {
          A* const fresh = buffer;  // not read again once the rows are summed
          alignas(64) A sum[kColumns];
          reduce_rows<Op, A>(sum, x, offsets, n, stride, width, shift, fresh, streams);
          for (int64_t i = 0; i < level; i++) {
            combine_rows<Op, A>(levels[i], sum, width);
            std::memcpy(sum, levels[i], size_t(width) * sizeof(A));
          }
          std::memcpy(levels[level], sum, size_t(width) * sizeof(A));
        }
      }
      if (r1 - r0 <= kRows) continue;
      bool first = true;
      alignas(64) A total[kColumns];
      for (int level = 0; level < 6; level++) {
        if (!(leaves >> level & 1)) continue;
        if (!first) combine_rows<Op, A>(levels[level], total, width);
        std::memcpy(total, levels[level], size_t(width) * sizeof(A));
        first = false;
      }
      std::memcpy(target, total, size_t(width) * sizeof(A));
    }
  });
  if (segments == 1) return;
  for (int64_t step = 1; step < segments; step *= 2)
    for (int64_t s = 0; s + step < segments; s += 2 * step)
      combine_rows<Op, A>(parts + s * kept.numel, parts + (s + step) * kept.numel, kept.numel);
  std::memcpy(result, parts, size_t(kept.numel) * sizeof(A));
}

// result[k] = the reduction for output k, in the order of `kept`. There must be elements to reduce.
template <class Op, class A>
void reduce_all(A* result, const Reader<A>& x, const Loop<2>& kept, const Loop<1>& nest, const A* means = nullptr) {
  const int64_t columns = kept.inner(), step = kept.strides[0][kept.rank - 1], row = nest.strides[0][nest.rank - 1];
  const bool outer = kept.numel > 1 && columns > 1 && nest.numel > 1 && step < row;
  if (!outer) return reduce_inner<Op, A>(result, x, kept, nest, means);
  // Few columns without gaps: several rows side by side make one that fills vectors, folded at the end.
  if (kept.rank == 1 && nest.rank == 1 && step == 1 && row == columns && columns <= 64 && nest.numel >= 1024) {
    constexpr int64_t vector = 64 / int64_t(sizeof(A)), most = kStrip * vector;
    int64_t side = 1;
    while (columns * side < most) side *= 2;
    if (columns * side > most && columns * side / 2 % vector == 0) side /= 2;
    const int64_t wide = columns * side, rows = nest.numel / side, rest = nest.numel % side;
    const Scratch scratch((2 * wide + columns) * int64_t(sizeof(A)));
    A* const sums = scratch.as<A>();
    A* const shifts = means ? sums + wide : nullptr;
    for (int64_t i = 0; means && i < wide; i++) shifts[i] = means[i % columns];
    Loop<2> wide_kept = kept;
    Loop<1> wide_nest = nest;
    wide_kept.numel = wide_kept.sizes[0] = wide;
    wide_nest.numel = wide_nest.sizes[0] = rows;
    wide_nest.strides[0][0] = wide;
    reduce_outer<Op, A>(sums, x, wide_kept, wide_nest, shifts);
    for (int64_t half = side / 2; half > 0; half /= 2) combine_rows<Op, A>(sums, sums + half * columns, half * columns);
    std::memcpy(result, sums, size_t(columns) * sizeof(A));
    if (rest == 0) return;
    A* const left = sums + 2 * wide;
    int64_t offsets[128];
    for (int64_t i = 0; i < rest; i++) offsets[i] = (rows * side + i) * columns;
    alignas(64) A buffer[4 * kColumns];
    reduce_rows<Op, A>(left, x, offsets, rest, 1, columns, means, buffer, false);
    combine_rows<Op, A>(result, left, columns);
    return;
  }
  reduce_outer<Op, A>(result, x, kept, nest, means);
}

}  // namespace dg
