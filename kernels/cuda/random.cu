// Random numbers, dropout and draws; the numbers of common/random.h. A thread makes what one counter gives: 4 elements of 32 bits or 2 of 64.
#include "../common/random.h"

#include "block.h"
#include "map.h"

namespace dg {
namespace {

// The stream of a call; in a graph each launch goes on where the one before ended.
struct Counted {
  RandomStream stream;
  const Replay* replay;
  __device__ void words(uint64_t i, uint32_t (&word)[4]) const {
    stream.words(i + (replay ? uint64_t(replay->launches * replay->counters) : 0), word);
  }
};

// Elements of a counter from the functions of common/random.h.
template <class T, class Number>
struct EachWord {
  static constexpr int per = 4;
  Number number;
  __device__ void operator()(const uint32_t (&w)[4], T (&out)[4]) const {
#pragma unroll
    for (int j = 0; j < 4; j++) out[j] = number(w[j]);
  }
};
template <class T, class Number>
struct EachPair {
  static constexpr int per = 2;
  Number number;
  __device__ void operator()(const uint32_t (&w)[4], T (&out)[2]) const {
    out[0] = number(w[0], w[1]);
    out[1] = number(w[2], w[3]);
  }
};
template <class T>
struct EachNormal {
  static constexpr int per = 4;
  NormalNumber<T> number;
  __device__ void operator()(const uint32_t (&w)[4], T (&out)[4]) const {
    float z[4];
    normal_pair(w[0], w[1], z[0], z[1]);
    normal_pair(w[2], w[3], z[2], z[3]);
#pragma unroll
    for (int j = 0; j < 4; j++) out[j] = number(z[j]);
  }
};
template <>
struct EachNormal<double> {
  static constexpr int per = 2;
  NormalNumber<double> number;
  __device__ void operator()(const uint32_t (&w)[4], double (&out)[2]) const {
    double z0, z1;
    normal_pair(w[0], w[1], w[2], w[3], z0, z1);
    out[0] = number(z0);
    out[1] = number(z1);
  }
};
struct Word {
  __device__ int64_t operator()(uint32_t word) const { return word; }
};

template <class T, class Make>
__global__ void random_fill(Counted stream, Make make, int64_t numel, bool packed, T* out) {
  constexpr int per = Make::per;
  const int64_t counter = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, first = counter * per;
  if (first >= numel) return;
  uint32_t word[4];
  stream.words(uint64_t(counter), word);
  Pack<T, per> value;
  make(word, value.at);
  if (packed && first + per <= numel) {
    *reinterpret_cast<Pack<T, per>*>(out + first) = value;
  } else {
#pragma unroll
    for (int j = 0; j < per; j++)
      if (first + j < numel) out[first + j] = value.at[j];
  }
}

// Sizes the launch to the counters, one a thread.
struct Grid {
  unsigned threads, blocks;
  explicit Grid(int64_t items) : threads(items < kThreads ? unsigned((items + 31) / 32 * 32) : unsigned(kThreads)), blocks(blocks_for(items, threads)) {}
};

template <class T, class Make>
void fill(const Tensor& out, const Counted& stream, const Make& make) {
  const Grid grid((out.numel + Make::per - 1) / Make::per);
  launch("random", random_fill<T, Make>, grid.blocks, grid.threads, 0, stream, make, out.numel, packs_fit<Make::per>(out.data<T>()), out.data<T>());
}

// ---- The CPU's permutation. Step i of the shuffle swaps element i with its partner p(i) >= i, so element i is final after step i: it is what lay
// at p(i) then, moved there by the latest step before i with the same partner, or p(i) itself. What that step k moved lay at k before: moved
// there by the latest step with partner k, and so on. Chains are of logarithmic length, and so are the lists of steps with one partner.
// Steps are numbered from 1 in the lists, 0 ends them.

struct Lists {
  unsigned long long *head, *next;
  // The latest step before `limit` (both from 1) with partner p; 0 if there is none.
  __device__ uint64_t latest(int64_t p, uint64_t limit) const {
    uint64_t found = 0;
    for (uint64_t k = head[p]; k != 0; k = next[k - 1])
      if (k < limit && k > found) found = k;
    return found;
  }
};

__device__ int64_t partner(const Counted& stream, int64_t i, int64_t n) {
  uint32_t word[4];
  stream.words(uint64_t(i / 2), word);
  return i % 2 ? shuffle_partner(i, n, word[2], word[3]) : shuffle_partner(i, n, word[0], word[1]);
}

__global__ void permutation_link(Counted stream, int64_t n, Lists lists) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int64_t p = partner(stream, i, n);
  if (p != i) lists.next[i] = atomicExch(&lists.head[p], static_cast<unsigned long long>(i + 1));
}

__global__ void permutation_follow(Counted stream, int64_t n, Lists lists, int64_t* out) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int64_t at = partner(stream, i, n);
  for (uint64_t step = lists.latest(at, uint64_t(i) + 1); step != 0; step = lists.latest(at, step)) at = int64_t(step) - 1;
  out[i] = at;
}

