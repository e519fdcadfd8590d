// Searching, counting and grouping: binary search in sorted rows, occurrences of small integers, histograms, runs of equal elements.
#include "../common/search.h"

#include "flags.h"
#include "scatter.h"

namespace dg {
namespace {

// The type in which elements are compared: float for the half types, int64_t for whole numbers.
template <class T>
using Compared = std::conditional_t<is_float<T>, compute_t<T>, int64_t>;

template <class T>
__global__ void search_sorted(Nest<3, uint64_t> nest, int64_t* out, const T* x, const T* sorted, int64_t count, int64_t stride, bool right) {
  using A = Compared<T>;
  const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < nest.count; i += step) {
    uint64_t offset[3];
    nest.offsets(i, offset);
    const T* const row = sorted + offset[2];
    out[offset[0]] = sorted_bound(count, A(x[offset[1]]), right, [&](int64_t at) { return A(row[at * stride]); });
  }
}

constexpr int kSharedBins = 4096;

// out[bin(i)] += 1 for every i whose bin is not negative. Few bins are counted in shared memory first; a grid of one block writes its counts,
// more blocks add to what is there.
template <class Bin>
__global__ void count_bins(int64_t count, int64_t bins, Bin bin, int64_t* out) {
  DG_DYNAMIC_SHARED(unsigned, counts);
  auto* const totals = reinterpret_cast<unsigned long long*>(out);
  const int64_t stride = int64_t(gridDim.x) * blockDim.x, first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (bins > kSharedBins) {
    for (int64_t i = first; i < count; i += stride)
      if (const int64_t at = bin(i); at >= 0) atomicAdd(&totals[at], 1ull);
    return;
  }
  for (int i = threadIdx.x; i < bins; i += blockDim.x) counts[i] = 0;
  __syncthreads();
  for (int64_t i = first; i < count; i += stride)
    if (const int64_t at = bin(i); at >= 0) atomicAdd(&counts[at], 1u);
  __syncthreads();
  for (int i = threadIdx.x; i < bins; i += blockDim.x) {
    if (gridDim.x == 1) out[i] = counts[i];
    else if (counts[i]) atomicAdd(&totals[i], static_cast<unsigned long long>(counts[i]));
  }
}

void clear(const Tensor& x) {
  if (x.numel == 0) return;
  const int64_t width = dtype_size(x.dtype);
  check_cuda(cudaMemsetAsync(x.storage_data + x.offset * width, 0, size_t(x.numel * width), current_stream()), "clearing counts");
}

template <class Bin>
void count_into(const char* name, const Tensor& out, int64_t count, const Bin& bin) {
  const bool few = out.numel <= kSharedBins;
  const unsigned blocks = std::min(blocks_for(count, few ? 8 * kThreads : kThreads), few ? 1024u : 0x7fffffffu);
  if (!few || blocks > 1) clear(out);
  const int threads = few && count <= 64 && out.numel <= 64 ? 32 : kThreads;
  launch(name, count_bins<Bin>, blocks, threads, few ? size_t(out.numel) * sizeof(unsigned) : 0, count, out.numel, bin, out.data<int64_t>());
}

// The bin of a whole number is itself.
struct WholeBin {
  const int64_t* x;
  int64_t bins;
  Report bad;
  __device__ int64_t operator()(int64_t i) const {
    const int64_t value = x[i];
    if (value >= 0 && value < bins) return value;
    bad(value);
    return -1;
  }
};

template <class T>
struct RangeBin {
  const T* x;
  Nest<1, uint64_t> nest;
  compute_t<T> low, high;
  int64_t bins;
  __device__ int64_t operator()(int64_t i) const {
    uint64_t offset[1];
    nest.offsets(uint64_t(i), offset);
    const compute_t<T> v = x[offset[0]];
    return v >= low && v <= high ? histogram_bin(v, low, high, bins) : -1;
  }
};

// Where an element of a sorted list differs from the one before.
template <class T>
struct Changes {
  const T* x;
  __device__ bool operator()(int64_t i) const {
    return i > 0 && static_cast<compute_t<T>>(x[i]) != static_cast<compute_t<T>>(x[i - 1]);
  }
};
struct WriteGroup {
  int64_t* out;
  __device__ void operator()(int64_t i, bool changes, int64_t before) const { out[i] = before + changes; }
  __device__ void total(int64_t) const {}
};

// For each element of the sorted list: its group to the unsorted place; for the last of each group: its value, and what it adds to the count.
template <class T>
__global__ void write_groups(int64_t count, int64_t distinct, T* values, int64_t* inverse, int64_t* counts, const T* sorted, const int64_t* order,
                             const int64_t* group, Report bad_group, Report bad_position) {
  auto* const totals = reinterpret_cast<unsigned long long*>(counts);
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const int64_t at = group[i], place = order[i];
    if (at < 0 || at >= distinct) {
      bad_group(at);
      continue;
    }
    if (place < 0 || place >= count) bad_position(place);
    else inverse[place] = at;
    if (i == count - 1 || group[i + 1] != at) {
      values[at] = sorted[i];
      atomicAdd(&totals[at], static_cast<unsigned long long>(i + 1));
    }
    if (i > 0 && group[i - 1] != at) atomicAdd(&totals[at], static_cast<unsigned long long>(-i));
  }
}

