#include "transport.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <thread>

namespace nccl_emulation {
namespace {

constexpr int kSlice = 10;         // milliseconds between looks at the abort flag
constexpr int kConnectTries = 200;  // slices

// A rank as it tells the root of itself, and the root the others.
struct Announcement {
  int32_t rank, size, device, refused;
  char name[48];
};

std::string random_name() {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != ssize_t(sizeof bytes)) throw Unreachable{"no random numbers"};
  std::string name = "dinograd-nccl-";
  char digits[3];
  for (unsigned char byte : bytes) {
    std::snprintf(digits, sizeof digits, "%02x", byte);
    name += digits;
  }
  return name;
}

sockaddr_un address_of(const std::string& name, socklen_t* length) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), std::min(name.size(), sizeof address.sun_path - 1));
  *length = socklen_t(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  operator int() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Socket listen_at(const std::string& name) {
  Socket it(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  socklen_t length;
  const sockaddr_un address = address_of(name, &length);
  if (it < 0 || bind(it, reinterpret_cast<const sockaddr*>(&address), length) != 0 || listen(it, 128) != 0)
    throw Unreachable{"cannot listen: " + std::string(strerror(errno))};
  return it;
}

void look(const std::atomic<bool>& aborted) {
  if (aborted) throw Aborted{};
}

bool readable(int fd) {
  pollfd it = {fd, POLLIN, 0};
  return poll(&it, 1, kSlice) == 1;
}

Socket connect_to(const std::string& name, const std::atomic<bool>& aborted) {
  for (int i = 0; i < kConnectTries; i++) {
    look(aborted);
    Socket it(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    socklen_t length;
    const sockaddr_un address = address_of(name, &length);
    if (it >= 0 && connect(it, reinterpret_cast<const sockaddr*>(&address), length) == 0) return it;
    std::this_thread::sleep_for(std::chrono::milliseconds(kSlice));
  }
  throw Unreachable{"socket connect: connection refused, exceeded the number of retries"};
}

Socket accept_from(int listener, const std::atomic<bool>& aborted) {
  while (!readable(listener)) look(aborted);
  return Socket(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
}

template <class T>
bool send_all(int fd, const T* data, size_t count = 1) {
  const char* at = reinterpret_cast<const char*>(data);
  for (size_t left = count * sizeof(T); left > 0;) {
    const ssize_t sent = ::send(fd, at, left, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    at += sent;
    left -= size_t(sent);
  }
  return true;
}

template <class T>
bool receive_all(int fd, T* data, const std::atomic<bool>& aborted, size_t count = 1) {
  char* at = reinterpret_cast<char*>(data);
  for (size_t left = count * sizeof(T); left > 0;) {
    while (!readable(fd)) look(aborted);
    const ssize_t received = recv(fd, at, left, 0);
    if (received <= 0) return false;
    at += received;
    left -= size_t(received);
  }
  return true;
}

void serve(Socket listener) {
  const std::atomic<bool> never{false};
  std::vector<std::pair<Announcement, Socket>> ranks;
  bool refused = false;
  while (ranks.empty() || int(ranks.size()) < ranks.front().first.size) {
    Socket it = accept_from(listener, never);
    Announcement rank;
    if (it < 0 || !receive_all(it, &rank, never)) continue;
    for (const auto& [other, socket] : ranks) refused |= other.rank == rank.rank || other.size != rank.size;
    ranks.emplace_back(rank, std::move(it));
    if (refused) break;
  }
  std::sort(ranks.begin(), ranks.end(), [](const auto& a, const auto& b) { return a.first.rank < b.first.rank; });
  std::vector<Announcement> all;
  for (auto& [rank, socket] : ranks) {
    rank.refused = refused;
    all.push_back(rank);
  }
  for (const auto& [rank, socket] : ranks) send_all(socket, all.data(), refused ? 1 : all.size());
}

}  // namespace

std::string start_root() {
  const std::string name = random_name();
  std::thread([listener = listen_at(name)]() mutable { serve(std::move(listener)); }).detach();
  return name;
}

Mesh::Mesh(int rank, int size, int device, const std::string& root, const std::atomic<bool>& aborted)
    : rank(rank), size(size), aborted_(aborted), peers_(size_t(size)) {
  const std::string name = random_name();
  const Socket listener = listen_at(name);
  Announcement own = {rank, size, device, 0, {}};
  std::copy(name.begin(), name.end(), own.name);
  std::vector<Announcement> all(static_cast<size_t>(size));
  {
    const Socket to_root = connect_to(root, aborted);
    if (!send_all(to_root, &own) || !receive_all(to_root, all.data(), aborted)) throw Unreachable{"the root of the unique id is gone"};
    if (all[0].refused) throw Refused{"a rank is there twice, or the ranks differ in their number, for one unique id"};
    if (!receive_all(to_root, all.data() + 1, aborted, size_t(size) - 1)) throw Unreachable{"the root of the unique id is gone"};
  }
  for (const Announcement& a : all)
    for (const Announcement& b : all)
      if (a.rank < b.rank && a.device == b.device)
        throw Refused{"Duplicate GPU detected: rank " + std::to_string(a.rank) + " and rank " + std::to_string(b.rank) + " both on CUDA device " +
                      std::to_string(a.device)};
  try {
    for (int i = 0; i < rank; i++) {
      Socket it = connect_to(all[size_t(i)].name, aborted);
      const int32_t number = rank;
      if (!send_all(it, &number)) throw Unreachable{"rank " + std::to_string(i) + " is gone"};
      peers_[size_t(i)].socket = it.release();
    }
    for (int i = rank + 1; i < size; i++) {
      Socket it = accept_from(listener, aborted);
      int32_t number = -1;
      if (!receive_all(it, &number, aborted) || number <= rank || number >= size) throw Unreachable{"a rank is gone"};
      peers_[size_t(number)].socket = it.release();
    }
  } catch (...) {
    for (const Peer& peer : peers_)
      if (peer.socket >= 0) close(peer.socket);
    throw;
  }
  for (const Peer& peer : peers_)
    if (peer.socket >= 0) fcntl(peer.socket, F_SETFL, fcntl(peer.socket, F_GETFL) | O_NONBLOCK);
}

Mesh::~Mesh() {
  for (const Peer& peer : peers_)
    if (peer.socket >= 0) close(peer.socket);
}

void Mesh::check() const { look(aborted_); }

void Mesh::exchange(Header header, const std::vector<Outgoing>& sends, const std::vector<Incoming>& receives) {
  for (const Outgoing& it : sends) {
    Peer& peer = peers_[size_t(it.peer)];
    header.bytes = it.bytes;
    peer.sending.append(reinterpret_cast<const char*>(&header), sizeof header);
    if (it.bytes > 0) peer.sending.append(static_cast<const char*>(it.data), it.bytes);
  }
  std::deque<Incoming> wanted(receives.begin(), receives.end());
  for (;;) {
    std::vector<bool> blocked(peers_.size());
    for (size_t i = 0; i < wanted.size();) {
      const Incoming it = wanted[i];
      header.bytes = it.bytes;
      if (!blocked[size_t(it.peer)] && take(peers_[size_t(it.peer)], header, it)) wanted.erase(wanted.begin() + ptrdiff_t(i));
      else blocked[size_t(it.peer)] = true, i++;
    }
    const bool sent = std::all_of(peers_.begin(), peers_.end(), [](const Peer& it) { return it.sending.empty(); });
    if (wanted.empty() && sent) return;
    check();
    transfer(kSlice);
  }
}

bool Mesh::take(Peer& peer, const Header& wanted, const Incoming& incoming) {
  auto& inbox = peer.inbox[wanted.messages != 0];
  if (inbox.empty()) return false;
  const auto& [header, content] = inbox.front();
  if (std::memcmp(&header, &wanted, sizeof header) != 0) return false;
  if (!content.empty()) std::memcpy(incoming.data, content.data(), content.size());
  inbox.pop_front();
  return true;
}

void Mesh::transfer(int milliseconds) {
  std::vector<pollfd> polled;
  std::vector<Peer*> owners;
  for (Peer& peer : peers_) {
    if (peer.socket < 0) continue;
    polled.push_back({peer.socket, short(peer.sending.empty() ? POLLIN : POLLIN | POLLOUT), 0});
    owners.push_back(&peer);
  }
  poll(polled.data(), nfds_t(polled.size()), milliseconds);
  static thread_local char buffer[1 << 18];
  for (size_t i = 0; i < polled.size(); i++) {
    Peer& peer = *owners[i];
    const std::string gone = "rank " + std::to_string(&peer - peers_.data()) + " closed the connection";
    if (polled[i].revents & POLLOUT) {
      const ssize_t count = ::send(peer.socket, peer.sending.data() + peer.sent, peer.sending.size() - peer.sent, MSG_NOSIGNAL);
      if (count < 0 && errno != EAGAIN && errno != EINTR) throw Unreachable{gone};
      if (count > 0) peer.sent += size_t(count);
      if (peer.sent == peer.sending.size()) {
        peer.sending.clear();
        peer.sent = 0;
      }
    }
    if (!(polled[i].revents & (POLLIN | POLLHUP | POLLERR))) continue;
    const ssize_t count = recv(peer.socket, buffer, sizeof buffer, 0);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) throw Unreachable{gone};
    if (count > 0) peer.received.append(buffer, size_t(count));
    size_t at = 0;
    Header header;
    while (peer.received.size() - at >= sizeof header) {
      std::memcpy(&header, peer.received.data() + at, sizeof header);
      if (peer.received.size() - at - sizeof header < header.bytes) break;
      peer.inbox[header.messages != 0].emplace_back(header, peer.received.substr(at + sizeof header, header.bytes));
      at += sizeof header + header.bytes;
    }
    peer.received.erase(0, at);
  }
}

}  // namespace nccl_emulation
