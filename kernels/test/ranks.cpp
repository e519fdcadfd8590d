// A process group whose ranks are threads of one process, for the sanitizers: rank_tests [rounds] [seed].
// Each round opens a group, runs random collectives and messages whose results are compared, then ends it: in order, or by a rank that leaves, gives up,
// disagrees, or falls silent, while works are under way. Calls with random arguments go on beside it.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../communicator.h"

namespace {

constexpr double kTimeout = 20000, kShort = 400;

[[noreturn]] void give_up(const std::string& text) {
  char last[512] = "";
  dg_comm_last_error(last, sizeof last);
  std::fprintf(stderr, "rank_tests: %s (last error: %s)\n", text.c_str(), last);
  std::abort();
}

void require(bool holds, const char* text) {
  if (!holds) give_up(text);
}

// Elements of float32 in a storage of its own.
class Values {
 public:
  explicit Values(int64_t count, float value = 0) : count_(count), id_(dg_alloc(double(count ? count : 1) * 4, 1, 0)) {
    require(id_ != 0, "no memory");
    std::vector<float> all(static_cast<size_t>(count), value);
    require(dg_write(id_, 0, all.data(), double(count) * 4) == DG_OK, "cannot write");
  }
  Values(const Values&) = delete;
  Values(Values&& other) noexcept : count_(other.count_), id_(other.id_) { other.id_ = 0; }
  ~Values() {
    if (id_) dg_free(id_);
  }

  dg_tensor header() const {
    dg_tensor it{};
    it.storage = id_;
    it.dtype = DG_F32;
    it.rank = 1;
    it.sizes[0] = double(count_);
    it.strides[0] = 1;
    return it;
  }

  void expect(const std::function<float(int64_t)>& wanted, const char* what) const {
    std::vector<float> all(static_cast<size_t>(count_));
    require(dg_read(id_, 0, all.data(), double(count_) * 4) == DG_OK, "cannot read");
    for (int64_t i = 0; i < count_; i++)
      if (all[size_t(i)] != wanted(i)) give_up(std::string(what) + ": wrong result");
  }

 private:
  int64_t count_;
  uint32_t id_;
};

// What one rank does of a plan that all ranks draw alike.
class Rank {
 public:
  Rank(uint32_t comm, int rank, int size, uint64_t plan, uint64_t own) : comm_(comm), rank_(rank), size_(size), plan_(plan), own_(own) {}

  void collectives(int count, bool may_fail = false) {
    for (int i = 0; i < count; i++) {
      collective();
      // Sometimes at once, sometimes several together.
      if (own_() % 3 == 0) settle(may_fail);
    }
    settle(may_fail);
  }

  // Starts a collective and leaves it.
  uint32_t all_reduce(int64_t count, double timeout) {
    pending_.push_back({0, {}, {}});
    Pending& it = pending_.back();
    it.values.emplace_back(count, 1.0f);
    const dg_tensor frame = it.values[0].header();
    return it.work = dg_comm_all_reduce(comm_, &frame, 0, DG_SUM, timeout);
  }

  void messages(int count) {
    for (int i = 0; i < count; i++) {
      const int64_t numel = int64_t(plan_() % 3000);
      uint32_t tag = uint32_t(plan_() % 3);
      const uint32_t left = uint32_t((rank_ + size_ - 1) % size_), right = uint32_t((rank_ + 1) % size_);
      const bool any = size_ == 2 && plan_() % 2;
      if (any) tag += 3;  // a tag is waited for from any rank or from a given one
      Pending send{0, {}, {}}, recv{0, {}, {}};
      send.values.emplace_back(numel, float(rank_ + i));
      recv.values.emplace_back(numel);
      const dg_tensor x = send.values[0].header(), out = recv.values[0].header();
      send.work = dg_comm_send(comm_, &x, 0, right, tag, kTimeout);
      recv.work = dg_comm_recv(comm_, &out, 0, any ? DG_NONE : left, tag, kTimeout);
      require(send.work && recv.work, "message refused");
      recv.check = [i, left](std::vector<Values>& v) { v[0].expect([&](int64_t) { return float(int(left) + i); }, "recv"); };
      pending_.push_back(std::move(send));
      pending_.push_back(std::move(recv));
    }
    settle();
  }

  // Waits for what is under way; true if all of it went well. Anything else is an error unless `may_fail`.
  bool settle(bool may_fail = false) {
    bool well = true;
    for (Pending& it : pending_) {
      if (it.work == 0) {
        require(may_fail, "call refused");
        well = false;
        continue;
      }
      const int32_t status = own_() % 2 ? dg_work_join(it.work) : dg_work_wait(it.work, 2 * kTimeout);
      char text[256];
      int32_t info[3];
      dg_work_info(it.work, info, text, sizeof text);
      if (status != DG_OK && !may_fail) give_up("a work failed: " + std::string(text));
      if (status == DG_COMM_PENDING) give_up("a work does not end");
      require(info[0] == status, "two statuses of one work");
      if (status == DG_OK && it.check) it.check(it.values);
      well &= status == DG_OK;
      require(dg_work_free(it.work) == DG_OK, "work cannot be freed");
    }
    pending_.clear();
    return well;
  }

