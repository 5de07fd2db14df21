// Colours that carry meaning are told apart by everybody: with normal vision and with each kind of dichromacy, light and dark.
#include "reckon/report/palette.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

namespace reckon {
namespace {
using Vector = std::array<double, 3>;
using Matrix = std::array<Vector, 3>;

Vector times(const Matrix& m, const Vector& v) {
  Vector out{};
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) out[i] += m[i][j] * v[j];
  return out;
}

Vector linear(uint32_t colour) {
  const auto channel = [&](int shift) {
    const double c = double(colour >> shift & 0xFFu) / 255;
    return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
  };
  return {channel(16), channel(8), channel(0)};
}

// Ottosson 2020, from linear sRGB: distances are those that people see.
Vector oklab(const Vector& rgb) {
  constexpr Matrix kToLms{
      {{0.4122214708, 0.5363325363, 0.0514459929}, {0.2119034982, 0.6806995451, 0.1073969566}, {0.0883024619, 0.2817188376, 0.6299787005}}};
  constexpr Matrix kToLab{{{0.2104542553, 0.7936177850, -0.0040720468},
                           {1.9779984951, -2.4285922050, 0.4505937099},
                           {0.0259040371, 0.7827717662, -0.8086757660}}};
  Vector lms = times(kToLms, rgb);
  for (double& v : lms) v = std::cbrt(v);
  return times(kToLab, lms);
}

// Machado, Oliveira, Fernandes 2009, severity 1, on linear sRGB.
struct Vision {
  const char* name;
  Matrix matrix;
};
constexpr Vision kVisions[] = {
    {"normal", {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}}},
    {"protanopia", {{{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}}}},
    {"deuteranopia", {{{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}}}},
    {"tritanopia", {{{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}}}},
};

double distance(uint32_t a, uint32_t b, const Vision& vision) {
  const auto seen = [&](uint32_t colour) {
    Vector rgb = times(vision.matrix, linear(colour));
    for (double& v : rgb) v = std::clamp(v, 0.0, 1.0);
    return oklab(rgb);
  };
  const Vector x = seen(a), y = seen(b);
  return std::hypot(x[0] - y[0], x[1] - y[1], x[2] - y[2]);
}

// Twice the smallest distance in Tol's muted scheme of nine, which is in wide use as safe: that is 0.052.
constexpr double kFarApart = 0.104;

TEST(Palette, CategoriesAreToldApartByEverybody) {
  for (const Vision& vision : kVisions)
    for (int i = 0; i < kCategories; ++i)
      for (int j = 0; j < i; ++j) {
        EXPECT_GE(distance(kCategoryColours[i].light, kCategoryColours[j].light, vision), kFarApart)
            << vision.name << " light " << i << " " << j;
        EXPECT_GE(distance(kCategoryColours[i].dark, kCategoryColours[j].dark, vision), kFarApart)
            << vision.name << " dark " << i << " " << j;
      }
}

TEST(Palette, PassesAreToldApartByEverybody) {
  for (const Vision& vision : kVisions)
    for (int i = 0; i < kPasses; ++i)
      for (int j = 0; j < i; ++j) {
        EXPECT_GE(distance(kPassColours[i].light, kPassColours[j].light, vision), kFarApart) << vision.name << " light " << i << " " << j;
        EXPECT_GE(distance(kPassColours[i].dark, kPassColours[j].dark, vision), kFarApart) << vision.name << " dark " << i << " " << j;
      }
}

TEST(Palette, TextOnColoursIsReadableAndColoursStandOutFromThePaper) {
  EXPECT_NEAR(contrast(0x000000, 0xffffff), 21, 1e-9);
  const auto check_one = [](const CategoryColour& c) {
    EXPECT_GE(contrast(c.light, text_on(c.light)), 4.5);
    EXPECT_GE(contrast(c.dark, text_on(c.dark)), 4.5);
    EXPECT_GE(distance(c.light, kPaper, kVisions[0]), kFarApart);
    EXPECT_GE(distance(c.dark, kNight, kVisions[0]), kFarApart);
  };
  for (const CategoryColour& c : kCategoryColours) check_one(c);
  for (const CategoryColour& c : kPassColours) check_one(c);
}
}  // namespace
}  // namespace reckon
