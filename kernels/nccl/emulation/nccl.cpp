// A stand-in for NCCL on emulated CUDA devices: the functions of api.h, as NVIDIA documents them.
//
// Followed: one communicator a rank and one rank a device; group calls, also for several devices of one process; communicators that do not block, whose calls
// say ncclInProgress and must be asked until they are done; work in stream order and in the order of the calls on a communicator; operations that ranks call
// differently stand still; errors of arguments, use and remote ranks, asynchronous ones too; abort. More strictly than NCCL, every pointer is checked.
#include <cstdio>
#include <cstring>
#include <map>
#include <set>

#include "../../cuda/emulation/external.h"
#include "comm.h"

using namespace nccl_emulation;

#define NCCL_STAND_IN extern "C" __attribute__((visibility("default")))

struct ncclComm {
  std::shared_ptr<Comm> comm;
};

namespace {

constexpr int kVersion = 23007;
constexpr unsigned kMagic = 0xcafebeef;
constexpr char kIdMagic[] = "dinograd-nccl-";

std::mutex mutex;
auto& comms = *new std::set<ncclComm_t>;  // never destroyed: threads may be at work while the process ends
thread_local std::string last_error;

// What a group has been given so far, on one host thread.
struct Group {
  int depth = 0;
  std::vector<std::pair<std::shared_ptr<Comm>, std::shared_ptr<Task>>> tasks;
  std::vector<std::shared_ptr<Comm>> inits;
  ncclResult_t failed = ncclSuccess;
};
thread_local Group group;

ncclResult_t refuse(ncclResult_t result, const std::string& text) {
  last_error = text;
  if (group.depth > 0 && group.failed == ncclSuccess) group.failed = result;
  return result;
}

std::shared_ptr<Comm> live(ncclComm_t handle) {
  std::lock_guard<std::mutex> lock(mutex);
  return comms.count(handle) ? handle->comm : nullptr;
}

// The tasks of a group, those of a communicator together; its messages are one task, which no order among them can block.
ncclResult_t submit_all() {
  std::vector<std::shared_ptr<Comm>> order;
  std::map<Comm*, std::vector<std::shared_ptr<Task>>> tasks;
  std::map<Comm*, std::shared_ptr<Task>> messages;
  for (auto& [comm, task] : group.tasks) {
    if (!tasks.count(comm.get())) order.push_back(comm);
    auto& list = tasks[comm.get()];
    if (task->kind != Kind::messages) {
      list.push_back(task);
    } else if (auto& joined = messages[comm.get()]; joined) {
      joined->messages.push_back(task->messages.front());
    } else {
      joined = task;
      list.push_back(task);
    }
  }
  group.tasks.clear();
  for (const auto& [comm, task] : messages) {
    int balance = 0;
    for (const Message& it : task->messages)
      if (it.peer == comm->rank) balance += it.sends ? 1 : -1;
    if (balance != 0) return refuse(ncclInvalidUsage, "Trying to send to self without a matching recv, or the other way round");
  }
  ncclResult_t result = ncclSuccess;
  for (const auto& comm : order)
    if (const ncclResult_t one = comm->submit(std::move(tasks[comm.get()])); one != ncclSuccess) result = one;
  return result;
}

ncclResult_t run_inits() {
  const auto inits = std::move(group.inits);
  group.inits.clear();
  std::vector<std::thread> threads;
  ncclResult_t result = ncclSuccess;
  for (const auto& comm : inits) {
    if (comm->blocking) {
      threads.emplace_back([comm] { comm->init(); });
    } else {
      comm->init_elsewhere();
      result = ncclInProgress;
    }
  }
  for (auto& thread : threads) thread.join();
  for (const auto& comm : inits)
    if (comm->blocking && comm->state() != ncclSuccess) result = refuse(comm->state(), comm->error_text());
  return result;
}

ncclResult_t end_group() {
  if (--group.depth > 0) return ncclSuccess;
  const ncclResult_t failed = std::exchange(group.failed, ncclSuccess);
  if (failed != ncclSuccess) {
    group.tasks.clear();
    group.inits.clear();
    return failed;
  }
  const ncclResult_t inits = run_inits(), tasks = submit_all();
  return inits != ncclSuccess ? inits : tasks;
}

// Checks what all operations have in common and puts the task into the group, of its own if there is none.
ncclResult_t start(const char* name, ncclComm_t handle, std::shared_ptr<Task> task, const void* in, size_t in_count, void* out, size_t out_count, int rank) {
  const auto comm = live(handle);
  if (!comm) return refuse(ncclInvalidArgument, std::string(name) + ": the communicator does not exist");
  const ncclResult_t state = comm->state();
  if (state == ncclInProgress) return refuse(ncclInvalidArgument, "Attempt to use communicator before the previous operation returned ncclSuccess");
  if (state != ncclSuccess) return refuse(state, comm->error_text());
  if (size_of(task->type) == 0) return refuse(ncclInvalidArgument, std::string(name) + ": invalid type " + std::to_string(task->type));
  if (uint32_t(task->op) > ncclAvg) return refuse(ncclInvalidArgument, std::string(name) + ": invalid reduction operation " + std::to_string(task->op));
  if (rank < 0 || rank >= comm->size) return refuse(ncclInvalidArgument, std::string(name) + ": invalid root " + std::to_string(rank));
  if (!task->stream) return refuse(ncclInvalidUsage, std::string(name) + ": takes a stream that was created");
  const auto usable = [&](const void* memory, size_t count) { return count == 0 || dg_emulated_device_of(memory) == comm->device; };
  if (!usable(in, in_count) || !usable(out, out_count))
    return refuse(ncclInvalidArgument, std::string(name) + ": a buffer is not memory of device " + std::to_string(comm->device));
  if (task->kind != Kind::messages && task->count == 0) return ncclSuccess;
  group.depth++;
  group.tasks.emplace_back(comm, std::move(task));
  return end_group();
}

std::shared_ptr<Task> collective(Kind kind, const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op, int root, cudaStream_t stream) {
  auto task = std::make_shared<Task>();
  task->kind = kind;
  task->in = in;
  task->out = out;
  task->count = count;
  task->type = type;
  task->op = op;
  task->root = root;
  task->stream = stream;
  return task;
}

std::shared_ptr<Task> message(bool sends, void* memory, size_t count, ncclDataType_t type, int peer, cudaStream_t stream) {
  auto task = std::make_shared<Task>();
  task->type = type;
  task->stream = stream;
  task->messages.push_back({sends, peer, memory, count * size_of(type), {}});
  return task;
}

}  // namespace