 private:
  struct Pending {
    uint32_t work;
    std::vector<Values> values;
    std::function<void(std::vector<Values>&)> check;
  };

  void collective() {
    static constexpr int64_t counts[] = {0, 1, 7, 1000, 20000, 90000};
    const int64_t n = counts[plan_() % 6];
    const uint32_t root = uint32_t(plan_() % uint64_t(size_)), kind = uint32_t(plan_() % 9);
    const float size = float(size_), all = size * (size + 1) / 2;  // the sum of rank + 1
    const bool here = uint32_t(rank_) == root;
    Pending it{0, {}, {}};
    std::vector<dg_tensor> frame;
    auto add = [&](int64_t count, float value) {
      it.values.emplace_back(count, value);
      frame.push_back(it.values.back().header());
    };
    const float mine = float(rank_ + 1);
    auto ranks = [n](int64_t i) { return float(n == 0 ? 0 : i / n + 1); };
    switch (kind) {
      case 0:
        add(n, mine);
        it.work = dg_comm_all_reduce(comm_, frame.data(), 0, DG_SUM, kTimeout);
        it.check = [all](std::vector<Values>& v) { v[0].expect([&](int64_t) { return all; }, "all_reduce"); };
        break;
      case 1:
        add(n, mine);
        it.work = dg_comm_reduce(comm_, frame.data(), 0, DG_MAX, root, kTimeout);
        it.check = [=](std::vector<Values>& v) { v[0].expect([&](int64_t) { return here ? size : mine; }, "reduce"); };
        break;
      case 2:
        add(n, mine);
        it.work = dg_comm_broadcast(comm_, frame.data(), 0, root, kTimeout);
        it.check = [root](std::vector<Values>& v) { v[0].expect([&](int64_t) { return float(root + 1); }, "broadcast"); };
        break;
      case 3:
        add(n * size_, 0), add(n, mine);
        it.work = dg_comm_all_gather(comm_, frame.data(), 0, 1, kTimeout);
        it.check = [ranks](std::vector<Values>& v) { v[0].expect(ranks, "all_gather"); };
        break;
      case 4:
        add(n, 0), add(n * size_, mine);
        it.work = dg_comm_reduce_scatter(comm_, frame.data(), 0, 1, DG_SUM, kTimeout);
        it.check = [all](std::vector<Values>& v) { v[0].expect([&](int64_t) { return all; }, "reduce_scatter"); };
        break;
      case 5:
        add(n, mine);
        if (here) add(n * size_, 0);
        it.work = dg_comm_gather(comm_, frame.data(), here ? 1 : DG_NONE, 0, root, kTimeout);
        if (here) it.check = [ranks](std::vector<Values>& v) { v[1].expect(ranks, "gather"); };
        break;
      case 6:
        add(n, 0);
        if (here) add(n * size_, mine);
        it.work = dg_comm_scatter(comm_, frame.data(), 0, here ? 1 : DG_NONE, root, kTimeout);
        it.check = [root](std::vector<Values>& v) { v[0].expect([&](int64_t) { return float(root + 1); }, "scatter"); };
        break;
      case 7:
        add(n * size_, 0), add(n * size_, mine);
        it.work = dg_comm_all_to_all(comm_, frame.data(), 0, 1, kTimeout);
        it.check = [ranks](std::vector<Values>& v) { v[0].expect(ranks, "all_to_all"); };
        break;
      default:
        it.work = dg_comm_barrier(comm_, kTimeout);
    }
    pending_.push_back(std::move(it));
  }

