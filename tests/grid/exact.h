// tests/grid: a run against its plan, number by number.
#pragma once
#include <string>
#include <vector>

#include "reckon/plan/run_plan.h"
#include "tests/folder.h"
#include "tests/grid/configurations.h"

namespace grid {

/// A folder with a file of token ids, for as many runs as one likes; it goes away with the object.
class Workplace {
 public:
  Workplace();
  const std::string& folder() const { return folder_.path(); }
  const std::string& tokens() const { return tokens_; }
  /// What the last run left behind goes.
  void clear() const;

 private:
  scratch::Folder folder_;
  std::string tokens_;
};

/// What a real run did.
struct Done {
  RunReport report;
  std::vector<AllocationEvent> events;
  std::vector<SegmentMark> marks;
};

RunPlan plan_of(const Configuration& configuration, const Config& config);
/// Plans and runs for real; throws what the run throws.
Done run(const Configuration& configuration, const Config& config);
/// One line for every number of the plan that the run does not have, and for the first event of each segment that differs.
std::vector<std::string> differences(const RunPlan& plan, const Done& done);
}  // namespace grid
