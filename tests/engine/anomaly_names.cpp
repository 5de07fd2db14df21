// Anomaly mode where the caller was compiled without line numbers: it names the function.
#include "reckon/engine/anomaly.h"
#include "tests/engine/support.h"

namespace a_users_model {
struct Encoder {
  [[gnu::noinline]] reckon::Tensor forward(const reckon::Tensor& x) {
    const reckon::Tensor y = reckon::mean(x, {0});
    return reckon::add(y, y);
  }
};
}  // namespace a_users_model

namespace reckon {
namespace {
class AnomalyNames : public OnCpu {};

TEST_F(AnomalyNames, TheFunctionStandsForTheLine) {
  const AnomalyMode scope;
  const Tensor y = a_users_model::Encoder().forward(leaf({2, 2}, {1, 2, 3, 4}));
  EXPECT_THAT(call_site(*node_of(y)->next_functions()[0].node).line, HasSubstr("a_users_model::Encoder::forward"));
}
}  // namespace
}  // namespace reckon
