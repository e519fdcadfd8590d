// Searching, counting and grouping: binary search in sorted rows, occurrences of small integers, histograms, runs of equal elements.
#include "../common/search.h"

#include "staging.h"

namespace dg {
namespace {

template <class A>
int64_t bound_of(const Reader<A>& row, int64_t base, int64_t stride, int64_t count, A v, bool right) {
  A element;
  return sorted_bound(count, v, right, [&](int64_t i) { return *row.read(&element, base + i * stride, stride, 1); });
}

int64_t whole_at(const int64_t* p, int64_t i, int64_t limit, const char* op, const char* what) {
  if (p[i] < 0 || p[i] >= limit)
    fail(DG_RANGE, "%s: %s %lld is outside 0 .. %lld", op, what, static_cast<long long>(p[i]), static_cast<long long>(limit - 1));
  return p[i];
}

}  // namespace

void searchsorted(const Tensor& out, const Tensor& sorted, const Tensor& x, const Tensor& starts, bool right) {
  const char* const name = "searchsorted";
  const Loop<3> loop({&out, &x, &starts});
  const int inner = loop.rank - 1;
  const int64_t count = sorted.size(-1), stride = sorted.stride(-1);
  dispatch_accumulator(x.dtype, [&](auto kind) {
    using A = typename decltype(kind)::type;
    const Reader<A> values = reader_of<A>(x, name), rows = reader_of<A>(sorted, name);
    parallel_for(loop.numel, 1024, [&](int64_t begin, int64_t end) {
      loop.rows(begin, end, [&](const int64_t* offset, int64_t n) {
        int64_t* const o = out.data<int64_t>() + offset[0];
        for (int64_t i = 0; i < n; i++) {
          A v;
          const A* p = values.read(&v, offset[1] + i * loop.strides[1][inner], 1, 1);
          o[i * loop.strides[0][inner]] = bound_of<A>(rows, offset[2] + i * loop.strides[2][inner], stride, count, *p, right);
        }
      });
    });
  });
}

void bincount(const Tensor& out, const Tensor& x, const Tensor* weights) {
  const char* const name = "bincount";
  const int64_t* const p = x.data<int64_t>();
  if (!weights) {
    int64_t* const o = out.data<int64_t>();
    std::fill_n(o, out.numel, int64_t(0));
    for (int64_t i = 0; i < x.numel; i++) o[whole_at(p, i, out.numel, name, "value")]++;
    return;
  }
  double* const o = out.data<double>();
  std::fill_n(o, out.numel, 0.0);
  for (int64_t i = 0; i < x.numel; i++) o[whole_at(p, i, out.numel, name, "value")] += weights->data<double>()[i];
}

void histc(const Tensor& out, const Tensor& x, double low, double high) {
  int64_t* const o = out.data<int64_t>();
  std::fill_n(o, out.numel, int64_t(0));
  const Loop<1> loop({&x});
  const int64_t stride = loop.strides[0][loop.rank - 1], bins = out.numel;
  auto count = [&](auto reader) {
    using A = std::decay_t<decltype(*reader.elements(0))>;
    A buffer[512];
    const A from = A(low), until = A(high);
    loop.rows(0, loop.numel, [&](const int64_t* offset, int64_t n) {
      for (int64_t i = 0; i < n; i += 512) {
        const int64_t m = std::min<int64_t>(512, n - i);
        const A* p = reader.read(buffer, offset[0] + i * stride, stride, m);
        for (int64_t j = 0; j < m; j++) {
          if (!(p[j] >= from && p[j] <= until)) continue;
          o[histogram_bin(p[j], from, until, bins)]++;
        }
      }
    });
  };
  if (x.dtype == DG_F64) count(reader_of<double>(x, "histc"));
  else count(reader_of<float>(x, "histc"));
}

void groups(const Tensor& group, const Tensor& sorted) {
  int64_t* const o = group.data<int64_t>();
  dispatch_all(sorted.dtype, "unique", [&](auto kind) {
    using T = typename decltype(kind)::type;
    const T* const p = sorted.data<T>();
    int64_t at = 0;
    for (int64_t i = 0; i < sorted.numel; i++) {
      if (i > 0 && static_cast<compute_t<T>>(p[i]) != static_cast<compute_t<T>>(p[i - 1])) at++;
      o[i] = at;
    }
  });
}

void unique(const UniqueTensors& io) {
  const char* const name = "unique";
  const int64_t n = io.sorted.numel, distinct = io.values.numel, bytes = dtype_size(io.sorted.dtype);
  const int64_t *g = io.group.data<int64_t>(), *where = io.order.data<int64_t>();
  std::fill_n(io.counts.data<int64_t>(), distinct, int64_t(0));
  char* const to = io.values.storage_data + io.values.offset * bytes;
  const char* const from = io.sorted.storage_data + io.sorted.offset * bytes;
  for (int64_t i = 0; i < n; i++) {
    const int64_t at = whole_at(g, i, distinct, name, "group");
    std::memcpy(to + at * bytes, from + i * bytes, size_t(bytes));
    io.counts.data<int64_t>()[at]++;
    io.inverse.data<int64_t>()[whole_at(where, i, n, name, "position")] = at;
  }
}

}  // namespace dg
