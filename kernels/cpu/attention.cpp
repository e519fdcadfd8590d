// Scaled dot-product attention in blocks of keys with a running softmax (Milakov and Gimelshein 2018; Dao et al. 2022, "FlashAttention"): no matrix
// of all scores is kept. Shapes: q [.., H, L, E], k [.., G, S, E], v [.., G, S, Ev], out [.., H, L, Ev].
//   s = scale q k^T + mask; out = exp(s - log_sum) v with log_sum = log of the sum of exp(s) over a row; a row without keys gives 0
//   backward: p = exp(s - log_sum), d = sum of dout out, dv = p^T dout, ds = p (dout v^T - d), dq = scale ds k, dk = scale ds^T q
// Overwrites its outputs. A task has rows of a head (forward) or keys of one (backward); operands are copied into it in the computing type. Where few
// heads have many keys, dq is made of pieces that are added in order; how many depends on the sizes alone.
#include "../common/attention.h"

#include "allocator.h"
#include "gemm_tile.h"
#include "parallel.h"

namespace dg {
namespace {

constexpr int64_t kBlock = 128;               // keys of a block
constexpr int64_t kPanel = 4 * kTileRows;     // rows of which the scores are kept at a time
constexpr int64_t kTasks = 32;                // wanted, where there are few heads

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
template <class C> int64_t whole_vectors(int64_t n) { return ceil_div(n, Vector<C>::lanes) * Vector<C>::lanes; }

// The part of [0, n) that is number `index` of `count` nearly equal ones begins here.
int64_t part(int64_t n, int64_t count, int64_t index) { return index * (n / count) + std::min(index, n % count); }

// c = a b, or c += a b; a is [rows][depth], or [depth][rows] if ByColumns. Rows of b and c have room for whole vectors.
template <bool ByColumns, class C>
void multiply(int64_t rows, int64_t columns, int64_t depth, const C* a, int64_t lda, const C* b, int64_t ldb, C* c, int64_t ldc, bool add) {
  constexpr int64_t lanes = Vector<C>::lanes;
  const int64_t panels = ceil_div(rows, kTileRows);
  for (int64_t j = 0; j < columns; j += 2 * lanes) {
    const int vectors = columns - j > lanes ? 2 : 1;
    for (int64_t panel = 0; panel < panels; panel++) {
      const int64_t i = part(rows, panels, panel), height = part(rows, panels, panel + 1) - i;
      C* const to = c + i * ldc + j;
      tile_for<C, ByColumns>(height, vectors)(depth, a + i * (ByColumns ? 1 : lda), lda, b + j, ldb, to, ldc, add ? to : nullptr, ldc,
                                              add ? Init::row : Init::none);
    }
  }
}

// A piece of work space, a multiple of 64 bytes long.
class Space {
 public:
  template <class C> int64_t add(int64_t count) {
    const int64_t at = bytes_;
    bytes_ += ceil_div(count * int64_t(sizeof(C)), 64) * 64;
    return at;
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

template <class T>
struct Source {
  Stack stack;
  const T* data;
  Source(const Tensor& t, int matrix, int64_t heads) : stack(t, matrix, heads), data(reinterpret_cast<const T*>(t.storage_data)) {}

  // Rows [from, from + rows) of a matrix, in the computing type, zeros behind them up to `ld`.
  template <class C>
  void copy_rows(C* to, int64_t ld, int64_t item, int64_t from, int64_t rows, int64_t columns) const {
    copy_matrix(to, ld, data + stack.at(item) + from * stack.row, stack.row, stack.column, rows, columns);
    if (columns < ld)
      for (int64_t i = 0; i < rows; i++) std::fill(to + i * ld + columns, to + (i + 1) * ld, C(0));
  }
  // The same rows as columns of kBlock.
  template <class C>
  void copy_columns(C* to, int64_t item, int64_t from, int64_t rows, int64_t columns) const {
    copy_matrix(to, kBlock, data + stack.at(item) + from * stack.row, stack.column, stack.row, columns, rows);
    const int64_t whole = whole_vectors<C>(rows);
    if (rows < whole)
      for (int64_t i = 0; i < columns; i++) std::fill(to + i * kBlock + rows, to + i * kBlock + whole, C(0));
  }
};

template <class C>
void scale_rows(C* x, int64_t count, C factor) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) x[i] *= factor;
}

// What decides which keys a row sees, and with what bias.
struct Mask {
  const Attention& a;
  Stack stack;
  explicit Mask(const Attention& attention) : a(attention) {
    if (a.masked) stack = Stack(a.mask, 2, a.heads);
  }
  // The keys from `from` on of which some row up to `last` sees one; at most `count`.
  int64_t seen(int64_t from, int64_t count, int64_t last) const {
    return a.causal ? std::clamp<int64_t>(last + 1 - from, 0, count) : count;
  }
  template <class C>
  void apply(C* scores, int64_t item, int64_t row, int64_t from, int64_t count) const {
    constexpr C hidden = -std::numeric_limits<C>::infinity();
    if (a.causal) std::fill(scores + seen(from, count, row), scores + count, hidden);
    if (!a.masked) return;
    const int64_t start = stack.at(item) + row * stack.row + from * stack.column, step = stack.column;
    if (a.mask.dtype == DG_BOOL) {
      const uint8_t* const m = reinterpret_cast<const uint8_t*>(a.mask.storage_data) + start;
      if (step == 1) {
#pragma omp simd
        for (int64_t j = 0; j < count; j++) scores[j] = m[j] ? scores[j] : hidden;
      } else {
        for (int64_t j = 0; j < count; j++) scores[j] = m[j * step] ? scores[j] : hidden;
      }
      return;
    }
    dispatch_floats(a.mask.dtype, "attention", [&](auto kind) {
      using M = typename decltype(kind)::type;
      const M* const m = reinterpret_cast<const M*>(a.mask.storage_data) + start;
      if (step == 1) {
#pragma omp simd
        for (int64_t j = 0; j < count; j++) scores[j] += C(compute_t<M>(m[j]));
      } else {
        for (int64_t j = 0; j < count; j++) scores[j] += C(compute_t<M>(m[j * step]));
      }
    });
  }
  bool any() const { return a.masked || a.causal; }
};

// Rows of one head, all of its keys.
template <class T>
class Forward {
  using C = compute_t<T>;

