/* The C ABI that every dinograd kernel library (cpu, cuda) exports: plain C, one list, mirrored row by row in ffi/symbols.ts.
 *
 * Conventions
 *   - A call receives `const dg_tensor* t`, an array of tensor headers (the "frame") owned by the caller, and slot numbers into it.
 *     DG_NONE stands for an absent optional tensor. Outputs are ordinary tensors whose storage was made with dg_alloc before the call.
 *   - Every function with an int32_t result returns a dg_status. On failure dg_last_error() holds the text, per thread.
 *   - Nothing exits, aborts, prints or throws across this boundary. Every header is validated (live storage, dtype, rank, bounds) before use.
 *   - Sizes and strides are elements, carried as doubles (exact to 2^53): the cheapest 64-bit number to write from JavaScript.
 */
#ifndef DINOGRAD_ABI_H
#define DINOGRAD_ABI_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DG_ABI_VERSION 3
#define DG_MAX_RANK 8
#define DG_MAX_SLOTS 4096 /* headers that one call may address */
#define DG_NONE 0xffffffffu
#define DG_EXPORT __attribute__((visibility("default")))

typedef enum dg_status {
  DG_OK = 0,
  DG_SHAPE = 1,         /* sizes or strides do not fit the operation */
  DG_DTYPE = 2,         /* the operation does not take this dtype */
  DG_DEVICE = 3,        /* tensor of another device, or the device failed */
  DG_OUT_OF_MEMORY = 4, /* the limit or the machine's memory is exhausted */
  DG_DISPOSED = 5,      /* the header names a storage that is not live */
  DG_RANGE = 6,         /* an index, label or argument is outside its range */
  DG_INTERNAL = 7       /* a defect of the library */
} dg_status;

typedef enum dg_dtype {
  DG_F32 = 0, DG_F64 = 1, DG_F16 = 2, DG_BF16 = 3, DG_I32 = 4, DG_I64 = 5, DG_U8 = 6, DG_BOOL = 7
} dg_dtype;

/* 144 bytes; ffi/frame.ts writes it. */
typedef struct dg_tensor {
  uint32_t storage;    /* id from dg_alloc / dg_wrap; 0 names no storage */
  uint8_t dtype;       /* dg_dtype */
  uint8_t rank;        /* 0..DG_MAX_RANK */
  uint8_t device_type; /* 0 cpu, 1 cuda */
  uint8_t device_index;
  double offset; /* elements from the start of the storage */
  double sizes[DG_MAX_RANK];
  double strides[DG_MAX_RANK]; /* elements, >= 0; 0 for a broadcast axis */
} dg_tensor;

/* Where a pinned storage lies, for native code that works on it after the call that named it has returned. */
typedef struct dg_region {
  void* data;
  double bytes;
  uint32_t device, stream; /* stream: the one that it was allocated for */
} dg_region;

/* ---- library: kernels/entry/library.cpp */
DG_EXPORT int32_t dg_abi_version(void);
DG_EXPORT uint32_t dg_last_error(char* text, uint32_t capacity); /* copies the message, returns its full length */
DG_EXPORT int32_t dg_name_call(const char* name, uint32_t length); /* this thread's next call, in what a device finds wrong with its indices later; at most 63 bytes, not NUL-terminated */
DG_EXPORT int32_t dg_set_threads(int32_t count);
DG_EXPORT int32_t dg_get_threads(void);

/* ---- device: kernels/entry/device.cpp. Devices are numbered from 0 (the CPU is one). Each has two streams, 0 for computation and 1 for
   communication; work goes to the one that dg_set_stream chose. Nothing waits for a device but dg_synchronize, dg_event_synchronize, dg_read and the
   functions that return a number found in a tensor (dg_nonzero has its count as the size of `out`); an index or label out of range that only the device saw is reported by the next of these.
   properties: total and free bytes, multiprocessors, compute capability (major, minor), shared bytes a block, threads of a multiprocessor, clock in kHz.
   runtime_stats: kernel launches, synchronising calls, bytes to the device, bytes from it, graph launches, library calls (products), 0, 0.
   event ids and graph ids: 0 on failure. An event is recorded in the current stream, wait makes the current stream wait for it. elapsed: milliseconds.
   transfer: bytes from one storage to another, of any device of this library. pin: makes lent host memory page-locked, so that copies from and to it
   need no wait. capture: what the compute stream of a device is given until capture_end becomes a graph and is not done before dg_graph_launch; with
   every launch after the first its random numbers move on by `counters` and its optimisers by a step. tf32: products of float32 may round their operands to 10 bits; off at first. */
