// Softmax along one axis of any strides. A row is the elements along the axis at one position of the others; a group of threads works on it.
//   y = exp(x - max) / sum, or x - max - log(sum); backward from y: dx = y (dy - sum(dy y)), or dy - exp(y) sum(dy)
// Overwrites y and dx; may run in place. A row whose maximum is -inf or +inf gives NaN. One pass finds maximum and sum, a second one writes.
#include "../common/softmax.h"

#include "softmax.h"

namespace dg {
namespace {

// Rows of K tensors: where each begins, and how far apart its elements are.
template <int K>
struct Rows {
  Nest<K, uint64_t> heads;
  int64_t count, steps[K];
  Groups groups;

  __device__ bool find(int64_t (&base)[K]) const {
    const uint64_t row = uint64_t(blockIdx.x) * groups.groups + groups.group();
    if (row >= heads.count) return false;
    uint64_t offsets[K];
    heads.offsets(row, offsets);
#pragma unroll
    for (int k = 0; k < K; k++) base[k] = int64_t(offsets[k]);
    return true;
  }
};

template <int N, bool log, class T>
__global__ void softmax_forward_kernel(const __grid_constant__ Rows<2> rows, T* y, const T* x) {
  using C = compute_t<T>;
  int64_t base[2] = {};
  const bool exists = rows.find(base);
  const int64_t sy = rows.steps[0], sx = rows.steps[1], n = rows.count, step = int64_t(rows.groups.lanes) * N;
  const int64_t first = exists ? int64_t(rows.groups.lane()) * N : n;
  y += base[0], x += base[1];
  const auto pack = [&](int64_t i) {
    if constexpr (N == 1) return Pack<T, 1>{{x[i * sx]}};
    else return *reinterpret_cast<const Pack<T, N>*>(x + i);
  };
  Exponentials<C> e = Exponentials<C>::none();
  for (int64_t i = first; i < n; i += step) e.add(pack(i));
  e = group_reduce(e, rows.groups, Exponentials<C>::join);
  const C top = e.top, sum = e.total(), shift = log ? log_(sum) : C(1) / sum;
  for (int64_t i = first; i < n; i += step) {
    Pack<T, N> v = pack(i);
#pragma unroll
    for (T& element : v.at) {
      const C d = C(element) - top;
      element = T(log ? d - shift : exp_(d) * shift);
    }
    if constexpr (N == 1) y[i * sy] = v.at[0];
    else *reinterpret_cast<Pack<T, N>*>(y + i) = v;
  }
}

template <int N, bool log, class T>
__global__ void softmax_backward_kernel(const __grid_constant__ Rows<3> rows, T* dx, const T* dy, const T* y) {
  using C = compute_t<T>;
  int64_t base[3] = {};
  const bool exists = rows.find(base);
  const int64_t n = rows.count, step = int64_t(rows.groups.lanes) * N, first = exists ? int64_t(rows.groups.lane()) * N : n;
  dx += base[0], dy += base[1], y += base[2];
  const auto pack = [&](const T* p, int64_t i, int k) {
    if constexpr (N == 1) return Pack<T, 1>{{p[i * rows.steps[k]]}};
    else return *reinterpret_cast<const Pack<T, N>*>(p + i);
  };
  C sum = 0;
  for (int64_t i = first; i < n; i += step) {
    const Pack<T, N> g = pack(dy, i, 1);
    if constexpr (log) {
#pragma unroll
      for (int j = 0; j < N; j++) sum += C(g.at[j]);
    } else {
      const Pack<T, N> v = pack(y, i, 2);
#pragma unroll
      for (int j = 0; j < N; j++) sum += C(g.at[j]) * C(v.at[j]);
    }
  }
  sum = group_reduce(sum, rows.groups, Plus<C>());
  for (int64_t i = first; i < n; i += step) {
    Pack<T, N> g = pack(dy, i, 1);
    const Pack<T, N> v = pack(y, i, 2);
#pragma unroll
    for (int j = 0; j < N; j++) {
      const C gradient = C(g.at[j]), value = C(v.at[j]);
      g.at[j] = T(log ? gradient - exp_(value) * sum : value * (gradient - sum));
    }
    if constexpr (N == 1) dx[i * rows.steps[0]] = g.at[0];
    else *reinterpret_cast<Pack<T, N>*>(dx + i) = g;
  }
}

// Calls run(rows, N) for tensors of elements of type T and equal sizes: N is 1 or as many elements as 16 bytes hold.
template <class T, int K, class Run>
void for_rows(const Tensor* const (&tensors)[K], int axis, Run&& run) {
  constexpr int N = 16 / sizeof(T);
  Tensor reduced[K];
  const Tensor* pointers[K];
  for (int k = 0; k < K; k++) reduced[k] = heads(*tensors[k], axis), pointers[k] = &reduced[k];
  const auto loop = [&]<size_t... k>(std::index_sequence<k...>) { return Loop<K>({pointers[k]...}); }(std::make_index_sequence<K>{});
  const int64_t n = tensors[0]->sizes[axis];
  Rows<K> rows{Nest<K, uint64_t>(loop), n, {}, {}};
  bool packs = n % N == 0;
  for (int k = 0; k < K; k++) {
    rows.steps[k] = tensors[k]->strides[axis];
    packs &= rows.steps[k] == 1 && packs_fit<N>(tensors[k]->template data<T>());
    for (int i = 0; i < loop.rank; i++) packs &= loop.sizes[i] == 1 || loop.strides[k][i] % N == 0;
  }
  const bool columns = loop.inner() > 1 && loop.strides[K - 1][loop.rank - 1] < rows.steps[K - 1];
  rows.groups = groups_for(loop.numel, n, columns, packs ? N : 1);
  if (packs) run(rows, std::integral_constant<int, N>{});
  else run(rows, std::integral_constant<int, 1>{});
}

template <bool log>
void forward(const char* name, const Tensor& y, const Tensor& x, int axis) {
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    for_rows<T, 2>({&y, &x}, axis, [&](const Rows<2>& rows, auto pack) {
      const unsigned blocks = blocks_for(int64_t(rows.heads.count), rows.groups.groups);
      launch(name, softmax_forward_kernel<decltype(pack)::value, log, T>, blocks, rows.groups.threads(), 0, rows, y.data<T>(), x.data<T>());
    });
  });
}

template <bool log>
void backward(const char* name, const Tensor& dx, const Tensor& dy, const Tensor& y, int axis) {
  dispatch_floats(y.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    for_rows<T, 3>({&dx, &dy, &y}, axis, [&](const Rows<3>& rows, auto pack) {
      const unsigned blocks = blocks_for(int64_t(rows.heads.count), rows.groups.groups);
      launch(name, softmax_backward_kernel<decltype(pack)::value, log, T>, blocks, rows.groups.threads(), 0, rows, dx.data<T>(), dy.data<T>(), y.data<T>());
    });
  });
}

}  // namespace

void softmax(const Tensor& y, const Tensor& x, int axis, bool log) {
  if (log) forward<true>("softmax", y, x, axis);
  else forward<false>("softmax", y, x, axis);
}

void softmax_backward(const Tensor& dx, const Tensor& dy, const Tensor& y, int axis, bool log) {
  if (log) backward<true>("softmax_backward", dx, dy, y, axis);
  else backward<false>("softmax_backward", dx, dy, y, axis);
}

}  // namespace dg