NCCL_STAND_IN ncclResult_t ncclGetVersion(int* version) {
  if (!version) return refuse(ncclInvalidArgument, "ncclGetVersion: null pointer");
  *version = kVersion;
  return ncclSuccess;
}

NCCL_STAND_IN ncclResult_t ncclGetUniqueId(ncclUniqueId* uniqueId) {
  if (!uniqueId) return refuse(ncclInvalidArgument, "ncclGetUniqueId: null pointer");
  try {
    *uniqueId = {};
    const std::string name = start_root();
    std::memcpy(uniqueId->internal, name.data(), name.size());
    return ncclSuccess;
  } catch (const Unreachable& error) {
    return refuse(ncclSystemError, error.text);
  }
}

NCCL_STAND_IN ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t* config) {
  if (!comm) return refuse(ncclInvalidArgument, "ncclCommInitRank: null pointer");
  *comm = nullptr;
  if (nranks < 1 || rank < 0 || rank >= nranks)
    return refuse(ncclInvalidArgument, "ncclCommInitRank: invalid rank requested: " + std::to_string(rank) + "/" + std::to_string(nranks));
  if (std::memcmp(commId.internal, kIdMagic, sizeof kIdMagic - 1) != 0 || !std::memchr(commId.internal, 0, 64))
    return refuse(ncclInvalidArgument, "ncclCommInitRank: not a unique id of ncclGetUniqueId");
  int blocking = 1;
  if (config) {
    if (config->size < offsetof(ncclConfig_t, cgaClusterSize) || config->magic != kMagic)
      return refuse(ncclInvalidArgument, "ncclConfig_t argument not initialized via NCCL_CONFIG_INITIALIZER");
    if (config->version >= 21400 && config->blocking != INT_MIN) blocking = config->blocking;
    if (blocking != 0 && blocking != 1) return refuse(ncclInvalidArgument, "Invalid config blocking attribute value " + std::to_string(blocking));
  }
  *comm = new ncclComm{std::make_shared<Comm>(rank, nranks, dg_emulated_device(), blocking != 0, commId.internal)};
  {
    std::lock_guard<std::mutex> lock(mutex);
    comms.insert(*comm);
  }
  group.depth++;
  group.inits.push_back((*comm)->comm);
  return end_group();
}

NCCL_STAND_IN ncclResult_t ncclCommInitRank(ncclComm_t* comm, int nranks, ncclUniqueId commId, int rank) {
  return ncclCommInitRankConfig(comm, nranks, commId, rank, nullptr);
}

NCCL_STAND_IN ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const auto it = live(comm);
  if (!it) return refuse(ncclInvalidArgument, "ncclCommFinalize: the communicator does not exist");
  if (it->state() == ncclInProgress) return refuse(ncclInvalidArgument, "Attempt to use communicator before the previous operation returned ncclSuccess");
  return it->finalize();
}