void permutation(const Tensor& out, const Counted& stream) {
  const int64_t n = out.numel;
  const Scratch scratch(2 * n * 8);
  const Lists lists{scratch.as<unsigned long long>(), scratch.as<unsigned long long>() + n};
  check_cuda(cudaMemsetAsync(lists.head, 0, size_t(n) * 8, current_stream()), "random");
  const Grid grid(n);
  launch("permutation_link", permutation_link, grid.blocks, grid.threads, 0, stream, n, lists);
  launch("permutation_follow", permutation_follow, grid.blocks, grid.threads, 0, stream, n, lists, out.data<int64_t>());
}

// ---- Dropout: y = rule(x) in the memory order of y.

template <class T>
__global__ void dropout_packed(Counted stream, DropoutRule<compute_t<T>> rule, int64_t numel, T* y, const T* x) {
  using C = compute_t<T>;
  const int64_t counter = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, first = counter * 4;
  if (first >= numel) return;
  uint32_t word[4];
  stream.words(uint64_t(counter), word);
  if (first + 4 <= numel) {
    Pack<T, 4> value = *reinterpret_cast<const Pack<T, 4>*>(x + first);
#pragma unroll
    for (int j = 0; j < 4; j++) value.at[j] = T(rule(C(value.at[j]), word[j]));
    *reinterpret_cast<Pack<T, 4>*>(y + first) = value;
  } else {
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (first + j < numel) y[first + j] = T(rule(C(x[first + j]), word[j]));
  }
}

template <class T>
__global__ void dropout_strided(Counted stream, DropoutRule<compute_t<T>> rule, Nest<2, uint64_t> nest, T* y, const T* x) {
  const uint64_t counter = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x, first = counter * 4;
  if (first >= nest.count) return;
  uint32_t word[4];
  stream.words(counter, word);
#pragma unroll
  for (int j = 0; j < 4; j++) {
    if (first + j >= nest.count) continue;
    uint64_t offset[2];
    nest.offsets(first + j, offset);
    y[offset[0]] = T(rule(compute_t<T>(x[offset[1]]), word[j]));
  }
}

// ---- Draws with replacement: running sums of each row's weights, in the CPU's order, then a search of them for each draw.

__global__ void multinomial_sums(Draws size, const double* weights, double* sums, int64_t* last, Report bad) {
  DG_SHARED(double[kThreads], tile);
  const int64_t row = blockIdx.x;
  weights += row * size.categories;
  sums += row * size.categories;
  double total = 0;
  int64_t positive = -1;
  for (int64_t begin = 0; begin < size.categories; begin += blockDim.x) {
    const int64_t i = begin + threadIdx.x;
    if (i < size.categories) {
      double w = weights[i];
      if (!(w >= 0 && w < HUGE_VAL)) {
        bad(bit_cast<int64_t>(w));
        w = 0;
      }
      tile[threadIdx.x] = w;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      const int count = int(size.categories - begin < int64_t(blockDim.x) ? size.categories - begin : int64_t(blockDim.x));
      for (int j = 0; j < count; j++) {
        if (tile[j] > 0) positive = begin + j;
        tile[j] = total += tile[j];
      }
    }
    __syncthreads();
    if (i < size.categories) sums[i] = tile[threadIdx.x];
  }
  if (threadIdx.x == 0) last[row] = positive;
}