 public:
  explicit Forward(const Attention& a)
      : a_(a), mask_(a), q_(a.q, 2, a.heads), k_(a.k, 2, a.heads), v_(a.v, 2, a.heads), out_(a.out, 2, a.heads), sums_(a.log_sum, 1, a.heads) {
    // Several panels share the copies of keys and values.
    pieces_ = std::clamp<int64_t>(kTasks / a.items, std::max<int64_t>(1, ceil_div(a.rows, 1024)), ceil_div(a.rows, kPanel));
    rows_ = ceil_div(a.rows, pieces_);
    width_ = whole_vectors<C>(a.width);
    Space space;
    q_at_ = space.add<C>(rows_ * a.depth);
    k_at_ = space.add<C>(a.depth * kBlock);
    v_at_ = space.add<C>(kBlock * width_);
    scores_at_ = space.add<C>(kPanel * kBlock);
    out_at_ = space.add<C>(rows_ * width_);
    state_at_ = space.add<C>(2 * rows_);
    bytes_ = space.bytes();
  }

  void run() const {
    const int64_t tasks = a_.items * pieces_;
    const Scratch scratch(bytes_ * std::min<int64_t>(thread_count(), tasks));
    parallel_for(tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; task++) one(task / pieces_, task % pieces_, scratch.as<char>() + thread_number() * bytes_);
    });
  }

 private:
  const Attention& a_;
  Mask mask_;
  Source<T> q_, k_, v_, out_;
  Source<C> sums_;
  int64_t pieces_, rows_, width_, q_at_, k_at_, v_at_, scores_at_, out_at_, state_at_, bytes_;

