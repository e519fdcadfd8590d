#include "monitor.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

namespace dg::comm {
namespace {

constexpr uint32_t kMagic = 0x6463676e;
constexpr size_t kMaxText = 2000, kMaxStrangers = 64, kMaxQueued = 64 << 20;
constexpr int64_t kHelloTime = 5000;

// As packets travel; `bytes` of text follow.
struct Wire {
  uint32_t magic = kMagic, topic = 0;
  int32_t rank = 0, status = 0;
  uint32_t milliseconds = 0, bytes = 0;
  uint64_t sequence = 0;
  Descriptor descriptor;
};

int64_t now() { return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string encoded(const Packet& packet) {
  Wire wire;
  wire.topic = uint32_t(packet.topic);
  wire.rank = packet.rank;
  wire.status = packet.status;
  wire.milliseconds = packet.milliseconds;
  wire.bytes = uint32_t(std::min(packet.text.size(), kMaxText));
  wire.sequence = packet.sequence;
  wire.descriptor = packet.descriptor;
  std::string bytes(reinterpret_cast<const char*>(&wire), sizeof wire);
  return bytes.append(packet.text, 0, wire.bytes);
}

// Takes a packet off the front; false if there is none yet, fails on what is not one.
bool decode(std::string& in, Packet& packet) {
  Wire wire;
  if (in.size() < sizeof wire) return false;
  std::memcpy(&wire, in.data(), sizeof wire);
  if (wire.magic != kMagic || wire.bytes > kMaxText) throw Failure{DG_COMM_LOST, -1, "not a packet"};
  if (in.size() < sizeof wire + wire.bytes) return false;
  packet = {Topic(wire.topic), wire.rank, wire.status, wire.milliseconds, wire.sequence, wire.descriptor, in.substr(sizeof wire, wire.bytes)};
  in.erase(0, sizeof wire + wire.bytes);
  return true;
}

void prepare(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// The first address that a name stands for: that of a network interface, or what the resolver finds.
sockaddr_storage resolve(const std::string& name, socklen_t* length) {
  sockaddr_storage found = {};
  *length = 0;
  const auto take = [&](const sockaddr* address) {
    *length = address->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    std::memcpy(&found, address, *length);
  };
  ifaddrs* interfaces = nullptr;
  if (getifaddrs(&interfaces) == 0) {
    for (int family : {AF_INET, AF_INET6})
      for (const ifaddrs* it = interfaces; it && *length == 0; it = it->ifa_next)
        if (it->ifa_addr && it->ifa_addr->sa_family == family && name == it->ifa_name) take(it->ifa_addr);
    freeifaddrs(interfaces);
  }
  if (*length > 0) return found;
  addrinfo hints = {}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(name.c_str(), nullptr, &hints, &list) == 0) {
    take(list->ai_addr);
    freeaddrinfo(list);
  }
  if (*length == 0) fail(DG_RANGE, "no address \"%s\" to listen on", name.c_str());
  return found;
}

}  // namespace

Monitor::Monitor(int rank, int size, const std::string& address) : rank_(rank), size_(size), links_(size_t(size)), out_(size_t(size)) {
  if (pipe2(wake_, O_CLOEXEC | O_NONBLOCK) != 0) fail(DG_OUT_OF_MEMORY, "nccl: the system gives no pipe: %s", std::strerror(errno));
  if (rank != 0) return;
  socklen_t length;
  sockaddr_storage at;
  try {
    at = resolve(address, &length);
  } catch (...) {
    close(wake_[0]);
    close(wake_[1]);
    throw;
  }
  sockaddr* const name = reinterpret_cast<sockaddr*>(&at);
  listener_ = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const bool listening = listener_ >= 0 && bind(listener_, name, length) == 0 && listen(listener_, 1024) == 0 && getsockname(listener_, name, &length) == 0;
  const std::string why = std::strerror(errno);
  char port[16] = "";
  if (!listening || getnameinfo(name, length, address_.host, sizeof address_.host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0 ||
      getrandom(address_.token, sizeof address_.token, 0) != ssize_t(sizeof address_.token)) {
    for (int fd : {listener_, wake_[0], wake_[1]})
      if (fd >= 0) close(fd);
    fail(DG_RANGE, "cannot listen on \"%s\": %s", address.c_str(), why.c_str());
  }
  address_.port = uint16_t(std::stoi(port));
}

Monitor::~Monitor() {
  for (auto* list : {&links_, &strangers_})
    for (Link& it : *list) hang_up(it);
  for (int fd : {listener_, wake_[0], wake_[1]})
    if (fd >= 0) close(fd);
}

void Monitor::hang_up(Link& link) {
  if (link.socket >= 0) close(link.socket);
  link.socket = -1;
  link.ended = true;
}

// ---- queueing

void Monitor::send(int to, Packet packet) {
  const std::string bytes = encoded(packet);
  std::lock_guard<std::mutex> lock(mutex_);
  std::string& out = out_[size_t(rank_ == 0 ? to : 0)];
  if (out.size() < kMaxQueued) out += bytes;
}

void Monitor::wake() {
  const char byte = 0;
  [[maybe_unused]] const ssize_t written = write(wake_[1], &byte, 1);
}

bool Monitor::flushed(int milliseconds) {
  const int64_t end = now() + milliseconds;
  for (;;) {
    wake();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (std::all_of(out_.begin(), out_.end(), [](const std::string& it) { return it.empty(); })) return true;
    }
    if (now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// ---- connecting

void Monitor::start(const MonitorAddress& root) {
  if (rank_ == 0) {
    connected_ = size_ == 1;
    return;
  }
  address_ = root;
  address_.host[sizeof address_.host - 1] = 0;
  addrinfo hints = {}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST;
  const std::string port = std::to_string(address_.port);
  if (getaddrinfo(address_.host, port.c_str(), &hints, &list) != 0) throw Failure{DG_COMM_LOST, 0, "rank 0 gave an address that is none"};
  Link& link = links_[0];
  link.socket = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (link.socket >= 0) prepare(link.socket);
  const bool failed = link.socket < 0 || (connect(link.socket, list->ai_addr, list->ai_addrlen) != 0 && errno != EINPROGRESS);
  freeaddrinfo(list);
  if (failed) throw Failure{DG_COMM_LOST, 0, std::string("rank 0 cannot be reached: ") + std::strerror(errno)};
  connecting_ = true;
  Packet hello;
  hello.rank = rank_;
  hello.sequence = uint64_t(size_);
  hello.text.assign(reinterpret_cast<const char*>(address_.token), sizeof address_.token);
  std::lock_guard<std::mutex> lock(mutex_);
  out_[0].insert(0, encoded(hello));
}

std::vector<int> Monitor::missing() const {
  std::vector<int> ranks;
  for (int i = 1; i < size_; i++)
    if (rank_ == 0 && !links_[size_t(i)].known) ranks.push_back(i);
  return ranks;
}

void Monitor::accept_all() {
  for (;;) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    if (strangers_.size() == kMaxStrangers) {
      hang_up(strangers_.front());
      strangers_.erase(strangers_.begin());
    }
    prepare(fd);
    Link link;
    link.socket = fd;
    link.since = now();
    strangers_.push_back(std::move(link));
  }
}

// Makes a stranger that presents the token the link of its rank.
bool Monitor::take_hello(Link& stranger, const Packet& packet) {
  unsigned char different = packet.text.size() != sizeof address_.token;
  for (size_t i = 0; i < packet.text.size() && i < sizeof address_.token; i++) different |= static_cast<unsigned char>(packet.text[i]) ^ address_.token[i];
  if (different || packet.topic != Topic::hello || packet.rank < 1 || packet.rank >= size_ || packet.sequence != uint64_t(size_)) return false;
  Link& link = links_[size_t(packet.rank)];
  if (link.known) return false;
  link = std::move(stranger);
  stranger.socket = -1;
  link.known = true;
  connected_ = missing().empty();
  return true;
}

// A connection that is closed with something unread takes along what it has sent: the others close it first.
void Monitor::leave(int milliseconds) {
  const int64_t end = now() + milliseconds;
  for (Link& link : links_)
    if (link.socket >= 0) shutdown(link.socket, SHUT_WR);
  for (;;) {
    std::vector<pollfd> polled;
    std::vector<Link*> owners;
    for (Link& link : links_) {
      if (link.socket < 0) continue;
      polled.push_back({link.socket, POLLIN, 0});
      owners.push_back(&link);
    }
    const int64_t left = end - now();
    if (polled.empty() || left <= 0) return;
    poll(polled.data(), nfds_t(polled.size()), int(left));
    char buffer[4096];
    for (Link* link : owners) {
      const ssize_t count = recv(link->socket, buffer, sizeof buffer, 0);
      if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) hang_up(*link);
    }
  }
}

// ---- the loop

void Monitor::read_from(Link& link, const std::function<void(const Packet&)>& packet) {
  char buffer[16384];
  for (;;) {
    const ssize_t count = recv(link.socket, buffer, sizeof buffer, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (count <= 0) {
      link.ended = true;
      break;
    }
    link.in.append(buffer, size_t(count));
    if (!link.known && link.in.size() > sizeof(Wire) + kMaxText) break;
  }
  Packet it;
  try {
    while (decode(link.in, it)) packet(it);
  } catch (const Failure&) {
    link.ended = true;
  }
}

void Monitor::run(int milliseconds, const PacketHandler& packet, const std::function<void(int)>& lost) {
  std::vector<pollfd> polled = {{wake_[0], POLLIN, 0}};
  if (listener_ >= 0) polled.push_back({listener_, POLLIN, 0});
  std::vector<Link*> owners;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = 0; i < links_.size(); i++) {
      if (links_[i].socket < 0) {
        if (links_[i].ended) out_[i].clear();
        continue;
      }
      polled.push_back({links_[i].socket, short(out_[i].empty() && !connecting_ ? POLLIN : POLLIN | POLLOUT), 0});
      owners.push_back(&links_[i]);
    }
  }
  const size_t known = owners.size();
  for (Link& it : strangers_) {
    polled.push_back({it.socket, POLLIN, 0});
    owners.push_back(&it);
  }
  poll(polled.data(), nfds_t(polled.size()), milliseconds);
  const size_t first = polled.size() - owners.size();
  char bytes[64];
  while (read(wake_[0], bytes, sizeof bytes) > 0) continue;
  std::vector<int> ended;
  for (size_t i = 0; i < owners.size(); i++) {
    Link& link = *owners[i];
    const short events = polled[first + i].revents;
    if (i < known && (events & POLLOUT)) {
      connecting_ = false;
      connected_ |= rank_ != 0;
      std::lock_guard<std::mutex> lock(mutex_);
      std::string& out = out_[size_t(&link - links_.data())];
      const ssize_t count = out.empty() ? 0 : ::send(link.socket, out.data(), out.size(), MSG_NOSIGNAL);
      if (count > 0) out.erase(0, size_t(count));
      if (count < 0 && errno != EAGAIN && errno != EINTR) link.ended = true;
    }
    if (events & (POLLIN | POLLHUP | POLLERR)) {
      if (i < known) {
        const int from = int(&link - links_.data());
        read_from(link, [&](const Packet& it) { packet(from, it); });
      } else {
        std::vector<Packet> packets;
        read_from(link, [&](const Packet& it) { packets.push_back(it); });
        if (!packets.empty() && take_hello(link, packets.front())) {
          for (size_t k = 1; k < packets.size(); k++) packet(packets.front().rank, packets[k]);
        } else if (!packets.empty()) {
          link.ended = true;
        }
      }
    }
    if (i < known && link.ended) ended.push_back(int(&link - links_.data()));
  }
  for (Link& it : strangers_)
    if (it.ended || now() - it.since > kHelloTime) hang_up(it);
  strangers_.erase(std::remove_if(strangers_.begin(), strangers_.end(), [](const Link& it) { return it.socket < 0; }), strangers_.end());
  for (int i : ended) {
    hang_up(links_[size_t(i)]);
    lost(i);
  }
  if (listener_ >= 0 && (polled[1].revents & POLLIN)) accept_all();
}

}  // namespace dg::comm