DG_EXPORT int32_t dg_device_count(uint32_t* count);
DG_EXPORT int32_t dg_device_properties(uint32_t device, double* out8, char* name, uint32_t capacity);
DG_EXPORT int32_t dg_synchronize(uint32_t device);
DG_EXPORT int32_t dg_runtime_stats(uint32_t device, double* out8);
DG_EXPORT int32_t dg_set_stream(uint32_t device, uint32_t stream);
DG_EXPORT uint32_t dg_event_create(uint32_t device);
DG_EXPORT int32_t dg_event_free(uint32_t event);
DG_EXPORT int32_t dg_event_record(uint32_t event);
DG_EXPORT int32_t dg_event_wait(uint32_t event);
DG_EXPORT int32_t dg_event_synchronize(uint32_t event);
DG_EXPORT int32_t dg_event_query(uint32_t event, uint32_t* done);
DG_EXPORT int32_t dg_event_elapsed(uint32_t start, uint32_t end, double* milliseconds);
DG_EXPORT int32_t dg_transfer(uint32_t to, double to_offset_bytes, uint32_t from, double from_offset_bytes, double bytes);
DG_EXPORT int32_t dg_pin(void* memory, double bytes);
DG_EXPORT int32_t dg_unpin(void* memory);
DG_EXPORT int32_t dg_capture_begin(uint32_t device);
DG_EXPORT uint32_t dg_capture_end(uint32_t device, double counters);
DG_EXPORT int32_t dg_graph_launch(uint32_t graph);
DG_EXPORT int32_t dg_graph_free(uint32_t graph);
DG_EXPORT int32_t dg_set_tf32(uint32_t on);
DG_EXPORT uint32_t dg_get_tf32(void);

/* ---- memory: kernels/cpu/memory.cpp
   storage_pin: the memory of a storage stays until as many storage_unpin; dg_free meanwhile ends the id and leaves the memory to the last of them.
   Lent memory is the lender's to keep. storage_alias: another id for the same memory, which stays until both are freed; 0 on failure. */
DG_EXPORT uint32_t dg_alloc(double bytes, uint32_t zeroed, uint32_t device); /* storage id, 0 on failure (see dg_last_error) */
DG_EXPORT uint32_t dg_wrap(void* memory, double bytes);     /* storage over lent host memory (cpu only); the lender outlives it */
DG_EXPORT uint32_t dg_storage_alias(uint32_t storage);
DG_EXPORT int32_t dg_free(uint32_t storage);
DG_EXPORT int32_t dg_storage_pin(uint32_t storage, dg_region* out);
DG_EXPORT int32_t dg_storage_unpin(uint32_t storage);
DG_EXPORT int32_t dg_read(uint32_t storage, double offset_bytes, void* destination, double bytes);
DG_EXPORT int32_t dg_write(uint32_t storage, double offset_bytes, const void* source, double bytes);
DG_EXPORT int32_t dg_memory_stats(uint32_t device, double* out8); /* live, live bytes, reserved bytes, peak live, peak reserved, limit, allocations, cache hits */
DG_EXPORT int32_t dg_memory_limit(uint32_t device, double bytes); /* 0: no limit */
DG_EXPORT int32_t dg_memory_reset_peak(uint32_t device);
DG_EXPORT int32_t dg_memory_release_cache(uint32_t device);

