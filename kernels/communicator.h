/* The C ABI of a communicator library: collective operations between the ranks of a group, whatever carries them. Plain C, mirrored row by row in
 * ffi/communicator_symbols.ts.
 *
 * Conventions
 *   - Tensors are headers in a frame, as in abi.h, of the device that the library serves; they must be row-major without gaps. Their memory is pinned until the
 *     work has ended, so that dg_free meanwhile takes effect only then.
 *   - A collective returns the id of a work at once, 0 on failure (see dg_comm_last_error, per thread), and runs on the communicator's own thread or stream, in
 *     the order of the calls, which must be the same on every rank: ranks that differ in the collective, dtype, number of elements, reduction or root fail with
 *     DG_COMM_MISMATCH. send and recv match by rank and tag and do not wait for collectives.
 *   - The first failure fails the communicator: works that are under way and all later ones fail with its cause, on every rank that can be reached.
 *   - `timeout` is in milliseconds from the call, more than 0.
 *   - Nothing exits, aborts, prints, throws or raises a signal across this boundary, nor on a thread of the library.
 */
#ifndef DINOGRAD_COMMUNICATOR_H
#define DINOGRAD_COMMUNICATOR_H
#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DG_COMM_ABI_VERSION 1

/* Continues dg_status. */
typedef enum dg_comm_status {
  DG_COMM_PENDING = 32,  /* not ended yet: what dg_work_wait says when its own time is up */
  DG_COMM_TIMEOUT = 33,  /* the work did not end within its time */
  DG_COMM_LOST = 34,     /* the connection to a rank was lost or could not be made */
  DG_COMM_MISMATCH = 35, /* ranks called different collectives, or the same with different arguments */
  DG_COMM_CLOSED = 36,   /* the communicator was closed */
  DG_COMM_ABORTED = 37   /* a rank gave up: dg_comm_abort */
} dg_comm_status;

typedef enum dg_reduction {
  DG_SUM = 0, DG_AVERAGE = 1, DG_PRODUCT = 2, DG_MIN = 3, DG_MAX = 4 /* average: floating point only */
} dg_reduction;

DG_EXPORT int32_t dg_comm_abi_version(void);
DG_EXPORT uint32_t dg_comm_last_error(char* text, uint32_t capacity); /* copies the message, returns its full length */
DG_EXPORT int32_t dg_comm_last_status(void); /* of the last call that returned an id or a length */

/* ---- life. open: a communicator of `size` ranks, of which this is `rank`; `address` is the host name, IP address or network interface that others reach it at
   (ignored where the library finds its own way). blob: what the other ranks need to connect, at least one byte; copies it, returns its length. connect: the
   blobs of all ranks in order, `bytes` in all; a work. abort: fails the communicator on all ranks with this text. close: ends it, pending works fail; at most
   a second. */
DG_EXPORT uint32_t dg_comm_open(uint32_t rank, uint32_t size, const char* address, uint32_t device); /* id, 0 on failure */
DG_EXPORT uint32_t dg_comm_blob(uint32_t comm, uint8_t* blob, uint32_t capacity);
DG_EXPORT uint32_t dg_comm_connect(uint32_t comm, const uint8_t* blobs, uint32_t bytes, double timeout);
DG_EXPORT int32_t dg_comm_abort(uint32_t comm, const char* text);
DG_EXPORT int32_t dg_comm_close(uint32_t comm);

/* ---- collectives: slots into the frame t. all_reduce and broadcast work in place; reduce leaves x alone but on the root. all_gather and gather: out holds
   the x of every rank one after the other; reduce_scatter, scatter: x holds size parts of out's number of elements; all_to_all: part j of x becomes part
   (this rank) of out on rank j. gather's out and scatter's x are DG_NONE but on the root. bool is copied, never reduced. */
DG_EXPORT uint32_t dg_comm_all_reduce(uint32_t comm, const dg_tensor* t, uint32_t x, uint32_t op, double timeout);
DG_EXPORT uint32_t dg_comm_reduce(uint32_t comm, const dg_tensor* t, uint32_t x, uint32_t op, uint32_t root, double timeout);
DG_EXPORT uint32_t dg_comm_broadcast(uint32_t comm, const dg_tensor* t, uint32_t x, uint32_t root, double timeout);
DG_EXPORT uint32_t dg_comm_all_gather(uint32_t comm, const dg_tensor* t, uint32_t out, uint32_t x, double timeout);
DG_EXPORT uint32_t dg_comm_reduce_scatter(uint32_t comm, const dg_tensor* t, uint32_t out, uint32_t x, uint32_t op, double timeout);
DG_EXPORT uint32_t dg_comm_gather(uint32_t comm, const dg_tensor* t, uint32_t out, uint32_t x, uint32_t root, double timeout);
DG_EXPORT uint32_t dg_comm_scatter(uint32_t comm, const dg_tensor* t, uint32_t out, uint32_t x, uint32_t root, double timeout);
DG_EXPORT uint32_t dg_comm_all_to_all(uint32_t comm, const dg_tensor* t, uint32_t out, uint32_t x, double timeout);
DG_EXPORT uint32_t dg_comm_barrier(uint32_t comm, double timeout);
/* tag < 2^24. recv: source DG_NONE takes what comes first from any rank. */
DG_EXPORT uint32_t dg_comm_send(uint32_t comm, const dg_tensor* t, uint32_t x, uint32_t target, uint32_t tag, double timeout);
DG_EXPORT uint32_t dg_comm_recv(uint32_t comm, const dg_tensor* t, uint32_t out, uint32_t source, uint32_t tag, double timeout);

/* ---- works. join: DG_OK once what follows may rely on the work, for a device what its current stream is given from now on; blocks where there is no device
   to wait in its place. A work that fails after that is reported by the next call that waits for the device. wait: blocks up to `timeout` milliseconds; the status of the work, or DG_COMM_PENDING. test: the same without waiting. info: status, rank that
   the failure is about (-1: none), rank that a recv came from (-1: none); copies the text of the failure, returns its full length. A work that is freed
   goes on. */
DG_EXPORT int32_t dg_work_wait(uint32_t work, double timeout);
DG_EXPORT int32_t dg_work_test(uint32_t work);
DG_EXPORT int32_t dg_work_join(uint32_t work);
DG_EXPORT uint32_t dg_work_info(uint32_t work, int32_t* out3, char* text, uint32_t capacity);
DG_EXPORT int32_t dg_work_free(uint32_t work);

#ifdef __cplusplus
}
#endif
#endif
