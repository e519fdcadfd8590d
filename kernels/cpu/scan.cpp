// Running sums and products along one axis: out[i] = x[0] op ... op x[i], from the other end when reversed. Floats accumulate in double.
#include "../common/scan.h"

#include "reduction.h"

namespace dg {
namespace {

constexpr int64_t kScanColumns = 256, kScanBlock = 512;

template <class Op, class A, class W>
void scan(const Tensor& out, const Reader<A>& x, const Loop<2>& kept, int64_t count, int64_t sx, int64_t so, bool reversed) {
  const int64_t columns = kept.inner(), cx = kept.strides[0][kept.rank - 1], co = kept.strides[1][kept.rank - 1];
  if (columns >= 8 && cx < sx) {  // columns side by side
    const int64_t tiles = (columns + kScanColumns - 1) / kScanColumns, outer = kept.numel / columns;
    parallel_for(outer * tiles, std::max<int64_t>(1, kGrain / (count * std::min(columns, kScanColumns))), [&](int64_t begin, int64_t end) {
      A buffer[kScanColumns];
      W total[kScanColumns];
      for (int64_t job = begin; job < end; job++) {
        const int64_t first = job / tiles * columns + job % tiles * kScanColumns;
        const int64_t width = std::min(kScanColumns, columns - job % tiles * kScanColumns);
        int64_t px = 0, po = 0;
        kept.rows(first, first + 1, [&](const int64_t* offset, int64_t) { px = offset[0], po = offset[1]; });
        std::fill_n(total, width, Op::template identity<W>());
        for (int64_t i = 0; i < count; i++) {
          const int64_t r = reversed ? count - 1 - i : i;
          const A* p = x.read(buffer, px + r * sx, cx, width);
          for (int64_t c = 0; c < width; c++) {
            Op::combine(total[c], W(p[c]));
            buffer[c] = A(total[c]);
          }
          write_elements(out, po + r * so, co, buffer, width);
        }
      }
    });
    return;
  }
  parallel_for(kept.numel, std::max<int64_t>(1, kGrain / count), [&](int64_t begin, int64_t end) {
    A buffer[kScanBlock];
    kept.rows(begin, end, [&](const int64_t* offset, int64_t n) {
      for (int64_t j = 0; j < n; j++) {
        const int64_t px = offset[0] + j * cx, po = offset[1] + j * co;
        W total = Op::template identity<W>();
        for (int64_t done = 0; done < count; done += kScanBlock) {
          const int64_t width = std::min(kScanBlock, count - done), at = reversed ? count - done - width : done;
          const A* p = x.read(buffer, px + at * sx, sx, width);
          for (int64_t i = 0; i < width; i++) {
            const int64_t c = reversed ? width - 1 - i : i;
            Op::combine(total, W(p[c]));
            buffer[c] = A(total);
          }
          write_elements(out, po + at * so, so, buffer, width);
        }
      }
    });
  });
}

}  // namespace

void scan(const Tensor& out, const Tensor& x, const Plan& lines, int axis, ScanOp op, bool reversed) {
  const Loop<2> kept({&lines.kept_x, &lines.kept_out});
  dispatch_accumulator(x.dtype, [&](auto kind) {
    using A = typename decltype(kind)::type;
    using W = std::conditional_t<std::is_same_v<A, float>, double, A>;
    const Reader<A> reader = reader_of<A>(x, "scan");
    const int64_t sx = x.strides[axis], so = out.strides[axis];
    if (op == ScanOp::cumsum) scan<Sum, A, W>(out, reader, kept, x.sizes[axis], sx, so, reversed);
    else scan<Product, A, W>(out, reader, kept, x.sizes[axis], sx, so, reversed);
  });
}

}  // namespace dg