/* ---- program: kernels/entry/program.cpp. From record_begin to record_end the calls of this thread that take a frame and succeed are kept, beside being
   made; the program (0 on failure) makes them again, in order, without a frame. Its storages are its slots: a new one is announced with record_storage
   when it was allocated, since ids come again; others get a slot when a call names them first. record_position: calls so far. bind: a slot names a storage
   from now on, `offset_bytes` further in than recorded (or before). set, get: the value of an argument (counted from 0 behind the frame) of a call.
   program_info: calls, slots, headers, the call that the last run stopped at, 0 ...; program_slot: storage, announced or not, headers that name it, first
   and last call that does, 0 ... */
DG_EXPORT int32_t dg_record_begin(void);
DG_EXPORT uint32_t dg_record_end(void);
DG_EXPORT int32_t dg_record_storage(uint32_t storage, uint32_t* slot);
DG_EXPORT int32_t dg_record_position(uint32_t* calls);
DG_EXPORT int32_t dg_program_info(uint32_t program, double* out8);
DG_EXPORT int32_t dg_program_slot(uint32_t program, uint32_t slot, double* out8);
DG_EXPORT int32_t dg_program_bind(uint32_t program, uint32_t slot, uint32_t storage, double offset_bytes);
DG_EXPORT int32_t dg_program_set(uint32_t program, uint32_t call, uint32_t argument, double value);
DG_EXPORT int32_t dg_program_get(uint32_t program, uint32_t call, uint32_t argument, double* value);
DG_EXPORT int32_t dg_program_run(uint32_t program);
DG_EXPORT int32_t dg_program_free(uint32_t program);

/* ---- copy: out = x with conversion, any strides; fill; out[i] = start + i * step */
DG_EXPORT int32_t dg_copy(const dg_tensor* t, uint32_t out, uint32_t x);
DG_EXPORT int32_t dg_fill(const dg_tensor* t, uint32_t out, double value);
DG_EXPORT int32_t dg_arange(const dg_tensor* t, uint32_t out, double start, double step);

/* ---- unary: out = op(x); op is a UnaryOp of common/op_codes.h. isnan .. logical_not write bool */
DG_EXPORT int32_t dg_unary(const dg_tensor* t, uint32_t out, uint32_t x, uint32_t op);

/* ---- activation: y = op(x; a, b); backward: dx = dy * op'(x), for every op from its input x */
DG_EXPORT int32_t dg_activation(const dg_tensor* t, uint32_t y, uint32_t x, uint32_t op, double a, double b);
DG_EXPORT int32_t dg_activation_backward(const dg_tensor* t, uint32_t dx, uint32_t dy, uint32_t x, uint32_t op, double a, double b);

/* ---- binary: out = op(x, y), sizes equal (expand first), dtypes equal; alpha scales y in add and sub; the scalar form takes a number for y,
   or for x when reversed != 0. Comparisons write bool. */
DG_EXPORT int32_t dg_binary(const dg_tensor* t, uint32_t out, uint32_t x, uint32_t y, uint32_t op, double alpha);
DG_EXPORT int32_t dg_binary_scalar(const dg_tensor* t, uint32_t out, uint32_t x, double scalar, uint32_t op, uint32_t reversed);
DG_EXPORT int32_t dg_compare(const dg_tensor* t, uint32_t out, uint32_t x, uint32_t y, uint32_t op);
DG_EXPORT int32_t dg_compare_scalar(const dg_tensor* t, uint32_t out, uint32_t x, double scalar, uint32_t op);
DG_EXPORT int32_t dg_where(const dg_tensor* t, uint32_t out, uint32_t condition, uint32_t x, uint32_t y);

/* ---- reduction: out has the sizes of x with 1 on the axes whose bit is set in `axes`; op is a ReduceOp */
DG_EXPORT int32_t dg_reduce(const dg_tensor* t, uint32_t out, uint32_t x, uint32_t axes, uint32_t op);
/* var: sum of squared deviations / max(0, count - correction), its square root when root != 0; mean may be DG_NONE */
DG_EXPORT int32_t dg_var(const dg_tensor* t, uint32_t var, uint32_t mean, uint32_t x, uint32_t axes, double correction, uint32_t root);
/* the first largest (or smallest) element along an axis, NaN before all, and its position (int64); values may be DG_NONE */
DG_EXPORT int32_t dg_extremum(const dg_tensor* t, uint32_t values, uint32_t indices, uint32_t x, uint32_t axis, uint32_t smallest);
/* out[i] = op over x[0..i] along an axis (x[i..] when reversed != 0); op is a ScanOp */
DG_EXPORT int32_t dg_scan(const dg_tensor* t, uint32_t out, uint32_t x, uint32_t axis, uint32_t op, uint32_t reversed);

