// The calls: checks of what NCCL cannot do, launches, life.
#include "communicator.h"

#include <signal.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "open.h"

namespace dg {

uint32_t library_device_type() { return 1; }

void require_device(uint32_t index, const char* op) {
  if (!comm::cuda().dg_stream_handle) fail(DG_DEVICE, "%s: the libraries have not been opened", op);
  void* handle = nullptr;
  const int32_t status = comm::cuda().dg_stream_handle(index, 1, &handle);  // refused while a step is captured
  if (status != DG_OK) fail(dg_status(status), "%s: %s", op, comm::device_error().c_str());
}

namespace comm {
namespace {

constexpr uint64_t kMagic = 0x316c63636e676400;
constexpr uint32_t kCommunication = 1;  // the stream

ncclDataType_t type_of(uint32_t dtype) {
  switch (dtype) {
    case DG_F32: return ncclFloat32;
    case DG_F64: return ncclFloat64;
    case DG_F16: return ncclFloat16;
    case DG_BF16: return ncclBfloat16;
    case DG_I32: return ncclInt32;
    case DG_I64: return ncclInt64;
    default: return ncclUint8;
  }
}

ncclRedOp_t op_of(uint32_t op) {
  switch (op) {
    case DG_AVERAGE: return ncclAvg;
    case DG_PRODUCT: return ncclProd;
    case DG_MIN: return ncclMin;
    case DG_MAX: return ncclMax;
    default: return ncclSum;
  }
}

// Calls that NCCL starts together; the first failure counts.
template <class Body>
ncclResult_t grouped(Body&& body) {
  if (const ncclResult_t started = nccl().ncclGroupStart(); started != ncclSuccess) return started;
  ncclResult_t result = ncclSuccess;
  body([&](ncclResult_t one) {
    if (one != ncclSuccess && one != ncclInProgress && result == ncclSuccess) result = one;
  });
  const ncclResult_t ended = nccl().ncclGroupEnd();
  return result != ncclSuccess ? result : ended;
}

}  // namespace

void unpin_storage(uint32_t storage) { cuda().dg_storage_unpin(storage); }

dg_region pin_storage(uint32_t storage, const char* op) {
  dg_region region;
  if (cuda().dg_storage_pin(storage, &region) != DG_OK) fail(DG_DISPOSED, "%s: a tensor's memory has been freed", op);
  return region;
}

std::shared_ptr<Group> open_group(int rank, int size, const std::string& address, uint32_t device) {
  return std::make_shared<Communicator>(rank, size, address, device);
}

Communicator::Communicator(int rank, int size, const std::string& address, uint32_t device) : Group(rank, size), device_(device) {
  own_.magic = kMagic;
  if (!alone()) {
    monitor_ = std::make_unique<Monitor>(rank, size, address);
    if (rank == 0) {
      referee_ = std::make_unique<Referee>(size, *monitor_);
      own_.monitor = monitor_->address();
      const ncclResult_t result = nccl().ncclGetUniqueId(&own_.id);
      if (result != ncclSuccess) fail(DG_DEVICE, "ncclGetUniqueId: %s", nccl_text(result).c_str());
    }
  }
  blob_.resize(sizeof own_);
  std::memcpy(blob_.data(), &own_, sizeof own_);
}

std::string Communicator::nccl_text(ncclResult_t result) {
  std::string text = nccl().ncclGetErrorString(result);
  if (const char* const more = nccl().ncclGetLastError(nullptr); more && *more) text += std::string(" (") + more + ")";
  return text;
}

// ---- life

std::shared_ptr<Work> Communicator::connect(std::vector<char> blobs, double timeout) {
  auto work = std::make_shared<DeviceWork>(device_, "connecting", 0, timeout, true);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closing_) fail(DG_DISPOSED, "connect: the communicator was closed");
    if (connecting_) fail(DG_RANGE, "connect: the communicator is connected already");
    if (blobs.size() != sizeof(Blob) * size_t(size)) fail(DG_RANGE, "connect: takes the blobs of %d ranks, got %zu bytes", size, blobs.size());
    for (int i = 0; i < size; i++) {
      std::memcpy(&root_, blobs.data() + size_t(i) * sizeof root_, sizeof root_);
      if (root_.magic != kMagic) fail(DG_RANGE, "connect: the blob of rank %d is not one: do all ranks run the same version of dinograd?", i);
    }
    std::memcpy(&root_, blobs.data(), sizeof root_);
    connecting_ = work;
    if (alone()) {
      connected_ = true;
      work->end({DG_OK, -1, ""});
      return work;
    }
  }
  ready_mark_ = cuda().dg_mark_create(device_);
  token_ = cuda().dg_alloc(sizeof(int32_t), 1, device_);
  if (!ready_mark_ || !token_) check_device(DG_DEVICE);
  dg_region region;
  check_device(cuda().dg_storage_pin(token_, &region));
  token_memory_ = region.data;
  std::lock_guard<std::mutex> lock(mutex_);
  // Signals of the process are for its own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread([self = shared_from_this()] { self->watch(); }).detach();
    watching_ = true;
  } catch (const std::exception&) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    fail(DG_OUT_OF_MEMORY, "the system starts no thread for the process group");
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return work;
}

