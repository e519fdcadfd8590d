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

void require_flat(const Tensor& t, int64_t count, const char* op, const char* what) {
  if (t.rank != 1 || t.sizes[0] != count || !t.contiguous())
    fail(DG_SHAPE, "%s: %s must be contiguous [%lld], got %s", op, what, static_cast<long long>(count), shape_text(t).c_str());
}

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_searchsorted(const dg_tensor* t, uint32_t out_slot, uint32_t sorted_slot, uint32_t x_slot, uint32_t right) {
  return guard([&] {
    const char* const name = "searchsorted";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), sorted = tensor_at(t, sorted_slot, name), x = tensor_at(t, x_slot, name);
    require_same_sizes(out, x, name);
    require_dtype(out, DG_I64, name, "the output");
    require_dtype(x, sorted.dtype, name, "the values");
    if (sorted.rank < 1 || (sorted.rank > 1 && sorted.rank != x.rank))
      fail(DG_SHAPE, "%s: sorted sequences %s for values %s", name, shape_text(sorted).c_str(), shape_text(x).c_str());
    const int last = sorted.rank - 1;
    Tensor base = x;  // where the sequence of each value begins
    base.storage_data = sorted.storage_data;
    base.offset = sorted.offset;
    for (int i = 0; i < x.rank; i++) {
      const bool own = sorted.rank > 1 && i < last;
      if (own && sorted.sizes[i] != x.sizes[i])
        fail(DG_SHAPE, "%s: sorted sequences %s for values %s", name, shape_text(sorted).c_str(), shape_text(x).c_str());
      base.strides[i] = own ? sorted.strides[i] : 0;
    }
    const Loop<3> loop({&out, &x, &base});
    const int inner = loop.rank - 1;
    const int64_t count = sorted.sizes[last], stride = sorted.strides[last];
    dispatch_accumulator(x.dtype, [&](auto kind) {
      using A = typename decltype(kind)::type;
      const Reader<A> values = reader_of<A>(x, name), rows = reader_of<A>(sorted, name);
      parallel_for(loop.numel, 1024, [&](int64_t begin, int64_t end) {
        loop.rows(begin, end, [&](const int64_t* offset, int64_t n) {
          int64_t* const o = out.data<int64_t>() + offset[0];
          for (int64_t i = 0; i < n; i++) {
            A v;
            const A* p = values.read(&v, offset[1] + i * loop.strides[1][inner], 1, 1);
            o[i * loop.strides[0][inner]] = bound_of<A>(rows, offset[2] + i * loop.strides[2][inner], stride, count, *p, right != 0);
          }
        });
      });
    });
  });
}

int32_t dg_bincount(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t weights_slot) {
  return guard([&] {
    const char* const name = "bincount";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    if (out.rank != 1) fail(DG_SHAPE, "%s: the output is %s", name, shape_text(out).c_str());
    require_flat(out, out.sizes[0], name, "the output");
    require_dtype(x, DG_I64, name, "the input");
    require_flat(x, x.numel, name, "the input");
    const int64_t* const p = x.data<int64_t>();
    if (!present(weights_slot)) {
      require_dtype(out, DG_I64, name, "the output");
      int64_t* const o = out.data<int64_t>();
      std::fill_n(o, out.numel, int64_t(0));
      for (int64_t i = 0; i < x.numel; i++) o[whole_at(p, i, out.numel, name, "value")]++;
      return;
    }
    const Tensor weights = tensor_at(t, weights_slot, name);
    require_dtype(weights, DG_F64, name, "the weights");
    require_dtype(out, DG_F64, name, "the output");
    require_flat(weights, x.numel, name, "the weights");
    double* const o = out.data<double>();
    std::fill_n(o, out.numel, 0.0);
    for (int64_t i = 0; i < x.numel; i++) o[whole_at(p, i, out.numel, name, "value")] += weights.data<double>()[i];
  });
}

int32_t dg_histc(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, double low, double high) {
  return guard([&] {
    const char* const name = "histc";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_finite_work(x, name);
    if (out.rank != 1 || out.numel == 0) fail(DG_SHAPE, "%s: the output is %s", name, shape_text(out).c_str());
    require_flat(out, out.sizes[0], name, "the output");
    require_dtype(out, DG_I64, name, "the output");
    if (!(low < high) || !std::isfinite(high - low)) fail(DG_RANGE, "%s: bounds %g and %g", name, low, high);
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
    if (x.dtype == DG_F64) count(reader_of<double>(x, name));
    else count(reader_of<float>(x, name));
  });
}

// group[i] = how many distinct elements precede element i of a sorted row; NaN differs from itself.
int32_t dg_groups(const dg_tensor* t, uint32_t group_slot, uint32_t sorted_slot) {
  return guard([&] {
    const char* const name = "unique";
    const Tensor group = tensor_at(t, group_slot, name, Access::write), x = tensor_at(t, sorted_slot, name);
    require_dtype(group, DG_I64, name, "the groups");
    require_flat(x, x.numel, name, "the sorted elements");
    require_flat(group, x.numel, name, "the groups");
    int64_t* const o = group.data<int64_t>();
    dispatch_all(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      const T* const p = x.data<T>();
      int64_t at = 0;
      for (int64_t i = 0; i < x.numel; i++) {
        if (i > 0 && static_cast<compute_t<T>>(p[i]) != static_cast<compute_t<T>>(p[i - 1])) at++;
        o[i] = at;
      }
    });
  });
}

// The distinct elements, how often each occurs (counts), and where each of the unsorted elements went (inverse).
int32_t dg_unique(const dg_tensor* t, uint32_t values_slot, uint32_t inverse_slot, uint32_t counts_slot, uint32_t sorted_slot, uint32_t order_slot,
                  uint32_t group_slot) {
  return guard([&] {
    const char* const name = "unique";
    const Tensor values = tensor_at(t, values_slot, name, Access::write), inverse = tensor_at(t, inverse_slot, name, Access::write),
                 counts = tensor_at(t, counts_slot, name, Access::write), sorted = tensor_at(t, sorted_slot, name), order = tensor_at(t, order_slot, name),
                 group = tensor_at(t, group_slot, name);
    const int64_t n = sorted.numel, distinct = values.numel;
    require_dtype(values, sorted.dtype, name, "the values");
    for (const Tensor* it : {&inverse, &counts, &order, &group}) require_dtype(*it, DG_I64, name, "positions and counts");
    for (const Tensor* it : {&inverse, &sorted, &order, &group}) require_flat(*it, n, name, "every list");
    for (const Tensor* it : {&values, &counts}) require_flat(*it, distinct, name, "the distinct elements and their counts");
    const int64_t bytes = dtype_size(sorted.dtype);
    const int64_t *g = group.data<int64_t>(), *where = order.data<int64_t>();
    std::fill_n(counts.data<int64_t>(), distinct, int64_t(0));
    char* const to = values.storage_data + values.offset * bytes;
    const char* const from = sorted.storage_data + sorted.offset * bytes;
    for (int64_t i = 0; i < n; i++) {
      const int64_t at = whole_at(g, i, distinct, name, "group");
      std::memcpy(to + at * bytes, from + i * bytes, size_t(bytes));
      counts.data<int64_t>()[at]++;
      inverse.data<int64_t>()[whole_at(where, i, n, name, "position")] = at;
    }
  });
}