/* ---- softmax along one axis: y = softmax(x), or its logarithm when log != 0; backward from y */
DG_EXPORT int32_t dg_softmax(const dg_tensor* t, uint32_t y, uint32_t x, uint32_t axis, uint32_t log);
DG_EXPORT int32_t dg_softmax_backward(const dg_tensor* t, uint32_t dx, uint32_t dy, uint32_t y, uint32_t axis, uint32_t log);

/* ---- attention: softmax(scale q k^T + mask) v and its gradients; q [.., H, L, E], k [.., G, S, E], v [.., G, S, Ev], G divides H; mask [.., H, L, S] bool,
   float32 or of the dtype of q, or DG_NONE; log_sum [.., H, L] in the computing dtype. Absent gradients are not made. */
DG_EXPORT int32_t dg_attention(const dg_tensor* t, uint32_t out, uint32_t log_sum, uint32_t q, uint32_t k, uint32_t v, uint32_t mask, uint32_t causal,
                               double scale);
DG_EXPORT int32_t dg_attention_backward(const dg_tensor* t, uint32_t dq, uint32_t dk, uint32_t dv, uint32_t dout, uint32_t out, uint32_t log_sum,
                                        uint32_t q, uint32_t k, uint32_t v, uint32_t mask, uint32_t causal, double scale);

/* ---- sort: along an axis, stable, NaN after every number. The output holds the first elements of the order, as many as its size along the axis;
   values may be DG_NONE. kth: element number k (from 1) of the ascending order; with median != 0 a NaN if there is one */
DG_EXPORT int32_t dg_sort(const dg_tensor* t, uint32_t values, uint32_t indices, uint32_t x, uint32_t axis, uint32_t descending);
DG_EXPORT int32_t dg_kth(const dg_tensor* t, uint32_t values, uint32_t indices, uint32_t x, uint32_t axis, double k, uint32_t median);
/* search.cpp: insertion points in sorted rows; occurrences of 0..n-1 (weights float64 or DG_NONE); histogram of x in [low, high] (int64);
   numbers of the distinct elements of a sorted list, then those elements, their counts and the number of each unsorted one */
DG_EXPORT int32_t dg_searchsorted(const dg_tensor* t, uint32_t out, uint32_t sorted, uint32_t x, uint32_t right);
DG_EXPORT int32_t dg_bincount(const dg_tensor* t, uint32_t out, uint32_t x, uint32_t weights);
DG_EXPORT int32_t dg_histc(const dg_tensor* t, uint32_t out, uint32_t x, double low, double high);
DG_EXPORT int32_t dg_groups(const dg_tensor* t, uint32_t group, uint32_t sorted);
DG_EXPORT int32_t dg_unique(const dg_tensor* t, uint32_t values, uint32_t inverse, uint32_t counts, uint32_t sorted, uint32_t order, uint32_t group);

/* ---- indexing. Indices are int32 or int64; one outside its axis is DG_RANGE. A scatter checks all of them before it writes.
   gather: out[.., i, ..] = x[.., index[.., i, ..], ..] along `axis`; scatter is its opposite, in place, from src or (src DG_NONE) from value;
   op is a ScatterOp; include_self 0 leaves the old values of written-to elements out of a reduction.
   index_get, index_put: rows of x named by as many indices of one shape (slots first, first + 1, ..) into its first axes as `axes` has bits;
   the bits name the axes in errors. out / src: the indices' sizes, then the other sizes of x. wrap: negative indices count from the end.
   nonzero: row-major coordinates of the true elements [n, rank], n from count_nonzero. flip: axes whose bit is set.
   triangle: keeps the columns j of row i with j - i >= diagonal (upper) or <= diagonal (lower), 0 elsewhere. */
