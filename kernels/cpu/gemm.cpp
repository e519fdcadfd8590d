// Matrix products: blocks of kDepth terms, b packed into panels of two vectors shared by all rows, a into panels of kTileRows rows, each
// tile of c summed in registers. Long sums into few results are split over k and added in order.
#include "gemm.h"

#include "allocator.h"
#include "gemm_tile.h"
#include "gemv.h"
#include "parallel.h"

namespace dg {
namespace {

constexpr int64_t kPanelColumns = 512;   // columns of b packed at a time
constexpr double kWorthAThread = 2e6;     // operations

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Matrices of element type T multiplied in type C.
template <class T, class C>
class Product {
 public:
  Product(int64_t m, int64_t n, int64_t k, Matrices<const T> a, Matrices<const T> b, Matrices<const C> init, Matrices<C> c)
      : m_(m), n_(n), k_(k), a_(a), b_(b), init_(init), c_(c) {
    if (c.column != 1 && (c.row == 1 || n == 1)) {  // the transposed product writes rows
      std::swap(m_, n_);
      a_ = flipped(b);
      b_ = flipped(a);
      init_ = flipped(init);
      c_ = flipped(c);
    }
    if (k_ == 0) a_ = {a_.data, 0, 0, 0}, b_ = {b_.data, 0, 0, 0};  // operands without elements have any strides
    depth_ = std::min(k_, kDepth);
    width_ = std::min(ceil_div(n_, kWidth) * kWidth, kPanelColumns);
    panels_ = ceil_div(m_, kTileRows);
    if constexpr (std::is_same_v<T, C>) {
      a_direct_ = a_.column == 1 && (k_ <= 128 || n_ <= 2 * kWidth);
      a_columns_ = a_.row == 1 && a_.column != 1;
      b_direct_ = b_.column == 1 && (panels_ == 1 || double(k_) * double(n_) * sizeof(C) <= 32768);
      vector_ = m_ == 1 && k_ > 0 && (b_.row == 1 || b_.column == 1);
    }
    b_bytes_ = vector_ ? k_ * int64_t(sizeof(C)) : depth_ * width_ * int64_t(sizeof(C));
    a_bytes_ = vector_ ? 0 : depth_ * kColumnRows * int64_t(sizeof(C));
    b_bytes_ = ceil_div(b_bytes_, 64) * 64;
    a_bytes_ = ceil_div(a_bytes_, 64) * 64;
  }

  void run(int64_t batch) const {
    const double work = 2.0 * double(m_) * double(n_) * double(k_);
    const bool apart = batch > 1 && work < 8 * kWorthAThread;  // whole matrices to threads, or threads to one matrix
    const int threads = apart ? int(std::min<int64_t>(batch, thread_count())) : thread_count();
    const int64_t stride = apart ? a_bytes_ + b_bytes_ : a_bytes_;
    const Scratch space(std::max<int64_t>(64, apart ? threads * stride : threads * stride + b_bytes_));
    if (apart) {
      const int64_t grain = std::max<int64_t>(1, int64_t(kWorthAThread / 4 / std::max(work, 1.0)));
      parallel_for(batch, grain, [&](int64_t begin, int64_t end) {
        char* own = space.as<char>() + thread_number() * stride;
        for (int64_t s = begin; s < end; s++) one(s, own + a_bytes_, own, 0);
      });
    } else {
      for (int64_t s = 0; s < batch; s++) one(s, space.as<char>() + threads * stride, space.as<char>(), stride);
    }
  }

 private:
  static constexpr int kLanes = Vector<C>::lanes;
  static constexpr int64_t kWidth = 2 * kLanes;  // columns of a panel of b
  static constexpr int64_t kColumnRows = 16;      // rows of a panel of a that is kept by columns
  int64_t m_, n_, k_;
  Matrices<const T> a_, b_;
  Matrices<const C> init_;
  Matrices<C> c_;
  int64_t depth_, width_, panels_, a_bytes_, b_bytes_;
  bool a_direct_ = false, a_columns_ = false, b_direct_ = false, vector_ = false;

  template <class U>
  static Matrices<U> flipped(Matrices<U> x) { return {x.data, x.batch, x.column, x.row}; }

  // Product s; work space for b, and for a of each thread.
  void one(int64_t s, char* b_space, char* a_space, int64_t a_stride) const {
    if constexpr (std::is_same_v<T, C>) {
      if (vector_) return times_vector(s, reinterpret_cast<C*>(b_space));
    }
    if (k_ == 0) return block(s, 0, n_, 0, reinterpret_cast<C*>(b_space), a_space, a_stride);
    for (int64_t j = 0; j < n_; j += width_)
      for (int64_t p = 0; p < k_; p += kDepth) block(s, j, std::min(width_, n_ - j), p, reinterpret_cast<C*>(b_space), a_space, a_stride);
  }