static ncclResult_t end(ncclComm_t comm, bool aborted) {
  const auto it = live(comm);
  if (!it) return refuse(ncclInvalidArgument, "the communicator does not exist");
  {
    std::lock_guard<std::mutex> lock(mutex);
    comms.erase(comm);
  }
  it->stop(aborted);
  delete comm;
  return ncclSuccess;
}

NCCL_STAND_IN ncclResult_t ncclCommDestroy(ncclComm_t comm) { return end(comm, false); }
NCCL_STAND_IN ncclResult_t ncclCommAbort(ncclComm_t comm) { return end(comm, true); }

NCCL_STAND_IN ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* asyncError) {
  const auto it = live(comm);
  if (!it || !asyncError) return refuse(ncclInvalidArgument, "ncclCommGetAsyncError: the communicator does not exist, or null pointer");
  *asyncError = it->state();
  if (*asyncError != ncclSuccess && *asyncError != ncclInProgress) last_error = it->error_text();
  return ncclSuccess;
}

NCCL_STAND_IN ncclResult_t ncclCommCount(ncclComm_t comm, int* count) {
  const auto it = live(comm);
  if (!it || !count) return refuse(ncclInvalidArgument, "ncclCommCount: the communicator does not exist, or null pointer");
  *count = it->size;
  return ncclSuccess;
}

NCCL_STAND_IN ncclResult_t ncclCommUserRank(ncclComm_t comm, int* rank) {
  const auto it = live(comm);
  if (!it || !rank) return refuse(ncclInvalidArgument, "ncclCommUserRank: the communicator does not exist, or null pointer");
  *rank = it->rank;
  return ncclSuccess;
}

NCCL_STAND_IN ncclResult_t ncclGroupStart() {
  group.depth++;
  return ncclSuccess;
}

NCCL_STAND_IN ncclResult_t ncclGroupEnd() {
  if (group.depth == 0) return refuse(ncclInvalidUsage, "ncclGroupEnd: not in a group call");
  return end_group();
}

NCCL_STAND_IN ncclResult_t ncclAllReduce(const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                                         cudaStream_t stream) {
  return start("ncclAllReduce", comm, collective(Kind::all_reduce, sendbuff, recvbuff, count, datatype, op, 0, stream), sendbuff, count, recvbuff, count, 0);
}

NCCL_STAND_IN ncclResult_t ncclReduce(const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op, int root, ncclComm_t comm,
                                      cudaStream_t stream) {
  const auto it = live(comm);
  return start("ncclReduce", comm, collective(Kind::reduce, sendbuff, recvbuff, count, datatype, op, root, stream), sendbuff, count, recvbuff,
               it && it->rank == root ? count : 0, root);
}

NCCL_STAND_IN ncclResult_t ncclBroadcast(const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
                                         cudaStream_t stream) {
  const auto it = live(comm);
  return start("ncclBroadcast", comm, collective(Kind::broadcast, sendbuff, recvbuff, count, datatype, ncclSum, root, stream), sendbuff,
               it && it->rank == root ? count : 0, recvbuff, count, root);
}

NCCL_STAND_IN ncclResult_t ncclAllGather(const void* sendbuff, void* recvbuff, size_t sendcount, ncclDataType_t datatype, ncclComm_t comm,
                                         cudaStream_t stream) {
  return start("ncclAllGather", comm, collective(Kind::all_gather, sendbuff, recvbuff, sendcount, datatype, ncclSum, 0, stream), sendbuff, sendcount, recvbuff,
               sendcount, 0);
}

NCCL_STAND_IN ncclResult_t ncclReduceScatter(const void* sendbuff, void* recvbuff, size_t recvcount, ncclDataType_t datatype, ncclRedOp_t op,
                                             ncclComm_t comm, cudaStream_t stream) {
  return start("ncclReduceScatter", comm, collective(Kind::reduce_scatter, sendbuff, recvbuff, recvcount, datatype, op, 0, stream), sendbuff, recvcount,
               recvbuff, recvcount, 0);
}

NCCL_STAND_IN ncclResult_t ncclSend(const void* sendbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t stream) {
  return start("ncclSend", comm, message(true, const_cast<void*>(sendbuff), count, datatype, peer, stream), sendbuff, count, nullptr, 0, peer);
}

NCCL_STAND_IN ncclResult_t ncclRecv(void* recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t stream) {
  return start("ncclRecv", comm, message(false, recvbuff, count, datatype, peer, stream), nullptr, 0, recvbuff, count, peer);
}

NCCL_STAND_IN const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
  }
  return "unknown result code";
}

NCCL_STAND_IN const char* ncclGetLastError(ncclComm_t comm) {
  if (const auto it = live(comm); it && !it->error_text().empty()) last_error = it->error_text();
  return last_error.c_str();
}