Report bad_number(const char* op, const char* what, int64_t limit) {
  return report(DG_RANGE, std::string(op) + ": " + what + " %lld is outside 0 .. " + std::to_string(limit - 1));
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
    for (int i = 0; i < x.rank; i++) {
      const bool own = sorted.rank > 1 && i < last;
      if (own && sorted.sizes[i] != x.sizes[i])
        fail(DG_SHAPE, "%s: sorted sequences %s for values %s", name, shape_text(sorted).c_str(), shape_text(x).c_str());
      base.strides[i] = own ? sorted.strides[i] : 0;
    }
    if (x.numel == 0) return;
    const Loop<3> loop({&out, &x, &base});
    dispatch_all(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      launch(name, search_sorted<T>, blocks_for(loop.numel, kThreads), kThreads, 0, Nest<3, uint64_t>(loop), out.data<int64_t>(), x.data<T>(),
             sorted.data<T>(), sorted.sizes[last], sorted.strides[last], right != 0);
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
    const Report bad = bad_number(name, "value", out.numel);
    if (!present(weights_slot)) {
      require_dtype(out, DG_I64, name, "the output");
      return count_into(name, out, x.numel, WholeBin{x.data<int64_t>(), out.numel, bad});
    }
    const Tensor weights = tensor_at(t, weights_slot, name);
    require_dtype(weights, DG_F64, name, "the weights");
    require_dtype(out, DG_F64, name, "the output");
    require_flat(weights, x.numel, name, "the weights");
    clear(out);
    if (x.numel > 0) add_in_order(out, x, weights, bad);
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
    const Loop<1> loop({&x});
    dispatch_floats(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      count_into(name, out, x.numel, RangeBin<T>{x.data<T>(), Nest<1, uint64_t>(loop), C(low), C(high), out.numel});
    });
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
    if (x.numel == 0) return;
    dispatch_all(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      run_over_flags("groups", x.numel, Changes<T>{x.data<T>()}, WriteGroup{group.data<int64_t>()});
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
    clear(counts);
    if (n == 0) return;
    const Report bad_group = bad_number(name, "group", distinct), bad_position = bad_number(name, "position", n);
    dispatch_width(sorted.dtype, [&](auto kind) {
      using T = typename decltype(kind)::type;
      launch(name, write_groups<T>, blocks_for(n, kThreads), kThreads, 0, n, distinct, values.data<T>(), inverse.data<int64_t>(), counts.data<int64_t>(),
             sorted.data<T>(), order.data<int64_t>(), group.data<int64_t>(), bad_group, bad_position);
    });
  });
}
