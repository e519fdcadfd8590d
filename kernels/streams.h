/* What the CUDA library exports besides abi.h, for native code that gives a device work of its own (the library of process groups over NCCL). Plain C, with the
   conventions of abi.h; callable from any thread. A device has two streams, 0 for computation and 1 for communication. */
#ifndef DINOGRAD_STREAMS_H
#define DINOGRAD_STREAMS_H
#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The native handle of a stream, valid as long as the process; makes the device the calling thread's. Refused, as are record and wait, while a step is
   captured into a graph. */
DG_EXPORT int32_t dg_stream_handle(uint32_t device, uint32_t stream, void** handle);

/* A mark is a point in a stream (an id, 0 on failure). record: puts it behind what the stream was given so far; wait: makes a stream wait for it; DG_NONE
   stands for the current stream. done: whether it has been passed; no call that waits for a device keeps this one waiting. A mark that is freed is still
   waited for. */
DG_EXPORT uint32_t dg_mark_create(uint32_t device);
DG_EXPORT int32_t dg_mark_free(uint32_t mark);
DG_EXPORT int32_t dg_mark_record(uint32_t mark, uint32_t stream);
DG_EXPORT int32_t dg_mark_wait(uint32_t mark, uint32_t stream);
DG_EXPORT int32_t dg_mark_done(uint32_t mark, uint32_t* done);

/* The next call that waits for the device fails with this status and text (at most 1000 bytes), unless there is a report already. */
DG_EXPORT int32_t dg_report(uint32_t device, int32_t status, const char* text);

#ifdef __cplusplus
}
#endif
#endif
