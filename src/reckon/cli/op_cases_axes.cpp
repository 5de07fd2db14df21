#include "reckon/cli/op_cases_axes.h"

namespace reckon {
const std::vector<ArrangedReduction>& arranged_reductions() {
  static const std::vector<ArrangedReduction> sets = {
      {{{}, Lay::plain}, {}, false},
      {{{}, Lay::stepped}, {}, true},
      {{{1}, Lay::plain}, {0}, false},
      {{{7}, Lay::plain}, {}, false},
      {{{33}, Lay::stepped}, {-1}, true},
      {{{3, 5}, Lay::plain}, {0}, false},
      {{{3, 5}, Lay::plain}, {1}, false},
      {{{3, 5}, Lay::transposed}, {0}, true},
      {{{3, 5}, Lay::transposed}, {-1}, false},
      {{{4, 6}, Lay::padded}, {0, 1}, false},
      {{{6, 4}, Lay::expanded}, {0}, false},
      {{{6, 4}, Lay::expanded}, {1}, true},
      {{{2, 3, 4}, Lay::plain}, {0, 2}, false},
      {{{2, 3, 4}, Lay::turned}, {1}, true},
      {{{2, 3, 4}, Lay::stepped}, {-3, -2}, false},
      {{{1, 5, 1}, Lay::plain}, {0, 2}, false},
      {{{2, 1, 3, 1, 2, 2, 1, 2}, Lay::transposed}, {0, 4, 7}, false},
      {{{2, 1, 3, 1, 2, 2, 1, 2}, Lay::plain}, {1, 2, 5}, true},
      {{{0, 3}, Lay::plain}, {1}, false},
      {{{3, 0, 2}, Lay::turned}, {0}, true},
      {{{3, 65}, Lay::shifted}, {1}, false},
      {{{65, 3}, Lay::plain}, {0}, false},
      {{{30, 31}, Lay::transposed}, {0}, false},
      {{{5, 16, 7}, Lay::shifted}, {1}, true},
      {{{3, 2049}, Lay::plain}, {1}, false},
      {{{2049, 3}, Lay::plain}, {0}, false},
      {{{130, 131}, Lay::transposed}, {0}, false},
      {{{5, 66, 67}, Lay::shifted}, {1}, false},
      {{{70, 300}, Lay::plain}, {}, false},
      {{{16391}, Lay::shifted}, {}, true},
      {{{40, 3, 200}, Lay::plain}, {0, 2}, true},
  };
  return sets;
}
}  // namespace reckon