DG_EXPORT int32_t dg_gather(const dg_tensor* t, uint32_t out, uint32_t x, uint32_t index, uint32_t axis);
DG_EXPORT int32_t dg_scatter(const dg_tensor* t, uint32_t out, uint32_t index, uint32_t src, double value, uint32_t axis, uint32_t op, uint32_t include_self);
DG_EXPORT int32_t dg_index_get(const dg_tensor* t, uint32_t out, uint32_t x, uint32_t first, uint32_t axes, uint32_t wrap);
DG_EXPORT int32_t dg_index_put(const dg_tensor* t, uint32_t x, uint32_t src, double value, uint32_t first, uint32_t axes, uint32_t wrap, uint32_t op);
DG_EXPORT int32_t dg_count_nonzero(const dg_tensor* t, uint32_t out, uint32_t x);
DG_EXPORT int32_t dg_nonzero(const dg_tensor* t, uint32_t out, uint32_t x);
DG_EXPORT int32_t dg_flip(const dg_tensor* t, uint32_t out, uint32_t x, uint32_t axes);
DG_EXPORT int32_t dg_triangle(const dg_tensor* t, uint32_t out, uint32_t x, double diagonal, uint32_t upper);

/* ---- random: Philox4x32-10 with key `seed` from counter `offset` on; results do not depend on threads. op is a RandomOp; out is contiguous.
   uniform [a, b); normal of mean a, deviation b; integers [a, b); bernoulli of probability a; exponential of rate a; truncated_normal of mean a,
   deviation b in [c, d]; bits: the words (a, b: upper counter words); permutation of 0 .. n - 1. 32-bit floats and bits use 4 elements a counter,
   the others 2. dropout: y = x / (1 - p) with probability 1 - p, else 0, element i counted in the memory order of y. multinomial: out [rows, draws]
   int64 category numbers, weights [rows, categories] float64. */
DG_EXPORT int32_t dg_random(const dg_tensor* t, uint32_t out, uint32_t op, uint32_t seed_low, uint32_t seed_high, uint32_t offset_low,
                            uint32_t offset_high, double a, double b, double c, double d);
DG_EXPORT int32_t dg_dropout(const dg_tensor* t, uint32_t y, uint32_t x, double p, uint32_t seed_low, uint32_t seed_high, uint32_t offset_low,
                             uint32_t offset_high);
DG_EXPORT int32_t dg_multinomial(const dg_tensor* t, uint32_t out, uint32_t weights, uint32_t replacement, uint32_t seed_low, uint32_t seed_high,
                                 uint32_t offset_low, uint32_t offset_high);

/* ---- matmul: out = a @ b + bias on matrices or batches of them ([m, k] @ [k, n] or [s, m, k] @ [s, k, n]; a shared operand has stride 0);
   bias has the sizes of out or is absent */
DG_EXPORT int32_t dg_matmul(const dg_tensor* t, uint32_t out, uint32_t a, uint32_t b, uint32_t bias);

/* ---- convolution of 1 to 3 spatial axes: y [N, O, ...], x [N, C, ...], w [O, C / groups, ...]; parameters by spatial axis (those beyond the
   tensors' axes are ignored). The transposed convolution's forward is dg_conv_backward_input. Bias and db may be DG_NONE. */
DG_EXPORT int32_t dg_conv_forward(const dg_tensor* t, uint32_t y, uint32_t x, uint32_t w, uint32_t bias,
                                   uint32_t stride0, uint32_t stride1, uint32_t stride2, uint32_t padding0, uint32_t padding1,
                                   uint32_t padding2, uint32_t dilation0, uint32_t dilation1, uint32_t dilation2, uint32_t groups);
/* y normalised by running statistics, as dg_batch_norm_apply does it with a variance: all but y, x, w, mean and var may be DG_NONE; y and residual
   are both channels-last or both contiguous */
DG_EXPORT int32_t dg_conv_norm(const dg_tensor* t, uint32_t y, uint32_t x, uint32_t w, uint32_t bias, uint32_t mean, uint32_t var, uint32_t weight,
                               uint32_t shift, uint32_t residual, double eps, uint32_t relu, uint32_t stride0, uint32_t stride1, uint32_t stride2,
                               uint32_t padding0, uint32_t padding1, uint32_t padding2, uint32_t dilation0, uint32_t dilation1, uint32_t dilation2,
                               uint32_t groups);