  void one(int64_t item, int64_t piece, char* space) const {
    const auto at = [space](int64_t offset) { return reinterpret_cast<C*>(space + offset); };
    C *const q = at(q_at_), *const k = at(k_at_), *const v = at(v_at_), *const scores = at(scores_at_), *const out = at(out_at_);
    C *const top = at(state_at_), *const sum = top + rows_;
    const int64_t first = part(a_.rows, pieces_, piece), rows = part(a_.rows, pieces_, piece + 1) - first, panels = ceil_div(rows, kPanel);
    q_.copy_rows(q, a_.depth, item, first, rows, a_.depth);
    scale_rows(q, rows * a_.depth, C(a_.scale));
    std::fill(top, top + rows, -std::numeric_limits<C>::infinity());
    std::fill(sum, sum + rows, C(0));
    for (int64_t from = 0; from < a_.keys; from += kBlock) {
      const int64_t keys = mask_.seen(from, std::min(kBlock, a_.keys - from), first + rows - 1);
      if (keys == 0) break;
      k_.copy_columns(k, item, from, keys, a_.depth);
      v_.copy_rows(v, width_, item, from, keys, a_.width);
      for (int64_t panel = 0; panel < panels; panel++) {
        const int64_t i = part(rows, panels, panel), height = part(rows, panels, panel + 1) - i;
        const int64_t count = mask_.seen(from, keys, first + i + height - 1);
        if (count == 0) continue;
        multiply<false>(height, count, a_.depth, q + i * a_.depth, a_.depth, k, kBlock, scores, kBlock, false);
        for (int64_t r = 0; r < height; r++) {
          C* const s = scores + r * kBlock;
          if (mask_.any()) mask_.apply(s, item, first + i + r, from, count);
          update(s, count, top[i + r], sum[i + r], out + (i + r) * width_, from > 0);
        }
        multiply<false>(height, a_.width, count, scores, kBlock, v, width_, out + i * width_, width_, from > 0);
      }
    }
    for (int64_t r = 0; r < rows; r++) finish(item, first + r, top[r], sum[r], out + r * width_);
  }

  // Scores to weights relative to the largest so far; what was summed before follows it.
  void update(C* s, int64_t count, C& top, C& sum, C* out, bool summed) const {
    C largest = top;
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < count; j++) largest = s[j] > largest ? s[j] : largest;
    if (summed && largest != top) {
      const C factor = attention_rescale(top, largest);
      sum *= factor;
      scale_rows(out, width_, factor);
    }
    top = largest;
    const C shift = attention_shift(largest);
    C total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < count; j++) {
      const C e = exp_(s[j] - shift);
      s[j] = e;
      total += e;
    }
    sum += total;
  }

  void finish(int64_t item, int64_t row, C top, C sum, const C* out) const {
    const C factor = sum == C(0) ? C(0) : C(1) / sum;
    T* const to = const_cast<T*>(out_.data) + out_.stack.at(item) + row * out_.stack.row;
    const int64_t step = out_.stack.column;
    if (step == 1) {
#pragma omp simd
      for (int64_t j = 0; j < a_.width; j++) to[j] = T(out[j] * factor);
    } else {
      for (int64_t j = 0; j < a_.width; j++) to[j * step] = T(out[j] * factor);
    }
    const_cast<C*>(sums_.data)[sums_.stack.at(item) + row * sums_.stack.row] = attention_log_sum(top, sum);
  }
};

// Keys of one head and all rows that use them.
template <class T>
class Backward {
  using C = compute_t<T>;

 public:
  Backward(const Attention& a, const Tensor* dq, const Tensor* dk, const Tensor* dv, const Tensor& dout)
      : a_(a), dq_(dq), dk_(dk), dv_(dv), mask_(a), q_(a.q, 2, a.heads), k_(a.k, 2, a.heads), v_(a.v, 2, a.heads), out_(a.out, 2, a.heads),
        dout_(dout, 2, a.heads), sums_(a.log_sum, 1, a.heads), share_(a.heads / a.groups), matrices_(a.items / share_) {
    const int64_t blocks = ceil_div(a.keys, kBlock);
    pieces_ = std::clamp<int64_t>(kTasks / 2 / matrices_, 1, std::min<int64_t>(blocks, 8));
    keys_ = ceil_div(blocks, pieces_) * kBlock;
    depth_ = whole_vectors<C>(a.depth), width_ = whole_vectors<C>(a.width);
    Space space;
    q_at_ = space.add<C>(a.rows * depth_);
    dout_at_ = space.add<C>(a.rows * width_);
    dq_at_ = space.add<C>(a.rows * depth_);
    state_at_ = space.add<C>(2 * a.rows);
    k_at_ = space.add<C>(kBlock * depth_);
    k_columns_at_ = space.add<C>(a.depth * kBlock);
    v_columns_at_ = space.add<C>(a.width * kBlock);
    weights_at_ = space.add<C>(kPanel * kBlock);
    slopes_at_ = space.add<C>(kPanel * kBlock);
    dk_at_ = space.add<C>(keys_ * depth_);
    dv_at_ = space.add<C>(keys_ * width_);
    bytes_ = space.bytes();
  }

