#include "referee.h"

#include <algorithm>
#include <cstring>

namespace dg::comm {

Clock::duration grace_of(double timeout) {
  return std::chrono::milliseconds(int64_t(std::clamp(timeout / 4, 150.0, 1000.0)));
}

std::optional<Failure> Referee::called(int rank, const Descriptor& own) {
  ranks_[size_t(rank)].called = own.sequence;
  const auto [it, first] = calls_.try_emplace(own.sequence, Call{own, rank, 0});
  Call& call = it->second;
  if (!first && std::memcmp(&call.descriptor, &own, sizeof own) != 0) {
    const bool before = call.rank < rank;
    const Descriptor &a = before ? call.descriptor : own, &b = before ? own : call.descriptor;
    return Failure{DG_COMM_MISMATCH, rank,
                   "ranks called different collectives: " + rank_text(std::min(rank, call.rank)) + " called " + text_of(a) + ", " +
                       rank_text(std::max(rank, call.rank)) + " called " + text_of(b)};
  }
  if (++call.calls == ranks_.size()) calls_.erase(it);
  return {};
}

void Referee::stuck(int rank, const Packet& packet) {
  const auto now = Clock::now();
  questions_.push_back({rank, packet, now, now + grace_of(packet.milliseconds)});
  Packet ping;
  ping.topic = Topic::ping;
  for (size_t i = 1; i < ranks_.size(); i++) monitor_.send(int(i), ping);
}

void Referee::answered(int rank) { ranks_[size_t(rank)].answered = Clock::now(); }

std::optional<Failure> Referee::verdict() {
  for (const Question& question : questions_)
    if (Clock::now() >= question.due) return judged(question);
  return {};
}

Failure Referee::judged(const Question& question) const {
  const Packet& it = question.packet;
  if (it.sequence == 0) return {DG_COMM_TIMEOUT, it.rank, it.text + rank_text(it.rank) + " does not answer"};
  const auto calls = [&](size_t i) { return ranks_[i].called >= it.sequence; };
  for (size_t i = 1; i < ranks_.size(); i++)
    if (ranks_[i].answered < question.asked)
      return {DG_COMM_TIMEOUT, int(i), it.text + rank_text(int(i)) + (calls(i) ? " does not answer" : " did not call it")};
  for (size_t i = 0; i < ranks_.size(); i++)
    if (!calls(i)) return {DG_COMM_TIMEOUT, int(i), it.text + rank_text(int(i)) + " did not call it"};
  return {DG_COMM_TIMEOUT, -1, it.text + "all ranks take part, the time was too short"};
}

}  // namespace dg::comm
