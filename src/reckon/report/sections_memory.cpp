#include <algorithm>
#include <map>
#include <numeric>

#include "reckon/base/text.h"
#include "reckon/engine/context.h"
#include "reckon/io/json.h"
#include "reckon/report/charts.h"
#include "reckon/report/markup.h"
#include "reckon/report/sections.h"

namespace reckon {
namespace {
constexpr size_t kBuckets = 360;      // of a timeline: about a thousand samples
constexpr size_t kMaxBlocks = 12000;  // that the script knows
constexpr size_t kListed = 8;         // largest tensors shown for a moment
constexpr size_t kMaxHolders = 24;    // rows of the table

std::string module_name(uint32_t module) {
  const std::string path = module_path(module);
  return path.empty() ? "whole model" : path;
}

// What a tensor is called: the operation that made it, or for what is there all the time, what it is.
std::string tensor_name(Category category, const char* op) {
  switch (category) {
    case Category::parameter:
    case Category::gradient:
    case Category::optimizer:
    case Category::master:
    case Category::data:
      return std::string(name_of(category));
    default:
      return op;
  }
}

std::string bytes_cell(int64_t bytes) { return text("<td class=\"n\" title=\"{} bytes\">{}</td>", with_commas(bytes), human_bytes(bytes)); }

std::string bar_cell(double share, const std::string& colour) {
  return text("<td class=\"bar\"><span class=\"{}\" style=\"width:{}%\"></span><i>{}</i></td>", colour, fixed2(share * 100),
              percent(share));
}

// Tensors of one name that live at a moment, largest first.
struct Living {
  uint32_t name;
  int64_t bytes = 0, blocks = 0;
};
std::vector<Living> living_at(const LiveBlocks& live, uint32_t sample) {
  std::map<uint32_t, Living> by_name;
  for (const LiveBlock& b : live.blocks) {
    if (sample < b.first || sample > b.last) continue;
    Living& l = by_name.emplace(b.name, Living{b.name}).first->second;
    l.bytes += b.bytes;
    ++l.blocks;
  }
  std::vector<Living> living;
  for (const auto& [name, l] : by_name) living.push_back(l);
  std::stable_sort(living.begin(), living.end(), [](const Living& a, const Living& b) { return a.bytes > b.bytes; });
  return living;
}

// The same shape of document as the script makes for other moments.
std::string moment(const Timeline& line, const LiveBlocks& live) {
  const TimelineSample& s = line.at_peak();
  std::string out = text(
      "<div class=\"moment\" id=\"moment\"><p class=\"when\">At the peak: {}, after event {} of {}: <b>{}</b> live</p><div "
      "class=\"two\"><ul>",
      name_of(s.phase), with_commas(int64_t(s.event - line.begin)), with_commas(int64_t(line.end - line.begin)), human_bytes(s.total()));
  for (size_t c = 0; c < size_t(kCategories); ++c)
    if (s.live[c] > 0) out += text("<li>{}{} <b>{}</b></li>", category_chip(Category(c)), name_of(Category(c)), human_bytes(s.live[c]));
  out += "</ul><div class=\"scroll\"><table><thead><tr><th>Tensor</th><th>Category</th><th class=\"n\">Bytes</th></tr></thead><tbody>";
  const std::vector<Living> living = living_at(live, uint32_t(line.peak));
  int64_t rest = s.total();
  for (size_t i = 0; i < std::min(kListed, living.size()); ++i) {
    const BlockName& name = live.names[living[i].name];
    out += text("<tr><td>{} <i>{}</i></td><td>{}{}</td>{}</tr>", escaped(module_name(name.module)),
                escaped(tensor_name(name.category, name.op)), category_chip(name.category), name_of(name.category),
                bytes_cell(living[i].bytes));
    rest -= living[i].bytes;
  }
  if (rest > 0) out += text("<tr class=\"rest\"><td colspan=\"2\">all others</td>{}</tr>", bytes_cell(rest));
  return out + "</tbody></table></div></div></div>";
}

// What the script needs to do the same for every sample: changes of live bytes, and the blocks with their lives.
std::string moments_json(const Timeline& line, const LiveBlocks& live) {
  JsonWriter j;
  j.begin_object();
  j.key("begin").integer(int64_t(line.begin)).key("end").integer(int64_t(line.end)).key("peak").integer(int64_t(line.peak));
  j.key("categories").begin_array();
  for (int c = 0; c < kCategories; ++c) j.string(name_of(Category(c)));
  j.end_array().key("phases").begin_array();
  for (int p = 0; p < kPhases; ++p) j.string(name_of(Phase(p)));
  j.end_array().key("event").begin_array();
  size_t before = line.begin;
  for (const TimelineSample& s : line.samples) j.integer(int64_t(s.event - before)), before = s.event;
  j.end_array().key("phase").begin_array();
  for (const TimelineSample& s : line.samples) j.integer(int64_t(s.phase));
  j.end_array().key("live").begin_array();  // per category, in blocks' units of 64 bytes, as differences; [] if it never lives
  for (size_t c = 0; c < size_t(kCategories); ++c) {
    j.begin_array();
    int64_t last = 0;
    const bool lives = std::any_of(line.samples.begin(), line.samples.end(), [&](const TimelineSample& s) { return s.live[c] != 0; });
    for (const TimelineSample& s : line.samples)
      if (lives) j.integer((s.live[c] - last) / kBlockAlignment), last = s.live[c];
    j.end_array();
  }
  j.end_array().key("names").begin_array();
  for (const BlockName& n : live.names)
    j.begin_array()
        .integer(int64_t(n.category))
        .string(valid_utf8(module_name(n.module)))
        .string(valid_utf8(tensor_name(n.category, n.op)))
        .end_array();
  j.end_array().key("blocks").begin_array();  // name, units of 64 bytes, first sample, samples after it
  for (const LiveBlock& b : live.blocks) j.integer(b.name).integer(b.bytes / kBlockAlignment).integer(b.first).integer(b.last - b.first);
  j.end_array().end_object();
  return j.str();
}
}  // namespace

std::string category_chip(Category category) { return text("<span class=\"chip c{}\"></span>", int(category)); }

std::string composition(const ReportInput& input) {
  const Ledger& m = *input.plan.predicted.memory;
  const double whole = double(std::max<int64_t>({1, m.extent, input.budget_bytes}));
  const auto piece = [&](double from, int64_t bytes, const std::string& colour, std::string_view name) {
    return text("<rect x=\"{}%\" width=\"{}%\" height=\"100%\" class=\"{}\"><title>{}: {}</title></rect>", fixed2(100 * from / whole),
                fixed2(100 * double(bytes) / whole), colour, name, human_bytes(bytes));
  };
  std::string bar =
      text("<svg class=\"bar\" width=\"100%\" height=\"34\" role=\"img\" aria-label=\"{} at the peak, {} of arena{}\">",
           human_bytes(m.peak), human_bytes(m.extent), input.budget_bytes > 0 ? ", budget " + human_bytes(input.budget_bytes) : "");
  std::string legend = "<ul class=\"legend\">";
  double at = 0;
  for (size_t c = 0; c < size_t(kCategories); ++c) {
    if (m.at_peak[c] == 0) continue;
    bar += piece(at, m.at_peak[c], text("f c{}", c), name_of(Category(c)));
    at += double(m.at_peak[c]);
    legend += text("<li title=\"{} bytes\">{}{} <b>{}</b> <i>{}</i></li>", with_commas(m.at_peak[c]), category_chip(Category(c)),
                   name_of(Category(c)), human_bytes(m.at_peak[c]), percent(double(m.at_peak[c]) / double(std::max<int64_t>(1, m.peak))));
  }
  if (m.extent > m.peak) {
    bar += piece(at, m.extent - m.peak, "gap", "gaps of the placement");
    legend += text("<li><span class=\"chip gap\"></span>gaps of the placement <b>{}</b></li>", human_bytes(m.extent - m.peak));
  }
  if (input.budget_bytes > 0 && input.budget_bytes < m.extent)
    bar += text("<rect x=\"{}%\" width=\"3\" height=\"100%\" class=\"limit\"/>", fixed2(100 * double(input.budget_bytes) / whole));
  if (input.budget_bytes > m.extent)
    legend += text("<li><span class=\"chip free\"></span>free of {} <b>{}</b></li>", escaped(input.budget_name),
                   human_bytes(input.budget_bytes - m.extent));
  return bar + "</svg>" + legend + "</ul>";
}

std::string parts_table(const RunPlan& plan) {
  int64_t most = 1;
  for (const RunPart& p : plan.parts) most = std::max(most, p.peak_bytes);
  std::string out =
      "<div class=\"scroll\"><table><thead><tr><th>Part of the run</th><th class=\"n\">Peak</th><th>Share of the peak</th><th "
      "class=\"n\">Allocations and frees</th></tr></thead><tbody>";
  for (const RunPart& p : plan.parts)
    out += text("<tr><td>{}</td>{}{}<td class=\"n\">{}</td></tr>", escaped(p.name), bytes_cell(p.peak_bytes),
                bar_cell(double(p.peak_bytes) / double(most), "plain"), with_commas(int64_t(p.end - p.begin)));
  return out + "</tbody></table></div>";
}

MemorySection memory_section(const RunPlan& plan) {
  const auto step = std::find_if(plan.parts.begin(), plan.parts.end(), [](const RunPart& p) { return p.name == "steady step"; });
  if (step == plan.parts.end()) return {};
  const Timeline line = make_timeline(plan.events, step->begin, step->end, kBuckets);
  const LiveBlocks live = live_blocks(plan.events, line, kMaxBlocks);
  const int64_t always = std::accumulate(line.lowest.begin(), line.lowest.end(), int64_t(0)), peak = line.at_peak().total();
  MemorySection section;
  std::string& out = section.html;
  out += "<figure>" + memory_chart(line, false);
  out += text(
      "<figcaption>Live bytes of one optimizer step, stacked by category, in the order of its {} allocations and "
      "frees.</figcaption></figure>",
      with_commas(int64_t(step->end - step->begin)));
  // A thin band on a mountain cannot be read: show it by itself.
  if (2 * always > peak && peak > always)
    out += text("<figure>{}<figcaption>The same without the {} that are there all the time: what comes and goes.</figcaption></figure>",
                memory_chart(line, true), human_bytes(always));
  out += "<div class=\"scrub\" id=\"scrub\"></div>" + moment(line, live) + parts_table(plan);
  section.data = moments_json(line, live);
  return section;
}

std::string holders_section(const RunPlan& plan) {
  std::vector<TreeItem> items;
  struct Row {
    Category category;
    std::string module, name;
    int64_t bytes = 0, blocks = 0;
  };
  std::vector<Row> rows;
  for (const Holder& h : plan.at_peak) {
    const std::string path = module_path(h.module), folded = folded_path(path), name = tensor_name(h.category, h.op);
    items.push_back({path, name, int(h.category), h.bytes});
    auto row = std::find_if(rows.begin(), rows.end(),
                            [&](const Row& r) { return r.category == h.category && r.module == folded && r.name == name; });
    if (row == rows.end()) row = rows.insert(rows.end(), Row{h.category, folded, name});
    row->bytes += h.bytes;
    row->blocks += h.blocks;
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.bytes > b.bytes; });
  const int64_t peak = std::max<int64_t>(1, plan.predicted.memory->peak);
  std::string out =
      "<figure>" +
      treemap_chart(make_tree(items, "whole model"),
                    {'c', human_bytes, "Bytes at the peak by module, category and operation; the table below has the same numbers."}) +
      "<figcaption>Bytes at the peak by module and operation, coloured by category. Equal layers are one box.</figcaption></figure>";
  out +=
      "<div class=\"scroll\"><table><thead><tr><th>Tensors</th><th class=\"n\">Bytes</th><th>Share of the peak</th><th>Category</th><th "
      "class=\"n\">Blocks</th></tr></thead><tbody>";
  int64_t rest = 0, rest_blocks = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& r = rows[i];
    if (i >= kMaxHolders) {
      rest += r.bytes, rest_blocks += r.blocks;
      continue;
    }
    out +=
        text("<tr><td>{} <i>{}</i></td>{}{}<td>{}{}</td><td class=\"n\">{}</td></tr>", escaped(r.module.empty() ? "whole model" : r.module),
             escaped(r.name), bytes_cell(r.bytes), bar_cell(double(r.bytes) / double(peak), text("c{}", int(r.category))),
             category_chip(r.category), name_of(r.category), with_commas(r.blocks));
  }
  if (rest_blocks > 0)
    out += text("<tr class=\"rest\"><td>{} smaller holders</td>{}{}<td></td><td class=\"n\">{}</td></tr>", rows.size() - kMaxHolders,
                bytes_cell(rest), bar_cell(double(rest) / double(peak), "plain"), with_commas(rest_blocks));
  return out + "</tbody></table></div>";
}
}  // namespace reckon
