// report/actual_table: what was planned beside what came of it, as a table for a terminal.
#pragma once
#include <string>

#include "reckon/train/report.h"

namespace reckon {

/// Lines "what, predicted, measured, by how much the measured one differs": the ledger's bytes (of rounded blocks), the work of a step, its
/// time, and the process's resident bytes by class. Equal numbers say so; what nobody predicted or measured is a dash; rows of zeros are
/// left out.
std::string planned_and_actual(const RunReport& predicted, const RunReport& measured, const ProcessReport& process);
}  // namespace reckon