void Communicator::abort(const std::string& text) {
  if (alone()) return;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!watching_ || closing_ || finished_) return;
  }
  declare({DG_COMM_ABORTED, rank, text});
  monitor_->flushed(200);
}

void Communicator::close() {
  WorkList ended;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (closing_) return;
    closing_ = true;
    if (watching_) {
      monitor_->wake();
      changed_.wait_for(lock, std::chrono::seconds(1), [&] { return finished_; });
    }
    ended.swap(ended_);
  }
  for (const auto& work : ended) work->release();
  if (ready_mark_) cuda().dg_mark_free(ready_mark_);
  if (token_) {
    cuda().dg_storage_unpin(token_);
    cuda().dg_free(token_);
  }
}

void Communicator::declare(Failure failure, bool quiet) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (cause_ || closing_) return;
    cause_ = failure;
  }
  if (!quiet) {
    Packet packet;
    packet.topic = Topic::failed;
    packet.rank = failure.rank;
    packet.status = failure.status;
    packet.text = failure.text;
    tell(packet);
  }
  monitor_->wake();
}

std::optional<Failure> Communicator::cause() {
  std::lock_guard<std::mutex> lock(mutex_);
  return cause_;
}

void Communicator::tell(const Packet& packet, int except) {
  if (rank != 0) return monitor_->send(0, packet);
  for (int i = 1; i < size; i++)
    if (i != except) monitor_->send(i, packet);
}

// ---- calls

void Communicator::require_connected(const char* what, const Tensor& x) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closing_) fail(DG_DISPOSED, "%s: the communicator was closed", what);
    if (!connected_) fail(DG_RANGE, "%s: the communicator is not connected", what);
  }
  if (x.storage != 0 && uint32_t(call_device) != device_)
    fail(DG_DEVICE, "%s: this process takes part with cuda:%u, got a tensor on cuda:%d: move it there", what, device_, call_device);
}

void Communicator::drop_ended() {
  WorkList ended;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ended.swap(ended_);
  }
  for (const auto& work : ended) work->release();
}

bool Communicator::refused(DeviceWork& work) {
  const auto why = cause();
  if (why) work.end({why->status, why->rank, work.label + " cannot run, the process group has failed: " + why->text});
  return why.has_value();
}

// Runs on the host until NCCL has given the stream the work; the group's thread may take the communicator away meanwhile.
ncclResult_t Communicator::run(const Launch& body, cudaStream_t stream) {
  ncclResult_t result;
  {
    std::lock_guard<std::mutex> lock(nccl_mutex_);
    if (!comm_) return ncclInternalError;
    result = body(comm_, stream);
  }
  for (int tries = 0; result == ncclInProgress; tries++) {
    if (tries > 0) std::this_thread::sleep_for(std::chrono::microseconds(tries < 100 ? 20 : 500));
    std::lock_guard<std::mutex> lock(nccl_mutex_);
    if (!comm_) return ncclInternalError;
    const ncclResult_t asked = nccl().ncclCommGetAsyncError(comm_, &result);
    if (asked != ncclSuccess) result = asked;
  }
  return result;
}