  void times_vector(int64_t s, C* space) const {
    const C* x = a_.at(s);
    if (a_.column != 1) {
      for (int64_t p = 0; p < k_; p++) space[p] = x[p * a_.column];
      x = space;
    }
    const C* init = init_.data ? init_.at(s) : nullptr;
    Gemv<C>{n_, k_, b_.at(s), b_.column, b_.row, x, init, init_.column, c_.at(s), c_.column}.run();
  }

  // Columns [j, j + columns) and terms [p, p + kDepth).
  void block(int64_t s, int64_t j, int64_t columns, int64_t p, C* packed, char* a_space, int64_t a_stride) const {
    const int64_t depth = std::min(kDepth, k_ - p), strips = ceil_div(columns, kWidth);
    const T* const b = b_.at(s) + p * b_.row + j * b_.column;
    const auto in_place = [&](int64_t strip) { return b_direct_ && (strip + 1) * kWidth <= columns; };
    if (!b_direct_ || !in_place(strips - 1)) {
      parallel_for(strips, std::max<int64_t>(1, 32768 / (depth * kWidth + 1)), [&](int64_t begin, int64_t end) {
        for (int64_t strip = begin; strip < end; strip++) {
          if (in_place(strip)) continue;
          pack_b(packed + strip * kWidth * depth, b + strip * kWidth * b_.column, depth, std::min(kWidth, columns - strip * kWidth));
        }
      });
    }
    // A task is one panel of rows and some strips of columns: all of them where there are rows enough to share out.
    const double strip_work = 2.0 * double(kTileRows * kWidth * (depth + 1));
    const int64_t group = panels_ >= 16 ? strips : std::clamp<int64_t>(int64_t(kWorthAThread / 2 / strip_work), 1, strips);
    const int64_t groups = ceil_div(strips, group);
    const int64_t grain = std::max<int64_t>(1, int64_t(kWorthAThread / 2 / (strip_work * double(group))));
    parallel_for(panels_ * groups, grain, [&](int64_t begin, int64_t end) {
      C* const space = reinterpret_cast<C*>(a_space + (a_stride ? thread_number() * a_stride : 0));
      const C* a = nullptr;
      int64_t lda = 0;
      for (int64_t task = begin; task < end; task++) {
        const int64_t panel = task / groups, first = task % groups * group, last = std::min(strips, first + group);
        const int64_t i = row_of(panel), rows = row_of(panel + 1) - i;
        if (task == begin || first == 0) {
          const T* source = a_.at(s) + i * a_.row + p * a_.column;
          if (a_direct_) {
            if constexpr (std::is_same_v<T, C>) a = source;
            lda = a_.row;
          } else if (a_columns_) {
            copy_columns(space, source, rows, depth);
            a = space;
            lda = kColumnRows;
          } else {
            copy_matrix(space, depth, source, a_.row, a_.column, rows, depth);
            a = space;
            lda = depth;
          }
        }
        for (int64_t strip = first; strip < last; strip++) {
          const int64_t width = std::min(kWidth, columns - strip * kWidth);
          const C* bp = packed + strip * kWidth * depth;
          int64_t ldb = width <= kLanes ? kLanes : kWidth;
          if constexpr (std::is_same_v<T, C>) {
            if (in_place(strip)) {
              bp = b + strip * kWidth;
              ldb = b_.row;
            }
          }
          one_tile(s, i, rows, j + strip * kWidth, width, p, depth, a, lda, bp, ldb);
        }
      }
    });
  }

  // First row of a panel: panels of nearly equal heights.
  int64_t row_of(int64_t panel) const { return panel * (m_ / panels_) + std::min(panel, m_ % panels_); }

  // A panel of rows, column after column. Whole columns of kColumnRows are read where another column follows: what is read too much lies between
  // the two and is not used.
  void copy_columns(C* to, const T* from, int64_t rows, int64_t depth) const {
    const int64_t whole = a_.column >= kColumnRows ? depth - 1 : 0;
    for (int64_t p = 0; p < whole; p++)
      for (int64_t i = 0; i < kColumnRows; i++) to[p * kColumnRows + i] = C(from[p * a_.column + i]);
    for (int64_t p = whole; p < depth; p++)
      for (int64_t i = 0; i < rows; i++) to[p * kColumnRows + i] = C(from[p * a_.column + i]);
  }

  void pack_b(C* to, const T* from, int64_t depth, int64_t width) const {
    const int64_t ld = width <= kLanes ? kLanes : kWidth;
    if (width < ld) std::fill(to, to + depth * ld, C(0));
    copy_matrix(to, ld, from, b_.row, b_.column, depth, width);
  }

