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

}  // namespace

void searchsorted(const Tensor& out, const Tensor& sorted, const Tensor& x, const Tensor& starts, bool right) {
  const Loop<3> loop({&out, &x, &starts});
  dispatch_all(x.dtype, "searchsorted", [&](auto kind) {
    using T = typename decltype(kind)::type;
    launch("searchsorted", search_sorted<T>, blocks_for(loop.numel, kThreads), kThreads, 0, Nest<3, uint64_t>(loop), out.data<int64_t>(),
           x.data<T>(), sorted.data<T>(), sorted.size(-1), sorted.stride(-1), right);
  });
}

void bincount(const Tensor& out, const Tensor& x, const Tensor* weights) {
  const Report bad = bad_number("bincount", "value", out.numel);
  if (!weights) return count_into("bincount", out, x.numel, WholeBin{x.data<int64_t>(), out.numel, bad});
  clear(out);
  if (x.numel > 0) add_in_order(out, x, *weights, bad);
}

void histc(const Tensor& out, const Tensor& x, double low, double high) {
  const Loop<1> loop({&x});
  dispatch_floats(x.dtype, "histc", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    count_into("histc", out, x.numel, RangeBin<T>{x.data<T>(), Nest<1, uint64_t>(loop), C(low), C(high), out.numel});
  });
}

void groups(const Tensor& group, const Tensor& sorted) {
  dispatch_all(sorted.dtype, "unique", [&](auto kind) {
    using T = typename decltype(kind)::type;
    run_over_flags("groups", sorted.numel, Changes<T>{sorted.data<T>()}, WriteGroup{group.data<int64_t>()});
  });
}

void unique(const UniqueTensors& io) {
  const char* const name = "unique";
  const int64_t n = io.sorted.numel, distinct = io.values.numel;
  clear(io.counts);
  if (n == 0) return;
  const Report bad_group = bad_number(name, "group", distinct), bad_position = bad_number(name, "position", n);
  dispatch_width(io.sorted.dtype, [&](auto kind) {
    using T = typename decltype(kind)::type;
    launch(name, write_groups<T>, blocks_for(n, kThreads), kThreads, 0, n, distinct, io.values.data<T>(), io.inverse.data<int64_t>(),
           io.counts.data<int64_t>(), io.sorted.data<T>(), io.order.data<int64_t>(), io.group.data<int64_t>(), bad_group, bad_position);
  });
}

}  // namespace dg