std::shared_ptr<Work> Communicator::launch(std::shared_ptr<DeviceWork> work, Pins pins, const Launch& body) {
  void* stream = nullptr;
  check_device(cuda().dg_stream_handle(device_, kCommunication, &stream));
  check_device(cuda().dg_mark_record(ready_mark_, DG_NONE));
  check_device(cuda().dg_mark_wait(ready_mark_, kCommunication));
  work->pins = std::move(pins);
  bool dozing;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    pending_.push_back(work);
    dozing = dozing_;
  }
  if (dozing) monitor_->wake();
  const ncclResult_t result = run(body, static_cast<cudaStream_t>(stream));
  try {
    if (result == ncclSuccess) work->launched();
    else declare({DG_DEVICE, rank, work->label + " on " + rank_text(rank) + ": NCCL: " + nccl_text(result)});
  } catch (const Error& error) {
    declare({error.status, rank, work->label + " on " + rank_text(rank) + ": " + error.text});
  }
  if (const auto why = cause(); why && !work->poll()) work->end(*why);
  return work;
}

std::shared_ptr<Work> Communicator::collective(Operation operation, Pins pins, double timeout) {
  std::lock_guard<std::mutex> calls(call_mutex_);
  Descriptor& d = operation.descriptor;
  const bool barrier = d.kind == Kind::barrier;
  const std::string name = text_of(d).substr(0, text_of(d).find(' '));
  require_connected(name.c_str(), operation.out.storage ? operation.out : operation.x);
  require_device(device_, name.c_str());
  if (alone()) return copied(operation, timeout);
  drop_ended();
  d.sequence = ++sequence_;
  auto work = std::make_shared<DeviceWork>(device_, text_of(d), d.sequence, timeout, barrier);
  if (refused(*work)) return work;
  Packet packet;
  packet.topic = Topic::called;
  packet.descriptor = d;
  if (rank == 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    own_packets_.push_back(packet);
  } else {
    monitor_->send(0, packet);
  }
  if (d.numel == 0 && !barrier) {
    work->end({DG_OK, -1, ""});
    monitor_->wake();
    return work;
  }
  return launch(work, std::move(pins), body_of(operation));
}

std::shared_ptr<Work> Communicator::copied(const Operation& operation, double timeout) {
  const Tensor &out = operation.out, &x = operation.x;
  const bool copies = out.storage != 0 && x.storage != 0 && memory_of(out) != memory_of(x) && x.numel > 0;
  if (copies) {
    const double width = double(dtype_size(x.dtype));
    check_device(cuda().dg_transfer(out.storage, double(out.offset) * width, x.storage, double(x.offset) * width, double(bytes_of(x))));
  }
  auto work = std::make_shared<DeviceWork>(device_, text_of(operation.descriptor), 0, timeout);
  work->end({DG_OK, -1, ""});
  return work;
}

