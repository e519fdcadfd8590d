// Gradient of the weights as a matrix product over positions: dw[filter][tap, channel] = sum over positions of dy * gathered x. Where the gradient
// itself makes few tiles, several blocks share the positions of one; the last of them adds their sums in order.
#include "columns.h"
#include "convolution.h"
#include "convolution_tile.h"

namespace dg::conv {
namespace {

template <class T, class C>
struct Product {
  int kernel[3], stride[3], padding[3], dilation[3], rows[3], limit[3];
  int64_t positions, filters, channels, terms;  // of a group; terms = taps * channels, by channel within a tap
  int64_t filter_tiles, term_tiles, splits, split;  // positions of a split
  Activation<T> dy, x;
  Weight<T> dw;
  C* partials;  // [tile][split][BM][BN]
  unsigned* counters;
};

template <class Tile, bool packs>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks) weight_product(const __grid_constant__ Product<typename Tile::T, typename Tile::C> g) {
  using T = typename Tile::T;
  using C = typename Tile::C;
  constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BK, threads = Tile::threads, V = packs ? 16 / sizeof(T) : 1;
  constexpr int A = BM * BK / V / threads, B = BK * BN / V / threads;
  static_assert(A > 0 && B > 0 && Tile::by_terms && threads % BK == 0);
  DG_DYNAMIC_SHARED(unsigned char, shared);
  unsigned char* const tiles = shared + (128 - reinterpret_cast<uintptr_t>(shared) % 128) % 128;
  T *const a = reinterpret_cast<T*>(tiles), *const b = a + 2 * Tile::a_size;
  Spot* const columns = reinterpret_cast<Spot*>(tiles + tile_bytes<Tile>());  // [BN]: taps and channels
  Spot* const spots = columns + BN;                                           // [2][BK]: where positions begin in x
  int64_t* const gradients = reinterpret_cast<int64_t*>(spots + 2 * BK);      // [2][BK]: offsets in dy, -1 beyond the last position
  const int thread = threadIdx.x;

  int64_t tile_number = blockIdx.x;
  const int64_t split = blockIdx.y, term0 = tile_number % g.term_tiles * BN, filter0 = tile_number / g.term_tiles % g.filter_tiles * BM,
                group = tile_number / g.term_tiles / g.filter_tiles;
  const T* const dy = g.dy.data + (group * g.filters + filter0) * g.dy.channel;
  const T* const x = g.x.data + group * g.channels * g.x.channel;
  const int64_t begin = split * g.split, end = min(g.positions, begin + g.split);
  const int filters = int(min(g.filters - filter0, int64_t(BM))), terms = int(min(g.terms - term0, int64_t(BN)));

  for (int i = thread; i < BN; i += threads) {
    Spot spot{};
    if (i < terms) {
      const int64_t tap = (term0 + i) / g.channels, c = (term0 + i) - tap * g.channels;
      const int k = int(tap);
      spot.z = k / g.kernel[2] / g.kernel[1] * g.dilation[0], spot.y = k / g.kernel[2] % g.kernel[1] * g.dilation[1];
      spot.x = k % g.kernel[2] * g.dilation[2];
      spot.offset = spot.z * g.x.at[0] + spot.y * g.x.at[1] + spot.x * g.x.at[2] + c * g.x.channel;
    }
    columns[i] = spot;
  }
  const auto find = [&](int64_t from, int copy) {
    if (thread >= BK) return;
    int64_t row = from + thread, gradient = -1;
    Spot spot{};
    if (row < end) {
      int at[3];
#pragma unroll
      for (int k = 2; k >= 0; k--) {
        const int64_t next = g.positions < INT32_MAX ? int64_t(uint32_t(row) / uint32_t(g.rows[k])) : row / g.rows[k];
        at[k] = int(row - next * g.rows[k]);
        row = next;
      }
      gradient = row * g.dy.sample;
      spot.offset = row * g.x.sample;
      int source[3];
#pragma unroll
      for (int k = 0; k < 3; k++) {
        gradient += at[k] * g.dy.at[k];
        source[k] = at[k] * g.stride[k] - g.padding[k];
        spot.offset += source[k] * g.x.at[k];
      }
      spot.z = source[0], spot.y = source[1], spot.x = source[2];
    }
    spots[copy * BK + thread] = spot;
    gradients[copy * BK + thread] = gradient;
  };

  // The position (of BK) and the first filter or term of item r of a thread.
  const auto position = [&](int r, int width) { return packs ? (thread + r * threads) / (width / V) : thread % BK; };
  const auto element = [&](int r, int width) { return packs ? (thread + r * threads) % (width / V) * V : thread / BK + r * (threads / BK); };
  Pack<T, V> loaded_a[A], loaded_b[B];
  const auto load_step = [&](int copy) {
#pragma unroll
    for (int r = 0; r < A; r++) {
      const int64_t at = gradients[copy * BK + position(r, BM)];
      const int f = element(r, BM);
#pragma unroll
      for (int j = 0; j < V; j++) loaded_a[r].at[j] = T(0.0f);
      if (at >= 0 && f < filters) loaded_a[r] = load<T, V>(dy + at + f * (packs ? 1 : g.dy.channel));
    }
#pragma unroll
    for (int r = 0; r < B; r++) {
      const int k = position(r, BN), e = element(r, BN);
#pragma unroll
      for (int j = 0; j < V; j++) loaded_b[r].at[j] = T(0.0f);
      if (e >= terms || gradients[copy * BK + k] < 0) continue;
      const Spot s = spots[copy * BK + k], t = columns[e];
      if (unsigned(s.z + t.z) < unsigned(g.limit[0]) && unsigned(s.y + t.y) < unsigned(g.limit[1]) && unsigned(s.x + t.x) < unsigned(g.limit[2]))
        loaded_b[r] = load<T, V>(x + s.offset + t.offset);
    }
  };
  const auto put = [&](int copy) {
#pragma unroll
    for (int r = 0; r < A; r++) store(a + copy * Tile::a_size + position(r, BM) * Tile::lda + element(r, BM), loaded_a[r]);
#pragma unroll
    for (int r = 0; r < B; r++) store(b + copy * Tile::b_size + position(r, BN) * Tile::ldb + element(r, BN), loaded_b[r]);
  };

  Tile tile;
  const int64_t steps = end > begin ? (end - begin + BK - 1) / BK : 0;
  if (steps > 0) {
    find(begin, 0);
    __syncthreads();
    load_step(0);
    find(begin + BK, 1);
    put(0);
    __syncthreads();
    for (int64_t step = 0; step < steps; step++) {
      const int now = int(step & 1), next = now ^ 1;
      if (step + 1 < steps) load_step(next);
      tile.multiply(a + now * Tile::a_size, b + now * Tile::b_size);
      if (step + 1 < steps) put(next);
      if (step + 2 < steps) find(begin + (step + 2) * BK, now);
      __syncthreads();
    }
  }

  C* const c = reinterpret_cast<C*>(tiles);
  tile.store(c);
  __syncthreads();
  const int64_t elements = int64_t(BM) * BN;
  C* const partials = g.partials + tile_number * g.splits * elements;
  if (g.splits > 1) {
    for (int i = thread; i < BM * BN; i += threads) partials[split * elements + i] = c[i / BN * Tile::ldc + i % BN];
    if (!last_block(g.counters + tile_number, unsigned(g.splits))) return;
  }
  for (int i = thread; i < BM * BN; i += threads) {
    const int f = i / BN, e = i % BN;
    if (f >= filters || e >= terms) continue;
    C sum = g.splits > 1 ? C(0) : c[f * Tile::ldc + e];
    if (g.splits > 1)
      for (int64_t s = 0; s < g.splits; s++) sum += partials[s * elements + i];
    const int64_t tap = (term0 + e) / g.channels, channel = (term0 + e) - tap * g.channels;
    const int k = int(tap);
    g.dw.data[(group * g.filters + filter0 + f) * g.dw.filter + channel * g.dw.channel + k / g.kernel[2] / g.kernel[1] * g.dw.tap[0] +
              k / g.kernel[2] % g.kernel[1] * g.dw.tap[1] + k % g.kernel[2] * g.dw.tap[2]] = T(sum);
  }
}

template <class Tile, bool packs>
void start(Product<typename Tile::T, typename Tile::C> g, int64_t groups) {
  using C = typename Tile::C;
  g.filter_tiles = ceil_div(g.filters, Tile::BM);
  g.term_tiles = ceil_div(g.terms, Tile::BN);
  const int64_t tiles = g.filter_tiles * g.term_tiles * groups;
  if (tiles >= int64_t(1) << 31) fail(DG_SHAPE, "conv_backward_weight: too large for the device");
  g.splits = std::clamp<int64_t>(kFewBlocks / tiles, 1, std::max<int64_t>(1, g.positions / (8 * Tile::BK)));
  g.split = round_up(ceil_div(std::max<int64_t>(g.positions, 1), g.splits), Tile::BK);
  g.splits = std::max<int64_t>(1, ceil_div(g.positions, g.split));
  const Scratch scratch(g.splits > 1 ? tiles * g.splits * Tile::BM * Tile::BN * int64_t(sizeof(C)) : 0);
  g.partials = scratch.as<C>();
  g.counters = counters();
  const size_t shared = 128 + tile_bytes<Tile>() + (Tile::BN + 2 * Tile::BK) * sizeof(Spot) + 2 * Tile::BK * sizeof(int64_t);
  launch("convolution_weight_gradient", weight_product<Tile, packs>, dim3(unsigned(tiles), unsigned(g.splits)), Tile::threads, shared, g);
}

template <class T>
bool packed(const Activation<T>& t, int64_t channels) {
  constexpr int V = 16 / sizeof(T);
  bool fits = t.channel == 1 && channels % V == 0 && t.sample % V == 0 && reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
  for (int64_t step : t.at) fits &= step % V == 0;
  return fits;
}

}  // namespace

