#include "transport.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>

#include "../common/status.h"
#include "../communicator.h"

namespace dg::comm {
namespace {

#if defined(__x86_64__)
// Gloo's objects as Debian compiled them (libgloo0 0.0~git20220518): see compat/.
static_assert(sizeof(tcp::Pair) == 0x380 && sizeof(tcp::UnboundBuffer) == 0xe0, "the headers of libgloo-dev do not fit kernels/gloo");
#endif

// Gloo's text without the place in its sources.
std::string plain(const char* what) {
  const std::string text = what;
  const size_t place = text.find(".cc:"), end = place == std::string::npos ? place : text.find("] ", place);
  return end == std::string::npos ? text : text.substr(end + 2);
}

std::string numeric(const sockaddr* address) {
  char text[NI_MAXHOST];
  const socklen_t bytes = address->sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  return getnameinfo(address, bytes, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0 ? text : "";
}

// The IP address of a network interface or a host name. Gloo's own search of interfaces reads a null pointer where one has no address.
std::string numeric(const std::string& name) {
  std::string found;
  ifaddrs* interfaces = nullptr;
  if (getifaddrs(&interfaces) == 0) {
    for (int family : {AF_INET, AF_INET6})
      for (ifaddrs* it = interfaces; it && found.empty(); it = it->ifa_next)
        if (it->ifa_addr && it->ifa_addr->sa_family == family && name == it->ifa_name) found = numeric(it->ifa_addr);
    freeifaddrs(interfaces);
  }
  if (!found.empty()) return found;
  addrinfo hints{}, *addresses = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const int status = getaddrinfo(name.c_str(), nullptr, &hints, &addresses);
  if (status != 0) throw std::runtime_error(gai_strerror(status));
  for (addrinfo* it = addresses; it && found.empty(); it = it->ai_next)
    if (it->ai_family == AF_INET || it->ai_family == AF_INET6) found = numeric(it->ai_addr);
  freeaddrinfo(addresses);
  if (found.empty()) throw std::runtime_error("it has no IP address");
  return found;
}

std::string text_of(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return plain(e.what());
  } catch (...) {
    return "unknown failure";
  }
}

}  // namespace

SignalGuard::SignalGuard() {
  sigset_t set, before, pending;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  sigpending(&pending);
  pending_before_ = sigismember(&pending, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &set, &before);
  blocked_before_ = sigismember(&before, SIGPIPE);
}

SignalGuard::~SignalGuard() {
  sigset_t set, pending;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  sigpending(&pending);
  const timespec now{0, 0};
  if (!pending_before_ && sigismember(&pending, SIGPIPE)) sigtimedwait(&set, nullptr, &now);
  if (!blocked_before_) pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

// ---- a connection

void Link::handleEvents(int events) {
  try {
    tcp::Pair::handleEvents(events);
  } catch (...) {
    // Never wait here: a thread that holds the lock may be waiting for this one. The event comes again.
    std::unique_lock<std::mutex> lock(m_, std::try_to_lock);
    if (!lock || state_ == CLOSED) return;
    if (state_ == LISTENING && fd_ != -1) {  // an accepted socket that epoll does not know
      ::close(fd_);
      fd_ = -1;
    }
    signalException(std::current_exception());
  }
}

bool Link::connected() {
  std::lock_guard<std::mutex> lock(m_);
  return state_ == CONNECTED;
}

bool Link::failed() {
  std::lock_guard<std::mutex> lock(m_);
  return ex_ != nullptr || state_ == CLOSED;
}

std::string Link::why() {
  std::lock_guard<std::mutex> lock(m_);
  return ex_ ? text_of(ex_) : "closed";
}

void Link::hang_up() {
  std::lock_guard<std::mutex> lock(m_);
  if (state_ != CLOSED) signalException("closed after a failure");
}

std::unique_ptr<transport::Pair>& Links::createPair(int rank) {
  pairs_[rank] = std::make_unique<Link>(this, device_.get(), rank, getTimeout());
  return pairs_[rank];
}

std::unique_ptr<transport::UnboundBuffer> Links::createUnboundBuffer(void* memory, size_t bytes) {
  return std::make_unique<Buffer>(mesh_, memory, bytes);
}

// ---- a buffer

Buffer::Buffer(Mesh& mesh, void* memory, size_t bytes) : tcp::UnboundBuffer(mesh.links_, memory, bytes), mesh_(mesh) {}

template <class Post>
void Buffer::post(int peer, Post&& post) {
  if (std::find(peers_.begin(), peers_.end(), peer) == peers_.end()) peers_.push_back(peer);
  try {
    post();
  } catch (const Failure&) {
    throw;
  } catch (const std::exception&) {
    mesh_.lost(peer);
  }
}

void Buffer::send(int target, uint64_t slot, size_t offset, size_t bytes) {
  post(target, [&] { tcp::UnboundBuffer::send(target, slot, offset, bytes); });
}

void Buffer::recv(int source, uint64_t slot, size_t offset, size_t bytes) {
  post(source, [&] { tcp::UnboundBuffer::recv(source, slot, offset, bytes); });
}

void Buffer::recv(std::vector<int> sources, uint64_t slot, size_t offset, size_t bytes) {
  peers_ = sources;
  post(sources.front(), [&] { tcp::UnboundBuffer::recv(sources, slot, offset, bytes); });
}

bool Buffer::waitRecv(int* rank, milliseconds) {
  mesh_.wait(*this, true, rank);
  return true;
}

bool Buffer::waitSend(int* rank, milliseconds) {
  mesh_.wait(*this, false, rank);
  return true;
}

bool Buffer::ended(bool receiving, milliseconds slice, int* rank, bool& broken) {
  std::unique_lock<std::mutex> lock(m_);
  int& completions = receiving ? recvCompletions_ : sendCompletions_;
  (receiving ? recvCv_ : sendCv_).wait_for(lock, slice, [&] { return completions > 0 || ex_ != nullptr; });
  if (completions > 0) {
    completions--;
    if (rank) *rank = receiving ? recvRank_ : sendRank_;
    return true;
  }
  broken = ex_ != nullptr;
  return false;
}

bool Buffer::take_recv() {
  bool broken = false;
  return ended(true, milliseconds(0), nullptr, broken);
}

bool Buffer::take_send() {
  bool broken = false;
  return ended(false, milliseconds(0), nullptr, broken);
}

// ---- the group

Mesh::Mesh(int rank, int size, const std::string& address) : rank(rank), size(size), neighbours_(size), peers_(size) {
  // Threads that Gloo starts inherit this: no signal of the process is theirs to take, SIGPIPE least of all.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::string trouble;
  try {
    tcp::attr place;
    place.hostname = host_ = numeric(address.empty() ? "127.0.0.1" : address);
    const std::shared_ptr<transport::Device> device = tcp::CreateDevice(place);
    links_ = std::make_shared<Links>(*this, std::dynamic_pointer_cast<tcp::Device>(device), rank, size);
    links_->transport::Context::setTimeout(std::chrono::hours(1));
    world = std::make_shared<World>(rank, size, links_);
    std::random_device random;
    for (int i = 0; i < 4; i++) {
      const uint32_t word = random();
      token_.append(reinterpret_cast<const char*>(&word), 4);
    }
    auto append = [&](uint32_t number) { blob_.insert(blob_.end(), reinterpret_cast<char*>(&number), reinterpret_cast<char*>(&number) + 4); };
    append(DG_COMM_ABI_VERSION);
    append(uint32_t(rank));
    append(uint32_t(size));
    blob_.insert(blob_.end(), token_.begin(), token_.end());
    append(uint32_t(host_.size()));
    blob_.insert(blob_.end(), host_.begin(), host_.end());
    for (int i = 0; i < size; i++) {
      const std::vector<char> bytes = i == rank ? std::vector<char>{} : links_->createPair(i)->address().bytes();
      append(uint32_t(bytes.size()));
      blob_.insert(blob_.end(), bytes.begin(), bytes.end());
    }
  } catch (const std::exception& error) {
    trouble = plain(error.what());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!trouble.empty())
    fail(DG_RANGE, "open: no address \"%s\" to listen on: it must be a host name, an IP address or a network interface of this machine (%.200s)",
         address.c_str(), trouble.c_str());
}

Mesh::~Mesh() {
  SignalGuard guard;
  outgoing_.clear();
  peers_.clear();
  world.reset();
  links_->drop();
}

// A blob taken apart.
struct Introduction {
  std::string token, host;
  std::vector<std::vector<char>> addresses;
};

static std::vector<Introduction> introductions(const std::vector<char>& blobs, int size) {
  std::vector<Introduction> ranks;
  size_t at = 0;
  auto take = [&](size_t bytes) {
    if (bytes > blobs.size() - at) fail(DG_RANGE, "connect: the blobs end within that of rank %zu", ranks.size());
    at += bytes;
    return blobs.data() + at - bytes;
  };
  auto number = [&] {
    uint32_t value;
    std::memcpy(&value, take(4), 4);
    return value;
  };
  for (int i = 0; i < size; i++) {
    const uint32_t version = number(), rank = number(), count = number();
    if (version != DG_COMM_ABI_VERSION)
      fail(DG_RANGE, "connect: rank %d speaks version %u of the communicator, this rank %d: use the same dinograd everywhere", i, version, DG_COMM_ABI_VERSION);
    if (rank != uint32_t(i) || count != uint32_t(size))
      fail(DG_RANGE, "connect: the blob of rank %d of %d is that of rank %u of %u", i, size, rank, count);
    Introduction it;
    it.token.assign(take(16), 16);
    const uint32_t host = number();
    it.host.assign(take(host), host);
    for (int j = 0; j < size; j++) {
      const uint32_t bytes = number();
      const char* start = take(bytes);
      it.addresses.emplace_back(start, start + bytes);
    }
    ranks.push_back(std::move(it));
  }
  if (at != blobs.size()) fail(DG_RANGE, "connect: %zu bytes behind the blobs of %d ranks", blobs.size() - at, size);
  return ranks;
}

void Mesh::connect(const std::vector<char>& blobs) {
  const std::vector<Introduction> others = introductions(blobs, size);
  for (int i = 0; i < size; i++) {
    if (i == rank) continue;
    try {
      links_->link(i).connect(others[i].addresses[rank]);
    } catch (const std::exception& error) {
      throw Failure{DG_COMM_LOST, i, rank_text(i) + " cannot be connected to: " + plain(error.what())};
    }
  }
  for (int i = 0; i < size; i++) {
    if (i == rank) continue;
    for (Link& link = links_->link(i); !link.connected();) {
      if (link.failed()) throw Failure{DG_COMM_LOST, i, "no connection to " + rank_text(i) + ": " + link.why()};
      if (closing()) throw Failure{DG_COMM_CLOSED, -1, "the process group was closed while it was connecting"};
      if (Clock::now() >= current_call->deadline)
        throw Failure{DG_COMM_TIMEOUT, i, "no connection to " + rank_text(i) + " within " + std::to_string(int64_t(current_call->timeout)) + " ms"};
      std::this_thread::sleep_for(milliseconds(1));
    }
  }
  listen_for_reports();
  // Who connects shows the token that it was given over the store: a stranger has none. And where the own one lies, for neighbours.
  struct Hello {
    char token[16];
    Place place;
  };
  std::vector<Hello> shown(size), own(size);
  std::vector<std::unique_ptr<Buffer>> in(size), out(size);
  for (int i = 0; i < size; i++) {
    if (i == rank) continue;
    std::memcpy(own[i].token, others[i].token.data(), sizeof own[i].token);
    own[i].place = {uint64_t(reinterpret_cast<uintptr_t>(token_.data())), int32_t(getpid()), 0};
    in[i] = buffer(&shown[i], sizeof(Hello));
    out[i] = buffer(&own[i], sizeof(Hello));
  }
  bool same_host = true;
  for (const Introduction& it : others) same_host &= it.host == host_;
  if (same_host) Neighbours::admit();
  for (int i = 0; i < size; i++) {
    if (i == rank) continue;
    in[i]->recv(i, kHello);
    out[i]->send(i, kHello);
  }
  for (int i = 0; i < size; i++) {
    if (i == rank) continue;
    in[i]->waitRecv();
    out[i]->waitSend();
    if (token_.compare(0, 16, shown[i].token, 16) != 0)
      fail_all({DG_COMM_LOST, i, "what connected to rank " + std::to_string(rank) + " is not " + rank_text(i) + " of this group"});
  }
  // Neighbours must agree that they are: all ranks, or none.
  const char* wanted = std::getenv("DINOGRAD_PEER_MEMORY");
  char near = same_host && !(wanted && std::string(wanted) == "0");
  for (int i = 0; i < size && near; i++) near = i == rank || neighbours_.meet(i, shown[i].place, others[i].token.data(), 16);
  std::vector<char> theirs(size, 1);
  for (int i = 0; i < size; i++) {
    if (i == rank) continue;
    in[i] = buffer(&theirs[i], 1);
    out[i] = buffer(&near, 1);
    in[i]->recv(i, kNear);
    out[i]->send(i, kNear);
  }
  near_ = near;
  for (int i = 0; i < size; i++) {
    if (i == rank) continue;
    in[i]->waitRecv();
    out[i]->waitSend();
    near_ &= theirs[i] == 1;
  }
}

void Mesh::read(int peer, void* to, uint64_t from, size_t bytes) {
  if (!neighbours_.read(peer, to, from, bytes)) lost(peer);
}

void Mesh::wait(Buffer& buffer, bool receiving, int* from) {
  bool broken = false;
  while (!buffer.ended(receiving, kSlice, from, broken)) {
    check();
    if (broken) lost(buffer);
    bool answer = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (Peer& peer : peers_) {
        answer |= peer.fresh;
        peer.fresh = false;
      }
    }
    // Somebody's time is up: who is to blame shows in who waits for whom.
    if (answer && !current_call->told) {
      current_call->told = true;
      tell(waiting_report(buffer));
    }
    if (Clock::now() < current_call->deadline) continue;
    // A last look: time may have passed while this process was stopped.
    if (buffer.ended(receiving, milliseconds(0), from, broken)) return;
    expired(buffer);
  }
}

void Mesh::check() {
  if (closing()) throw Failure{DG_COMM_CLOSED, -1, current_call->label + ": the process group was closed on this rank before it ended"};
  poll();
  if (broken()) throw cause();
  if (current_call && current_call->verify) current_call->verify();
}

}  // namespace dg::comm
