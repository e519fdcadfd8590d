/**
 * The one table of native symbols. Every kernel library exports exactly these functions; `kernels/abi.h` is the same list in C and
 * `tests/symbols_test.ts` compares the two, names and types, both ways.
 *
 * A parameter a line, its C name beside it. `t` is the frame of tensor headers (see `frame.ts`), slots are numbers into it.
 *
 * @module
 */

/** Symbols of a kernel library, as `Deno.dlopen` takes them. */
export const symbols = {
  // ---- library
  dg_abi_version: { parameters: [], result: "i32" },
  dg_last_error: {
    parameters: [
      "buffer", // text
      "u32", // capacity
    ],
    result: "u32",
  },
  dg_name_call: {
    parameters: [
      "buffer", // name
      "u32", // length
    ],
    result: "i32",
  },
  dg_set_threads: {
    parameters: [
      "i32", // count
    ],
    result: "i32",
  },
  dg_get_threads: { parameters: [], result: "i32" },

  // ---- device
  dg_device_count: {
    parameters: [
      "buffer", // count
    ],
    result: "i32",
  },
  dg_device_properties: {
    parameters: [
      "u32", // device
      "buffer", // out8
      "buffer", // name
      "u32", // capacity
    ],
    result: "i32",
  },
  dg_synchronize: {
    parameters: [
      "u32", // device
    ],
    result: "i32",
  },
  dg_runtime_stats: {
    parameters: [
      "u32", // device
      "buffer", // out8
    ],
    result: "i32",
  },
  dg_set_stream: {
    parameters: [
      "u32", // device
      "u32", // stream
    ],
    result: "i32",
  },
  dg_event_create: {
    parameters: [
      "u32", // device
    ],
    result: "u32",
  },
  dg_event_free: {
    parameters: [
      "u32", // event
    ],
    result: "i32",
  },
  dg_event_record: {
    parameters: [
      "u32", // event
    ],
    result: "i32",
  },
  dg_event_wait: {
    parameters: [
      "u32", // event
    ],
    result: "i32",
  },
  dg_event_synchronize: {
    parameters: [
      "u32", // event
    ],
    result: "i32",
  },
  dg_event_query: {
    parameters: [
      "u32", // event
      "buffer", // done
    ],
    result: "i32",
  },
  dg_event_elapsed: {
    parameters: [
      "u32", // start
      "u32", // end
      "buffer", // milliseconds
    ],
    result: "i32",
  },
  dg_transfer: {
    parameters: [
      "u32", // to
      "f64", // to_offset_bytes
      "u32", // from
      "f64", // from_offset_bytes
      "f64", // bytes
    ],
    result: "i32",
  },
  dg_pin: {
    parameters: [
      "buffer", // memory
      "f64", // bytes
    ],
    result: "i32",
  },
  dg_unpin: {
    parameters: [
      "buffer", // memory
    ],
    result: "i32",
  },
  dg_capture_begin: {
    parameters: [
      "u32", // device
    ],
    result: "i32",
  },
  dg_capture_end: {
    parameters: [
      "u32", // device
      "f64", // counters
    ],
    result: "u32",
  },
  dg_graph_launch: {
    parameters: [
      "u32", // graph
    ],
    result: "i32",
  },
  dg_graph_free: {
    parameters: [
      "u32", // graph
    ],
    result: "i32",
  },
  dg_set_tf32: {
    parameters: [
      "u32", // on
    ],
    result: "i32",
  },
  dg_get_tf32: { parameters: [], result: "u32" },

  // ---- memory
  dg_alloc: {
    parameters: [
      "f64", // bytes
      "u32", // zeroed
      "u32", // device
    ],
    result: "u32",
  },
  dg_wrap: {
    parameters: [
      "buffer", // memory
      "f64", // bytes
    ],
    result: "u32",
  },
  dg_storage_alias: {
    parameters: [
      "u32", // storage
    ],
    result: "u32",
  },
  dg_free: {
    parameters: [
      "u32", // storage
    ],
    result: "i32",
  },
  dg_storage_pin: {
    parameters: [
      "u32", // storage
      "buffer", // out
    ],
    result: "i32",
  },
  dg_storage_unpin: {
    parameters: [
      "u32", // storage
    ],
    result: "i32",
  },
  dg_read: {
    parameters: [
      "u32", // storage
      "f64", // offset_bytes
      "buffer", // destination
      "f64", // bytes
    ],
    result: "i32",
  },
  dg_write: {
    parameters: [
      "u32", // storage
      "f64", // offset_bytes
      "buffer", // source
      "f64", // bytes
    ],
    result: "i32",
  },
  dg_memory_stats: {
    parameters: [
      "u32", // device
      "buffer", // out8
    ],
    result: "i32",
  },
  dg_memory_limit: {
    parameters: [
      "u32", // device
      "f64", // bytes
    ],
    result: "i32",
  },
  dg_memory_reset_peak: {
    parameters: [
      "u32", // device
    ],
    result: "i32",
  },
  dg_memory_release_cache: {
    parameters: [
      "u32", // device
    ],
    result: "i32",
  },

  // ---- program
  dg_record_begin: { parameters: [], result: "i32" },
  dg_record_end: { parameters: [], result: "u32" },
  dg_record_storage: {
    parameters: [
      "u32", // storage
      "buffer", // slot
    ],
    result: "i32",
  },
  dg_record_position: {
    parameters: [
      "buffer", // calls
    ],
    result: "i32",
  },
  dg_program_info: {
    parameters: [
      "u32", // program
      "buffer", // out8
    ],
    result: "i32",
  },
  dg_program_slot: {
    parameters: [
      "u32", // program
      "u32", // slot
      "buffer", // out8
    ],
    result: "i32",
  },
  dg_program_bind: {
    parameters: [
      "u32", // program
      "u32", // slot
      "u32", // storage
      "f64", // offset_bytes
    ],
    result: "i32",
  },
  dg_program_set: {
    parameters: [
      "u32", // program
      "u32", // call
      "u32", // argument
      "f64", // value
    ],
    result: "i32",
  },
  dg_program_get: {
    parameters: [
      "u32", // program
      "u32", // call
      "u32", // argument
      "buffer", // value
    ],
    result: "i32",
  },
  dg_program_run: {
    parameters: [
      "u32", // program
    ],
    result: "i32",
  },
  dg_program_free: {
    parameters: [
      "u32", // program
    ],
    result: "i32",
  },

  // ---- copy
  dg_copy: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
    ],
    result: "i32",
  },
  dg_fill: {
    parameters: [
      "pointer", // t
      "u32", // out
      "f64", // value
    ],
    result: "i32",
  },
  dg_arange: {
    parameters: [
      "pointer", // t
      "u32", // out
      "f64", // start
      "f64", // step
    ],
    result: "i32",
  },

  // ---- unary
  dg_unary: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // op
    ],
    result: "i32",
  },

  // ---- activation
  dg_activation: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "u32", // op
      "f64", // a
      "f64", // b
    ],
    result: "i32",
  },
  dg_activation_backward: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dy
      "u32", // x
      "u32", // op
      "f64", // a
      "f64", // b
    ],
    result: "i32",
  },

  // ---- binary
  dg_binary: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // y
      "u32", // op
      "f64", // alpha
    ],
    result: "i32",
  },
  dg_binary_scalar: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "f64", // scalar
      "u32", // op
      "u32", // reversed
    ],
    result: "i32",
  },
  dg_compare: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // y
      "u32", // op
    ],
    result: "i32",
  },
  dg_compare_scalar: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "f64", // scalar
      "u32", // op
    ],
    result: "i32",
  },
  dg_where: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // condition
      "u32", // x
      "u32", // y
    ],
    result: "i32",
  },

  // ---- reduction
  dg_reduce: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // axes
      "u32", // op
    ],
    result: "i32",
  },
  dg_var: {
    parameters: [
      "pointer", // t
      "u32", // var
      "u32", // mean
      "u32", // x
      "u32", // axes
      "f64", // correction
      "u32", // root
    ],
    result: "i32",
  },
  dg_extremum: {
    parameters: [
      "pointer", // t
      "u32", // values
      "u32", // indices
      "u32", // x
      "u32", // axis
      "u32", // smallest
    ],
    result: "i32",
  },
  dg_scan: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // axis
      "u32", // op
      "u32", // reversed
    ],
    result: "i32",
  },
  // ---- softmax
  dg_softmax: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "u32", // axis
      "u32", // log
    ],
    result: "i32",
  },
  dg_softmax_backward: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dy
      "u32", // y
      "u32", // axis
      "u32", // log
    ],
    result: "i32",
  },

  // ---- attention
  dg_attention: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // log_sum
      "u32", // q
      "u32", // k
      "u32", // v
      "u32", // mask
      "u32", // causal
      "f64", // scale
    ],
    result: "i32",
  },
  dg_attention_backward: {
    parameters: [
      "pointer", // t
      "u32", // dq
      "u32", // dk
      "u32", // dv
      "u32", // dout
      "u32", // out
      "u32", // log_sum
      "u32", // q
      "u32", // k
      "u32", // v
      "u32", // mask
      "u32", // causal
      "f64", // scale
    ],
    result: "i32",
  },

  // ---- sort
  dg_sort: {
    parameters: [
      "pointer", // t
      "u32", // values
      "u32", // indices
      "u32", // x
      "u32", // axis
      "u32", // descending
    ],
    result: "i32",
  },
  dg_kth: {
    parameters: [
      "pointer", // t
      "u32", // values
      "u32", // indices
      "u32", // x
      "u32", // axis
      "f64", // k
      "u32", // median
    ],
    result: "i32",
  },
  dg_searchsorted: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // sorted
      "u32", // x
      "u32", // right
    ],
    result: "i32",
  },
  dg_bincount: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // weights
    ],
    result: "i32",
  },
  dg_histc: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "f64", // low
      "f64", // high
    ],
    result: "i32",
  },
  dg_groups: {
    parameters: [
      "pointer", // t
      "u32", // group
      "u32", // sorted
    ],
    result: "i32",
  },
  dg_unique: {
    parameters: [
      "pointer", // t
      "u32", // values
      "u32", // inverse
      "u32", // counts
      "u32", // sorted
      "u32", // order
      "u32", // group
    ],
    result: "i32",
  },

  // ---- indexing
  dg_gather: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // index
      "u32", // axis
    ],
    result: "i32",
  },
  dg_scatter: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // index
      "u32", // src
      "f64", // value
      "u32", // axis
      "u32", // op
      "u32", // include_self
    ],
    result: "i32",
  },
  dg_index_get: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // first
      "u32", // axes
      "u32", // wrap
    ],
    result: "i32",
  },
  dg_index_put: {
    parameters: [
      "pointer", // t
      "u32", // x
      "u32", // src
      "f64", // value
      "u32", // first
      "u32", // axes
      "u32", // wrap
      "u32", // op
    ],
    result: "i32",
  },
  dg_count_nonzero: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
    ],
    result: "i32",
  },
  dg_nonzero: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
    ],
    result: "i32",
  },
  dg_flip: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // axes
    ],
    result: "i32",
  },
  dg_triangle: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "f64", // diagonal
      "u32", // upper
    ],
    result: "i32",
  },

  // ---- random
  dg_random: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // op
      "u32", // seed_low
      "u32", // seed_high
      "u32", // offset_low
      "u32", // offset_high
      "f64", // a
      "f64", // b
      "f64", // c
      "f64", // d
    ],
    result: "i32",
  },
  dg_dropout: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "f64", // p
      "u32", // seed_low
      "u32", // seed_high
      "u32", // offset_low
      "u32", // offset_high
    ],
    result: "i32",
  },
  dg_multinomial: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // weights
      "u32", // replacement
      "u32", // seed_low
      "u32", // seed_high
      "u32", // offset_low
      "u32", // offset_high
    ],
    result: "i32",
  },

  // ---- matmul
  dg_matmul: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // a
      "u32", // b
      "u32", // bias
    ],
    result: "i32",
  },

  // ---- convolution
  dg_conv_forward: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "u32", // w
      "u32", // bias
      "u32", // stride0
      "u32", // stride1
      "u32", // stride2
      "u32", // padding0
      "u32", // padding1
      "u32", // padding2
      "u32", // dilation0
      "u32", // dilation1
      "u32", // dilation2
      "u32", // groups
    ],
    result: "i32",
  },
  dg_conv_norm: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "u32", // w
      "u32", // bias
      "u32", // mean
      "u32", // var
      "u32", // weight
      "u32", // shift
      "u32", // residual
      "f64", // eps
      "u32", // relu
      "u32", // stride0
      "u32", // stride1
      "u32", // stride2
      "u32", // padding0
      "u32", // padding1
      "u32", // padding2
      "u32", // dilation0
      "u32", // dilation1
      "u32", // dilation2
      "u32", // groups
    ],
    result: "i32",
  },
  dg_conv_stats: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "u32", // w
      "u32", // bias
      "u32", // mean
      "u32", // var
      "u32", // invstd
      "u32", // running_mean
      "u32", // running_var
      "u32", // batches
      "f64", // momentum
      "f64", // eps
      "u32", // stride0
      "u32", // stride1
      "u32", // stride2
      "u32", // padding0
      "u32", // padding1
      "u32", // padding2
      "u32", // dilation0
      "u32", // dilation1
      "u32", // dilation2
      "u32", // groups
    ],
    result: "i32",
  },
  dg_conv_backward_input: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dy
      "u32", // w
      "u32", // bias
      "u32", // stride0
      "u32", // stride1
      "u32", // stride2
      "u32", // padding0
      "u32", // padding1
      "u32", // padding2
      "u32", // dilation0
      "u32", // dilation1
      "u32", // dilation2
      "u32", // groups
    ],
    result: "i32",
  },
  dg_conv_backward_weight: {
    parameters: [
      "pointer", // t
      "u32", // dw
      "u32", // db
      "u32", // dy
      "u32", // x
      "u32", // stride0
      "u32", // stride1
      "u32", // stride2
      "u32", // padding0
      "u32", // padding1
      "u32", // padding2
      "u32", // dilation0
      "u32", // dilation1
      "u32", // dilation2
      "u32", // groups
    ],
    result: "i32",
  },
  dg_conv_set_winograd: {
    parameters: [
      "u32", // mode
    ],
    result: "i32",
  },
  dg_conv_get_winograd: { parameters: [], result: "u32" },
  dg_conv_reorders: { parameters: [], result: "u32" },
  // ---- pooling
  dg_max_pool: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // indices
      "u32", // codes
      "u32", // x
      "u32", // k0
      "u32", // k1
      "u32", // k2
      "u32", // s0
      "u32", // s1
      "u32", // s2
      "u32", // p0
      "u32", // p1
      "u32", // p2
      "u32", // d0
      "u32", // d1
      "u32", // d2
    ],
    result: "i32",
  },
  dg_max_pool_backward: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dy
      "u32", // codes
      "u32", // k0
      "u32", // k1
      "u32", // k2
      "u32", // s0
      "u32", // s1
      "u32", // s2
      "u32", // p0
      "u32", // p1
      "u32", // p2
      "u32", // d0
      "u32", // d1
      "u32", // d2
    ],
    result: "i32",
  },
  dg_max_pool_gather: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "u32", // codes
      "u32", // k0
      "u32", // k1
      "u32", // k2
      "u32", // s0
      "u32", // s1
      "u32", // s2
      "u32", // p0
      "u32", // p1
      "u32", // p2
      "u32", // d0
      "u32", // d1
      "u32", // d2
    ],
    result: "i32",
  },
  dg_avg_pool: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "u32", // k0
      "u32", // k1
      "u32", // k2
      "u32", // s0
      "u32", // s1
      "u32", // s2
      "u32", // p0
      "u32", // p1
      "u32", // p2
      "u32", // count_include_pad
      "f64", // divisor_override
    ],
    result: "i32",
  },
  dg_avg_pool_backward: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dy
      "u32", // k0
      "u32", // k1
      "u32", // k2
      "u32", // s0
      "u32", // s1
      "u32", // s2
      "u32", // p0
      "u32", // p1
      "u32", // p2
      "u32", // count_include_pad
      "f64", // divisor_override
    ],
    result: "i32",
  },
  dg_unpool_scatter: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "u32", // indices
      "u32", // accumulate
    ],
    result: "i32",
  },
  dg_unpool_gather: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "u32", // indices
    ],
    result: "i32",
  },
  // ---- normalization
  dg_batch_norm_stats: {
    parameters: [
      "pointer", // t
      "u32", // mean
      "u32", // var
      "u32", // invstd
      "u32", // running_mean
      "u32", // running_var
      "u32", // batches
      "u32", // x
      "f64", // momentum
      "f64", // eps
    ],
    result: "i32",
  },
  dg_batch_norm_update: {
    parameters: [
      "pointer", // t
      "u32", // invstd
      "u32", // mean
      "u32", // var
      "u32", // running_mean
      "u32", // running_var
      "u32", // batches
      "f64", // count
      "f64", // momentum
      "f64", // eps
    ],
    result: "i32",
  },
  dg_batch_norm_apply: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // kept_mean
      "u32", // kept_invstd
      "u32", // x
      "u32", // mean
      "u32", // invstd
      "u32", // var
      "u32", // weight
      "u32", // bias
      "u32", // residual
      "f64", // eps
      "u32", // relu
    ],
    result: "i32",
  },
  dg_batch_norm_reduce: {
    parameters: [
      "pointer", // t
      "u32", // sum_dy
      "u32", // sum_dy_xhat
      "u32", // masked
      "u32", // dy
      "u32", // x
      "u32", // y
      "u32", // mean
      "u32", // invstd
      "u32", // weight
      "u32", // bias
      "u32", // relu
    ],
    result: "i32",
  },
  dg_batch_norm_backward: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dy
      "u32", // x
      "u32", // mean
      "u32", // invstd
      "u32", // weight
      "u32", // bias
      "u32", // sum_dy
      "u32", // sum_dy_xhat
      "f64", // count
      "u32", // relu
    ],
    result: "i32",
  },
  dg_layer_norm: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // mean
      "u32", // invstd
      "u32", // x
      "u32", // weight
      "u32", // bias
      "f64", // columns
      "f64", // eps
    ],
    result: "i32",
  },
  dg_layer_norm_backward: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dweight
      "u32", // dbias
      "u32", // dy
      "u32", // x
      "u32", // mean
      "u32", // invstd
      "u32", // weight
      "f64", // columns
    ],
    result: "i32",
  },
  dg_group_norm: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // mean
      "u32", // invstd
      "u32", // x
      "u32", // weight
      "u32", // bias
      "f64", // groups
      "f64", // eps
    ],
    result: "i32",
  },
  dg_group_norm_backward: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dweight
      "u32", // dbias
      "u32", // dy
      "u32", // x
      "u32", // mean
      "u32", // invstd
      "u32", // weight
      "f64", // groups
    ],
    result: "i32",
  },

  // ---- interpolate
  dg_interpolate: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "u32", // mode
      "u32", // align_corners
      "f64", // scale0
      "f64", // scale1
      "f64", // scale2
    ],
    result: "i32",
  },
  dg_interpolate_backward: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dy
      "u32", // mode
      "u32", // align_corners
      "f64", // scale0
      "f64", // scale1
      "f64", // scale2
    ],
    result: "i32",
  },
  dg_pad: {
    parameters: [
      "pointer", // t
      "u32", // y
      "u32", // x
      "u32", // mode
      "u32", // before0
      "u32", // before1
      "u32", // before2
    ],
    result: "i32",
  },
  dg_pad_backward: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dy
      "u32", // mode
      "u32", // before0
      "u32", // before1
      "u32", // before2
    ],
    result: "i32",
  },
  // ---- loss
  dg_loss: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // target
      "u32", // op
      "f64", // parameter
      "u32", // reduction
    ],
    result: "i32",
  },
  dg_loss_backward: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dy
      "u32", // x
      "u32", // target
      "u32", // op
      "f64", // parameter
      "f64", // scale
    ],
    result: "i32",
  },
  dg_cross_entropy: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // stats
      "u32", // total
      "u32", // x
      "u32", // labels
      "u32", // weight
      "f64", // ignore
      "f64", // smoothing
      "u32", // reduction
      "u32", // logits
    ],
    result: "i32",
  },
  dg_cross_entropy_backward: {
    parameters: [
      "pointer", // t
      "u32", // dx
      "u32", // dy
      "u32", // stats
      "u32", // total
      "u32", // x
      "u32", // labels
      "u32", // weight
      "f64", // ignore
      "f64", // smoothing
      "u32", // reduction
      "u32", // logits
    ],
    result: "i32",
  },
  // ---- optimizer
  dg_sgd: {
    parameters: [
      "pointer", // t
      "u32", // first
      "u32", // count
      "u32", // has_buffer
      "f64", // lr
      "f64", // momentum
      "f64", // dampening
      "f64", // weight_decay
      "u32", // nesterov
      "u32", // maximize
      "u32", // fresh
    ],
    result: "i32",
  },
  dg_adam: {
    parameters: [
      "pointer", // t
      "u32", // first
      "u32", // count
      "u32", // amsgrad
      "f64", // lr
      "f64", // beta1
      "f64", // beta2
      "f64", // eps
      "f64", // weight_decay
      "u32", // decoupled
      "u32", // maximize
      "f64", // step
    ],
    result: "i32",
  },
  dg_rmsprop: {
    parameters: [
      "pointer", // t
      "u32", // first
      "u32", // count
      "u32", // centered
      "f64", // lr
      "f64", // alpha
      "f64", // eps
      "f64", // weight_decay
      "f64", // momentum
      "u32", // maximize
    ],
    result: "i32",
  },
  dg_adagrad: {
    parameters: [
      "pointer", // t
      "u32", // first
      "u32", // count
      "f64", // rate
      "f64", // eps
      "f64", // weight_decay
      "u32", // maximize
    ],
    result: "i32",
  },
  dg_clip_norm: {
    parameters: [
      "pointer", // t
      "u32", // out
      "u32", // first
      "u32", // count
      "f64", // max_norm
      "f64", // p
      "u32", // refuse_nonfinite
    ],
    result: "i32",
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** The functions of an open kernel library. */
export type KernelLibrary = Deno.DynamicLibrary<typeof symbols>["symbols"];
