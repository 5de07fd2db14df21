// The table at the end of a run: equal numbers say so, others by how much they differ, and what is unknown is a dash.
#include "reckon/report/actual_table.h"

#include <gtest/gtest.h>

namespace {
using namespace reckon;

TEST(ActualTable, says_what_is_equal_and_by_how_much_the_rest_differs) {
  RunReport predicted, measured;
  Ledger ledger;
  ledger.peak = 1234567;
  ledger.extent = 1300000;
  ledger.at_peak[size_t(Category::parameter)] = 1234567;
  predicted.memory = measured.memory = ledger;
  predicted.flops_per_step = measured.flops_per_step = Flops{4000, 500, 3680};
  measured.flops_per_step->vector = 505;
  predicted.step_seconds = 0.5;
  measured.step_seconds = 0.45;
  ProcessReport process;
  process.predicted.emplace();
  process.measured.emplace();
  (*process.predicted)[MemoryClass::arena] = (*process.measured)[MemoryClass::arena] = 1302528;
  (*process.predicted)[MemoryClass::generated_code] = 4096;
  (*process.measured)[MemoryClass::heap] = 8192;
  process.predicted_rss_bytes = process.predicted->total();
  process.peak_rss_bytes = process.measured->total();
  EXPECT_EQ(planned_and_actual(predicted, measured, process), R"(bytes of the ledger                       predicted               measured
peak                                      1,234,567              1,234,567   equal
  parameter                               1,234,567              1,234,567   equal
arena                                     1,300,000              1,300,000   equal
FLOPs of a step                           predicted               measured
matmul                                        4,000                  4,000   equal
vector                                          500                    505   +1.00 %
model                                         3,680                  3,680   equal
seconds of a step                            0.5000                 0.4500   -10.00 %
resident bytes                            predicted               measured
process, at its peak                      1,306,624              1,310,720   +0.31 %
  arena                                   1,302,528              1,302,528   equal
  heap                                            0                  8,192
  generated code                              4,096                      0   -100.00 %
)");
}

TEST(ActualTable, leaves_open_what_nobody_knows) {
  RunReport measured;
  measured.memory = Ledger();
  measured.memory->peak = 64;
  ProcessReport process;
  process.peak_rss_bytes = 4096;
  EXPECT_EQ(planned_and_actual(RunReport(), measured, process),
            R"(bytes of the ledger                       predicted               measured
peak                                              -                     64
FLOPs of a step                           predicted               measured
resident bytes                            predicted               measured
process, at its peak                              -                  4,096
)");
}
}  // namespace