  void run() const {
    const int64_t tasks = matrices_ * pieces_, size = a_.rows * a_.depth;
    const bool apart = dq_ && pieces_ > 1;
    const Scratch parts(apart ? pieces_ * a_.items * size * int64_t(sizeof(C)) : 64);
    {
      const Scratch scratch(bytes_ * std::min<int64_t>(thread_count(), tasks));
      parallel_for(tasks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; task++)
          one(task / pieces_, task % pieces_, apart ? parts.as<C>() : nullptr, scratch.as<char>() + thread_number() * bytes_);
      });
    }
    if (!apart) return;
    parallel_for(a_.items * a_.rows, std::max<int64_t>(1, kGrain / (pieces_ * a_.depth)), [&](int64_t begin, int64_t end) {
      C* const all = parts.as<C>();
      for (int64_t row = begin; row < end; row++) {
        C* const first = all + row * a_.depth;
        for (int64_t piece = 1; piece < pieces_; piece++) {
          const C* const other = first + piece * a_.items * size;
#pragma omp simd
          for (int64_t j = 0; j < a_.depth; j++) first[j] += other[j];
        }
        write(*dq_, row / a_.rows, row % a_.rows, first, a_.depth, C(a_.scale));
      }
    });
  }

 private:
  const Attention& a_;
  const Tensor *dq_, *dk_, *dv_;
  Mask mask_;
  Source<T> q_, k_, v_, out_, dout_;
  Source<C> sums_;
  int64_t share_, matrices_, pieces_, keys_, depth_, width_;
  int64_t q_at_, dout_at_, dq_at_, state_at_, k_at_, k_columns_at_, v_columns_at_, weights_at_, slopes_at_, dk_at_, dv_at_, bytes_;

  // Row `row` of matrix `item` of a gradient, which has the heads of its own.
  static void write(const Tensor& to, int64_t item, int64_t row, const C* from, int64_t count, C factor) {
    const Stack stack(to, 2, to.size(-3));
    T* const out = reinterpret_cast<T*>(to.storage_data) + stack.at(item) + row * stack.row;
    for (int64_t j = 0; j < count; j++) out[j * stack.column] = T(from[j] * factor);
  }

  void one(int64_t matrix, int64_t piece, C* parts, char* space) const {
    const auto at = [space](int64_t offset) { return reinterpret_cast<C*>(space + offset); };
    C *const dk = at(dk_at_), *const dv = at(dv_at_), *const dq = at(dq_at_);
    const int64_t first = std::min(a_.keys, piece * keys_), keys = std::min(keys_, a_.keys - first);
    std::fill(dk, dk + keys * depth_, C(0));
    std::fill(dv, dv + keys * width_, C(0));
    for (int64_t g = 0; g < share_; g++) {
      const int64_t item = Attention::query_of(matrix, g, a_.heads, a_.groups);
      std::fill(dq, dq + a_.rows * depth_, C(0));
      if (keys > 0) one_head(item, first, keys, space);
      if (!dq_) continue;
      for (int64_t row = 0; row < a_.rows; row++) {
        if (parts) std::copy(dq + row * depth_, dq + row * depth_ + a_.depth, parts + ((piece * a_.items + item) * a_.rows + row) * a_.depth);
        else write(*dq_, item, row, dq + row * depth_, a_.depth, C(a_.scale));
      }
    }
    for (int64_t j = 0; j < keys; j++) {
      if (dk_) write(*dk_, matrix, first + j, dk + j * depth_, a_.depth, C(1));
      if (dv_) write(*dv_, matrix, first + j, dv + j * width_, a_.width, C(1));
    }
  }

  void one_head(int64_t item, int64_t first, int64_t keys, char* space) const {
    const auto at = [space](int64_t offset) { return reinterpret_cast<C*>(space + offset); };
    C *const q = at(q_at_), *const dout = at(dout_at_), *const dq = at(dq_at_), *const k = at(k_at_), *const k_columns = at(k_columns_at_);
    C *const v_columns = at(v_columns_at_), *const weights = at(weights_at_), *const slopes = at(slopes_at_);
    C *const shift = at(state_at_), *const inner = shift + a_.rows;
    const int64_t panels = ceil_div(a_.rows, kPanel);
    q_.copy_rows(q, depth_, item, 0, a_.rows, a_.depth);
    scale_rows(q, a_.rows * depth_, C(a_.scale));
    dout_.copy_rows(dout, width_, item, 0, a_.rows, a_.width);
    for (int64_t row = 0; row < a_.rows; row++) state(item, row, dout + row * width_, shift[row], inner[row]);
    for (int64_t from = first; from < first + keys; from += kBlock) {
      const int64_t block = std::min(kBlock, first + keys - from);
      k_.copy_rows(k, depth_, item, from, block, a_.depth);
      k_.copy_columns(k_columns, item, from, block, a_.depth);
      v_.copy_columns(v_columns, item, from, block, a_.width);
      C *const dk = at(dk_at_) + (from - first) * depth_, *const dv = at(dv_at_) + (from - first) * width_;
      for (int64_t panel = 0; panel < panels; panel++) {
        const int64_t i = part(a_.rows, panels, panel), height = part(a_.rows, panels, panel + 1) - i;
        const int64_t count = mask_.seen(from, block, i + height - 1);
        if (count == 0) continue;
        multiply<false>(height, count, a_.depth, q + i * depth_, depth_, k_columns, kBlock, weights, kBlock, false);
        multiply<false>(height, count, a_.width, dout + i * width_, width_, v_columns, kBlock, slopes, kBlock, false);
        for (int64_t r = 0; r < height; r++) {
          C *const p = weights + r * kBlock, *const s = slopes + r * kBlock;
          if (mask_.any()) mask_.apply(p, item, i + r, from, count);
          const C below = shift[i + r], d = inner[i + r];
#pragma omp simd
          for (int64_t j = 0; j < count; j++) {
            const C e = exp_(p[j] - below);
            p[j] = e;
            s[j] = e * (s[j] - d);
          }
        }
        if (dv_) multiply<true>(count, a_.width, height, weights, kBlock, dout + i * width_, width_, dv, width_, true);
        if (dk_) multiply<true>(count, a_.depth, height, slopes, kBlock, q + i * depth_, depth_, dk, depth_, true);
        if (dq_) multiply<false>(height, a_.depth, count, slopes, kBlock, k, depth_, dq + i * depth_, depth_, true);
      }
    }
  }

  // What is subtracted from the scores of a row (inf where it has no keys: its weights are 0) and from their gradients.
  void state(int64_t item, int64_t row, const C* dout, C& shift, C& inner) const {
    const C log_sum = sums_.data[sums_.stack.at(item) + row * sums_.stack.row];
    shift = log_sum == -std::numeric_limits<C>::infinity() ? -log_sum : log_sum;
    const T* const out = out_.data + out_.stack.at(item) + row * out_.stack.row;
    const int64_t step = out_.stack.column;
    C sum = 0;
    if (step == 1) {
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < a_.width; j++) sum += dout[j] * C(out[j]);
    } else {
      for (int64_t j = 0; j < a_.width; j++) sum += dout[j] * C(out[j * step]);
    }
    inner = sum;
  }
};

}  // namespace

void attention(const Attention& a) {
  dispatch_floats(a.q.dtype, "attention", [&](auto kind) { Forward<typename decltype(kind)::type>(a).run(); });
}

void attention_backward(const Attention& a, const Tensor* dq, const Tensor* dk, const Tensor* dv, const Tensor& dout) {
  dispatch_floats(a.q.dtype, "attention_backward", [&](auto kind) { Backward<typename decltype(kind)::type>(a, dq, dk, dv, dout).run(); });
}

}  // namespace dg