/* y and, of it, what dg_batch_norm_stats makes */
DG_EXPORT int32_t dg_conv_stats(const dg_tensor* t, uint32_t y, uint32_t x, uint32_t w, uint32_t bias, uint32_t mean, uint32_t var, uint32_t invstd,
                                uint32_t running_mean, uint32_t running_var, uint32_t batches, double momentum, double eps, uint32_t stride0,
                                uint32_t stride1, uint32_t stride2, uint32_t padding0, uint32_t padding1, uint32_t padding2, uint32_t dilation0,
                                uint32_t dilation1, uint32_t dilation2, uint32_t groups);
DG_EXPORT int32_t dg_conv_backward_input(const dg_tensor* t, uint32_t dx, uint32_t dy, uint32_t w, uint32_t bias,
                                   uint32_t stride0, uint32_t stride1, uint32_t stride2, uint32_t padding0, uint32_t padding1,
                                   uint32_t padding2, uint32_t dilation0, uint32_t dilation1, uint32_t dilation2, uint32_t groups);
DG_EXPORT int32_t dg_conv_backward_weight(const dg_tensor* t, uint32_t dw, uint32_t db, uint32_t dy, uint32_t x,
                                   uint32_t stride0, uint32_t stride1, uint32_t stride2, uint32_t padding0, uint32_t padding1,
                                   uint32_t padding2, uint32_t dilation0, uint32_t dilation1, uint32_t dilation2, uint32_t groups);
/* Winograd products for 3x3 and 4x4 kernels in float32: 0 never, 1 where they are expected to be faster (at first), 2 wherever there are any */
DG_EXPORT int32_t dg_conv_set_winograd(uint32_t mode);
DG_EXPORT uint32_t dg_conv_get_winograd(void);
DG_EXPORT uint32_t dg_conv_reorders(void); /* copies of operands and results into another memory order, since the start; wraps around */

/* ---- pooling: tensors [N, C, spatial...] with 1 to 3 spatial axes; k, s, p, d are kernel, stride, padding and dilation, right-aligned to the
   spatial axes (kernel 1 for axes that do not exist); kernel 0 along an axis: adaptive windows floor(o in / out) .. ceil((o + 1) in / out).
   codes (uint8 up to 256 positions a window, else int32): the winner's position in its window; indices (int64): in its plane of x.
   backward: dx from dy and codes; gather: y[o] = x[winner of o]. divisor_override 0: none. */
DG_EXPORT int32_t dg_max_pool(const dg_tensor* t, uint32_t y, uint32_t indices, uint32_t codes, uint32_t x, uint32_t k0, uint32_t k1,
                              uint32_t k2, uint32_t s0, uint32_t s1, uint32_t s2, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t d0,
                              uint32_t d1, uint32_t d2);
DG_EXPORT int32_t dg_max_pool_backward(const dg_tensor* t, uint32_t dx, uint32_t dy, uint32_t codes, uint32_t k0, uint32_t k1, uint32_t k2,
                                       uint32_t s0, uint32_t s1, uint32_t s2, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t d0,
                                       uint32_t d1, uint32_t d2);
DG_EXPORT int32_t dg_max_pool_gather(const dg_tensor* t, uint32_t y, uint32_t x, uint32_t codes, uint32_t k0, uint32_t k1, uint32_t k2,
                                     uint32_t s0, uint32_t s1, uint32_t s2, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t d0, uint32_t d1,
                                     uint32_t d2);
DG_EXPORT int32_t dg_avg_pool(const dg_tensor* t, uint32_t y, uint32_t x, uint32_t k0, uint32_t k1, uint32_t k2, uint32_t s0, uint32_t s1,
                              uint32_t s2, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t count_include_pad, double divisor_override);
DG_EXPORT int32_t dg_avg_pool_backward(const dg_tensor* t, uint32_t dx, uint32_t dy, uint32_t k0, uint32_t k1, uint32_t k2, uint32_t s0,
                                       uint32_t s1, uint32_t s2, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t count_include_pad,
                                       double divisor_override);
