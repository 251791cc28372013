// How a sweep divides its runs into rounds: every configuration once, then all of them again, so
// that a machine that gets slower meanwhile slows all of them. Each visit loads the model anew and
// warms up. Pure.
#pragma once

#include <algorithm>

namespace spillway {

class SweepRounds {
 public:
  // runs: of each configuration. rounds: as asked for; 0: one run a round as long as loading is
  // cheap, else two rounds.
  SweepRounds(int runs, int rounds) : runs_(runs), rounds_(std::min(runs, rounds)) {}

  bool more() const { return done_ < runs_; }
  // Of each configuration in the round that begins.
  int runs_now() const {
    const int left = runs_ - done_;
    if (rounds_ > 0) return (left + rounds_ - round_ - 1) / (rounds_ - round_);
    return round_ == 0 || cheap_ ? 1 : left;
  }
  // What the round took, of all configurations: loading, and measuring with its warm-up.
  void finish(double load_s, double measure_s) {
    done_ += runs_now();
    if (round_++ == 0) cheap_ = load_s <= measure_s;
  }
  int round() const { return round_; }  // the one that begins, from 0

 private:
  int runs_;
  int rounds_;
  int done_ = 0;
  int round_ = 0;
  bool cheap_ = true;
};

}  // namespace spillway