  void one_tile(int64_t s, int64_t i, int64_t rows, int64_t j, int64_t width, int64_t p, int64_t depth, const C* a, int64_t lda, const C* b,
                int64_t ldb) const {
    C* const c = c_.at(s) + i * c_.row + j * c_.column;
    const C* init = nullptr;
    int64_t init_row = 0, init_column = 0;
    if (p > 0) {
      init = c, init_row = c_.row, init_column = c_.column;
    } else if (init_.data) {
      init = init_.at(s) + i * init_.row + j * init_.column, init_row = init_.row, init_column = init_.column;
    }
    const int vectors = width <= kLanes ? 1 : 2;
    const Tile<C> kernel = a_columns_ ? tile_for<C, true>(rows, vectors) : tile_for<C>(rows, vectors);
    if (c_.column == 1 && width == vectors * kLanes && (!init || init_column <= 1)) {
      const Init mode = !init ? Init::none : (init_column == 1 ? Init::row : Init::constant);
      return kernel(depth, a, lda, b, ldb, c, c_.row, init, init_row, mode);
    }
    alignas(64) C temporary[kTileRows * kWidth];
    kernel(depth, a, lda, b, ldb, temporary, kWidth, nullptr, 0, Init::none);
    for (int64_t r = 0; r < rows; r++) {
      for (int64_t q = 0; q < width; q++) {
        const C sum = temporary[r * kWidth + q];
        c[r * c_.row + q * c_.column] = init ? init[r * init_row + q * init_column] + sum : sum;
      }
    }
  }
};

// c = init + parts summed in order; parts are row-major m x n matrices, `count` of them for each of `batch` products.
template <class T, class C>
void finish(int64_t batch, int64_t m, int64_t n, int64_t count, const C* parts, Matrices<const T> init, Matrices<T> c) {
  parallel_for(batch * m, std::max<int64_t>(1, kGrain / std::max<int64_t>(n * count, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const int64_t s = row / m, i = row % m;
      T* out = c.at(s) + i * c.row;
      const T* start = init.data ? init.at(s) + i * init.row : nullptr;
      for (int64_t j = 0; j < n; j++) {
        C sum = 0;
        for (int64_t part = 0; part < count; part++) sum += parts[((s * count + part) * m + i) * n + j];
        out[j * c.column] = T(start ? C(start[j * init.column]) + sum : sum);
      }
    }
  });
}

}  // namespace

template <class T>
void gemm(int64_t batch, int64_t m, int64_t n, int64_t k, Matrices<const T> a, Matrices<const T> b, Matrices<const T> init, Matrices<T> c) {
  using C = compute_t<T>;
  if (batch == 0 || m == 0 || n == 0) return;
  // Sums of many terms into few results: pieces of k to threads.
  const int64_t parts = batch == 1 && m * n <= 65536 && k >= 4096 ? std::min<int64_t>(16, k / 2048) : 1;
  if (parts == 1 && std::is_same_v<T, C>) {
    if constexpr (std::is_same_v<T, C>) Product<T, C>(m, n, k, a, b, init, c).run(batch);
    return;
  }
  int64_t bytes;
  if (__builtin_mul_overflow(batch * parts, m * n, &bytes) || __builtin_mul_overflow(bytes, int64_t(sizeof(C)), &bytes))
    fail(DG_OUT_OF_MEMORY, "matmul: the work space exceeds the address space");
  const Scratch space(std::max<int64_t>(bytes, 64));
  const Matrices<C> sums{space.as<C>(), m * n, n, 1};
  if (parts == 1) {
    Product<T, C>(m, n, k, a, b, {}, sums).run(batch);
  } else {
    const int64_t piece = k / parts / 8 * 8, rest = k - piece * (parts - 1);
    Product<T, C>(m, n, piece, {a.data, piece * a.column, a.row, a.column}, {b.data, piece * b.row, b.row, b.column}, {}, sums).run(parts - 1);
    Product<T, C>(m, n, rest, {a.data + (parts - 1) * piece * a.column, 0, a.row, a.column},
                  {b.data + (parts - 1) * piece * b.row, 0, b.row, b.column}, {}, {sums.at(parts - 1), 0, n, 1})
        .run(1);
  }
  finish<T, C>(batch, m, n, parts, space.as<C>(), init, c);
}

template void gemm(int64_t, int64_t, int64_t, int64_t, Matrices<const float>, Matrices<const float>, Matrices<const float>, Matrices<float>);
template void gemm(int64_t, int64_t, int64_t, int64_t, Matrices<const double>, Matrices<const double>, Matrices<const double>, Matrices<double>);
template void gemm(int64_t, int64_t, int64_t, int64_t, Matrices<const f16>, Matrices<const f16>, Matrices<const f16>, Matrices<f16>);
template void gemm(int64_t, int64_t, int64_t, int64_t, Matrices<const bf16>, Matrices<const bf16>, Matrices<const bf16>, Matrices<bf16>);

}  // namespace dg