  uint32_t comm_;
  int rank_, size_;
  std::mt19937_64 plan_, own_;
  std::vector<Pending> pending_;
};

// Calls that are wrong in some way, on a communicator that others use, and on none.
void misuse(uint32_t comm, int size, std::mt19937_64& random) {
  const Values values(100);
  dg_tensor frame[2] = {values.header(), values.header()};
  const dg_tensor good = frame[0];
  const uint32_t rank_outside = uint32_t(size) + uint32_t(random() % 3);
  for (int i = 0; i < 20; i++) {
    frame[1] = good;
    switch (random() % 5) {
      case 0: frame[1].storage = uint32_t(random()); break;
      case 1: frame[1].sizes[0] = 1e15; break;
      case 2: frame[1].strides[0] = 2; break;
      case 3: frame[1].dtype = uint8_t(8 + random() % 200); break;
      default: frame[1].offset = 50;
    }
    require(dg_comm_all_reduce(comm, frame, 1, DG_SUM, kTimeout) == 0, "a wrong tensor was taken");
    require(dg_comm_all_reduce(comm, frame, 0, 5 + uint32_t(random() % 100), kTimeout) == 0, "a wrong reduction was taken");
    require(dg_comm_broadcast(comm, frame, 0, rank_outside, kTimeout) == 0, "a wrong root was taken");
    require(dg_comm_all_gather(comm, frame, 0, 0, kTimeout) == 0 || size == 1, "overlapping tensors were taken");
    require(dg_comm_send(comm, frame, 0, rank_outside, 0, kTimeout) == 0, "a wrong rank was taken");
    require(dg_comm_barrier(comm, i % 2 ? -1.0 : __builtin_nan("")) == 0, "a wrong time was taken");
    require(dg_comm_barrier(comm + 1000000, kTimeout) == 0, "a wrong communicator was taken");
    require(dg_work_join(uint32_t(random() | 0x80000000u)) != DG_OK, "a wrong work was taken");
  }
}

// Opens a group of `size` ranks and runs `body` for each on a thread of its own.
void group(int size, std::mt19937_64& random, const std::function<void(int rank, uint32_t comm)>& body) {
  std::vector<uint32_t> comms(static_cast<size_t>(size));
  std::vector<uint8_t> blobs;
  for (int i = 0; i < size; i++) {
    comms[size_t(i)] = dg_comm_open(uint32_t(i), uint32_t(size), "127.0.0.1", 0);
    require(comms[size_t(i)] != 0, "open");
    std::vector<uint8_t> blob(1 << 16);
    blob.resize(dg_comm_blob(comms[size_t(i)], blob.data(), uint32_t(blob.size())));
    blobs.insert(blobs.end(), blob.begin(), blob.end());
  }
  if (size > 1) {  // blobs of another version, rank or size, and those that end too soon, are refused before anything connects
    std::vector<uint8_t> damaged = blobs;
    if (random() % 2) damaged[random() % 12] ^= uint8_t(1 + random() % 255);
    else damaged.resize(random() % damaged.size());
    const uint32_t stray = dg_comm_open(0, uint32_t(size), "127.0.0.1", 0);
    const uint32_t work = dg_comm_connect(stray, damaged.data(), uint32_t(damaged.size()), kShort);
    if (work) {
      require(dg_work_join(work) != DG_OK, "damaged blobs connect");
      dg_work_free(work);
    }
    dg_comm_close(stray);
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < size; i++)
    threads.emplace_back([&, i] {
      const uint32_t comm = comms[size_t(i)], work = dg_comm_connect(comm, blobs.data(), uint32_t(blobs.size()), kTimeout);
      require(work && dg_work_join(work) == DG_OK, "connect");
      dg_work_free(work);
      body(i, comm);
      dg_comm_close(comm);
    });
  for (std::thread& thread : threads) thread.join();
}

void round_of(int size, std::mt19937_64& random) {
  const uint64_t plan = random(), ending = size == 1 ? 0 : random() % 5;
  const int who = int(random() % uint64_t(size));
  std::vector<uint64_t> seeds(static_cast<size_t>(size));
  for (uint64_t& seed : seeds) seed = random();
  group(size, random, [&](int rank, uint32_t comm) {
    Rank it(comm, rank, size, plan, seeds[size_t(rank)]);
    std::mt19937_64 own(seeds[size_t(rank)] + 1);
    it.collectives(25);
    misuse(comm, size, own);
    if (size > 1) it.messages(6);
    // A failure may come to a rank that is still at these.
    it.collectives(5, rank != who && (ending == 2 || ending == 3));
    if (ending == 0) return;
    // The last works: one rank does something else.
    if (rank != who) {
      for (int i = 0; i < 3; i++) it.all_reduce(50000, ending == 4 ? kShort : kTimeout);
      require(!it.settle(true), "nobody noticed");
      return;
    }
    switch (ending) {
      case 1: break;  // leaves
      case 2:
        it.all_reduce(50000, kTimeout);
        require(dg_comm_abort(comm, "this rank gives up") == DG_OK, "abort");
        it.settle(true);
        break;
      case 3:
        it.all_reduce(49999, kTimeout);
        require(!it.settle(true), "a mismatch went unnoticed");
        break;
      default: std::this_thread::sleep_for(std::chrono::milliseconds(int(3 * kShort)));  // silent for too long
    }
  });
}

}  // namespace

int main(int count, char** args) {
  const int rounds = count > 1 ? std::atoi(args[1]) : 20;
  std::mt19937_64 random(count > 2 ? std::strtoull(args[2], nullptr, 10) : 1);
  for (int i = 0; i < rounds; i++) round_of(1 + i % 4, random);
  std::printf("%d groups of ranks\n", rounds);
}