DG_EXPORT int32_t dg_unpool_scatter(const dg_tensor* t, uint32_t y, uint32_t x, uint32_t indices, uint32_t accumulate);
DG_EXPORT int32_t dg_unpool_gather(const dg_tensor* t, uint32_t y, uint32_t x, uint32_t indices);

/* ---- normalization: kernels/cpu/batch_norm.cpp. x, y, dy [N, C, ...] all contiguous or all channels-last; per-channel tensors [C] float32
   (float64 for float64). stats: mean and biased variance, and what update does where its tensors are given. update:
   invstd = 1 / sqrt(var + eps) and, where given, running = (1 - momentum) running + momentum (mean, var count / (count - 1)) and batches (int64)
   one more. apply: y = (x - mean) invstd weight + bias (+ residual), then relu if relu != 0; with a variance instead of invstd, that is
   1 / sqrt(var + eps), and both are written to kept_mean and kept_invstd where given. reduce: sums of dy
   and dy xhat, dy masked by the relu (sign of y where given, else computed again) and written to `masked` where given. backward: dx from these
   sums over `count` values a channel; without sums the statistics do not depend on x. */
DG_EXPORT int32_t dg_batch_norm_stats(const dg_tensor* t, uint32_t mean, uint32_t var, uint32_t invstd, uint32_t running_mean,
                                      uint32_t running_var, uint32_t batches, uint32_t x, double momentum, double eps);
DG_EXPORT int32_t dg_batch_norm_update(const dg_tensor* t, uint32_t invstd, uint32_t mean, uint32_t var, uint32_t running_mean,
                                       uint32_t running_var, uint32_t batches, double count, double momentum, double eps);
DG_EXPORT int32_t dg_batch_norm_apply(const dg_tensor* t, uint32_t y, uint32_t kept_mean, uint32_t kept_invstd, uint32_t x, uint32_t mean,
                                      uint32_t invstd, uint32_t var, uint32_t weight, uint32_t bias, uint32_t residual, double eps, uint32_t relu);
DG_EXPORT int32_t dg_batch_norm_reduce(const dg_tensor* t, uint32_t sum_dy, uint32_t sum_dy_xhat, uint32_t masked, uint32_t dy, uint32_t x,
                                       uint32_t y, uint32_t mean, uint32_t invstd, uint32_t weight, uint32_t bias, uint32_t relu);
DG_EXPORT int32_t dg_batch_norm_backward(const dg_tensor* t, uint32_t dx, uint32_t dy, uint32_t x, uint32_t mean, uint32_t invstd, uint32_t weight,
                                         uint32_t bias, uint32_t sum_dy, uint32_t sum_dy_xhat, double count, uint32_t relu);
/* kernels/cpu/layer_norm.cpp: x, y, dy contiguous. layer_norm: rows of `columns` values, weight and bias one a column, mean and invstd one a row;
   without mean the root mean square norm. group_norm: rows are the groups of channels of a sample of [N, C, ...]. Absent gradients are not made. */
DG_EXPORT int32_t dg_layer_norm(const dg_tensor* t, uint32_t y, uint32_t mean, uint32_t invstd, uint32_t x, uint32_t weight, uint32_t bias,
                                double columns, double eps);
DG_EXPORT int32_t dg_layer_norm_backward(const dg_tensor* t, uint32_t dx, uint32_t dweight, uint32_t dbias, uint32_t dy, uint32_t x, uint32_t mean,
                                         uint32_t invstd, uint32_t weight, double columns);
DG_EXPORT int32_t dg_group_norm(const dg_tensor* t, uint32_t y, uint32_t mean, uint32_t invstd, uint32_t x, uint32_t weight, uint32_t bias,
                                double groups, double eps);
DG_EXPORT int32_t dg_group_norm_backward(const dg_tensor* t, uint32_t dx, uint32_t dweight, uint32_t dbias, uint32_t dy, uint32_t x, uint32_t mean,
                                         uint32_t invstd, uint32_t weight, double groups);

