// Sorting along one axis: stable, NaN after every number. Elements become unsigned keys whose order is theirs; short rows are sorted by
// comparison, long ones digit by digit (least significant first).
#include "../common/sort.h"
#include "reduction.h"

namespace dg {
namespace {

// A key and the position of its element.
template <class Key>
struct Entry {
  Key key;
  std::conditional_t<sizeof(Key) == 4, uint32_t, int64_t> index;
  bool operator<(const Entry& other) const { return key != other.key ? key < other.key : index < other.index; }
};

constexpr int64_t kRadixFrom = 2048;

// Sorts by key alone; entries come in the order of their positions, so that the result is stable.
template <class Key>
void radix_sort(Entry<Key>* entries, Entry<Key>* space, int64_t count) {
  constexpr int bits = 11, digits = 1 << bits, passes = (int(sizeof(Key)) * 8 + bits - 1) / bits;
  int64_t counts[passes * digits] = {};
  for (int64_t i = 0; i < count; i++)
    for (int p = 0; p < passes; p++) counts[p * digits + int(entries[i].key >> (p * bits) & (digits - 1))]++;
  Entry<Key>*from = entries, *to = space;
  for (int p = 0; p < passes; p++) {
    int64_t* const start = counts + p * digits;
    bool one = false;  // all entries share this digit
    for (int64_t d = 0, at = 0; d < digits; d++) {
      const int64_t n = start[d];
      one |= n == count;
      start[d] = at;
      at += n;
    }
    if (one) continue;
    for (int64_t i = 0; i < count; i++) to[start[int(from[i].key >> (p * bits) & (digits - 1))]++] = from[i];
    std::swap(from, to);
  }
  if (from != entries) std::memcpy(entries, from, size_t(count) * sizeof(Entry<Key>));
}

template <class A> using KeyOf = decltype(key_of(A()));

// Rows of `count` elements along an axis.
struct Rows {
  Loop<2> kept;  // x and the output
  int64_t count, stride, out_count, out_stride;

  Rows(const Tensor& x, const Tensor& out, const Plan& plan, int axis)
      : kept({&plan.kept_x, &plan.kept_out}), count(x.sizes[axis]), stride(x.strides[axis]), out_count(out.sizes[axis]),
        out_stride(out.strides[axis]) {}
};

// Calls f(entries, space, row, x_base, out_base) with the keys of each row.
template <class A, class F>
void each_row(const Reader<A>& x, const Rows& rows, bool descending, F&& f) {
  using Key = KeyOf<A>;
  const int64_t grain = std::max<int64_t>(1, 4096 / std::max<int64_t>(rows.count, 1));
  const int64_t workers = std::min<int64_t>(thread_count(), (rows.kept.numel + grain - 1) / grain);
  const int64_t bytes = rows.count * int64_t(sizeof(Entry<Key>) * 2 + sizeof(A));
  const Scratch scratch(std::max<int64_t>(workers, 1) * bytes);
  parallel_for(rows.kept.numel, grain, [&](int64_t begin, int64_t end) {
    Entry<Key>* const entries = reinterpret_cast<Entry<Key>*>(scratch.as<char>() + thread_number() * bytes);
    A* const elements = reinterpret_cast<A*>(entries + 2 * rows.count);
    int64_t row = begin;
    rows.kept.rows(begin, end, [&](const int64_t* offset, int64_t n) {
      for (int64_t i = 0; i < n; i++, row++) {
        const int64_t px = offset[0] + i * rows.kept.strides[0][rows.kept.rank - 1];
        const int64_t po = offset[1] + i * rows.kept.strides[1][rows.kept.rank - 1];
        const A* p = x.read(elements, px, rows.stride, rows.count);
        for (int64_t j = 0; j < rows.count; j++) {
          const Key key = key_of(p[j]);
          entries[j].key = descending ? Key(~key) : key;
          entries[j].index = static_cast<decltype(entries[j].index)>(j);
        }
        f(entries, entries + rows.count, p, po);
      }
    });
  });
}

// Writes the elements and positions of the first entries.
template <class A, class Key>
void write_entries(const Tensor* values, const Tensor& indices, const Entry<Key>* entries, const A* p, int64_t count, int64_t at, int64_t stride) {
  A block[256];
  int64_t* const out = indices.data<int64_t>();
  for (int64_t i = 0; i < count; i += 256) {
    const int64_t n = std::min<int64_t>(256, count - i);
    for (int64_t j = 0; j < n; j++) {
      out[at + (i + j) * stride] = int64_t(entries[i + j].index);
      block[j] = p[entries[i + j].index];
    }
    if (values) write_elements(*values, at + i * stride, stride, block, n);
  }
}

}  // namespace

void sort(const Tensor* values, const Tensor& indices, const Tensor& x, const Plan& plan, int axis, bool descending) {
  const Rows rows(x, indices, plan, axis);
  dispatch_accumulator(x.dtype, [&](auto kind) {
    using A = typename decltype(kind)::type;
    using Key = KeyOf<A>;
    each_row<A>(reader_of<A>(x, "sort"), rows, descending, [&](Entry<Key>* entries, Entry<Key>* space, const A* p, int64_t at) {
      const int64_t n = rows.count, m = rows.out_count;
      if (m < n) {
        std::nth_element(entries, entries + m - 1, entries + n);
        std::sort(entries, entries + m);
      } else if (n >= kRadixFrom) {
        radix_sort(entries, space, n);
      } else {
        std::sort(entries, entries + n);
      }
      write_entries(values, indices, entries, p, m, at, rows.out_stride);
    });
  });
}

void kth(const Tensor* values, const Tensor& indices, const Tensor& x, const Plan& plan, int axis, int64_t position, bool median) {
  const Rows rows(x, indices, plan, axis);
  dispatch_accumulator(x.dtype, [&](auto kind) {
    using A = typename decltype(kind)::type;
    using Key = KeyOf<A>;
    each_row<A>(reader_of<A>(x, "kth"), rows, false, [&](Entry<Key>* entries, Entry<Key>*, const A* p, int64_t at) {
      Entry<Key>* chosen = entries + position;
      Entry<Key>* nan = nullptr;
      if (median && std::is_floating_point_v<A>)
        nan = std::find_if(entries, entries + rows.count, [](const Entry<Key>& e) { return e.key == Key(~Key(0)); });
      if (nan && nan != entries + rows.count) chosen = nan;
      else std::nth_element(entries, chosen, entries + rows.count);
      write_entries(values, indices, chosen, p, 1, at, 1);
    });
  });
}

}  // namespace dg
