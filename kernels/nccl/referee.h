// Rank 0's judgement: whether all ranks call the same, and who is to blame where a call takes too long.
#pragma once
#include <chrono>
#include <map>
#include <optional>
#include <vector>

#include "monitor.h"

namespace dg::comm {

using Clock = std::chrono::steady_clock;

// How long those who are asked have to answer.
Clock::duration grace_of(double timeout);

class Referee {
 public:
  Referee(int size, Monitor& monitor) : monitor_(monitor), ranks_(size_t(size)) {}

  // A rank has called a collective; a failure if another called a different one.
  std::optional<Failure> called(int rank, const Descriptor& descriptor);
  // A rank asks why its call takes so long.
  void stuck(int rank, const Packet& packet);
  void answered(int rank);
  // What has become of the questions whose time is up.
  std::optional<Failure> verdict();

 private:
  struct Rank {
    uint64_t called = 0;  // its last collective
    Clock::time_point answered;
  };
  struct Call {
    Descriptor descriptor;
    int rank;     // the first that called it
    size_t calls;
  };
  struct Question {
    int rank;
    Packet packet;
    Clock::time_point asked, due;
  };
  Failure judged(const Question& question) const;

  Monitor& monitor_;
  std::vector<Rank> ranks_;
  std::map<uint64_t, Call> calls_;  // that not all ranks have made yet
  std::vector<Question> questions_;
};

}  // namespace dg::comm