Communicator::Launch Communicator::body_of(const Operation& operation) const {
  const Descriptor d = operation.descriptor;
  char* const out = operation.out.storage ? static_cast<char*>(memory_of(operation.out)) : nullptr;
  char* const x = operation.x.storage ? static_cast<char*>(memory_of(operation.x)) : nullptr;
  const size_t numel = size_t(d.numel);
  const ncclDataType_t type = type_of(d.dtype);
  const ncclRedOp_t op = op_of(d.op);
  const int root = int(d.root), ranks = size, self = rank;
  // Parts of as many elements for each rank, which some send and some receive.
  const auto parts = [=](size_t count, auto&& sends, auto&& receives, bool whole_x, bool whole_out) {
    const size_t step = count * size_t(dtype_size(d.dtype));
    return [=](ncclComm_t comm, cudaStream_t stream) {
      return grouped([&](auto&& check) {
        for (int r = 0; r < ranks; r++) {
          if (sends(r)) check(nccl().ncclSend(x + (whole_x ? size_t(r) * step : 0), count, type, r, comm, stream));
          if (receives(r)) check(nccl().ncclRecv(out + (whole_out ? size_t(r) * step : 0), count, type, r, comm, stream));
        }
      });
    };
  };
  switch (d.kind) {
    case Kind::all_reduce: return [=](ncclComm_t comm, cudaStream_t stream) { return nccl().ncclAllReduce(x, x, numel, type, op, comm, stream); };
    case Kind::reduce: return [=](ncclComm_t comm, cudaStream_t stream) { return nccl().ncclReduce(x, x, numel, type, op, root, comm, stream); };
    case Kind::broadcast: return [=](ncclComm_t comm, cudaStream_t stream) { return nccl().ncclBroadcast(x, x, numel, type, root, comm, stream); };
    case Kind::all_gather: return [=](ncclComm_t comm, cudaStream_t stream) { return nccl().ncclAllGather(x, out, numel, type, comm, stream); };
    case Kind::reduce_scatter:
      return [=](ncclComm_t comm, cudaStream_t stream) { return nccl().ncclReduceScatter(x, out, numel / size_t(ranks), type, op, comm, stream); };
    case Kind::gather: return parts(numel, [=](int r) { return r == root; }, [=](int) { return self == root; }, false, true);
    case Kind::scatter: return parts(numel, [=](int) { return self == root; }, [=](int r) { return r == root; }, true, false);
    case Kind::all_to_all: return parts(numel / size_t(ranks), [](int) { return true; }, [](int) { return true; }, true, true);
    case Kind::barrier: break;
  }
  void* const token = token_memory_;
  return [=](ncclComm_t comm, cudaStream_t stream) { return nccl().ncclAllReduce(token, token, 1, ncclInt32, ncclSum, comm, stream); };
}

std::shared_ptr<Work> Communicator::message(bool sends, const Tensor& x, Pins pins, int other, uint32_t tag, double timeout) {
  std::lock_guard<std::mutex> calls(call_mutex_);
  const char* const name = sends ? "send" : "recv";
  require_connected(name, x);
  require_device(device_, name);
  if (tag != 0) fail(DG_RANGE, "%s: NCCL has no tags, messages between two ranks are matched in their order: tag must be 0, got %u", name, tag);
  if (other < 0) fail(DG_RANGE, "%s: NCCL receives from a rank that is named: give the source", name);
  drop_ended();
  const std::string label = std::string(name) + " of " + content_text(x.numel, x.dtype) + (sends ? " to " : " from ") + rank_text(other);
  auto work = std::make_shared<DeviceWork>(device_, label, 0, timeout);
  work->peer = other;
  if (!sends) work->from = other;
  if (refused(*work)) return work;
  const ncclDataType_t type = type_of(x.dtype);
  void* const memory = memory_of(x);
  const size_t numel = size_t(x.numel);
  return launch(work, std::move(pins), [=](ncclComm_t comm, cudaStream_t stream) {
    return sends ? nccl().ncclSend(memory, numel, type, other, comm, stream) : nccl().ncclRecv(memory, numel, type, other, comm, stream);
  });
}

std::shared_ptr<Work> Communicator::send(Tensor x, Pins pins, int target, uint32_t tag, double timeout) {
  return message(true, x, std::move(pins), target, tag, timeout);
}

std::shared_ptr<Work> Communicator::recv(Tensor out, Pins pins, int source, uint32_t tag, double timeout) {
  return message(false, out, std::move(pins), source, tag, timeout);
}

}  // namespace comm
}  // namespace dg

using namespace dg;

int32_t dg_nccl_open(const char* cuda_path, const char* nccl_path) {
  return guard([&] {
    if (!cuda_path || !nccl_path) fail(DG_RANGE, "nccl: null path");
    comm::open_libraries(cuda_path, nccl_path);
  });
}

int32_t dg_nccl_version(void) { return comm::nccl().version; }
