#include "reckon/report/actual_table.h"

#include "reckon/base/text.h"

namespace reckon {
namespace {
using Count = std::optional<int64_t>;

class Table {
 public:
  void heading(std::string_view name) { line(name, "predicted", "measured", ""); }
  void row(std::string_view name, const Count& predicted, const Count& measured) {
    if (predicted.value_or(0) == 0 && measured.value_or(0) == 0) return;
    const auto shown = [](const Count& v) { return v ? with_commas(*v) : std::string("-"); };
    std::string verdict;
    if (predicted && measured) verdict = *predicted == *measured ? "equal" : difference(double(*predicted), double(*measured));
    line(name, shown(predicted), shown(measured), verdict);
  }
  void seconds(std::string_view name, const std::optional<double>& predicted, const std::optional<double>& measured) {
    if (!predicted && !measured) return;
    const auto shown = [](const std::optional<double>& v) { return v ? text("{:.4f}", *v) : std::string("-"); };
    line(name, shown(predicted), shown(measured), predicted && measured ? difference(*predicted, *measured) : "");
  }
  std::string finish() { return std::move(lines_); }

 private:
  static std::string difference(double predicted, double measured) {
    return predicted > 0 ? text("{:+.2f} %", 100 * (measured / predicted - 1)) : "";
  }
  void line(std::string_view name, const std::string& predicted, const std::string& measured, const std::string& verdict) {
    std::string line = text("{:<28} {:>22} {:>22}   {}", name, predicted, measured, verdict);
    lines_ += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  std::string lines_;
};

template <class T>
Count count_of(const std::optional<T>& owner, int64_t T::*member) {
  return owner ? Count((*owner).*member) : Count();
}
Count bytes_of(const std::optional<ProcessMemory>& memory, MemoryClass owner) { return memory ? Count((*memory)[owner]) : Count(); }

void add_ledger(Table& table, const RunReport& predicted, const RunReport& measured) {
  table.heading("bytes of the ledger");
  table.row("peak", count_of(predicted.memory, &Ledger::peak), count_of(measured.memory, &Ledger::peak));
  for (int i = 0; i < kCategories; ++i) {
    const auto at_peak = [i](const RunReport& r) { return r.memory ? Count(r.memory->at_peak[size_t(i)]) : Count(); };
    table.row(text("  {}", name_of(Category(i))), at_peak(predicted), at_peak(measured));
  }
  table.row("arena", count_of(predicted.memory, &Ledger::extent), count_of(measured.memory, &Ledger::extent));
}

void add_step(Table& table, const RunReport& predicted, const RunReport& measured) {
  table.heading("FLOPs of a step");
  constexpr std::pair<const char*, int64_t Flops::*> kRows[] = {
      {"matmul", &Flops::matmul}, {"vector", &Flops::vector}, {"model", &Flops::model}};
  for (const auto& [name, member] : kRows)
    table.row(name, count_of(predicted.flops_per_step, member), count_of(measured.flops_per_step, member));
  table.seconds("seconds of a step", predicted.step_seconds, measured.step_seconds);
}

void add_process(Table& table, const ProcessReport& process) {
  table.heading("resident bytes");
  table.row("process, at its peak", process.predicted_rss_bytes, process.peak_rss_bytes);
  for (int i = 0; i < kMemoryClasses; ++i) {
    const MemoryClass owner = MemoryClass(i);
    std::string name(name_of(owner));
    for (char& c : name) c = c == '_' ? ' ' : c;
    table.row("  " + name, bytes_of(process.predicted, owner), bytes_of(process.measured, owner));
  }
}
}  // namespace

std::string planned_and_actual(const RunReport& predicted, const RunReport& measured, const ProcessReport& process) {
  Table table;
  add_ledger(table, predicted, measured);
  add_step(table, predicted, measured);
  add_process(table, process);
  return table.finish();
}
}  // namespace reckon