__global__ void multinomial_draw(Counted stream, Draws size, const double* sums, const int64_t* last, int64_t* out, Report few) {
  const int64_t item = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (item >= size.rows * size.draws) return;
  const int64_t row = item / size.draws, i = item - row * size.draws, end = last[row];
  out[item] = 0;
  if (end < 0) return few(row);
  uint32_t word[4];
  stream.words(uint64_t(row) * size.counters + uint64_t(i / 2), word);
  sums += row * size.categories;
  const double at = (i % 2 ? uniform_double(word[2], word[3]) : uniform_double(word[0], word[1])) * sums[size.categories - 1];
  int64_t low = 0, high = size.categories;  // the first sum beyond `at`
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sums[middle] > at) high = middle;
    else low = middle + 1;
  }
  out[item] = low < end ? low : end;
}

// ---- Draws without replacement: the smallest of exponential numbers of rate w_i, one after another, are draws in proportion to w (Efraimidis and
// Spirakis 2006). Tiles of them are sorted, then each finds its rank by searching the other tiles. Numbers are compared as their bits.

constexpr int kTile = 512;
constexpr uint64_t kNever = ~uint64_t(0);  // of weight 0

struct Tiles {
  int64_t tiles;
  int width;
  uint64_t* keys;
  int64_t* index;
};

__global__ void multinomial_race(Counted stream, Draws size, Tiles to, const double* weights, Report bad) {
  DG_SHARED(uint64_t[kTile], keys);
  DG_SHARED(int[kTile], order);
  const int64_t row = int64_t(blockIdx.x) / to.tiles, tile = int64_t(blockIdx.x) - row * to.tiles, first = tile * to.width;
  for (int j = int(threadIdx.x); j < to.width; j += int(blockDim.x)) {
    const int64_t i = first + j;
    uint64_t key = kNever;
    if (i < size.categories) {
      const double w = weights[row * size.categories + i];
      if (!(w >= 0 && w < HUGE_VAL)) {
        bad(bit_cast<int64_t>(w));
      } else if (w > 0) {
        uint32_t word[4];
        stream.words(uint64_t(row) * size.counters + uint64_t(i / 2), word);
        key = bit_cast<uint64_t>(i % 2 ? exponential_number(word[2], word[3], w) : exponential_number(word[0], word[1], w));
      }
    }
    keys[j] = key;
    order[j] = j;
  }
  for (int size_of = 2; size_of <= to.width; size_of *= 2)
    for (int distance = size_of / 2; distance > 0; distance /= 2) {  // bitonic
      __syncthreads();
      for (int j = int(threadIdx.x); j < to.width / 2; j += int(blockDim.x)) {
        const int a = 2 * j - (j & (distance - 1)), b = a + distance;
        const uint64_t ka = keys[a], kb = keys[b];
        const int ia = order[a], ib = order[b];
        if ((ka > kb || (ka == kb && ia > ib)) == ((a & size_of) == 0)) {
          keys[a] = kb, keys[b] = ka;
          order[a] = ib, order[b] = ia;
        }
      }
    }
  __syncthreads();
  const int64_t base = (row * to.tiles + tile) * to.width;
  for (int j = int(threadIdx.x); j < to.width; j += int(blockDim.x)) {
    to.keys[base + j] = keys[j];
    to.index[base + j] = first + order[j];
  }
}

__global__ void multinomial_rank(Draws size, Tiles from, int64_t* out, Report few) {
  const int64_t item = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, width = from.width, row_items = from.tiles * width;
  if (item >= size.rows * row_items) return;
  const int64_t row = item / row_items, here = item - row * row_items, tile = here / width;
  const int64_t index = from.index[item];
  int64_t rank = here - tile * width;
  if (rank >= size.draws || index >= size.categories) return;
  const uint64_t key = from.keys[item];
  const uint64_t* const keys = from.keys + row * row_items;
  for (int64_t t = 0; t < from.tiles; t++) {
    if (t == tile) continue;
    int64_t low = 0, high = width;  // of equal numbers the one of the lower category comes first
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      const uint64_t other = keys[t * width + middle];
      if (t < tile ? other <= key : other < key) low = middle + 1;
      else high = middle;
    }
    rank += low;
  }
  if (rank >= size.draws) return;
  if (key == kNever) few(row);
  out[row * size.draws + rank] = index;
}

}  // namespace