/* ---- interpolate: [N, C, spatial...]; scale factors right-aligned to the spatial axes, 0: from the sizes; mode is an InterpolateMode. The backward
   functions are the exact adjoints. pad: before* positions in front of each spatial axis, the rest of y behind; mode is a PadMode. */
DG_EXPORT int32_t dg_interpolate(const dg_tensor* t, uint32_t y, uint32_t x, uint32_t mode, uint32_t align_corners, double scale0, double scale1,
                                 double scale2);
DG_EXPORT int32_t dg_interpolate_backward(const dg_tensor* t, uint32_t dx, uint32_t dy, uint32_t mode, uint32_t align_corners, double scale0,
                                          double scale1, double scale2);
DG_EXPORT int32_t dg_pad(const dg_tensor* t, uint32_t y, uint32_t x, uint32_t mode, uint32_t before0, uint32_t before1, uint32_t before2);
DG_EXPORT int32_t dg_pad_backward(const dg_tensor* t, uint32_t dx, uint32_t dy, uint32_t mode, uint32_t before0, uint32_t before1,
                                  uint32_t before2);

/* ---- loss: op is a LossOp; reduction 0: none, 1: mean, 2: sum; backward: dx = dy * f'(x, target) * scale, dy with the sizes of x.
   cross_entropy: labels int64 [N, d...] under scores x [N, C, d...] (log-probabilities when logits == 0), weight [C] or absent; stats [2, numel(labels)]
   and total [] (float32, float64 for float64 scores) are outputs that backward reads; dy has the sizes of labels */
DG_EXPORT int32_t dg_loss(const dg_tensor* t, uint32_t out, uint32_t x, uint32_t target, uint32_t op, double parameter, uint32_t reduction);
DG_EXPORT int32_t dg_loss_backward(const dg_tensor* t, uint32_t dx, uint32_t dy, uint32_t x, uint32_t target, uint32_t op, double parameter,
                                   double scale);
DG_EXPORT int32_t dg_cross_entropy(const dg_tensor* t, uint32_t out, uint32_t stats, uint32_t total, uint32_t x, uint32_t labels, uint32_t weight,
                                   double ignore, double smoothing, uint32_t reduction, uint32_t logits);
DG_EXPORT int32_t dg_cross_entropy_backward(const dg_tensor* t, uint32_t dx, uint32_t dy, uint32_t stats, uint32_t total, uint32_t x,
                                            uint32_t labels, uint32_t weight, double ignore, double smoothing, uint32_t reduction,
                                            uint32_t logits);

/* ---- optimizer: one step over `count` parameters. From slot `first`: each parameter, its gradient, its states, one after the other; all with the
   parameter's sizes and (gapless) strides, states in float32 (float64 for float64). Formulas: common/optimizer.h.
   sgd: momentum buffer if has_buffer, taken from the gradient if fresh. adam: m, v, if amsgrad the largest v; decoupled: AdamW; step counts from 1.
   rmsprop: mean square, if centered mean, if momentum > 0 buffer. adagrad: sum.
   clip_norm: out = p-norm of all elements of the tensors, which are scaled down to max_norm (infinite: only measured). */
DG_EXPORT int32_t dg_sgd(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t has_buffer, double lr, double momentum, double dampening,
                         double weight_decay, uint32_t nesterov, uint32_t maximize, uint32_t fresh);
DG_EXPORT int32_t dg_adam(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t amsgrad, double lr, double beta1, double beta2, double eps,
                          double weight_decay, uint32_t decoupled, uint32_t maximize, double step);
DG_EXPORT int32_t dg_rmsprop(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t centered, double lr, double alpha, double eps,
                             double weight_decay, double momentum, uint32_t maximize);
DG_EXPORT int32_t dg_adagrad(const dg_tensor* t, uint32_t first, uint32_t count, double rate, double eps, double weight_decay, uint32_t maximize);
DG_EXPORT int32_t dg_clip_norm(const dg_tensor* t, uint32_t out, uint32_t first, uint32_t count, double max_norm, double p, uint32_t refuse_nonfinite);

#ifdef __cplusplus
}
#endif
#endif
