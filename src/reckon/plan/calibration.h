// plan/calibration: measures the tables that the time model looks calls up in. It knows which operations need an axis for each extent; all
// others are measured where they occur, in steps of small models.
#pragma once
#include <memory>

#include "reckon/engine/op.h"
#include "reckon/train/machine.h"

namespace reckon {

/// A call with given extents, and the fastest that was measured.
struct GridPoint {
  const OpDef* op;
  Params params;
  std::vector<TensorSpec> in;
  size_t table = 0, index = 0;  // where its seconds go
  double seconds = 0;           // 0: not measured
};
/// Tables over several extents, with a point for every place of their grids: products of linear layers, attention; in all three dtypes, and
/// linear layers in float8; f16 and these at fewer places.
struct Grid {
  std::vector<TimeTable> tables;
  std::vector<GridPoint> points;
};
Grid calibration_grid();

/// The small models whose steps are timed, as overrides of a configuration: both architectures from a few to many megabytes a tensor, every
/// optimizer, every precision (fp16 and fp8 in fewer sizes), accumulation.
std::vector<std::vector<std::string>> calibration_models();

/// Lowers values that are above a later one of their axis to it: other programs can only make a measurement longer.
void make_monotone(TimeTable& table);

/// Measures on a real device, round by round, so that whoever compares predictions with measurements can take turns with it. Every value is
/// the best of its rounds. Takes some 500 MiB and, at the speed of two current cores, about five seconds a round.
class Calibration {
 public:
  explicit Calibration(Device& device);
  ~Calibration();
  Calibration(const Calibration&) = delete;
  void round();
  /// Fills the profile's tables and overheads from the rounds so far, at least one, and raises its peaks to the best product among them.
  void finish(MachineProfile& profile) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};
}  // namespace reckon
