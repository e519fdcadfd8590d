// Cross entropy of class labels, fused with log-softmax; what it is: common/cross_entropy.h. Overwrites out, stats, total and dx. A group of threads
// works on a position; the last block adds up the losses in double. Labels outside their classes are reported and count as ignored.
#include "../common/cross_entropy.h"

#include "softmax.h"

namespace dg {
namespace {

// What both kernels know of the classes and the labels.
template <class T, int K>
struct Task {
  using C = compute_t<T>;
  Nest<K, uint64_t> heads;
  Groups groups;
  int64_t classes, step, ignore;  // step: between the classes of x
  const int64_t* labels;
  const T* weights;  // null: 1
  int64_t weight_step;
  C keep, spread;
  bool logits;

  __device__ C weight(int64_t c) const { return weights ? C(weights[c * weight_step]) : C(1); }
  template <int N>
  __device__ Pack<T, N> scores(const T* x, int64_t c) const {
    if constexpr (N == 1) return {{x[c * step]}};
    else return *reinterpret_cast<const Pack<T, N>*>(x + c);
  }
};

struct Sums {
  double loss, weight;
};

template <int N, class T>
__global__ void cross_entropy_forward_kernel(const __grid_constant__ Task<T, 4> task, T* out, compute_t<T>* stats, compute_t<T>* total,
                                             const T* scores, uint32_t reduction, Sums* parts, unsigned* counter, Report outside) {
  using C = compute_t<T>;
  const Groups& g = task.groups;
  const int64_t n = task.classes, positions = int64_t(task.heads.count), first = int64_t(g.lane()) * N, step = int64_t(g.lanes) * N;
  Sums sums{0, 0};
  for (int64_t at = int64_t(blockIdx.x) * g.groups; at < positions; at += int64_t(gridDim.x) * g.groups) {  // uniform: the groups meet in each round
    const bool exists = at + g.group() < positions;
    uint64_t offsets[4] = {};
    int64_t label = task.ignore;
    if (exists) {
      task.heads.offsets(uint64_t(at + g.group()), offsets);
      label = task.labels[offsets[2]];
    }
    const bool counted = exists && label != task.ignore, inside = counted && label >= 0 && label < n;
    if (counted && !inside && g.lane() == 0) outside(label);
    const T* const x = scores + offsets[1];
    const int64_t from = inside ? first : n;
    C top = 0, shift = 0, spread = 0;
    if (task.logits) {
      Exponentials<C> e = Exponentials<C>::none();
      for (int64_t c = from; c < n; c += step) e.add(task.template scores<N>(x, c));
      e = group_reduce(e, g, Exponentials<C>::join);
      if (inside) top = e.top, shift = log_(e.total());
    }
    if (task.spread != C(0)) {
      for (int64_t c = from; c < n; c += step) {
        const Pack<T, N> v = task.template scores<N>(x, c);
#pragma unroll
        for (int j = 0; j < N; j++) spread += task.weight(c + j) * ((C(v.at[j]) - top) - shift);
      }
      spread = group_reduce(spread, g, Plus<C>());
    }
    if (!exists || g.lane() != 0) continue;
    C loss = 0;
    if (inside) {
      const C weight = task.weight(label);
      loss = -task.keep * weight * ((C(x[label * task.step]) - top) - shift) - task.spread * spread;
      sums.loss += double(loss);
      sums.weight += double(weight);
    }
    stats[offsets[0]] = top;
    stats[positions + int64_t(offsets[0])] = shift;
    if (reduction == 0) out[offsets[3]] = T(loss);
  }
  const auto over_block = [](Sums s) {
    return Sums{block_reduce(s.loss, 0.0, Plus<double>()), block_reduce(s.weight, 0.0, Plus<double>())};
  };
  sums = over_block(sums);
  if (gridDim.x > 1) {
    if (threadIdx.x == 0) parts[blockIdx.x] = sums;
    if (!last_block(counter, gridDim.x)) return;
    sums = {0, 0};
    for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x) sums.loss += parts[i].loss, sums.weight += parts[i].weight;
    sums = over_block(sums);
  }
  if (threadIdx.x != 0) return;
  *total = C(sums.weight);
  if (reduction != 0) *out = T(C(reduction == 1 ? sums.loss / sums.weight : sums.loss));
}

template <int N, class T>
__global__ void cross_entropy_backward_kernel(const __grid_constant__ Task<T, 5> task, T* dx, int64_t dx_step, const T* dy,
                                              const compute_t<T>* stats, const compute_t<T>* total, const T* scores) {
  using C = compute_t<T>;
  const Groups& g = task.groups;
  const int64_t n = task.classes, positions = int64_t(task.heads.count), step = int64_t(g.lanes) * N;
  C weight_sum = C(n);
  if (task.weights && task.spread != C(0)) {
    weight_sum = 0;
    for (int64_t c = g.lane(); c < n; c += g.lanes) weight_sum += task.weight(c);
    weight_sum = group_reduce(weight_sum, g, Plus<C>());
  }
  const int64_t at = int64_t(blockIdx.x) * g.groups + g.group();
  if (at >= positions) return;
  uint64_t offsets[5];
  task.heads.offsets(uint64_t(at), offsets);
  const int64_t label = task.labels[offsets[3]], position = int64_t(offsets[2]);
  const bool inside = label != task.ignore && label >= 0 && label < n;
  const T* const x = scores + offsets[1];
  T* const o = dx + offsets[0];
  C gradient = 0, top = 0, shift = 0, hit = 0;
  if (inside) {
    gradient = C(dy[offsets[4]]) * (total ? C(1) / *total : C(1));
    top = stats[position], shift = stats[positions + position];
    hit = task.keep * task.weight(label);
  }
  const C all = gradient * (hit + task.spread * weight_sum), each = gradient * task.spread;
  for (int64_t c = int64_t(g.lane()) * N; c < n; c += step) {
    Pack<T, N> v{};
    if (inside) {
      if (task.logits) v = task.template scores<N>(x, c);
#pragma unroll
      for (int j = 0; j < N; j++) {
        C value = task.logits ? all * exp_((C(v.at[j]) - top) - shift) : C(0);
        if (each != C(0)) value -= each * task.weight(c + j);
        v.at[j] = T(c + j == label ? value - gradient * hit : value);
      }
    }
    if constexpr (N == 1) o[c * dx_step] = v.at[0];
    else *reinterpret_cast<Pack<T, N>*>(o + c) = v;
  }
}

// The task on the positions of a loop, classes read `pack` at a time.
template <class T, int K>
Task<T, K> task_of(const CrossEntropy& e, const Loop<K>& loop, bool columns, int pack) {
  using C = compute_t<T>;
  return {Nest<K, uint64_t>(loop), groups_for(loop.numel, e.classes, columns, pack), e.classes, e.x.strides[1], e.ignore, e.labels.data<int64_t>(),
          e.weighted ? e.weight.data<T>() : nullptr, e.weighted ? e.weight.strides[0] : 0, C(e.keep()), C(e.spread()), e.logits};
}

// Whether packs of N classes lie on their own size at every position, for operand k of the loop.
template <int N, class T, int K>
bool packs_of(const Loop<K>& loop, int k, const T* data, int64_t classes, int64_t step) {
  bool fit = step == 1 && classes % N == 0 && packs_fit<N>(data);
  for (int i = 0; i < loop.rank; i++) fit &= loop.sizes[i] == 1 || loop.strides[k][i] % N == 0;
  return fit;
}

template <class T>
void forward(const CrossEntropy& e, const Tensor& out) {
  constexpr int N = 16 / sizeof(T);
  const Tensor head = e.heads(e.x), number = e.numbers();
  const Loop<4> loop({&number, &head, &e.labels, e.reduction == 0 ? &out : &e.labels});
  const bool columns = loop.inner() > 1 && loop.strides[1][loop.rank - 1] < e.x.strides[1];
  const bool packs = packs_of<N>(loop, 1, e.x.data<T>(), e.classes, e.x.strides[1]);
  const Task<T, 4> task = task_of<T>(e, loop, columns, packs ? N : 1);
  const unsigned blocks = std::min(1024u, blocks_for(e.positions, task.groups.groups));
  const Scratch parts(int64_t(blocks) * int64_t(sizeof(Sums)));
  launch("cross_entropy", packs ? cross_entropy_forward_kernel<N, T> : cross_entropy_forward_kernel<1, T>, blocks, task.groups.threads(), 0, task,
         out.data<T>(), e.stats.data<compute_t<T>>(), e.total.data<compute_t<T>>(), e.x.data<T>(), e.reduction, parts.as<Sums>(), counters(),
         report(DG_RANGE, e.outside()));
}

template <class T>
void backward(const CrossEntropy& e, const Tensor& dx, const Tensor& dy) {
  constexpr int N = 16 / sizeof(T);
  if (dx.numel == 0) return;
  const Tensor to = e.heads(dx), from = e.heads(e.x), number = e.numbers();
  const Loop<5> loop({&to, &from, &number, &e.labels, &dy});
  const bool columns = loop.inner() > 1 && loop.strides[0][loop.rank - 1] < dx.strides[1];
  const bool packs = packs_of<N>(loop, 0, dx.data<T>(), e.classes, dx.strides[1]) && packs_of<N>(loop, 1, e.x.data<T>(), e.classes, e.x.strides[1]);
  const Task<T, 5> task = task_of<T>(e, loop, columns, packs ? N : 1);
  launch("cross_entropy", packs ? cross_entropy_backward_kernel<N, T> : cross_entropy_backward_kernel<1, T>,
         blocks_for(e.positions, task.groups.groups), task.groups.threads(), 0, task, dx.data<T>(), dx.strides[1], dy.data<T>(), e.stats.data<compute_t<T>>(),
         e.reduction == 1 ? e.total.data<compute_t<T>>() : nullptr, e.x.data<T>());
}

}  // namespace

void cross_entropy(const CrossEntropy& e, const Tensor& out) {
  dispatch_floats(e.x.dtype, e.name, [&](auto kind) { forward<typename decltype(kind)::type>(e, out); });
}

void cross_entropy_backward(const CrossEntropy& e, const Tensor& dx, const Tensor& dy) {
  dispatch_floats(e.x.dtype, e.name, [&](auto kind) { backward<typename decltype(kind)::type>(e, dx, dy); });
}

}  // namespace dg