template <class T>
void gather_backward_weight(const ConvShape& s, const Weight<T>& dw, const Activation<T>& dy, const Activation<T>& x) {
  using Large = typename Tiles<T>::template large<true>;
  using Small = typename Tiles<T>::template small<true>;
  Product<T, compute_t<T>> g{};
  for (int i = 0; i < 3; i++) {
    g.kernel[i] = int(s.kernel[i]), g.stride[i] = int(s.stride[i]), g.padding[i] = int(s.padding[i]), g.dilation[i] = int(s.dilation[i]);
    g.rows[i] = int(s.output[i]), g.limit[i] = int(s.input[i]);
  }
  g.positions = s.output_pixels(), g.filters = s.group_filters(), g.channels = s.group_channels(), g.terms = s.taps() * g.channels;
  g.dy = dy, g.x = x, g.dw = dw;
  const bool packs = packed(dy, g.filters) && packed(x, g.channels);
  const double work = double(g.positions) * double(g.filters) * double(g.terms) * double(s.groups);
  const bool large = g.filters > Small::BM && g.terms > Small::BN && work >= 1 << 26;
  if (large) packs ? start<Large, true>(g, s.groups) : start<Large, false>(g, s.groups);
  else packs ? start<Small, true>(g, s.groups) : start<Small, false>(g, s.groups);
}

template void gather_backward_weight(const ConvShape&, const Weight<float>&, const Activation<float>&, const Activation<float>&);
template void gather_backward_weight(const ConvShape&, const Weight<double>&, const Activation<double>&, const Activation<double>&);
template void gather_backward_weight(const ConvShape&, const Weight<f16>&, const Activation<f16>&, const Activation<f16>&);
template void gather_backward_weight(const ConvShape&, const Weight<bf16>&, const Activation<bf16>&, const Activation<bf16>&);

}  // namespace dg::conv
