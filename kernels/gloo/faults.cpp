// What a failure is, and how every rank comes to know of it: reports, which ranks send each other outside of any collective.
#include <algorithm>
#include <cstring>
#include <thread>

#include "../communicator.h"
#include "transport.h"

namespace dg::comm {
namespace {

constexpr milliseconds kDelivery(200);  // what the others are given to take a report

milliseconds left_of(Clock::time_point deadline) { return std::chrono::duration_cast<milliseconds>(deadline - Clock::now()); }

}  // namespace

Failure Mesh::cause() {
  std::lock_guard<std::mutex> lock(mutex_);
  return cause_;
}

void Mesh::declare(const Failure& failure, bool quiet) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (broken_) return;
    cause_ = failure;
    broken_ = true;
  }
  if (quiet) return;
  Report report;
  report.kind = failed;
  report.status = failure.status;
  report.rank = failure.rank;
  std::strncpy(report.text, failure.text.c_str(), sizeof report.text - 1);
  tell(report);
}

void Mesh::fail_all(const Failure& failure) {
  declare(failure);
  throw cause();
}

void Mesh::close() { closing_ = true; }

void Mesh::farewell() {
  Report report;
  report.kind = goodbye;
  tell(report);
}

void Mesh::linger(milliseconds most) {
  const auto deadline = Clock::now() + most;
  for (int i = 0; i < size && !broken(); i++) {
    const auto gone = [&] {
      poll();
      std::lock_guard<std::mutex> lock(mutex_);
      return i == rank || peers_[i].heard.kind == goodbye || links_->link(i).failed();
    };
    while (!gone() && !broken() && Clock::now() < deadline) std::this_thread::sleep_for(milliseconds(1));
  }
}

void Mesh::hang_up() {
  for (int i = 0; i < size; i++)
    if (i != rank) links_->link(i).hang_up();
}

// ---- reports

void Mesh::listen_for_reports() {
  std::lock_guard<std::mutex> lock(mutex_);
  listening_ = true;
  for (int i = 0; i < size; i++) {
    if (i == rank) continue;
    for (int k = 0; k < 2; k++) {
      peers_[i].inbox[k] = buffer(&peers_[i].incoming[k], sizeof(Report));
      peers_[i].inbox[k]->tcp::UnboundBuffer::recv(i, kReport, 0, sizeof(Report));
    }
  }
}

void Mesh::poll() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (int i = 0; i < size; i++) {
    Peer& peer = peers_[i];
    while (peer.inbox[peer.next] && peer.inbox[peer.next]->take_recv()) {
      peer.heard = peer.incoming[peer.next];
      peer.heard.text[sizeof peer.heard.text - 1] = 0;
      peer.heard_at = Clock::now();
      peer.fresh = peer.heard.kind == waiting;
      if (peer.heard.kind == failed && !broken_) {
        cause_ = {peer.heard.status, peer.heard.rank, peer.heard.text};
        broken_ = true;
      }
      try {
        peer.inbox[peer.next]->tcp::UnboundBuffer::recv(i, kReport, 0, sizeof(Report));
      } catch (const std::exception&) {
        peer.inbox[peer.next].reset();
      }
      peer.next ^= 1;
    }
  }
}

void Mesh::tell(const Report& report) {
  std::vector<Buffer*> posted;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (int i = 0; i < size; i++) {
      if (i == rank || !listening_ || links_->link(i).failed()) continue;
      auto out = std::make_unique<std::pair<Report, std::unique_ptr<Buffer>>>();
      out->first = report;
      out->second = buffer(&out->first, sizeof(Report));
      try {
        out->second->tcp::UnboundBuffer::send(i, kReport, 0, sizeof(Report));
        posted.push_back(out->second.get());
      } catch (const std::exception&) {
        continue;  // it is gone
      }
      outgoing_.push_back(std::move(out));  // what a rank that stands still has not taken stays until the end
    }
  }
  const auto deadline = Clock::now() + kDelivery;
  for (Buffer* out : posted) {
    bool broken = false;
    out->ended(false, std::max(left_of(deadline), milliseconds(0)), nullptr, broken);
  }
}

// ---- what failures say

void Mesh::lost(Buffer& buffer) {
  for (int peer : buffer.peers_)
    if (links_->link(peer).failed()) lost(peer);
  lost(buffer.peers_.front());
}

void Mesh::lost(int peer) {
  check();
  bool left;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    left = peers_[peer].heard.kind == goodbye;
  }
  const std::string doing = current_call->label + " on " + rank_text(rank);
  fail_all({DG_COMM_LOST, peer,
            left ? rank_text(peer) + " has closed the process group, which " + doing + " still needs"
                 : doing + ": the connection to " + rank_text(peer) + " was lost: its process ended or the network failed"});
}

int Mesh::first_waited_for(const Buffer& buffer) const {
  return buffer.peers_.empty() ? -1 : buffer.peers_.front();
}

Mesh::Report Mesh::waiting_report(const Buffer& buffer) const {
  Report report;
  report.kind = waiting;
  report.rank = first_waited_for(buffer);
  report.unheard = current_call->unheard && current_call->unheard(report.rank);
  report.sequence = current_call->sequence;
  return report;
}

// The time of the current call is up. Every rank that waits says for whom; the one at the end of the chain that says nothing is to blame.
void Mesh::expired(Buffer& buffer) {
  const int first = first_waited_for(buffer);
  if (!current_call->told) {
    current_call->told = true;
    tell(waiting_report(buffer));
  }
  const auto grace = Clock::now() + std::clamp(milliseconds(int64_t(current_call->timeout / 4)), milliseconds(150), milliseconds(1000));
  int culprit = first;
  bool unheard = current_call->unheard && current_call->unheard(first), circle = false;
  while (Clock::now() < grace) {
    std::this_thread::sleep_for(kSlice);
    check();
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (int steps = 0; culprit >= 0; steps++) {
      const Peer& peer = peers_[culprit];
      if (culprit == rank || steps > size) {
        circle = true;
        break;
      }
      if (peer.heard.kind != waiting || Clock::now() - peer.heard_at > std::chrono::seconds(5)) break;
      unheard = peer.heard.unheard;
      culprit = peer.heard.rank;
    }
  }
  const std::string head = current_call->label + " on " + rank_text(rank) + " timed out after " + std::to_string(int64_t(current_call->timeout)) + " ms: ";
  if (circle) fail_all({DG_COMM_TIMEOUT, first, head + "all ranks take part, the time was too short"});
  if (culprit < 0) fail_all({DG_COMM_TIMEOUT, -1, head + "nothing came from any rank"});
  fail_all({DG_COMM_TIMEOUT, culprit, head + rank_text(culprit) + (unheard ? " did not call it" : " does not answer")});
}

}  // namespace dg::comm