void random(const Tensor& out, RandomOp op, const RandomStream& words, const RandomArguments& arguments) {
  const char* const name = "random";
  const Counted stream{words, replay()};
  const double a = arguments.a, b = arguments.b, c = arguments.c, d = arguments.d;
  switch (op) {
    case RandomOp::uniform:
      return dispatch_floats(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        using Each = std::conditional_t<std::is_same_v<T, double>, EachPair<T, UniformNumber<T>>, EachWord<T, UniformNumber<T>>>;
        fill<T>(out, stream, Each{UniformNumber<T>(a, b)});
      });
    case RandomOp::normal:
      return dispatch_floats(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        fill<T>(out, stream, EachNormal<T>{NormalNumber<T>(a, b)});
      });
    case RandomOp::integers:
      return dispatch_all(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        fill<T>(out, stream, EachPair<T, WholeNumber<T>>{WholeNumber<T>(a, b)});
      });
    case RandomOp::bernoulli:
      return dispatch_all(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        fill<T>(out, stream, EachPair<T, BernoulliNumber<T>>{{a}});
      });
    case RandomOp::exponential:
      return dispatch_floats(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        fill<T>(out, stream, EachPair<T, ExponentialNumber<T>>{{a}});
      });
    case RandomOp::truncated_normal:
      return dispatch_floats(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        fill<T>(out, stream, EachPair<T, TruncatedNormalNumber<T>>{TruncatedNormalNumber<T>(a, b, c, d)});
      });
    case RandomOp::bits: return fill<int64_t>(out, stream, EachWord<int64_t, Word>{});
    default: return permutation(out, stream);
  }
}

void dropout(const Tensor& y, const Tensor& x, double p, const RandomStream& words) {
  const char* const name = "dropout";
  const Counted stream{words, replay()};
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    const DropoutRule<compute_t<T>> rule(p);
    const Loop<2> loop({&y, &x});
    T* const to = y.data<T>();
    const T* const from = x.data<T>();
    const Grid grid((loop.numel + 3) / 4);
    if (loop.rank == 1 && loop.all_unit() && packs_fit<4>(to, from))
      launch(name, dropout_packed<T>, grid.blocks, grid.threads, 0, stream, rule, loop.numel, to, from);
    else
      launch(name, dropout_strided<T>, grid.blocks, grid.threads, 0, stream, rule, Nest<2, uint64_t>(loop), to, from);
  });
}

void multinomial(int64_t* out, const double* weights, const Draws& size, const RandomStream& words) {
  const char* const name = "multinomial";
  // A grid has room for 2^31 - 1 blocks.
  if (size.rows > 0x7fffffff) fail(DG_SHAPE, "%s: %lld rows are too many", name, (long long)size.rows);
  const Counted stream{words, replay()};
  const Report bad = report(DG_RANGE, std::string(name) + ": weights must be finite and >= 0, got %g");
  const Report few = report(DG_RANGE, std::string(name) + ": row %lld does not have " + std::to_string(size.replacement ? 1 : size.draws) +
                                          " categories of weight > 0");
  if (size.replacement) {
    const Scratch scratch((size.rows * size.categories + size.rows) * 8);
    double* const sums = scratch.as<double>();
    int64_t* const last = reinterpret_cast<int64_t*>(sums + size.rows * size.categories);
    const Grid tiles(std::max<int64_t>(size.categories, 1));
    launch("multinomial_sums", multinomial_sums, unsigned(size.rows), tiles.threads, 0, size, weights, sums, last, bad);
    const Grid grid(size.rows * size.draws);
    launch("multinomial_draw", multinomial_draw, grid.blocks, grid.threads, 0, stream, size, sums, last, out, few);
    return;
  }
  int width = 64;
  while (width < kTile && width < size.categories) width *= 2;
  Tiles tiles{(size.categories + width - 1) / width, width, nullptr, nullptr};
  if (tiles.tiles > 0x7fffffff / size.rows)
    fail(DG_SHAPE, "%s: %lld rows of %lld categories are too many", name, (long long)size.rows, (long long)size.categories);
  const int64_t items = size.rows * tiles.tiles * width;
  const Scratch scratch(items * 16);
  tiles.keys = scratch.as<uint64_t>();
  tiles.index = reinterpret_cast<int64_t*>(tiles.keys + items);
  const unsigned race = unsigned(size.rows * tiles.tiles);
  launch("multinomial_race", multinomial_race, race, unsigned(width / 2), 0, stream, size, tiles, weights, bad);
  const Grid grid(items);
  launch("multinomial_rank", multinomial_rank, grid.blocks, grid.threads, 0, size, tiles, out, few);
}

}  // namespace dg
